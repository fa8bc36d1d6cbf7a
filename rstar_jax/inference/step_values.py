"""Values of a PPM after each step of one solution."""

import functools
from collections.abc import Sequence

import jax
import numpy as np
from flax import nnx

from rstar_jax.models.transformer import Transformer
from rstar_jax.steps.tokenizer import Tokenizer, encode_solution

# A solution is padded to a multiple of this, so that few shapes are compiled.
_MULTIPLE = 128


@functools.partial(jax.jit, static_argnames="graphdef")
def _values(params, tokens, *, graphdef):
  return nnx.merge(graphdef, params)(tokens)


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
  tokens = np.full((1, -(-ends[-1] // _MULTIPLE) * _MULTIPLE), tokenizer.pad_id)
  tokens[0, : ends[-1]] = ids[-1]
  graphdef, params = nnx.split(ppm)
  # Padding comes last, where no token attends to it.
  return np.asarray(_values(params, tokens, graphdef=graphdef)[0])[ends - 1]
