"""Writes the tokenizer of a GGUF file as Hugging Face files.

A GGUF file has the vocabulary, the merges and the kinds of tokens, but only a
name for the way in which text is split into words. The splits here are those in
the tokenizer.json of the models with that name; "default" is llama.cpp's.
"""

import collections
import json
import pathlib

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
SPLITS = {
  "default": (r"[\p{P}$+<=>^~|]+", _GPT2, r"\p{N}+", "[0-9][0-9][0-9]"),
  "gpt-2": (_GPT2,),
  "llama-bpe": (_LLAMA3,),
  "llama-v3": (_LLAMA3,),
  "llama3": (_LLAMA3,),
  "qwen2": (_CL100K.replace("DIGITS", r"\p{N}"),),
  "smollm": (r"\p{N}", _GPT2),
}
_LLAMA3_NAMES = ("llama-bpe", "llama-v3", "llama3")

# Values of `tokenizer.ggml.token_type`: unknown and control, user-defined, and
# padding up to the rows of the embedding.
_SPECIAL = (2, 3)
_USER_DEFINED = 4
_UNUSED = 5

# Fields of tokenizer_config.json, by GGUF's names of the tokens.
_NAMED = {
  "bos_token": "bos",
  "eos_token": "eos",
  "unk_token": "unknown",
  "pad_token": "padding",
}


def save(metadata: Metadata, folder: str | pathlib.Path) -> None:
  """Writes tokenizer.json and tokenizer_config.json.

  The ids are those of the file. Padding at its end is left out, so that new
  tokens get the spare rows of the embedding. Some vocabularies lack rare bytes
  (SmolLM2's lacks 21), which are dropped as in the original.

  Args:
    metadata: the file's metadata.
    folder: the destination of the two files; made if need be.

  Raises:
    ValueError: the vocabulary is not a byte-level BPE or has a token twice, or
      the split is not one of `SPLITS`.
  """
  if (kind := metadata.need("tokenizer.ggml.model")) != "gpt2":
    raise ValueError(
      f"{metadata.path}: tokenizer.ggml.model={kind!r}; only 'gpt2', the "
      "byte-level BPE, is read: give a folder with tokenizer.json instead"
    )
  pre = metadata.need("tokenizer.ggml.pre")
  if pre not in SPLITS:
    raise ValueError(
      f"{metadata.path}: tokenizer.ggml.pre={pre!r}; known are {sorted(SPLITS)}"
    )
  tokens, kinds = _vocabulary(metadata)
  named = {
    name: tokens[i]
    for name, key in _NAMED.items()
    if (i := metadata.value(f"tokenizer.ggml.{key}_token_id")) is not None
  }
  merges = metadata.value("tokenizer.ggml.merges", [])
  # Without the key, llama.cpp adds the token only for Llama 3.
  begins = metadata.value("tokenizer.ggml.add_bos_token", pre in _LLAMA3_NAMES)
  begin = metadata.need("tokenizer.ggml.bos_token_id") if begins else None
  tokenizer = _build(tokens, kinds, merges, pre, begin)
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
  (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2))


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
  used = max(i for i, kind in enumerate(kinds) if kind != _UNUSED) + 1
  return tokens[:used], kinds[:used]


def _build(
  tokens: list[str],
  kinds: list[int],
  merges: list[str],
  pre: str,
  begin: int | None,
):
  """Returns a `tokenizers.Tokenizer`; the id `begin` starts each text."""
  import tokenizers
  from tokenizers import (
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
  )

  tokenizer = tokenizers.Tokenizer(
    models.BPE(
      vocab={token: i for i, token in enumerate(tokens)},
      merges=[tuple(merge.split(" ")) for merge in merges],
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
  tokenizer.add_tokens(
    [
      tokenizers.AddedToken(token, special=kind in _SPECIAL, normalized=False)
      for token, kind in zip(tokens, kinds, strict=True)
      if kind in _SPECIAL or kind == _USER_DEFINED
    ]
  )
  if begin is not None:
    token = tokens[begin]
    tokenizer.post_processor = processors.TemplateProcessing(
      single=[token, "$A"],
      pair=[token, "$A", token, "$B:1"],
      special_tokens=[(token, begin)],
    )
  return tokenizer
