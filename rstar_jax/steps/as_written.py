"""Has a tokenizer keep texts as they are written, wherever a text begins.

A solution is encoded piece by piece, and what is sampled after a marker is
decoded alone, so that nothing may be added or taken where a piece begins or
ends. The tokenizers of SentencePiece put a space before a text, in some forms
also after each special token, and take one away where they decode; and special
tokens may take the white space beside them.
"""

import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rstar_jax.steps import grammar, prompts

# Where tokenizer.json lists the parts of a component.
_LISTS = {
  "normalizer": "normalizers",
  "pre_tokenizer": "pretokenizers",
  "decoder": "decoders",
}

# Fields of parts that put a space before a text, or take it away, for not to.
_NO_SPACE = {
  "ByteLevel": {"add_prefix_space": False},
  "Metaspace": {"prepend_scheme": "never"},
}

# Nodes of all that solutions are made of: text with and without white space
# beside markers, indentation, line breaks, accents, and signs that some
# tokenizers take for others.
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
    written: a tokenizer.json.
    name: a key of it: "normalizer", "pre_tokenizer" or "decoder".
  """
  component = written[name] or {_LISTS[name]: []}
  return component.get(_LISTS[name], [component])


def keep_in_decoding(backend, written: Mapping[str, Any]) -> None:
  """Has a tokenizer take no space from the text that it decodes.

  Args:
    backend: a `tokenizers.Tokenizer`, changed in place.
    written: its tokenizer.json.
  """
  kept = [each for each in parts(written, "decoder") if each["type"] != "Strip"]
  _replace(backend, written, "decoder", _changed(kept, "Metaspace"))


def keep_in_encoding(backend, written: Mapping[str, Any]) -> None:
  """Has a tokenizer encode nothing but the text; see `keep_in_decoding`."""
  import tokenizers

  kept = [each for each in parts(written, "normalizer") if not _begins(each)]
  _replace(backend, written, "normalizer", kept)
  split = parts(written, "pre_tokenizer")
  split = _changed(split, "Metaspace", "ByteLevel")
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


def _changed(found, *kinds: str) -> list[dict[str, Any]]:
  """Returns parts of which those of some kinds begin texts with no space."""
  return [
    {**each, **_NO_SPACE[each["type"]]} if each["type"] in kinds else each
    for each in found
  ]


def _replace(backend, written, name: str, changed) -> None:
  """Gives a tokenizer a component of other parts."""
  if changed == parts(written, name):
    return
  component = None
  if changed:
    import tokenizers

    # A part is made by reading a tokenizer that has it.
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
  """Returns what a tokenizer with markers does to texts, None if nothing.

  It tries that each piece comes back as it was, and that pieces have the ids
  that they have in the whole text. A policy's canonical ids of a step are thus
  those that the step has when it is encoded again, in search and in training.
  """
  whole = "".join(_TRIED)
  cuts = re.split(f"({grammar.MARKER.pattern})", whole)
  for text in (*cuts, *_TRIED, whole):
    if (found := decode(encode(text))) != text:
      same = len(os.path.commonprefix([text, found]))
      here = slice(max(same - _SHOWN // 2, 0), same + _SHOWN // 2)
      return f"{text[here]!r} comes back as {found[here]!r}"
  for pieces in (cuts, _TRIED):
    if [i for piece in pieces for i in encode(piece)] != list(encode(whole)):
      return "the parts of a text have other ids than the text"
  return None
