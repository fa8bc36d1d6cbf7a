"""Which siblings are right, who picks them, and why a search fails.

Of trees of generated problems, by `data/synthetic/oracle.py`.
"""

import dataclasses
from collections.abc import Iterator
from typing import Literal

import numpy as np

from rstar_jax.evaluation.quality import auc
from rstar_jax.search.tree import ANSWERED, OPEN, RIGHT, UNKNOWN, Tree

Failure = Literal["policy", "search", "choice", "unclear"]


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


def decisions(tree: Tree, labels: np.ndarray) -> Iterator[Siblings]:
  """Yields the siblings among which there is something to decide.

  Args:
    tree: a tree.
    labels: `oracle.labels` of it; children that are UNKNOWN are left out.
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


def failure(
  tree: Tree, labels: np.ndarray, chosen: int | None
) -> Failure | None:
  """Says why a search did not give the right answer, None if it did.

  Args:
    tree: a tree.
    labels: `oracle.labels` of it.
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
  waiting[0] = False
  if (waiting & (labels == RIGHT)).any():
    return "search"
  if (labels == UNKNOWN).any():
    return "unclear"
  return "policy"
