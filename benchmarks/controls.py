"""Reward models that know nothing of what is right: controls of a PPM.

  rstar_jax study --config=CONFIG --workdir=WORKDIR --round=1 \\
    --config.study.methods='("mcts",)' \\
    --config.study.rewards='("ppm", "benchmarks.controls:chance")'

"chance" draws a step's value by its question and its path, so that the same
step has the same value wherever a search meets it, as it has with a PPM.
"brevity" gives the higher value to the solution that has fewer steps of code so
far, or needs fewer at least, and draws where they are equal.
"""

from collections.abc import Callable, Sequence

import numpy as np

from rstar_jax import rng
from rstar_jax.config.schema import Config
from rstar_jax.steps import grammar
from rstar_jax.types import Prefix, Score

# Steps of code from which on "brevity" knows no difference.
_MOST = 16


def chance(config: Config) -> Score:
  """Returns values that are uniform in [-1, 1]."""
  return _score(lambda question, path: 2 * _drawn(config, question, path) - 1)


def brevity(config: Config) -> Score:
  """Returns values in [-1, 1] by the least number of steps."""

  def value(question: str, path: Prefix) -> float:
    ends = [grammar.END_OF_CODE in step for step in path]
    # One that goes on has at least another.
    steps = ends.index(True) + 1 if any(ends) else len(path) + 1
    share = (steps - _drawn(config, question, path)) / _MOST
    return 1 - 2 * min(share, 1)

  return _score(value)


def _drawn(config: Config, question: str, path: Prefix) -> float:
  """Returns a number that is uniform in [0, 1]."""
  return rng.seed_for(config.seed, "chance", question, *path) / (2**32 - 1)


def _score(value: Callable[[str, Prefix], float]) -> Score:
  """Returns a score that values each path alone."""

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
