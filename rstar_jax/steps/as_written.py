"""Makes a tokenizer keep texts exactly, wherever a text begins.

A solution is encoded piece by piece, and a sampled step is decoded alone, so
nothing may be added or removed at the ends of a piece. SentencePiece tokenizers
put a space before a text, some also after each special token, and remove one
when they decode; and special tokens may swallow the white space beside them.
"""

import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rstar_jax.steps import grammar, prompts

# The keys of tokenizer.json that list a component's parts.
_LISTS = {
  "normalizer": "normalizers",
  "pre_tokenizer": "pretokenizers",
  "decoder": "decoders",
}

# Fields of parts that add or remove a space, with values that do not.
_NO_SPACE = {
  "ByteLevel": {"add_prefix_space": False},
  "Metaspace": {"prepend_scheme": "never"},
}

# Nodes that cover what solutions consist of: text with and without white space
# beside markers, indentation, line breaks, accents, and signs that some
# tokenizers replace.
_TRIED = (
  prompts.prompt("Zoë's 3 naïve friends pay 1,250 € for ½ kg.  Is x² ≤ π?"),
  "<code>x = 3\nfor i in range(x):\n    if i:\n\tprint('a  b')<end_of_step>",
  "\n\n# Größe  of it\n  \ny = [x**2, -0.5e-3] \n <end_of_step>",
  "\n\n# Now print\nprint(f'{y} \\n')\n<end_of_code>\n<output> [9]\n\n1.5 "
  "<end_of_output>\n",
  "<answer>The answer is \\boxed{\\frac{9}{2}}. <end_of_answer>",
)
_SHOWN = 24


def parts(written: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
  """Returns the parts of a component, in order.

  Args:
    written: content of tokenizer.json.
    name: one of its keys: "normalizer", "pre_tokenizer" or "decoder".
  """
  component = written[name] or {_LISTS[name]: []}
  return component.get(_LISTS[name], [component])


def keep_in_decoding(backend, written: Mapping[str, Any]) -> None:
  """Makes a tokenizer decode without removing a space.

  Args:
    backend: a `tokenizers.Tokenizer`, changed in place.
    written: content of its tokenizer.json.
  """
  kept = [each for each in parts(written, "decoder") if each["type"] != "Strip"]
  _replace(backend, written, "decoder", _without_space(kept, "Metaspace"))


def keep_in_encoding(backend, written: Mapping[str, Any]) -> None:
  """Makes a tokenizer encode only the text; see `keep_in_decoding`."""
  import tokenizers

  kept = [each for each in parts(written, "normalizer") if not _begins(each)]
  _replace(backend, written, "normalizer", kept)
  split = parts(written, "pre_tokenizer")
  split = _without_space(split, "Metaspace", "ByteLevel")
  _replace(backend, written, "pre_tokenizer", split)
  backend.add_tokens(
    [
      tokenizers.AddedToken(
        each["content"], special=each["special"], normalized=each["normalized"]
      )
      for each in written["added_tokens"]
      if each["lstrip"] or each["rstrip"]
    ]
  )


def _begins(normalizer: Mapping[str, Any]) -> bool:
  """Returns whether a normalizer puts a space before a text."""
  doubles = {"Regex": "\\A\u2581"}
  return normalizer["type"] == "Prepend" or normalizer.get("pattern") == doubles


def _without_space(parts, *kinds: str) -> list[dict[str, Any]]:
  """Returns parts, changed so that those of some kinds add no space."""
  return [
    {**each, **_NO_SPACE[each["type"]]} if each["type"] in kinds else each
    for each in parts
  ]


def _replace(backend, written, name: str, changed) -> None:
  """Replaces a component of a tokenizer by one with other parts."""
  if changed == parts(written, name):
    return
  component = None
  if changed:
    import tokenizers

    # A component is created by loading a tokenizer that has it.
    empty = {
      "model": {"type": "BPE", "vocab": {}, "merges": []},
      "added_tokens": [],
      "post_processor": None,
    }
    sequence = {"type": "Sequence", _LISTS[name]: changed}
    file = json.dumps({**written, **empty, name: sequence})
    component = getattr(tokenizers.Tokenizer.from_str(file), name)
  setattr(backend, name, component)


def problem(
  encode: Callable[[str], Sequence[int]], decode: Callable[[Sequence[int]], str]
) -> str | None:
  """Returns how a tokenizer with markers changes texts, None if it does not.

  It tests that each piece decodes to itself, and that pieces have the same ids
  as in the whole text. So the ids of a step are the same in search and in
  training.
  """
  whole = "".join(_TRIED)
  cuts = re.split(f"({grammar.MARKER.pattern})", whole)
  for text in (*cuts, *_TRIED, whole):
    if (decoded := decode(encode(text))) != text:
      same = len(os.path.commonprefix([text, decoded]))
      here = slice(max(same - _SHOWN // 2, 0), same + _SHOWN // 2)
      return f"{text[here]!r} comes back as {decoded[here]!r}"
  for pieces in (cuts, _TRIED):
    if [i for piece in pieces for i in encode(piece)] != list(encode(whole)):
      return "the parts of a text have other ids than the text"
  return None
