"""Compares searches with samples at equal cost, in tokens or in seconds."""

import collections
import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from benchmarks import plot
from rstar_jax.evaluation import intervals
from rstar_jax.storage.formatting import grid

# The search of the figure.
_DRAWN = "mcts, mean"
# Ways to choose among samples.
SAMPLED = ("majority", "best", "weighted", "best, mean", "weighted, mean")


@dataclasses.dataclass(frozen=True)
class Curve:
  """A method on one problem, at growing budgets; all of equal length.

  Attributes:
    cost: generated tokens, or seconds; see `in_seconds`.
    right: whether the answer is right.
    read: tokens that the PPM reads, each node once.
  """

  cost: tuple[float, ...]
  right: tuple[bool, ...]
  read: tuple[int, ...]


Cell = tuple[int, float, float]
# (cell, method) -> curves, a problem each.
Curves = dict[tuple[Cell, str], list[Curve]]


def in_seconds(found: Curves, rates: Mapping[str, float]) -> Curves:
  """Returns curves whose costs are seconds.

  Args:
    found: curves by generated tokens.
    rates: seconds for a thousand generated tokens, by "majority", "mcts" and
      "beam_W"; of "read", for a thousand that the PPM reads after samples.

  Raises:
    ValueError: a method has no rate.
  """
  seconds: Curves = {}
  for (cell, name), curves in found.items():
    kind, reads = name.partition(",")[0], 0.0
    if name in SAMPLED:
      kind, reads = "majority", rates["read"]
    elif kind.startswith("mcts"):
      kind = "mcts"
    if kind not in rates:
      raise ValueError(f"no rate of {kind!r}, only of {', '.join(rates)}")
    # Nothing is read for a majority.
    seconds[cell, name] = [
      dataclasses.replace(
        each,
        cost=tuple(
          (rates[kind] * tokens + reads * read) / 1e3
          for tokens, read in zip(each.cost, each.read, strict=True)
        ),
      )
      for each in curves
    ]
  return seconds


def budgets(
  found: Curves, cells: Sequence[Cell], names: Sequence[str]
) -> dict[str, plot.Points]:
  """Returns accuracy in % by cost, means over cells, by method."""
  lines: dict[str, plot.Points] = {}
  for name in names:
    parts = [found[cell, name] for cell in cells]
    costs = [np.mean([each.cost for each in part], axis=0) for part in parts]
    right = [np.mean([each.right for each in part], axis=0) for part in parts]
    lines[name] = [
      (float(cost), 100 * float(rate))
      for cost, rate in zip(
        np.mean(costs, axis=0), np.mean(right, axis=0), strict=True
      )
    ]
  return lines


def at_cost(curves: Sequence[Curve], cost: float) -> tuple[np.ndarray, bool]:
  """Returns how often each problem is right at a mean cost.

  Args:
    curves: of samples, a problem each.
    cost: of a problem.

  Returns:
    float64 [P], between the numbers of samples that cost less and more; and
    whether all samples cost less.
  """
  means = np.mean([each.cost for each in curves], axis=0)
  right = np.array([each.right for each in curves], np.float64)
  rows = [np.interp(cost, means, row) for row in right]
  return np.array(rows), bool(cost > means[-1])


def gaps(found: Curves, cells: Sequence[Cell], search: str) -> dict:
  """Returns a search's accuracy less that of samples at its cost.

  Args:
    found: all curves.
    cells: costs are made equal in each of them. A problem in several cells
      counts by its mean.
    search: its name.

  Returns:
    n problems, right and beyond; and [difference, low, high] for each way to
    choose among samples.
  """
  own: dict[int, list[np.ndarray]] = collections.defaultdict(list)
  apart: dict[str, dict[int, list[np.ndarray]]] = {
    name: collections.defaultdict(list) for name in SAMPLED
  }
  beyond = False
  for cell in cells:
    curves, level = found[cell, search], cell[0]
    cost = float(np.mean([each.cost[-1] for each in curves]))
    right = np.array([each.right[-1] for each in curves], np.float64)
    own[level].append(right)
    for name in SAMPLED:
      other, less = at_cost(found[cell, name], cost)
      beyond |= less
      apart[name][level].append(right - other)
  rights = _by_problem(own)
  line = {"n": len(rights), "right": float(rights.mean()), "beyond": beyond}
  for name, parts in apart.items():
    both = _by_problem(parts)
    line[f"less {name}"] = [float(both.mean()), *intervals.bootstrap(both, 0)]
  return line


