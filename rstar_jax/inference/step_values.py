"""Values of a PPM after each step of one solution."""

import functools
from collections.abc import Sequence

import jax
import numpy as np
from flax import nnx

from rstar_jax.models import rotary
from rstar_jax.models.transformer import Transformer
from rstar_jax.steps.tokenizer import Tokenizer, encode_solution

# A solution is padded to a multiple of this, so that few shapes are compiled.
_MULTIPLE = 128


@functools.partial(jax.jit, static_argnames="graphdef")
def _values(params, tokens, positions, *, graphdef):
  return nnx.merge(graphdef, params)(tokens, positions=positions)


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
  graphdef, params = nnx.split(ppm)
  found = np.zeros(len(steps), np.float32)
  for kind in np.unique(kinds):
    (which,) = np.nonzero(kinds == kind)
    longest = ends[which[-1]]
    tokens = np.full(
      (1, -(-longest // _MULTIPLE) * _MULTIPLE), tokenizer.pad_id
    )
    tokens[0, :longest] = ids[which[-1]]
    # Padding comes last, where no token attends to it, and makes no row longer.
    positions = np.minimum(np.arange(tokens.size)[None], longest - 1)
    values = _values(params, tokens, positions, graphdef=graphdef)[0]
    found[which] = np.asarray(values)[ends[which] - 1]
  return found
