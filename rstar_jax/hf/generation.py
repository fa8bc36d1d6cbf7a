"""generation_config.json: the stop tokens of a policy, for other engines.

It is written for exports alone. A run's own servers get stop tokens with each
request, and with this file SGLang would stop there in any case.
"""

import contextlib
import json

from rstar_jax.steps import grammar
from rstar_jax.steps.tokenizer import Tokenizer

FILE = "generation_config.json"


def render(tokenizer: Tokenizer) -> str:
  """Returns the file's text.

  Generation ends where the engine ends it: at the end of text, and at the
  markers that close a step.

  Args:
    tokenizer: the policy's. Markers that it lacks are left out.
  """
  stops = [tokenizer.eos_id]
  for marker in grammar.FINISHES:
    with contextlib.suppress(KeyError):
      stops.append(tokenizer.id_of(marker))
  fields = {
    "bos_token_id": tokenizer.bos_ids[0] if tokenizer.bos_ids else None,
    "eos_token_id": stops,
    "pad_token_id": tokenizer.pad_id,
  }
  return json.dumps(fields, indent=2, sort_keys=True) + "\n"
