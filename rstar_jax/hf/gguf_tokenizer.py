"""The tokenizer inside a GGUF file, written as a folder of Hugging Face files.

A GGUF file holds the vocabulary, the merges and the kinds of tokens, but of the
way a text is split into words only a name. What a name stands for is in the
tokenizer.json of the models that bear it, and for "default" in llama.cpp.
"""

import collections
import json
import pathlib

from rstar_jax.hf.gguf_metadata import Metadata

# Contraction | letters | digits | signs | spaces, where a space may lead.
_GPT2 = (
  r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
)
# The same, but any sign may lead letters, nothing leads digits, and line breaks
# go with the signs before them.
_CL100K = (
  r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|DIGITS|"
  r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_LLAMA3 = _CL100K.replace("DIGITS", r"\p{N}{1,3}")

# By `tokenizer.ggml.pre`: what is cut out, one expression after the other.
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
# the filling up to the rows of the embedding.
_SPECIAL = (2, 3)
_USER_DEFINED = 4
_UNUSED = 5

# Fields of tokenizer_config.json, and what GGUF calls those tokens.
_NAMED = {
  "bos_token": "bos",
  "eos_token": "eos",
  "unk_token": "unknown",
  "pad_token": "padding",
}


def save(metadata: Metadata, folder: str | pathlib.Path) -> None:
  """Writes tokenizer.json and tokenizer_config.json.

  The ids are those of the file. Filling at its end is left out, so that new
  tokens get the free rows of the embedding. Some vocabularies lack bytes that
  are rare in text (SmolLM2's lacks 21): those are lost, as by the original.

  Args:
    metadata: of a GGUF file.
    folder: where the two files go; made if missing.

  Raises:
    ValueError: the vocabulary is no byte-level BPE, says a token twice, or the
      file names a splitting that is not one of `SPLITS`.
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
  # Where the file is silent, llama.cpp begins only Llama 3's texts with it.
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
  """Returns the tokens, by id, and their kinds, without filling at the end."""
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
  """Returns a `tokenizers.Tokenizer`; begin, an id, comes before each text."""
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
      # A word that is a token is that token, however merges would build it.
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
