"""The tokenizer protocol, and its implementation by `transformers`."""

import functools
import importlib.util
import itertools
import json
import os
import pathlib
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Protocol

from rstar_jax import outside
from rstar_jax.steps import as_written, grammar, prompts


class Tokenizer(Protocol):
  """Converts text to ids and back. Each step marker is a single id."""

  vocab_size: int
  pad_id: int
  eos_id: int
  # Ids before a text that the model expects: begin-of-text, or none.
  bos_ids: tuple[int, ...]
  # Model types with which AutoTokenizer would load another tokenizer.
  misread_in: Collection[str]

  def encode(self, text: str) -> list[int]:
    """Returns ids, without begin- and end-of-text."""
    ...

  def decode(self, ids: Sequence[int]) -> str:
    """Returns text with markers, without padding and end-of-text."""
    ...

  def id_of(self, marker: str) -> int:
    """Returns the id of a marker; raises KeyError if it is not one id."""
    ...

  def prompt(self, question: str) -> str:
    """Returns the text before the first step, the same in training."""
    ...


def encode_solution(
  tokenizer: Tokenizer, question_prompt: str, prefix: Sequence[str]
) -> list[int]:
  """Returns the ids of begin-of-text, a prompt and the nodes after it.

  Nodes are encoded one by one, so that a search encodes each node once and not
  once per descendant. They end in a marker (or an output span), at which
  tokenizers split their input, so the ids equal those of the whole text;
  `HfTokenizer` tests this when it is loaded.

  Search, rewards and training all encode text by this function. If a policy
  samples other ids for the same text, the search continues from the ids given
  here, as in training; only reinforcement trains on the sampled ids.
  """
  pieces = (question_prompt, *prefix)
  ids = [i for piece in pieces for i in encode_piece(tokenizer, piece)]
  return [*tokenizer.bos_ids, *ids]


@functools.lru_cache(maxsize=1 << 16)
def encode_piece(tokenizer: Tokenizer, text: str) -> tuple[int, ...]:
  """Returns the ids of a prompt or node, cached."""
  return tuple(tokenizer.encode(text))


class HfTokenizer:
  """A fast `transformers` tokenizer with the markers as special tokens.

  Attributes:
    vocab_size: number of ids, markers included.
    known: number of ids before markers were added; the missing markers follow
      in the order of `grammar.MARKERS`.
    pad_id: id of padding, or of end-of-text if there is none.
    eos_id: id of end-of-text.
    bos_ids: ids that the tokenizer adds before a text: begin-of-text, or none.
    bos_id: id of begin-of-text, whether it is added or not; None without one.
    prompt: returns the text before a question's first step.
    misread_in: "qwen2" unless it composes characters (NFC) and splits words as
      Qwen2's: for this model type `AutoTokenizer` overrides tokenizer.json.
  """

  def __init__(
    self,
    name_or_folder: str | pathlib.Path,
    *,
    add_markers: bool = True,
    prompt: prompts.Prompt = prompts.prompt,
  ):
    """Loads a tokenizer.

    Args:
      name_or_folder: a folder with tokenizer.json or files that `transformers`
        can convert, or a Hugging Face name.
      add_markers: whether to add missing markers as special tokens, and to
        encode texts exactly. If not, markers are plain text, as for a model not
        trained on the step grammar, and a text may get a leading space as the
        model expects.
      prompt: returns the text before the first step.

    Raises:
      ValueError: there is no tokenizer; or, with markers, it changes texts or
        has no end-of-text token.
    """
    self._tokenizer = _load(str(name_or_folder))
    self.prompt = prompt
    self.known = len(self._tokenizer)
    self.bos_id: int | None = self._tokenizer.bos_token_id
    backend = self._tokenizer.backend_tokenizer
    self.bos_ids = _before(backend)
    if not self.bos_ids and _begins(str(name_or_folder)):
      # Only its config adds it; transformers 5 follows tokenizer.json.
      self._tokenizer.add_bos_token = True
      self.bos_ids = _before(backend)
    written = json.loads(backend.to_str())
    self.misread_in = () if _reads_as_qwen2(written) else ("qwen2",)
    # Markers that it has already are written, and so have been learnt.
    specials = {
      each["id"]
      for each in written["added_tokens"]
      if each["special"] and each["content"] not in grammar.MARKERS
    }
    # The least number of rows of a model that it belongs to.
    self._learnt = next(
      (i for i in range(self.known, 0, -1) if i - 1 not in specials), 0
    )
    as_written.keep_in_decoding(backend, written)
    if add_markers:
      as_written.keep_in_encoding(backend, written)
      # A marker may be an ordinary token, at which texts are not split.
      split_at = {each["content"] for each in written["added_tokens"]}
      missing = [m for m in grammar.MARKERS if m not in split_at]
      self._tokenizer.add_tokens(missing, special_tokens=True)
      self._tokenizer.chat_template = prompts.chat_template(
        prompt, bos=self.bos_ids == (self._tokenizer.bos_token_id,)
      )
    vocabulary = self._tokenizer.get_vocab()
    self._ids = {m: vocabulary[m] for m in grammar.MARKERS if m in vocabulary}
    self.vocab_size = len(self._tokenizer)
    self.eos_id = self._tokenizer.eos_token_id
    self.pad_id = self._tokenizer.pad_token_id
    if self.pad_id is None:
      self.pad_id = self.eos_id
    self._dropped = {self.pad_id, self.eos_id, *self.bos_ids}
    if add_markers:
      if self.eos_id is None:
        raise ValueError(
          f"{name_or_folder}: the tokenizer has no end-of-text: name one as "
          "eos_token in tokenizer_config.json"
        )
      if problem := as_written.problem(self.encode, self.decode):
        raise ValueError(
          f"{name_or_folder}: the tokenizer changes texts, {problem}: take a "
          "model whose tokenizer keeps them"
        )

  def encode(self, text: str) -> list[int]:
    # The library takes valid Unicode only, and a user's text may be invalid.
    text = outside.valid(text)
    # Not verbose: else it warns of lengths, which the caller checks.
    return self._tokenizer.encode(text, add_special_tokens=False, verbose=False)

  def decode(self, ids: Sequence[int]) -> str:
    return self._tokenizer.decode(
      [i for i in ids if i not in self._dropped],
      skip_special_tokens=False,
      clean_up_tokenization_spaces=False,
    )

  def id_of(self, marker: str) -> int:
    return self._ids[marker]

  def known_to(self, rows: int) -> int:
    """Returns how many of its first tokens a model has learnt.

    Some published models lack rows for special tokens at the end: Gemma 3's
    text models for the one of images.

    Args:
      rows: of the model's embedding.

    Raises:
      ValueError: the model lacks rows for other tokens.
    """
    if rows < self._learnt:
      raise ValueError(
        f"the tokenizer has {self.known} tokens and the model rows for {rows}: "
        "they do not belong together; take the tokenizer of the model's own "
        "folder"
      )
    return min(rows, self.known)

  def has_ids_of(self, other: "HfTokenizer") -> bool:
    """Returns whether both have the same tokens with the same ids."""
    return self._tokenizer.get_vocab() == other._tokenizer.get_vocab()

  def chat(
    self, turns: Sequence[tuple[str, str]], *, asks: bool = False
  ) -> str | None:
    """Renders a dialogue; None without a chat template.

    With `add_markers` the template is `prompts.chat_template`.

    Args:
      turns: (role, text), with roles "system", "user" or "assistant".
      asks: whether the start of the assistant's turn is added.
    """
    if not self._tokenizer.chat_template:
      return None
    return self._tokenizer.apply_chat_template(
      [{"role": role, "content": text} for role, text in turns],
      tokenize=False,
      add_generation_prompt=asks,
    )

  def save(self, folder: str | pathlib.Path) -> None:
    """Writes tokenizer.json, tokenizer_config.json and chat_template.jinja."""
    self._tokenizer.save_pretrained(str(folder))
    file = pathlib.Path(folder) / "tokenizer_config.json"
    fields = json.loads(file.read_text(encoding="utf-8"))
    # A class that transformers 4 has too; without fields of the loading, or
    # fields by which some versions put a space before a text.
    fields["tokenizer_class"] = "PreTrainedTokenizerFast"
    loading = ("backend", "is_local", "local_files_only")
    for name in (*loading, "add_prefix_space", "legacy"):
      fields.pop(name, None)
    file.write_text(
      json.dumps(fields, indent=2, sort_keys=True) + "\n", encoding="utf-8"
    )


