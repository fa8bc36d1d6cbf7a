"""Trains the small BPE tokenizer of the tiny model, in Hugging Face format.

Merges may cross spaces ("superwords"), so that a phrase such as " times as many
apples as " is one token, and sequences are short enough for two CPU cores. They
never cross digits, line breaks, or the halves of a capitalised word, so that
numbers are read digit by digit, and a new name consists of two tokens that
training has seen.
"""

import json
import pathlib
from collections.abc import Iterable

from rstar_jax.steps import grammar

PAD = "<pad>"
EOS = "<|endoftext|>"
# Digit | first two letters of a capitalised word | its rest | line breaks |
# anything else up to the next of those.
_PIECES = (
  r"[0-9]|[A-Z][a-z]|(?<=[A-Z][a-z])[a-z]+|[A-Z]|\n+|"
  r"(?:(?![0-9A-Z\n]).)+"
)


def train(
  texts: Iterable[str], vocab_size: int, folder: str | pathlib.Path
) -> None:
  """Trains a tokenizer and writes tokenizer.json and tokenizer_config.json.

  Args:
    texts: training texts.
    vocab_size: number of ids, special tokens included.
    folder: gets the two files; created if missing.
  """
  import tokenizers
  from tokenizers import decoders, models, pre_tokenizers, trainers

  specials = [PAD, EOS, *grammar.MARKERS]
  tokenizer = tokenizers.Tokenizer(models.BPE())
  tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
    [
      pre_tokenizers.Split(tokenizers.Regex(_PIECES), behavior="isolated"),
      pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ]
  )
  tokenizer.decoder = decoders.ByteLevel()
  tokenizer.train_from_iterator(
    texts,
    trainers.BpeTrainer(
      vocab_size=vocab_size,
      special_tokens=specials,
      initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
      show_progress=False,
    ),
  )
  folder = pathlib.Path(folder)
  folder.mkdir(parents=True, exist_ok=True)
  tokenizer.save(str(folder / "tokenizer.json"))
  config = {
    "tokenizer_class": "PreTrainedTokenizerFast",
    "pad_token": PAD,
    "eos_token": EOS,
    "additional_special_tokens": list(grammar.MARKERS),
    "clean_up_tokenization_spaces": False,
    "model_max_length": 512,
  }
  (folder / "tokenizer_config.json").write_text(
    json.dumps(config, indent=2), encoding="utf-8"
  )
