"""Which answer to give when a problem has several: the one place that chooses.

`choose` serves the evaluation, the report, `rstar_jax solve`, studies and the
evaluation harness alike. It returns the index of the chosen answer, so that the
caller finds its verdict and its trajectory: the answer that is counted is the
answer that is given. Equal answers are grouped by a key; the key is a normal
form and no grader, since voting must not ask the gold answer.
"""

import math
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
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
  answers: Sequence[str | None],
  left: int,
  key: Key = vote_key,
  confidence: float = 1.0,
) -> bool:
  """Returns whether no more answers can change the majority, or are likely to.

  Args:
    answers: so far, in order; None has no vote.
    left: how many are to come, each with a vote or without.
    key: equal answers have equal keys.
    confidence: see `sure`.
  """
  return sure(_votes(answers, key), left, confidence)


def fewest(
  answers: Sequence[str | None],
  left: int,
  key: Key = vote_key,
  confidence: float = 1.0,
) -> int:
  """Returns after how many more answers the majority may be settled, from 1.

  Args:
    answers, key, confidence: as of `settled`.
    left: how many are to come at most, at least 1.
  """
  weights = _votes(answers, key)
  # At the earliest if all of them are what leads, or what no one gave yet.
  leader = max(weights, key=weights.__getitem__, default=object())
  for count in range(1, left):
    weights[leader] = weights.get(leader, 0.0) + 1.0
    if sure(weights, left - count, confidence):
      return count
  return left


def sure(
  weights: Mapping[Hashable, float], left: float, confidence: float
) -> bool:
  """Returns whether the heaviest group stays so, or is likely to.

  Args:
    weights, left: as of `leads`; of a confidence below 1, numbers of votes.
    confidence: least value of `ahead`, if it is below 1.
  """
  if leads(weights, left):
    return True
  return confidence < 1 and ahead(weights.values()) >= confidence


def ahead(votes: Iterable[float]) -> float:
  """Returns the probability that the most frequent answer is so in truth.

  That is P(p > 1/2) of a Beta(a + 1, b + 1) variable, of the two largest
  numbers of votes a and b (adaptive consistency, Aggarwal et al. 2023, arXiv
  2305.11860): as likely as at most a heads of a + b + 1 fair coins.

  Args:
    votes: whole numbers, of any number of answers.
  """
  first, second, *_ = (*sorted(map(int, votes), reverse=True), 0, 0)
  coins = first + second + 1
  return sum(math.comb(coins, i) for i in range(first + 1)) / 2**coins


def leads(weights: Mapping[Hashable, float], left: float) -> bool:
  """Returns whether the heaviest group stays so, whatever is still to come.

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


def _votes(answers: Sequence[str | None], key: Key) -> dict[Hashable, float]:
  """Returns the votes of each group, in the order of first votes."""
  weights: dict[Hashable, float] = {}
  for answer in answers:
    if answer is not None:
      group = key(answer)
      weights[group] = weights.get(group, 0.0) + 1.0
  return weights


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
