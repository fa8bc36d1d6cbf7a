"""Which answer to give when a problem has several.

Each function returns the index of the chosen answer, so that the caller finds
its verdict and its trajectory. Equal answers are grouped by a key; the key is a
normal form and no grader, since voting must not ask the gold answer.
"""

import math
from collections.abc import Callable, Hashable, Sequence
from typing import Literal

from rstar_jax.verify.voting import vote_key

Key = Callable[[str], Hashable]


def best(values: Sequence[float | None]) -> int | None:
  """Returns the highest PPM value (paper section 4.1), the first of equals.

  Args:
    values: the PPM's values of whole trajectories; None or nan: not a choice.

  Returns:
    An index, or None where there is no choice.
  """
  chosen = None
  for index, value in enumerate(values):
    if value is None or math.isnan(value):
      continue
    if chosen is None or value > values[chosen]:
      chosen = index
  return chosen


def majority(answers: Sequence[str | None], key: Key = vote_key) -> int | None:
  """Returns the first answer of the largest group.

  Groups of equal size: the one whose first answer came first (the released code
  draws at random). None is no answer and has no vote.
  """
  return _heaviest(answers, [1.0] * len(answers), key)


def weighted(
  answers: Sequence[str | None],
  values: Sequence[float | None],
  key: Key = vote_key,
) -> int | None:
  """Returns the best answer of the group with the largest PPM weight.

  A vote weighs (1 + value) / 2, in [0, 1]: values may be negative, and one more
  vote must not count against an answer. No value, no vote. Of the group the one
  of highest value is returned, since its trajectory is what people see.
  """
  voters = [
    answer if value is not None and not math.isnan(value) else None
    for answer, value in zip(answers, values, strict=True)
  ]
  weights = [
    0.0 if voter is None else (1 + value) / 2
    for voter, value in zip(voters, values, strict=True)
  ]
  return _heaviest(voters, weights, key)


def choose(
  method: Literal["best", "majority", "weighted"],
  answers: Sequence[str | None],
  values: Sequence[float | None],
  key: Key = vote_key,
) -> int | None:
  """Chooses by `config.eval.answer_select`; see the three functions above."""
  if method == "majority":
    return majority(answers, key)
  if method == "weighted":
    return weighted(answers, values, key)
  if method == "best":
    return best(
      [
        None if answer is None else value
        for answer, value in zip(answers, values, strict=True)
      ]
    )
  raise ValueError(
    f"answer_select={method!r} must be 'best', 'majority' or 'weighted'"
  )


def _heaviest(
  answers: Sequence[str | None], weights: Sequence[float], key: Key
) -> int | None:
  """Returns the heaviest of the heaviest group, the first of equals."""
  member: dict[Hashable, int] = {}
  totals: dict[Hashable, float] = {}
  for index, (answer, weight) in enumerate(zip(answers, weights, strict=True)):
    if answer is None:
      continue
    group = key(answer)
    if weight > weights[member.setdefault(group, index)]:
      member[group] = index
    totals[group] = totals.get(group, 0.0) + weight
  if not totals:
    return None
  return member[max(totals, key=totals.__getitem__)]
