"""A reward model that knows nothing, the control of a search with a PPM.

  rstar_jax study --config=CONFIG --workdir=WORKDIR --round=1 \\
    --config.study.methods='("mcts",)' \\
    --config.study.rewards='("ppm", "benchmarks.chance:make")'

A step's value is drawn uniformly by its question and its path. So the same step
has the same value wherever a search meets it, as it has with a PPM.
"""

from collections.abc import Sequence

import numpy as np

from rstar_jax import rng
from rstar_jax.config.schema import Config
from rstar_jax.types import Prefix, Score


def make(config: Config) -> Score:
  """Returns the values of a run; see `types.Score`."""

  def value(question: str, path: Prefix) -> float:
    drawn = rng.seed_for(config.seed, "chance", question, *path)
    return 2 * drawn / (2**32 - 1) - 1

  def score(
    questions: Sequence[str],
    prefixes: Sequence[Prefix],
    steps: Sequence[Sequence[str]],
  ) -> list[np.ndarray]:
    return [
      np.array([value(question, (*prefix, step)) for step in texts], np.float32)
      for question, prefix, texts in zip(
        questions, prefixes, steps, strict=True
      )
    ]

  return score
