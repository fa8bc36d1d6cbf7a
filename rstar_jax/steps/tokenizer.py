"""Tokenizers: the protocol the project needs, and `transformers` behind it."""

import functools
import json
import os
import pathlib
from collections.abc import Collection, Sequence
from typing import Protocol

from rstar_jax.steps import grammar, prompts


class Tokenizer(Protocol):
  """Text to ids and back. The step markers are single ids."""

  vocab_size: int
  pad_id: int
  eos_id: int
  # What the model expects before a text: begin-of-text, or nothing.
  bos_ids: tuple[int, ...]
  # Types of model beside which AutoTokenizer takes it for another.
  misread_in: Collection[str]

  def encode(self, text: str) -> list[int]:
    """Returns ids; no begin- or end-of-text is added."""
    ...

  def decode(self, ids: Sequence[int]) -> str:
    """Returns text, markers included, padding and end-of-text left out."""
    ...

  def id_of(self, marker: str) -> int:
    """Returns the id of a marker. Raises KeyError if it is not one id."""
    ...


def encode_solution(
  tokenizer: Tokenizer, question_prompt: str, prefix: Sequence[str]
) -> list[int]:
  """Returns the ids of a prompt, begun as a text is, and the nodes after it.

  Nodes are encoded one by one. They end in a marker (or in an output span), and
  markers split a tokenizer's input anyway, so the ids are those of the whole
  text, while a search encodes each node once and not once per descendant.
  """
  pieces = (question_prompt, *prefix)
  ids = [i for piece in pieces for i in encode_piece(tokenizer, piece)]
  return [*tokenizer.bos_ids, *ids]


@functools.lru_cache(maxsize=1 << 16)
def encode_piece(tokenizer: Tokenizer, text: str) -> tuple[int, ...]:
  """Returns the ids of a prompt or of a node by itself, kept for the next."""
  return tuple(tokenizer.encode(text))


class HfTokenizer:
  """A fast `transformers` tokenizer, with the markers as special tokens.

  Attributes:
    vocab_size: ids, the markers' included.
    known: ids that it had when it was loaded; those of markers that were
      missing come after them, in the order of `steps.MARKERS`.
    pad_id: that of end-of-text where it has no other.
    eos_id: end-of-text.
    bos_ids: begin-of-text, where its model was trained with one.
    misread_in: "qwen2", unless it splits words as Qwen2's: `AutoTokenizer`
      overrules tokenizer.json there.
  """

  def __init__(
    self, name_or_folder: str | pathlib.Path, *, add_markers: bool = True
  ):
    """Loads a tokenizer.

    Args:
      name_or_folder: a folder with tokenizer.json, or a Hugging Face name.
      add_markers: makes special tokens of the markers that it lacks. False
        leaves them plain text, as a model knows them that was not trained on
        the step grammar.
    """
    # It would advise to install torch, which nothing here needs.
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    import transformers

    # Not AutoTokenizer, which does not always do what tokenizer.json says.
    self._tokenizer = transformers.PreTrainedTokenizerFast.from_pretrained(
      str(name_or_folder)
    )
    self.known = len(self._tokenizer)
    bos = self._tokenizer.bos_token_id
    begun = self._tokenizer.encode("") == [bos]
    self.bos_ids: tuple[int, ...] = (bos,) if begun else ()
    self.misread_in = () if self._splits_as_qwen2() else ("qwen2",)
    if add_markers:
      present = self._tokenizer.get_vocab()
      missing = [m for m in grammar.MARKERS if m not in present]
      self._tokenizer.add_tokens(missing, special_tokens=True)
      self._tokenizer.chat_template = prompts.chat_template(bos=begun)
    vocabulary = self._tokenizer.get_vocab()
    self._ids = {m: vocabulary[m] for m in grammar.MARKERS if m in vocabulary}
    self.vocab_size = len(self._tokenizer)
    self.eos_id = self._tokenizer.eos_token_id
    self.pad_id = self._tokenizer.pad_token_id
    if self.pad_id is None:
      self.pad_id = self.eos_id
    self._dropped = {self.pad_id, self.eos_id, *self.bos_ids}

  def encode(self, text: str) -> list[int]:
    return self._tokenizer.encode(text, add_special_tokens=False)

  def decode(self, ids: Sequence[int]) -> str:
    return self._tokenizer.decode(
      [i for i in ids if i not in self._dropped],
      skip_special_tokens=False,
      clean_up_tokenization_spaces=False,
    )

  def id_of(self, marker: str) -> int:
    return self._ids[marker]

  def has_ids_of(self, other: "HfTokenizer") -> bool:
    """Says whether every token of the two has the same id."""
    return self._tokenizer.get_vocab() == other._tokenizer.get_vocab()

  def chat(self, question: str, answer: str) -> str | None:
    """Returns a dialogue of one turn in its own chat template, if it has one.

    With `add_markers` the template is ours: see `prompts.chat_template`.
    """
    if not self._tokenizer.chat_template:
      return None
    return self._tokenizer.apply_chat_template(
      [
        {"role": "user", "content": question},
        {"role": "assistant", "content": answer},
      ],
      tokenize=False,
    )

  def _splits_as_qwen2(self) -> bool:
    from transformers.models.qwen2 import tokenization_qwen2

    written = json.loads(self._tokenizer.backend_tokenizer.to_str())
    first = written["pre_tokenizer"] or {}
    regex = {"Regex": tokenization_qwen2.PRETOKENIZE_REGEX}
    parts = first.get("pretokenizers", [first])
    return any(part.get("pattern") == regex for part in parts)

  def save(self, folder: str | pathlib.Path) -> None:
    """Writes tokenizer.json, tokenizer_config.json and chat_template.jinja."""
    self._tokenizer.save_pretrained(str(folder))
    file = pathlib.Path(folder) / "tokenizer_config.json"
    fields = json.loads(file.read_text())
    # A name that transformers 4 knows too; and nothing of how it was loaded.
    fields["tokenizer_class"] = "PreTrainedTokenizerFast"
    for name in ("backend", "is_local", "local_files_only"):
      fields.pop(name, None)
    file.write_text(json.dumps(fields, indent=2, sort_keys=True) + "\n")
