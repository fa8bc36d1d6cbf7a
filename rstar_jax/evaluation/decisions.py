"""Who decides rightly in a search, and why one fails, where right is known.

An oracle says of each node of a tree whether its path is right so far; there is
one for generated problems (`data/synthetic/oracle.py`).
"""

import collections
import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Literal

import numpy as np

from rstar_jax.evaluation import intervals
from rstar_jax.evaluation.quality import auc
from rstar_jax.search import values as values_lib
from rstar_jax.search.tree import (
  ANSWERED,
  OPEN,
  RIGHT,
  ROOT_INDEX,
  UNKNOWN,
  WRONG,
  Tree,
)
from rstar_jax.types import Problem, Score

Failure = Literal["policy", "search", "choice", "unclear"]

# A value this near to -1 or 1 is called saturated.
_SATURATED = 0.99


@dataclasses.dataclass(frozen=True)
class Siblings:
  """Right and wrong children of a node that is right so far.

  Attributes:
    depth: of the children, 1 below the root.
    right: bool [C], at least one of each.
    ppm: float64 [C], nan where there is no PPM.
    logprob: float64 [C], of the policy.
  """

  depth: int
  right: np.ndarray
  ppm: np.ndarray
  logprob: np.ndarray

  @property
  def chance(self) -> float:
    """How often a random pick is right."""
    return float(self.right.mean())


@dataclasses.dataclass(frozen=True)
class Judged:
  """What an oracle says of a tree.

  Attributes:
    problem: the tree's.
    siblings: where there is something to decide.
    across: see `across`.
    saturated: share of the PPM's values that are within 0.01 of -1 or 1, None
      without a PPM.
  """

  problem: Problem
  siblings: tuple[Siblings, ...]
  across: float | None = None
  saturated: float | None = None

  def at(self, depth: int) -> "Judged":
    """Returns what is decided at a depth, and nothing else."""
    kept = tuple(each for each in self.siblings if each.depth == depth)
    return Judged(self.problem, kept)


# Name -> values in [0, 1] of a tree, None where there is nothing to say.
_RATES: dict[str, Callable[[Judged], Iterable[float | None]]] = {
  "chance": lambda tree: [each.chance for each in tree.siblings],
  "policy": lambda tree: [
    picked(each.logprob, each.right) for each in tree.siblings
  ],
  "ppm": lambda tree: [picked(each.ppm, each.right) for each in tree.siblings],
  "pairs": lambda tree: [
    preferred(each.ppm, each.right) for each in tree.siblings
  ],
  "across": lambda tree: [tree.across],
  "saturated": lambda tree: [tree.saturated],
}


def judge(tree: Tree, labels: np.ndarray) -> Judged:
  """Judges a tree by its labels; see `decisions`."""
  values = tree.ppm[~np.isnan(tree.ppm)]
  return Judged(
    tree.problem,
    tuple(decisions(tree, labels)),
    across(tree, labels),
    float(np.mean(np.abs(values) > _SATURATED)) if len(values) else None,
  )


def revalue(trees: Sequence[Tree], score: Score) -> None:
  """Gives nodes the values of another reward model, in the PPM's place."""
  paths = [
    [(tree.problem.question, tree.prefix(node)) for node in range(1, len(tree))]
    for tree in trees
  ]
  found = values_lib.values_of(score, [each for path in paths for each in path])
  for tree, path in zip(trees, paths, strict=True):
    tree.ppm[1:] = [found[each] for each in path]


def rates(trees: Sequence[Judged]) -> dict[str, Any]:
  """Says how often policy and PPM are right, as means over problems.

  Args:
    trees: of problems, one or several each.

  Returns:
    "n": problems where there is something to decide; "decisions": their number.
    [mean, low, high] each, with 95% bootstrap intervals over problems, left out
    where nothing is known: "chance", "policy" and "ppm", how often a right
    sibling is picked at random, by log-probability, and by value; "pairs", how
    often a right sibling has a higher value than a wrong one; "across", how
    often a right node has a higher value than a wrong one that is no sibling;
    "saturated", the share of values within 0.01 of -1 or 1.
  """
  found: dict[str, Any] = {
    "n": len({each.problem.id for each in trees if each.siblings}),
    "decisions": sum(len(each.siblings) for each in trees),
  }
  for name in _RATES:
    means = np.array(list(by_problem(trees, name).values()))
    if len(means):
      found[name] = [float(means.mean()), *intervals.bootstrap(means, 0)]
  return found


