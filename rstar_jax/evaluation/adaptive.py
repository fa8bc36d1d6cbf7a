"""Budgets by difficulty: a problem is sampled until its majority is certain.

Adaptive consistency (Aggarwal et al. 2023, arXiv 2305.11860; Beta criterion):
samples of easy problems agree early, which leaves more of the budget for hard
ones. The records of all samples give what the rule would have spent, and its
gain over spending equally on every problem.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from rstar_jax import rng
from rstar_jax.evaluation import choices, cost, subsets
from rstar_jax.evaluation.intervals import bootstrap
from rstar_jax.evaluation.solutions import Record

# The authors' threshold is 0.95; at 1 no later vote can change the majority.
CONFIDENCES = (0.75, 0.9, 0.95, 0.99, 1.0)


def table(records: Sequence[Record], *, seed: int) -> list[dict[str, Any]]:
  """Computes a row for each confidence.

  Args:
    records: of one method whose units have one vote each, with all units.
    seed: root seed of the bootstrap.

  Returns:
    Rows with confidence; units, their mean number per problem; fewest and most
    units; accuracy, low, high of the majority, in [0, 1]; tokens, the mean per
    problem; and alike, the accuracy at the same mean tokens if all problems get
    equally many units.
  """
  return [_row(records, each, seed) for each in CONFIDENCES]


def _row(
  records: Sequence[Record], confidence: float, seed: int
) -> dict[str, Any]:
  needed = [
    choices.settled(each, "majority", len(each["spent"]), confidence=confidence)
    for each in records
  ]
  pairs = list(zip(records, needed, strict=True))
  right = np.array(
    [choices.choose(each, "majority", units).right for each, units in pairs],
    np.float64,
  )
  split, source = records[0]["split"], records[0]["source"]
  name = rng.seed_for(seed, "adaptive", split, source, repr(confidence))
  low, high = bootstrap(right, name)
  tokens = float(np.mean([cost.tokens(*pair) for pair in pairs]))
  return {
    "confidence": confidence,
    "units": float(np.mean(needed)),
    "fewest": min(needed),
    "most": max(needed),
    "accuracy": float(right.mean()),
    "low": low,
    "high": high,
    "tokens": tokens,
    "alike": alike(records, tokens, seed=seed),
  }


def alike(records: Sequence[Record], budget: float, *, seed: int) -> float:
  """Returns the majority's accuracy with equally many units per problem.

  A remainder that does not pay for one more unit of every problem pays for one
  of some problems; the accuracy is interpolated for it.

  Args:
    records: see `table`.
    budget: mean tokens per problem; at least one unit is sampled.
    seed: see `table`.

  Returns:
    In [0, 1].
  """

  def mean(units: int) -> tuple[float, float]:
    return tuple(
      float(np.mean(each))
      for each in (
        [subsets.right(each, "majority", units, seed=seed) for each in records],
        [subsets.tokens(each, units) for each in records],
      )
    )

  units = max(cost.units_within(records, budget, subsets.tokens), 1)
  accuracy, tokens = mean(units)
  if units == cost.units_of(records) or budget <= tokens:
    return accuracy
  better, more = mean(units + 1)
  return accuracy + (better - accuracy) * (budget - tokens) / (more - tokens)