def _before(backend) -> tuple[int, ...]:
  """Returns the special tokens that a tokenizer puts before a text."""
  ids = backend.encode("0")
  tokens = zip(ids.ids, ids.special_tokens_mask, strict=True)
  begun = itertools.takewhile(lambda each: each[1], tokens)
  return tuple(token for token, _ in begun)


def _begins(name_or_folder: str) -> bool:
  """Returns whether tokenizer_config.json adds begin-of-text."""
  from transformers.models.auto import tokenization_auto

  fields = tokenization_auto.get_tokenizer_config(name_or_folder)
  return bool(fields.get("add_bos_token") and fields.get("bos_token"))


def _reads_as_qwen2(written: Mapping[str, Any]) -> bool:
  """Returns whether texts become words as those of `Qwen2Tokenizer`."""
  from transformers.models.qwen2 import tokenization_qwen2

  regex = {"Regex": tokenization_qwen2.PRETOKENIZE_REGEX}
  split = as_written.parts(written, "pre_tokenizer")
  normalised = as_written.parts(written, "normalizer")
  return [part["type"] for part in normalised] == ["NFC"] and any(
    part.get("pattern") == regex for part in split
  )


def _load(name_or_folder: str):
  """Returns a fast tokenizer of `transformers`."""
  # Else it advises to install torch, which is not needed.
  os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
  import transformers

  folder = pathlib.Path(name_or_folder)
  written = (folder / "tokenizer.json").exists()
  if (folder / "tokenizer.model").exists() and not written:
    if importlib.util.find_spec("sentencepiece") is None:
      raise ValueError(
        f"{folder} has a tokenizer.model and no tokenizer.json: pip install "
        "sentencepiece protobuf, by which it is converted, or take a folder "
        "that has one"
      )
  kind = transformers.PreTrainedTokenizerFast
  try:
    # AutoTokenizer does not always follow tokenizer.json.
    return kind.from_pretrained(name_or_folder)
  except Exception as error:  # Malformed files raise many kinds.
    reason = error
  if not written:
    # It can convert vocab.json and merges.txt, if it knows their class.
    try:
      loaded = transformers.AutoTokenizer.from_pretrained(
        name_or_folder, trust_remote_code=False
      )
    except Exception as error:  # Of any kind.
      reason = error
    else:
      # Without any file it creates an empty tokenizer.
      if isinstance(loaded, kind) and loaded.encode("0"):
        return loaded
  reason_line = outside.first_line(reason)
  if folder.is_dir() and not written:
    reason_line = (
      "it has no tokenizer.json, nor vocab.json and merges.txt with a class in "
      "tokenizer_config.json or config.json that transformers knows"
    )
  raise ValueError(f"{name_or_folder}: no tokenizer can be read: {reason_line}")