def by_problem(trees: Iterable[Judged], name: str) -> dict[str, float]:
  """Returns one of the rates of each problem of which it is known.

  Args:
    trees: of problems, one or several each.
    name: of the rate; see `rates`.
  """
  values = collections.defaultdict(list)
  for tree in trees:
    values[tree.problem.id] += [
      each for each in _RATES[name](tree) if each is not None
    ]
  return {id_: float(np.mean(each)) for id_, each in values.items() if each}


def decisions(tree: Tree, labels: np.ndarray) -> Iterator[Siblings]:
  """Yields the siblings among which there is something to decide.

  Args:
    tree: a tree.
    labels: RIGHT, WRONG or UNKNOWN for the path to each node, int8 [N];
      children that are UNKNOWN are left out.
  """
  for node in np.flatnonzero((labels == RIGHT) & (tree.num_children > 0)):
    children = np.array(tree.children(node))
    known = children[labels[children] != UNKNOWN]
    right = labels[known] == RIGHT
    if right.any() and not right.all():
      yield Siblings(
        int(tree.depth[node]) + 1, right, tree.ppm[known], tree.logprob[known]
      )


def picked(values: np.ndarray, right: np.ndarray) -> float | None:
  """Returns how often the highest of values is right; equal ones share.

  Args:
    values: float [C].
    right: bool [C].

  Returns:
    In [0, 1]; None where a value is missing.
  """
  if np.isnan(values).any():
    return None
  return float(right[values == values.max()].mean())


def preferred(values: np.ndarray, right: np.ndarray) -> float | None:
  """Returns how often a right sibling is above a wrong one; ties are half."""
  return None if np.isnan(values).any() else auc(values, right)


def across(tree: Tree, labels: np.ndarray) -> float | None:
  """Returns how often a right node is above a wrong one after another prefix.

  Beams, REBASE and the choice of an answer compare such nodes, and a value that
  is fixed among siblings alone need not mean the same there. Ties are half.

  Args:
    tree: a tree.
    labels: as for `decisions`.

  Returns:
    In [0, 1]; None where there is no such pair, or no PPM.
  """
  right, wrong = (
    np.flatnonzero((labels == each) & ~np.isnan(tree.ppm))
    for each in (RIGHT, WRONG)
  )
  margin = np.subtract.outer(tree.ppm[right], tree.ppm[wrong])
  apart = np.not_equal.outer(tree.parent[right], tree.parent[wrong])
  if not apart.any():
    return None
  return float((np.sign(margin[apart]).mean() + 1) / 2)


def failure(
  tree: Tree, labels: np.ndarray, chosen: int | None
) -> Failure | None:
  """Says why a search did not give the right answer, None if it did.

  Args:
    tree: a tree.
    labels: as for `decisions`.
    chosen: node of the answer that the search gives, None without one.

  Returns:
    "choice": a right answer is in the tree, and another was chosen; "search": a
    node that is right so far was never expanded; "policy": each one was, and
    no right child was sampled below; "unclear": this depends on nodes of which
    the oracle says nothing.
  """
  if chosen is not None and labels[chosen] == RIGHT:
    return None
  if ((tree.terminal == ANSWERED) & (labels == RIGHT)).any():
    return "choice"
  waiting = (tree.terminal == OPEN) & (tree.num_children == 0)
  # The root is sampled again each time that nothing comes of it.
  waiting[ROOT_INDEX] = False
  if (waiting & (labels == RIGHT)).any():
    return "search"
  if (labels == UNKNOWN).any():
    return "unclear"
  return "policy"