def _by_problem(parts: dict[int, list[np.ndarray]]) -> np.ndarray:
  """Returns the mean of each problem, of cells of the same problems."""
  return np.concatenate([np.mean(each, axis=0) for each in parts.values()])


def figure(
  lines: Sequence[dict], slip: float, flip: float
) -> dict[str, plot.Points]:
  """Returns accuracy in % by steps at the tokens of an MCTS, by method.

  Args:
    lines: all lines, as printed.
    slip, flip: of the policy and of the PPM.
  """
  found: dict[str, list[tuple[float, float]]] = {}
  for each in lines:
    wanted = each["line"] == "gap" and each["method"] == _DRAWN
    wanted = wanted and each["by"] == "tokens"
    if wanted and (each["slip"], each["flip"]) == (slip, flip):
      right = {_DRAWN: each["right"]}
      for name in ("best, mean", "weighted", "best"):
        right[name] = each["right"] - each[f"less {name}"][0]
      for name, rate in right.items():
        found.setdefault(name, []).append((each["level"], 100 * rate))
  return found


def tables(lines: Sequence[dict], slips: Sequence[float] = (0.2, 0.3)) -> str:
  """Returns Markdown: who is right how often, and what a search gains.

  Args:
    lines: all lines, as printed: by tokens, and by whatever else there is.
    slips: of the problems of 6 to 14 steps that are taken together.
  """
  units = dict.fromkeys(e["by"] for e in lines if e["line"] == "pooled")
  parts = []
  for by in units:
    part = [each for each in lines if each.get("by", by) == by]
    parts += [f"By {by}", "", *_tables(part, slips)]
  return "\n".join(parts)


def _tables(lines: Sequence[dict], slips: Sequence[float]) -> list[str]:
  pooled = {
    (each["flip"], each["method"]): each
    for each in lines
    if each["line"] == "pooled"
    and each["levels"] == "6-14"
    and list(each["slips"]) == list(slips)
  }
  flips = sorted({flip for flip, _ in pooled})
  searches = list(dict.fromkeys(name for _, name in pooled))
  picked = {flip: _picked(lines, flip, slips) for flip in flips}
  right = [
    [
      f"{flip:g}",
      f"{100 * picked[flip]:.0f}",
      *(
        f"{100 * (one['right'] - one[f'less {name}'][0]):.0f}"
        for one in [pooled[flip, "mcts"]]
        for name in SAMPLED
      ),
      *(f"{100 * pooled[flip, each]['right']:.0f}" for each in searches),
    ]
    for flip in flips
  ]
  gains = [
    [
      f"{flip:g}",
      search,
      *(
        "{:+.0f} [{:+.0f}, {:+.0f}]".format(
          *(100 * value for value in pooled[flip, search][f"less {name}"])
        )
        for name in SAMPLED
      ),
    ]
    for flip in flips
    for search in searches
  ]
  return [
    *grid(["flip", "picked", *SAMPLED, *searches], right),
    "",
    *grid(["flip", "less", *SAMPLED], gains),
    "",
  ]


def _picked(
  lines: Sequence[dict], flip: float, slips: Sequence[float]
) -> float:
  """Returns how often the PPM picks a right sibling, over decisions."""
  cells = [
    each
    for each in lines
    if each["line"] == "siblings"
    and each["flip"] == flip
    and each["level"] >= 6
    and each["slip"] in slips
  ]
  return float(
    np.average(
      [each["picked"] for each in cells],
      weights=[each["decisions"] for each in cells],
    )
  )
