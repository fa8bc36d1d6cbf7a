"""Compares searches with samples at equal numbers of generated tokens."""

import collections
import dataclasses
from collections.abc import Sequence

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
    tokens: generated.
    right: whether the answer is right.
    read: tokens that the PPM reads, each node once.
  """

  tokens: tuple[int, ...]
  right: tuple[bool, ...]
  read: tuple[int, ...]


Cell = tuple[int, float, float]
# (cell, method) -> curves, a problem each.
Curves = dict[tuple[Cell, str], list[Curve]]


def at_tokens(
  curves: Sequence[Curve], tokens: float
) -> tuple[np.ndarray, bool]:
  """Returns how often each problem is right at a mean number of tokens.

  Args:
    curves: of samples, a problem each.
    tokens: per problem.

  Returns:
    float64 [P], between the numbers of samples that cost less and more; and
    whether all samples cost less.
  """
  means = np.mean([each.tokens for each in curves], axis=0)
  right = np.array([each.right for each in curves], np.float64)
  rows = [np.interp(tokens, means, row) for row in right]
  return np.array(rows), bool(tokens > means[-1])


def gaps(found: Curves, cells: Sequence[Cell], search: str) -> dict:
  """Returns a search's accuracy less that of samples at its tokens.

  Args:
    found: all curves.
    cells: tokens are made equal in each of them. A problem in several cells
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
    tokens = float(np.mean([each.tokens[-1] for each in curves]))
    right = np.array([each.right[-1] for each in curves], np.float64)
    own[level].append(right)
    for name in SAMPLED:
      other, less = at_tokens(found[cell, name], tokens)
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
    lines: all lines, as printed.
    slips: of the problems of 6 to 14 steps that are taken together.
  """
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
  return "\n".join(
    [
      *grid(["flip", "picked", *SAMPLED, *searches], right),
      "",
      *grid(["flip", "less", *SAMPLED], gains),
      "",
    ]
  )


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
