"""Intervals of an accuracy, and whether two ways to answer differ."""

import dataclasses
import math
from collections.abc import Mapping

import numpy as np

RESAMPLES = 2000
_INTERVAL = (2.5, 97.5)
# Problems x resamples that are in memory at once.
_CHUNK = 1 << 20


def bootstrap(
  values: np.ndarray, seed: int, resamples: int = RESAMPLES
) -> tuple[float, float]:
  """Returns the 95% percentile interval of a mean (Efron 1979).

  Args:
    values: one per problem, float [n], n at least 1.
    seed: of the resamples, uint32.
    resamples: how many.

  Returns:
    (low, high). It has no width where all values are equal.
  """
  values = np.asarray(values, np.float64)
  random = np.random.default_rng(seed)
  rows = max(_CHUNK // len(values), 1)
  means = []
  for start in range(0, resamples, rows):
    shape = min(rows, resamples - start), len(values)
    means.append(values[random.integers(0, len(values), shape)].mean(axis=1))
  low, high = np.percentile(np.concatenate(means), _INTERVAL)
  return float(low), float(high)


@dataclasses.dataclass(frozen=True)
class Difference:
  """The accuracy of a first way less that of a second.

  Attributes:
    n: problems that both have answered.
    first, second: accuracies on them, in [0, 1].
    difference: the first less the second.
    low, high: its 95% interval; see `compare`.
    only_first, only_second: problems that only one has right.
    p: of McNemar's exact test, two-sided.
  """

  n: int
  first: float
  second: float
  difference: float
  low: float
  high: float
  only_first: int
  only_second: int
  p: float

  @property
  def verdict(self) -> str:
    """Says in words what the numbers allow to say.

    Only where interval and test agree is a difference claimed.
    """
    if self.p >= 0.05 or self.low <= 0 <= self.high:
      return "not distinguishable"
    return "first is better" if self.difference > 0 else "second is better"


def compare(
  first: Mapping[str, bool], second: Mapping[str, bool], seed: int
) -> Difference | None:
  """Compares two ways, by problem.

  The interval is a paired bootstrap: problems are drawn anew, and the results
  of both ways with them, so that hard and easy problems cancel out (Efron
  1979). The test is McNemar's (1947) in its exact form.

  Args:
    first: problem id -> whether right.
    second: likewise.
    seed: of the bootstrap, uint32.

  Returns:
    None if no problem is in both.
  """
  shared = [each for each in first if each in second]
  if not shared:
    return None
  a = np.array([first[each] for each in shared], np.float64)
  b = np.array([second[each] for each in shared], np.float64)
  low, high = bootstrap(a - b, seed)
  only = int((a > b).sum()), int((b > a).sum())
  return Difference(
    n=len(shared),
    first=float(a.mean()),
    second=float(b.mean()),
    difference=float((a - b).mean()),
    low=low,
    high=high,
    only_first=only[0],
    only_second=only[1],
    p=mcnemar(*only),
  )


def mcnemar(only_first: int, only_second: int) -> float:
  """Returns the p-value of McNemar's exact test, two-sided.

  If the two ways are equally good, either is as likely to be the right one
  where they disagree: the smaller number is binomial with p = 1/2.

  Args:
    only_first: problems that only the first has right.
    only_second: that only the second has.

  Returns:
    In (0, 1]; 1 where they never disagree.
  """
  n, fewer = only_first + only_second, min(only_first, only_second)
  # Integers, so that nothing is lost however many problems there are.
  tail = sum(math.comb(n, i) for i in range(fewer + 1))
  return min(1.0, 2 * tail / 2**n)
