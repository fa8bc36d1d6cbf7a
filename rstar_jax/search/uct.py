"""UCT selection and backup in one tree, with the source of each formula.

A rollout descends by UCT and ends at an answer. Answers that a rollout has
reached, dead leaves, and nodes with only such nodes below them are `exhausted`
and never selected again, so that every rollout ends at a new answer.
"""

import math
from typing import Literal

import numpy as np

from rstar_jax.config.schema import SearchConfig
from rstar_jax.search.tree import ROOT_INDEX, Tree


def q_values(tree: Tree, node: int) -> np.ndarray:
  """Returns Q(s) = q(s) / N(s) of a node's children, float64 [C].

  An unvisited child has its initial value: the PPM's value if it has one (paper
  Eq. 3), else 0 (Eq. 2).
  """
  span = tree.span(node)
  visits, ppm = tree.visits[span], tree.ppm[span]
  initial = np.where(np.isnan(ppm), 0.0, ppm)
  mean = tree.value_sum[span] / np.maximum(visits, 1)
  return np.where(visits > 0, mean, initial)


def uct_scores(
  tree: Tree, node: int, c: float, unvisited: Literal["zero", "inf"] = "zero"
) -> np.ndarray:
  """Returns UCT(s) = Q(s) + c sqrt(ln N_parent(s) / N(s)) (paper Eq. 1).

  Args:
    tree: the tree.
    node: the parent.
    c: exploration constant.
    unvisited: the score of an unvisited child: its initial value without a
      bonus ("zero", as in the released code), or +inf.

  Returns:
    float64 [C]. The bonus is 0 if the parent is unvisited (the root before its
    first backup, whose children have a visit each by the PPM).
  """
  visits = tree.visits[tree.span(node)]
  log_parent = math.log(max(int(tree.visits[node]), 1))
  bonus = c * np.sqrt(log_parent / np.maximum(visits, 1))
  first = math.inf if unvisited == "inf" else 0.0
  return q_values(tree, node) + np.where(visits > 0, bonus, first)


def select_child(
  tree: Tree, node: int, c: float, unvisited: Literal["zero", "inf"] = "zero"
) -> int:
  """Returns the best child that is not exhausted.

  Of equal scores the first wins; of children with +inf, the highest initial
  value.

  Raises:
    ValueError: if all children are exhausted.
  """
  span = tree.span(node)
  open_ = ~tree.exhausted[span]
  if not open_.any():
    raise ValueError(
      f"tree of {tree.problem.id}: node {node} has no child left to select; "
      "check `exhausted` before a descent"
    )
  scores = np.where(open_, uct_scores(tree, node, c, unvisited), -math.inf)
  best = int(scores.argmax())
  if scores[best] == math.inf:
    initial = np.where(scores == math.inf, q_values(tree, node), -math.inf)
    best = int(initial.argmax())
  return span.start + best


def select_leaf(
  tree: Tree, config: SearchConfig, node: int = ROOT_INDEX
) -> int:
  """Descends from a node to an unexpanded leaf or to an answer.

  Raises:
    ValueError: if all nodes below are exhausted.
  """
  while tree.num_children[node]:
    node = select_child(tree, node, config.c, config.uct_unvisited)
  return node


def finish(tree: Tree, answer: int) -> None:
  """Ends a rollout at an answer: backs up its reward, and closes it."""
  backup(tree, answer, float(tree.reward[answer]))
  tree.close(answer)


def backup(tree: Tree, node: int, value: float) -> None:
  """Adds a terminal's value and a visit to every node from it to the root.

  Paper Eq. 2: q(s_i)^k = q(s_i)^(k-1) + q(s_d)^k, without a discount.
  """
  path = tree.path(node)
  tree.visits[path] += 1
  tree.value_sum[path] += value
