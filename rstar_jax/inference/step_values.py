"""Values of a PPM after each step of one solution."""

from collections.abc import Sequence

import numpy as np

from rstar_jax.models import rotary
from rstar_jax.models.transformer import Transformer, outputs
from rstar_jax.steps.tokenizer import Tokenizer, encode_solution

# A solution is padded to a multiple of this, so that few shapes are compiled.
_MULTIPLE = 128


def step_values(
  ppm: Transformer, tokenizer: Tokenizer, question: str, steps: Sequence[str]
) -> np.ndarray:
  """Returns the value of a solution after each of its steps.

  Args:
    ppm: a model with a scalar head.
    tokenizer: the model's own.
    question: plain text.
    steps: texts as in `Tree.texts`, oldest first.

  Returns:
    float32 [number of steps], in [-1, 1]: the value at each step's last token.
  """
  prompt = tokenizer.prompt(question)
  ids = [
    encode_solution(tokenizer, prompt, steps[: count + 1])
    for count in range(len(steps))
  ]
  ends = np.array([len(each) for each in ids])
  # Prefixes of one kind of positions have their values from one row.
  kinds = np.array([rotary.position_kind(ppm.config, end) for end in ends])
  found = np.zeros(len(steps), np.float32)
  for kind in np.unique(kinds):
    (which,) = np.nonzero(kinds == kind)
    (values,) = outputs(ppm, [ids[which[-1]]], _MULTIPLE)
    found[which] = np.asarray(values)[ends[which] - 1]
  return found
