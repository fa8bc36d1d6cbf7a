"""generation_config.json: where others end what a policy writes.

It is for what leaves a run. A server of a run's own is told with each request
where to end, and SGLang would end there in any case.
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
    tokenizer: the policy's. A marker that it lacks ends nothing.
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
