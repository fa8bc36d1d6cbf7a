"""generation_config.json: where others end what a policy writes."""

import contextlib
from typing import Any

from rstar_jax.steps import grammar
from rstar_jax.steps.tokenizer import Tokenizer

FILE = "generation_config.json"


def fields_of(tokenizer: Tokenizer) -> dict[str, Any]:
  """Returns the file's fields.

  Generation ends where the engine ends it: at the end of text, and at the
  markers that close a step.

  Args:
    tokenizer: the policy's. A marker that it lacks ends nothing.
  """
  stops = [tokenizer.eos_id]
  for marker in grammar.FINISHES:
    with contextlib.suppress(KeyError):
      stops.append(tokenizer.id_of(marker))
  return {
    "bos_token_id": tokenizer.bos_ids[0] if tokenizer.bos_ids else None,
    "eos_token_id": stops,
    "pad_token_id": tokenizer.pad_id,
  }
