"""Writes the tokenizer of a GGUF file as Hugging Face files.

For a byte-level BPE ("gpt2") a GGUF file has the vocabulary, the merges and the
kinds of tokens, but only a name for the way that text is split into words. The
splits here are those in the tokenizer.json of models with that name; "default"
is llama.cpp's. For a SentencePiece BPE ("llama", also of Phi-3) it has scores,
from which the merges follow.
"""

import collections
import json
import pathlib
from typing import Any

from rstar_jax.hf.gguf_metadata import Metadata

# Contraction | letters | digits | symbols | spaces, each after at most a space.
_GPT2 = (
  r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
)
# The same, but letters may follow any symbol, digits follow none, and line
# breaks belong to the symbols before them.
_CL100K = (
  r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|DIGITS|"
  r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_LLAMA3 = _CL100K.replace("DIGITS", r"\p{N}{1,3}")

# By `tokenizer.ggml.pre`: the expressions to split by, one after the other.
_QWEN2 = _CL100K.replace("DIGITS", r"\p{N}")
SPLITS = {
  "deepseek-r1-qwen": (_QWEN2,),
  "default": (r"[\p{P}$+<=>^~|]+", _GPT2, r"\p{N}+", "[0-9][0-9][0-9]"),
  "gpt-2": (_GPT2,),
  "llama-bpe": (_LLAMA3,),
  "llama-v3": (_LLAMA3,),
  "llama3": (_LLAMA3,),
  "qwen2": (_QWEN2,),
  "smollm": (r"\p{N}", _GPT2),
}
_LLAMA3_NAMES = ("llama-bpe", "llama-v3", "llama3")

# Values of `tokenizer.ggml.token_type`: pieces of text, unknown and control,
# user-defined, padding up to the rows of the embedding, and bytes.
_NORMAL = 1
_SPECIAL = (2, 3)
_USER_DEFINED = 4
_UNUSED = 5
_BYTE = 6
# SentencePiece's space.
_SPACE = "\u2581"

# Fields of tokenizer_config.json, by GGUF's names of the tokens.
_NAMED = {
  "bos_token": "bos",
  "eos_token": "eos",
  "unk_token": "unknown",
  "pad_token": "padding",
}


def save(metadata: Metadata, folder: str | pathlib.Path) -> None:
  """Writes tokenizer.json and tokenizer_config.json.

  Ids are the file's. Padding at the end is left out, so that new tokens get the
  spare rows of the embedding. Some vocabularies lack rare bytes (SmolLM2's
  lacks 21), which are dropped as in the original.

  Args:
    metadata: the file's metadata.
    folder: gets the two files; created if missing.

  Raises:
    ValueError: the vocabulary is not a BPE or has a token twice, the split is
      not one of `SPLITS`, there are no scores, or an id is of no token.
  """
  make = {"gpt2": _byte_level, "llama": _sentence_piece}
  if (kind := metadata.need("tokenizer.ggml.model")) not in make:
    raise ValueError(
      f"{metadata.path}: tokenizer.ggml.model={kind!r}; only 'gpt2' and "
      "'llama' are read: give a folder with tokenizer.json instead"
    )
  tokens, kinds = _vocabulary(metadata)
  tokenizer, begins = make[kind](metadata, tokens, kinds)
  _finish(metadata, tokenizer, tokens, kinds, begins)
  named = {
    name: token
    for name, key in _NAMED.items()
    if (token := _named(metadata, tokens, key)) is not None
  }
  config = named | {
    "tokenizer_class": "PreTrainedTokenizerFast",
    "clean_up_tokenization_spaces": False,
    "model_max_length": metadata.need(".context_length"),
  }
  if template := metadata.value("tokenizer.chat_template"):
    config["chat_template"] = template
  folder = pathlib.Path(folder)
  folder.mkdir(parents=True, exist_ok=True)
  tokenizer.save(str(folder / "tokenizer.json"))
  (folder / "tokenizer_config.json").write_text(
    json.dumps(config, indent=2), encoding="utf-8"
  )


def _vocabulary(metadata: Metadata) -> tuple[list[str], list[int]]:
  """Returns the tokens by id, and their kinds, without padding at the end."""
  tokens = metadata.value("tokenizer.ggml.tokens", [])
  kinds = metadata.value("tokenizer.ggml.token_type", [])
  if not tokens or len(tokens) != len(kinds):
    raise ValueError(
      f"{metadata.path}: {len(tokens)} tokens have {len(kinds)} types"
    )
  counts = collections.Counter(tokens)
  if twice := sorted(token for token, count in counts.items() if count > 1):
    raise ValueError(f"{metadata.path}: tokens that are there twice: {twice}")
  # Older converters wrote padding as unknown tokens of this name.
  used = max(
    i + 1
    for i, (token, kind) in enumerate(zip(tokens, kinds, strict=True))
    if kind != _UNUSED and token != f"[PAD{i}]"
  )
  return tokens[:used], kinds[:used]


def _named(metadata: Metadata, tokens: list[str], name: str) -> str | None:
  """Returns the token that the file has an id of, None without one.

  The id of padding may be one of the tokens that are left out, or of none.

  Raises:
    ValueError: the id is of no token.
  """
  key = f"tokenizer.ggml.{name}_token_id"
  index = metadata.value(key)
  if type(index) is int and 0 <= index < len(tokens):
    return tokens[index]
  if index is None or name == "padding":
    return None
  raise ValueError(
    f"{metadata.path}: {key}={index} is none of its {len(tokens)} tokens: give "
    "a folder with tokenizer.json instead"
  )


def _byte_level(
  metadata: Metadata, tokens: list[str], kinds: list[int]
) -> tuple[Any, bool]:
  """Returns a `tokenizers.Tokenizer`, and whether it adds begin-of-text."""
  import tokenizers
  from tokenizers import decoders, models, normalizers, pre_tokenizers

  del kinds
  pre = metadata.need("tokenizer.ggml.pre")
  if pre not in SPLITS:
    raise ValueError(
      f"{metadata.path}: tokenizer.ggml.pre={pre!r}; known are {sorted(SPLITS)}"
    )
  tokenizer = tokenizers.Tokenizer(
    models.BPE(
      vocab={token: i for i, token in enumerate(tokens)},
      merges=_written_merges(metadata),
      # A word that is in the vocabulary is one token, whatever the merges.
      ignore_merges=pre in _LLAMA3_NAMES,
    )
  )
  if pre == "qwen2":
    tokenizer.normalizer = normalizers.NFC()
  tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
    [
      *(
        pre_tokenizers.Split(tokenizers.Regex(each), behavior="isolated")
        for each in SPLITS[pre]
      ),
      pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ]
  )
  tokenizer.decoder = decoders.ByteLevel()
  # Without the key, llama.cpp adds the token only for Llama 3.
  return tokenizer, pre in _LLAMA3_NAMES


