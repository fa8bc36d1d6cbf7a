"""The accuracy of a choice among k of n units, over all subsets of k.

A problem's samples are exchangeable, as independent searches are: any k of them
might have come first. The mean over all subsets has the expectation of the
first k, with less noise (as pass@k, Chen et al. 2021). The rollouts of one
search depend on earlier ones, and so does the number of units of a problem that
stopped early: there the first k are taken.
"""

import functools
import itertools
import math
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from rstar_jax import rng
from rstar_jax.evaluation import choices, cost, sources
from rstar_jax.evaluation.solutions import Record
from rstar_jax.grading import choose as choose_lib
from rstar_jax.grading.voting import vote_key

# Up to this many subsets are all tried; of more, this many are drawn.
_TRIED = 128
# Numbers of votes that are less likely are left out.
_NEGLIGIBLE = 1e-18


def exchangeable(record: Record) -> bool:
  """Returns whether a record's units are exchangeable."""
  return sources.of(record["source"]).independent and not record.get("stop")


def tokens(record: Record, units: int | None) -> float:
  """Returns the mean tokens of that many units; None is all."""
  count = len(record["spent"])
  if units is None or units >= count or not exchangeable(record):
    return float(cost.tokens(record, units))
  return record["spent"][-1] * units / count


def right(
  record: Record,
  choice: str,
  units: int,
  *,
  seed: int,
  k: int = 4,
) -> float:
  """Returns the probability that the choice among random units is right.

  It is exact for "pass", "best" and "majority", where ties of values or votes
  win equally often. Other choices are tried on all subsets, or on 128 random
  ones if there are more.

  Args:
    record: see `solutions.py`.
    choice: one of `choices.CHOICES`; "first" only with all units.
    units: number of units, at least 1; all units are a single subset, in order.
    seed: root seed of the random subsets.
    k: number of solutions that vote in "top_k", at least 1.

  Returns:
    In [0, 1]; 0 or 1 where the first units are taken.
  """
  count = len(record["spent"])
  if units >= count or not exchangeable(record):
    chosen = choices.choose(record, choice, units, k=k)
    return float(chosen.right)
  answered = [
    each
    for each in choices.voters(record, choice)
    if each["verdict"] != "failed"
  ]
  if choice == "pass":
    solved = {each["unit"] for each in answered if each["verdict"] == "equal"}
    return _chance_of_any(len(solved), count, units)
  good = sum(each["verdict"] == "equal" for each in answered)
  if good in (0, len(answered)):
    return _chance_of_any(good, count, units)
  valued = [each["value"] is not None for each in answered]
  if choice == "majority" or not any(valued):
    return _majority(answered, count, units)
  if choice == "best" and all(valued):
    return _best(answered, count, units)
  name = record["split"], record["problem_id"], units
  drawn = _subsets(count, units, rng.seed_for(seed, "subsets", *name))
  return _share_right(answered, choice, drawn, k)


def _chance_of_any(good: int, count: int, units: int) -> float:
  """Returns the probability that a subset has any of `good` units."""
  return 1 - math.comb(count - good, units) / math.comb(count, units)


def _best(answered: Sequence[Record], count: int, units: int) -> float:
  """Sums, over values, the probability that one is a subset's highest."""
  total, higher = 0.0, 0
  for value in sorted({each["value"] for each in answered}, reverse=True):
    equal = [each for each in answered if each["value"] == value]
    good = sum(each["verdict"] == "equal" for each in equal)
    before = _chance_of_any(higher, count, units)
    higher += len(equal)
    total += (_chance_of_any(higher, count, units) - before) * good / len(equal)
  return total


def _majority(answered: Sequence[Record], count: int, units: int) -> float:
  """Sums, over right answers, the probability that one gets most votes."""
  groups: dict = {}
  for each in answered:
    groups.setdefault(vote_key(each["answer"]), []).append(
      each["verdict"] == "equal"
    )
  sizes = sorted(map(len, groups.values()))
  total = 0.0
  for verdicts in groups.values():
    if any(verdicts):
      others = list(sizes)
      others.remove(len(verdicts))
      chance = _wins(len(verdicts), tuple(others), count - len(answered), units)
      # The group's first solution is the choice; each is equally likely first.
      total += chance * sum(verdicts) / len(verdicts)
  return total


@functools.lru_cache(maxsize=4096)
def _wins(own: int, others: tuple[int, ...], silent: int, units: int) -> float:
  """Returns the probability that a group gets most votes in a random subset.

  Of t groups with equally many votes, each wins with probability 1 / t.

  Args:
    own: size of the group.
    others: sizes of the other groups.
    silent: number of units without a vote.
    units: size of the subset, below the number of all units.
  """
  # If each unit is drawn by itself, the votes of groups are independent; given
  # the number drawn, all subsets are equally likely.
  count = own + sum(others) + silent
  drawn = functools.partial(_binomial, chance=units / count)
  total = 0.0
  likely = drawn(own)[: units + 1] > _NEGLIGIBLE
  likely[0] = False  # Without a vote no group wins.
  for votes in np.flatnonzero(likely):
    rivals = [size for size in others if size >= votes]
    # The rest cannot win, however many of its votes are drawn.
    rest = drawn(count - own - sum(rivals))
    left = units - votes
    # [tied groups, units drawn] -> probability.
    states = np.zeros((1, left + 1))
    states[0, : len(rest)] = rest[: left + 1]
    for chances in map(drawn, rivals):
      after = np.zeros((len(states) + 1, left + 1))
      for given in range(min(votes, left) + 1):
        to = after[1:] if given == votes else after[:-1]
        to[:, given:] += chances[given] * states[:, : left + 1 - given]
      states = after
    ties = np.arange(1, 1 + len(states))
    total += drawn(own)[votes] * np.sum(states[:, left] / ties)
  return min(float(total / drawn(count)[units]), 1.0)


@functools.lru_cache(maxsize=4096)
def _binomial(count: int, chance: float) -> np.ndarray:
  """Returns the probabilities that 0, 1, ... of `count` units are drawn."""
  numbers = np.arange(count + 1)
  # Logarithms, since the binomial coefficients of 1030 exceed a float.
  ways = np.append(0.0, np.cumsum(np.log(numbers[:0:-1] / numbers[1:])))
  drawn, left = numbers * math.log(chance), numbers[::-1] * math.log1p(-chance)
  return np.exp(ways + drawn + left)


def _share_right(
  answered: Sequence[Record],
  choice: str,
  drawn: Iterable[Sequence[int]],
  k: int,
) -> float:
  """Returns how often the choice is right over the given subsets."""
  by_unit = {each["unit"]: each for each in answered}
  keys = {each["answer"]: vote_key(each["answer"]) for each in answered}
  verdicts = []
  for subset in drawn:
    part = [by_unit[unit] for unit in subset if unit in by_unit]
    index = choose_lib.choose(
      choice,
      [each["answer"] for each in part],
      [each["value"] for each in part],
      keys.__getitem__,
      k=k,
    )
    verdicts.append(index is not None and part[index]["verdict"] == "equal")
  return sum(verdicts) / len(verdicts)


def _subsets(count: int, units: int, seed: int) -> Iterator[Sequence[int]]:
  """Yields all subsets in order, or `_TRIED` random ones in random order."""
  if math.comb(count, units) <= _TRIED:
    yield from itertools.combinations(range(count), units)
    return
  draws = np.random.default_rng(seed)
  for _ in range(_TRIED):
    yield draws.permutation(count)[:units].tolist()
