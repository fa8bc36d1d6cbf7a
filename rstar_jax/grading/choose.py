"""Which answer to give when a problem has several: the one place that chooses.

`choose` serves the evaluation, the report, `--stage=solve`, studies and the
evaluation harness alike. It returns the index of the chosen answer, so that the
caller finds its verdict and its trajectory: the answer that is counted is the
answer that is given. Equal answers are grouped by a key; the key is a normal
form and no grader, since voting must not ask the gold answer.
"""

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Literal, get_args

from rstar_jax.grading.voting import vote_key

Key = Callable[[str], Hashable]
Select = Literal["best", "majority", "weighted", "top_k"]


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


def top_k(
  answers: Sequence[str | None],
  values: Sequence[float | None],
  k: int,
  key: Key = vote_key,
) -> int | None:
  """Returns the majority of the k of highest value (released code).

  Of equal values the first is the higher; no value, no vote.
  """
  able = [
    index
    for index, (answer, value) in enumerate(zip(answers, values, strict=True))
    if answer is not None and value is not None and not math.isnan(value)
  ]
  highest = sorted(able, key=lambda index: -values[index])[:k]
  chosen = majority([answers[index] for index in highest], key)
  return None if chosen is None else highest[chosen]


def choose(
  how: Select,
  answers: Sequence[str | None],
  values: Sequence[float | None],
  key: Key = vote_key,
  *,
  k: int = 4,
) -> int | None:
  """Chooses one of a problem's answers; see the four functions above.

  Args:
    how: as `config.eval.answer_select`. Where no answer has a value, as in a
      round without a PPM, every way is the majority.
    answers: None is no answer, and is not chosen.
    values: the PPM's values in [-1, 1]; None or nan where there is none.
    key: equal answers have equal keys.
    k: how many vote in "top_k", at least 1.

  Returns:
    The index of the chosen answer, None where there is no answer.

  Raises:
    ValueError: `how` is none of the four.
  """
  if how not in get_args(Select):
    raise ValueError(
      f"answer_select={how!r} must be 'best', 'majority', 'weighted' or 'top_k'"
    )
  values = [
    None if answer is None or value is None or math.isnan(value) else value
    for answer, value in zip(answers, values, strict=True)
  ]
  if how == "majority" or not any(value is not None for value in values):
    return majority(answers, key)
  if how == "weighted":
    return weighted(answers, values, key)
  if how == "top_k":
    return top_k(answers, values, k, key)
  return best(values)


def settled(
  answers: Sequence[str | None], left: int, key: Key = vote_key
) -> bool:
  """Says whether no more answers can change the majority.

  Args:
    answers: so far, in order; None has no vote.
    left: how many are to come, each with a vote or without.
    key: equal answers have equal keys.
  """
  weights: dict[Hashable, float] = {}
  for answer in answers:
    if answer is not None:
      group = key(answer)
      weights[group] = weights.get(group, 0.0) + 1.0
  return leads(weights, left)


def leads(weights: Mapping[Hashable, float], left: float) -> bool:
  """Says whether the heaviest group stays so, whatever is still to come.

  Args:
    weights: group -> weight, in the order of first votes: of equal weights the
      first is the heaviest.
    left: the largest weight that may be added, to any group or a new one.
  """
  if not weights:
    return left == 0
  leader = max(weights, key=weights.__getitem__)
  before = True
  # None: an answer that no one gave yet.
  for group, weight in (*weights.items(), (None, 0.0)):
    if group == leader and group is not None:
      before = False
    elif before and weight + left >= weights[leader]:
      return False
    elif not before and weight + left > weights[leader]:
      return False
  return True


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
