"""Tokenizers: the protocol the project needs, and `transformers` behind it."""

import functools
import pathlib
from collections.abc import Sequence
from typing import Protocol

from rstar_jax.text import steps


class Tokenizer(Protocol):
  """Text to ids and back. The step markers are single ids."""

  vocab_size: int
  pad_id: int
  eos_id: int

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
  """Returns the ids of a prompt and the nodes after it.

  Nodes are encoded one by one. They end in a marker (or in an output span), and
  markers split a tokenizer's input anyway, so the ids are those of the whole
  text, while a search encodes each node once and not once per descendant.
  """
  pieces = (question_prompt, *prefix)
  return [i for piece in pieces for i in _encode_piece(tokenizer, piece)]


@functools.lru_cache(maxsize=1 << 16)
def _encode_piece(tokenizer: Tokenizer, text: str) -> tuple[int, ...]:
  return tuple(tokenizer.encode(text))


class HfTokenizer:
  """A fast `transformers` tokenizer whose specials include the markers."""

  def __init__(self, name_or_folder: str | pathlib.Path):
    """Loads a tokenizer.

    Args:
      name_or_folder: a folder with tokenizer.json, or a Hugging Face name.

    Raises:
      ValueError: a marker is not a single special token.
    """
    import transformers

    # Not AutoTokenizer: beside a config.json of model_type "qwen2" it takes
    # Qwen2's own splitting of words, whatever tokenizer.json says.
    self._tokenizer = transformers.PreTrainedTokenizerFast.from_pretrained(
      str(name_or_folder)
    )
    vocabulary = self._tokenizer.get_vocab()
    missing = [m for m in steps.MARKERS if m not in vocabulary]
    if missing:
      raise ValueError(
        f"{name_or_folder}: the tokenizer lacks the markers {missing}; add "
        "them as special tokens and resize the embeddings first"
      )
    self._ids = {marker: vocabulary[marker] for marker in steps.MARKERS}
    self.vocab_size = len(self._tokenizer)
    self.eos_id = self._tokenizer.eos_token_id
    self.pad_id = self._tokenizer.pad_token_id
    if self.pad_id is None:
      self.pad_id = self.eos_id
    self._dropped = {self.pad_id, self.eos_id}

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

  def save(self, folder: str | pathlib.Path) -> None:
    """Writes tokenizer.json and tokenizer_config.json."""
    self._tokenizer.save_pretrained(str(folder))
