"""Measures decisions within a search, and why it fails, given an oracle.

An oracle labels each node of a tree by whether its path is right so far; there
is one for generated problems (`data/synthetic/oracle.py`).
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

# A value above this in magnitude is called saturated.
_SATURATED = 0.99


@dataclasses.dataclass(frozen=True)
class Siblings:
  """The right and wrong children of a node that is right so far.

  Attributes:
    depth: depth of the children; 1 is directly below the root.
    right: bool [C], with at least one True and one False.
    ppm: float64 [C], the PPM's values, nan without a PPM.
    logprob: float64 [C], the policy's log-probabilities.
  """

  depth: int
  right: np.ndarray
  ppm: np.ndarray
  logprob: np.ndarray

  @property
  def chance(self) -> float:
    """The probability that a random pick is right, in (0, 1)."""
    return float(self.right.mean())


@dataclasses.dataclass(frozen=True)
class Judged:
  """A tree's decisions and values, judged by an oracle.

  Attributes:
    problem: the tree's.
    siblings: the children of each node that has right and wrong ones.
    across: see the function `across`.
    saturated: share of the PPM's values that are within 0.01 of -1 or 1, None
      without a PPM.
  """

  problem: Problem
  siblings: tuple[Siblings, ...]
  across: float | None = None
  saturated: float | None = None

  def at(self, depth: int) -> "Judged":
    """Returns the decisions at one depth, without the other fields."""
    kept = tuple(each for each in self.siblings if each.depth == depth)
    return Judged(self.problem, kept)


# Name -> a tree's values in [0, 1], None where the rate is undefined.
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
  """Replaces the nodes' PPM values by those of another reward model."""
  paths = [
    [(tree.problem.question, tree.prefix(node)) for node in range(1, len(tree))]
    for tree in trees
  ]
  values = values_lib.values_of(
    score, [each for path in paths for each in path]
  )
  for tree, path in zip(trees, paths, strict=True):
    tree.ppm[1:] = [values[each] for each in path]


def rates(trees: Sequence[Judged]) -> dict[str, Any]:
  """Returns how often policy and PPM decide rightly, as means over problems.

  Args:
    trees: judged trees, one or several per problem.

  Returns:
    "n": number of problems with decisions; "decisions": number of decisions.
    Further, as [mean, low, high] with 95% bootstrap intervals over problems,
    left out where undefined: "chance", "policy" and "ppm", how often a right
    sibling is picked at random, by log-probability, and by value; "pairs",
    how often a right sibling has a higher value than a wrong one; "across",
    how often a right node has a higher value than a wrong one that is no
    sibling; "saturated", the share of values within 0.01 of -1 or 1.
  """
  summary: dict[str, Any] = {
    "n": len({each.problem.id for each in trees if each.siblings}),
    "decisions": sum(len(each.siblings) for each in trees),
  }
  for name in _RATES:
    means = np.array(list(by_problem(trees, name).values()))
    if len(means):
      summary[name] = [float(means.mean()), *intervals.bootstrap(means, 0)]
  return summary


def by_problem(trees: Iterable[Judged], name: str) -> dict[str, float]:
  """Returns one rate per problem, for problems where it is defined.

  Args:
    trees: judged trees, one or several per problem.
    name: the rate's name; see `rates`.
  """
  values = collections.defaultdict(list)
  for tree in trees:
    values[tree.problem.id] += [
      each for each in _RATES[name](tree) if each is not None
    ]
  return {id_: float(np.mean(each)) for id_, each in values.items() if each}


def decisions(tree: Tree, labels: np.ndarray) -> Iterator[Siblings]:
  """Yields the children of each right node that has right and wrong ones.

  Args:
    tree: a tree of N nodes.
    labels: int8 [N]; RIGHT, WRONG or UNKNOWN for the path to each node.
      Children that are UNKNOWN are left out.
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
  """Returns how often the highest value is right; ties share.

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
  """Returns how often a right sibling is above a wrong one; ties count half."""
  return None if np.isnan(values).any() else auc(values, right)


def across(tree: Tree, labels: np.ndarray) -> float | None:
  """Returns how often a right node is above a wrong one after another prefix.

  Beams, REBASE and the choice of an answer compare such nodes. Training on
  pairs of siblings alone does not make their values comparable. Ties count
  half.

  Args:
    tree: a tree of N nodes.
    labels: int8 [N]; see `decisions`.

  Returns:
    In [0, 1]; None without such pairs, or without a PPM.
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
  """Returns why a search did not give the right answer; None if it did.

  Args:
    tree: a tree of N nodes.
    labels: int8 [N]; see `decisions`.
    chosen: node of the answer that the search gives, None without one.

  Returns:
    "choice": the tree has a right answer, and another was chosen; "search": a
    node that is right so far was never expanded; "policy": all such nodes
    were expanded, without a right child; "unclear": the cause depends on
    nodes that the oracle does not label.
  """
  if chosen is not None and labels[chosen] == RIGHT:
    return None
  if ((tree.terminal == ANSWERED) & (labels == RIGHT)).any():
    return "choice"
  waiting = (tree.terminal == OPEN) & (tree.num_children == 0)
  # A root without children was sampled, and all its candidates were dropped.
  waiting[ROOT_INDEX] = False
  if (waiting & (labels == RIGHT)).any():
    return "search"
  if (labels == UNKNOWN).any():
    return "unclear"
  return "policy"
