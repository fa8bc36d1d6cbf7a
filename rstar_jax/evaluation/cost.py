"""What solutions cost, in generated tokens: the one place that counts it.

A record says what had been generated after each of its units (`spent`): a
sample, a rollout of a search, or a search. Tokens that read prompts or score
steps are not counted.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

Record = Mapping[str, Any]


def tokens(record: Record, units: int | None = None) -> int:
  """Returns the tokens that a problem's first units took; None is all."""
  spent = record["spent"]
  return spent[-1 if units is None else min(units, len(spent)) - 1]


def units_of(records: Sequence[Record]) -> int:
  """Returns how many units the longest of records has."""
  return max(len(record["spent"]) for record in records)


def mean_tokens(records: Sequence[Record], units: int | None = None) -> float:
  """Returns the mean of `tokens` over problems."""
  return float(np.mean([tokens(record, units) for record in records]))


def units_within(records: Sequence[Record], budget: float) -> int:
  """Returns the largest number of units that a budget pays for, from 0.

  Args:
    records: at least one.
    budget: tokens of a problem, in the mean over the records.
  """
  units = 0
  while units < units_of(records) and mean_tokens(records, units + 1) <= budget:
    units += 1
  return units


def equal_samples(samples: Sequence[Record], searches: Sequence[Record]) -> int:
  """Returns how many samples cost about what a search costs.

  Args:
    samples, searches: records of one split.

  Returns:
    The largest number of samples whose mean tokens are not above the search's,
    over the problems that have both; at least 1. Without such problems, all
    samples; 1 without any.
  """
  sampled = {record["problem_id"]: record for record in samples}
  searched = {record["problem_id"]: record for record in searches}
  shared = sampled.keys() & searched.keys()
  if not shared:
    return max((len(record["trajectories"]) for record in samples), default=1)
  budget = mean_tokens([searched[each] for each in shared])
  return max(units_within([sampled[each] for each in shared], budget), 1)


def flops(parameters: int, tokens: float) -> float:
  """Returns what a policy computes for tokens: 2 a parameter and token.

  (Kaplan et al. 2020.)
  """
  return 2.0 * parameters * tokens
