"""Chooses among a problem's answers.

`choose` serves the evaluation, the report, `rstar_jax solve`, studies and the
evaluation harness alike. It returns the index of the chosen answer, so that the
caller finds its verdict and its trajectory: the counted answer is the given
one. Equal answers are grouped by a key. The key is a normal form and no grader,
since voting must not see the gold answer.
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
    values: the PPM's values of whole trajectories; None and nan are left out.

  Returns:
    An index, or None if no trajectory has a value.
  """
  able = [index for index, value in enumerate(values) if _valued(value)]
  return max(able, key=values.__getitem__, default=None)


def majority(answers: Sequence[str | None], key: Key = vote_key) -> int | None:
  """Returns the first answer of the largest group.

  Of groups of equal size, the one whose first answer came first wins (the
  released code draws at random). None is no answer and has no vote.
  """
  return _heaviest(answers, [1.0] * len(answers), key)


def weighted(
  answers: Sequence[str | None],
  values: Sequence[float | None],
  key: Key = vote_key,
) -> int | None:
  """Returns the best answer of the group with the largest PPM weight.

  A vote weighs (1 + value) / 2, in [0, 1]: values may be negative, and a vote
  must not count against its answer. An answer without a value has no vote. The
  group's answer of highest value is returned, since its trajectory is shown.
  """
  voters = [
    answer if _valued(value) else None
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
  """Returns the majority of the k answers of highest value (released code).

  Of equal values the first ranks higher. Without a value there is no vote.
  """
  able = [
    index
    for index, (answer, value) in enumerate(zip(answers, values, strict=True))
    if answer is not None and _valued(value)
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
    how: see `config.eval.answer_select`. If no answer has a value, as in a
      round without a PPM, every choice is the majority.
    answers: None is no answer, and is not chosen.
    values: the PPM's values in [-1, 1]; None or nan without one.
    key: equal answers have equal keys.
    k: number of voters in "top_k", at least 1.

  Returns:
    The index of the chosen answer, None if there is no answer.

  Raises:
    ValueError: `how` is unknown.
  """
  if how not in get_args(Select):
    raise ValueError(
      f"answer_select={how!r} must be 'best', 'majority', 'weighted' or 'top_k'"
    )
  values = [
    value if answer is not None and _valued(value) else None
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
  """Returns whether the majority is final, or is so with some confidence.

  Args:
    answers: the answers so far, in order; None has no vote.
    left: number of answers to come, each with or without a vote.
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
  """Returns the least number of further answers to settle the majority.

  Args:
    answers, key, confidence: see `settled`.
    left: most answers to come, at least 1.

  Returns:
    At least 1, at most `left`.
  """
  weights = _votes(answers, key)
  # The earliest is if all of them equal the leader, or a first answer.
  leader = max(weights, key=weights.__getitem__, default=object())
  for count in range(1, left):
    weights[leader] = weights.get(leader, 0.0) + 1.0
    if sure(weights, left - count, confidence):
      return count
  return left


def sure(
  weights: Mapping[Hashable, float], left: float, confidence: float
) -> bool:
  """Returns whether the heaviest group is final, or is so with confidence.

  Args:
    weights, left: see `leads`; with a confidence below 1, weights are numbers
      of votes.
    confidence: in (0, 1]; below 1, the least value of `ahead` that suffices.
  """
  if leads(weights, left):
    return True
  return confidence < 1 and ahead(weights.values()) >= confidence


def ahead(votes: Iterable[float]) -> float:
  """Returns the probability that the leading answer is the likeliest one.

  That is P(p > 1/2) of a Beta(a + 1, b + 1) variable, with a and b the two
  largest numbers of votes (adaptive consistency, Aggarwal et al. 2023, arXiv
  2305.11860). It equals the probability of at most a heads in a + b + 1 throws
  of a fair coin.

  Args:
    votes: number of votes of each answer.

  Returns:
    In [0.5, 1].
  """
  first, second, *_ = (*sorted(map(int, votes), reverse=True), 0, 0)
  coins = first + second + 1
  # Fewer heads than `second + 1` and more than `first` are equally likely, and
  # what is between has as few terms as the lead.
  between, ways = 0, math.comb(coins, second)
  for heads in range(second + 1, first + 1):
    ways = ways * (coins - heads + 1) // heads
    between += ways
  return (2**coins + between) / 2 ** (coins + 1)


def leads(weights: Mapping[Hashable, float], left: float) -> bool:
  """Returns whether no further weight can change the heaviest group.

  Args:
    weights: group -> weight, in the order of first votes; of equal weights the
      first counts as the heaviest.
    left: most weight that may be added, to any group or a new one.
  """
  if not weights:
    return left == 0
  leader = max(weights, key=weights.__getitem__)
  before = True
  # None stands for an answer that is not given yet.
  for group, weight in (*weights.items(), (None, 0.0)):
    if group == leader and group is not None:
      before = False
    elif before and weight + left >= weights[leader]:
      return False
    elif not before and weight + left > weights[leader]:
      return False
  return True


def _valued(value: float | None) -> bool:
  """Returns whether there is a value: neither None nor nan."""
  return value is not None and not math.isnan(value)


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
  """Returns the heaviest answer of the heaviest group, the first of equals."""
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