def _sentence_piece(
  metadata: Metadata, tokens: list[str], kinds: list[int]
) -> tuple[Any, bool]:
  """Returns a `tokenizers.Tokenizer`, and whether it adds begin-of-text."""
  import tokenizers
  from tokenizers import decoders, models, normalizers

  tokenizer = tokenizers.Tokenizer(
    models.BPE(
      vocab={token: i for i, token in enumerate(tokens)},
      merges=_written_merges(metadata) or _merges(metadata, tokens, kinds),
      unk_token=_named(metadata, tokens, "unknown"),
      fuse_unk=True,
      byte_fallback=_BYTE in kinds,
    )
  )
  spaces = [normalizers.Replace(" ", _SPACE)]
  decoder = [
    decoders.Replace(_SPACE, " "),
    decoders.ByteFallback(),
    decoders.Fuse(),
  ]
  if metadata.value("tokenizer.ggml.add_space_prefix", True):
    spaces.insert(0, normalizers.Prepend(_SPACE))
    decoder.append(decoders.Strip(" ", 1, 0))
  tokenizer.normalizer = normalizers.Sequence(spaces)
  tokenizer.decoder = decoders.Sequence(decoder)
  return tokenizer, True


def _written_merges(metadata: Metadata) -> list[tuple[str, ...]]:
  merges = metadata.value("tokenizer.ggml.merges", [])
  return [tuple(merge.split(" ")) for merge in merges]


def _merges(
  metadata: Metadata, tokens: list[str], kinds: list[int]
) -> list[tuple[str, str]]:
  """Returns the merges of a SentencePiece BPE: by score, the best first.

  A piece can be merged from any two pieces that it consists of; of these pairs,
  the one with the longest left part comes first, as in tokenizer.json.
  """
  scores = metadata.value("tokenizer.ggml.scores", [])
  normal = {
    token: score
    for token, score, kind in zip(tokens, scores, kinds, strict=False)
    if kind == _NORMAL
  }
  if len(set(normal.values())) < 2:
    raise ValueError(
      f"{metadata.path}: its tokens have no scores that differ, and it has no "
      "merges: give a folder with tokenizer.json instead"
    )
  pairs = [
    (-score, -cut, token)
    for token, score in normal.items()
    for cut in range(1, len(token))
    if token[:cut] in normal and token[cut:] in normal
  ]
  return [(token[:-less], token[-less:]) for _, less, token in sorted(pairs)]


def _finish(
  metadata: Metadata,
  tokenizer,
  tokens: list[str],
  kinds: list[int],
  begins: bool,
) -> None:
  """Adds the special tokens; optionally begin-of-text before each text.

  Args:
    metadata: the file's metadata.
    tokenizer: a `tokenizers.Tokenizer`, changed in place.
    tokens: by id.
    kinds: of the tokens.
    begins: whether begin-of-text is added if the file does not say.
  """
  import tokenizers
  from tokenizers import processors

  tokenizer.add_tokens(
    [
      tokenizers.AddedToken(token, special=kind in _SPECIAL, normalized=False)
      for token, kind in zip(tokens, kinds, strict=True)
      if kind in _SPECIAL or kind == _USER_DEFINED
    ]
  )
  if metadata.value("tokenizer.ggml.add_bos_token", begins):
    begin = metadata.need("tokenizer.ggml.bos_token_id")
    token = _named(metadata, tokens, "bos")
    tokenizer.post_processor = processors.TemplateProcessing(
      single=[token, "$A"],
      pair=[token, "$A", token, "$B:1"],
      special_tokens=[(token, begin)],
    )
