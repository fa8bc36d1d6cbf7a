"""Bootstrap intervals of accuracies, and paired tests of two methods."""

import dataclasses
import math
from collections.abc import Mapping

import numpy as np

RESAMPLES = 2000
_INTERVAL = (2.5, 97.5)
# Most problems x resamples in memory at once.
_CHUNK = 1 << 20


def bootstrap(
  values: np.ndarray, seed: int, resamples: int = RESAMPLES
) -> tuple[float, float]:
  """Returns the 95% percentile interval of a mean (Efron 1979).

  Args:
    values: float [n], one per problem, n at least 1.
    seed: seed of the resamples, uint32.
    resamples: number of resamples, at least 1.

  Returns:
    (low, high); low equals high where all values are equal.
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


def crossed(
  right: np.ndarray,
  seed: int,
  resamples: int = RESAMPLES,
  less: np.ndarray | None = None,
) -> tuple[float, float]:
  """Returns the 95% interval of a mean over seeds and problems.

  Seeds and problems are resampled independently (the pigeonhole bootstrap, Owen
  2007), so that the interval holds for other seeds and other problems.

  Args:
    right: float [S, N], values of S seeds and N problems; they may be
      differences. NaN is no value: the mean is over the values that are there.
    seed: seed of the resamples, uint32.
    resamples: number of resamples, at least 1.
    less: float [R, N], values of R other seeds on the same problems. If given,
      the interval is that of the difference of both means.

  Returns:
    (low, high).
  """
  random = np.random.default_rng(seed)

  def drawn(count: int) -> np.ndarray:
    # A resample's mean needs only how often each row was drawn.
    return random.multinomial(count, [1 / count] * count, resamples)

  def means(values: np.ndarray, seeds: np.ndarray) -> np.ndarray:
    there = ~np.isnan(values)
    totals, counts = (
      (seeds @ each * problems).sum(axis=1)
      for each in (np.where(there, values, 0.0), there)
    )
    # A resample without values has no mean.
    return np.where(counts, totals / np.maximum(counts, 1), np.nan)

  seeds, problems = drawn(len(right)), drawn(right.shape[1])
  found = means(right, seeds)
  if less is not None:
    found = found - means(less, drawn(len(less)))
  low, high = np.nanpercentile(found, _INTERVAL)
  return float(low), float(high)


@dataclasses.dataclass(frozen=True)
class Difference:
  """The accuracy of a first method minus that of a second, paired.

  Attributes:
    n: number of problems that both methods have answered.
    first, second: accuracies on these problems, in [0, 1].
    difference: `first` - `second`, in [-1, 1].
    low, high: 95% interval of the difference; see `compare`.
    only_first, only_second: number of problems that only one method solves.
    p: p-value of McNemar's exact test, two-sided, in (0, 1].
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
    """The better method in words.

    A difference is claimed only where the interval and the test agree.
    """
    if self.p >= 0.05 or self.low <= 0 <= self.high:
      return "not distinguishable"
    return "first is better" if self.difference > 0 else "second is better"

  @property
  def points(self) -> str:
    """The difference in percentage points, with interval and verdict."""
    text = percent(self.difference, self.low, self.high, signed=True)
    words = {"first is better": "better", "second is better": "worse"}
    return f"{text}, {words.get(self.verdict, self.verdict)}"


def percent(
  mean: float, low: float, high: float, *, signed: bool = False
) -> str:
  """Returns "mean [low, high]" in percent, with one decimal.

  Args:
    mean, low, high: shares, or differences of shares.
    signed: whether positive numbers have a sign, as differences do.
  """
  sign = "+" if signed else ""
  texts = [f"{100 * each:{sign}.1f}" for each in (mean, low, high)]
  return "{} [{}, {}]".format(*texts)


def compare(
  first: Mapping[str, bool], second: Mapping[str, bool], seed: int
) -> Difference | None:
  """Compares two methods, paired by problem.

  The interval is a paired bootstrap (Efron 1979): a resample of problems takes
  the results of both methods, so that the problems' difficulty cancels. The
  test is McNemar's (1947) in its exact form.

  Args:
    first: problem id -> whether the first method's answer is right.
    second: problem id -> whether the second method's answer is right.
    seed: seed of the bootstrap, uint32.

  Returns:
    None if the methods have no problem in common.
  """
  shared = [each for each in first if each in second]
  if not shared:
    return None
  a = np.array([first[each] for each in shared], np.float64)
  b = np.array([second[each] for each in shared], np.float64)
  low, high = bootstrap(a - b, seed)
  discordant = int((a > b).sum()), int((b > a).sum())
  return Difference(
    n=len(shared),
    first=float(a.mean()),
    second=float(b.mean()),
    difference=float((a - b).mean()),
    low=low,
    high=high,
    only_first=discordant[0],
    only_second=discordant[1],
    p=mcnemar(*discordant),
  )


def mcnemar(only_first: int, only_second: int) -> float:
  """Returns the p-value of McNemar's exact test, two-sided.

  Under the null hypothesis each method is the right one with probability 1/2
  where the two disagree, so the smaller count is binomial.

  Args:
    only_first: number of problems that only the first method solves.
    only_second: number of problems that only the second method solves.

  Returns:
    A probability in [0, 1]: 1 where the methods never disagree, 0 where it is
    too small for a float.
  """
  n, fewer = only_first + only_second, min(only_first, only_second)
  # Integers keep the sum exact for any number of problems.
  tail = sum(math.comb(n, i) for i in range(fewer + 1))
  return min(1.0, 2 * tail / 2**n)
