"""Records of the solutions that a method found for a problem, with their cost.

A solution names the unit (sample, rollout or search) that found it, so that one
record gives the accuracy at any number of units.

  problem_id, split, level, family, gold: fields of the problem
  source: one of `sources.SOURCES`: "greedy" (one solution at
    temperature 0), "samples", "mcts", ...
  reward: the reward model that gave the values, or null
  stop: the choice whose settling may have ended the record early, or null; if
    not null, other choices cannot be evaluated
  spent: tokens generated up to 1, 2, ... units
  tokens: the last of `spent`
  trajectories: in the order in which they were found, each with
    unit: the unit that found it, from 0
    steps: node texts, as far as they are well-formed
    answer: text, or null where there is none
    verdict: "equal", "different", "undecided" (the grader gave up) or "failed"
      (no answer: code failed, or a limit was hit)
    value: the PPM's score of the whole solution, or null
    tokens: generated for the solution; null in a search
"""

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from rstar_jax.search import sampling
from rstar_jax.search import tree as tree_lib
from rstar_jax.search.tree import TrajectoryValue, Tree
from rstar_jax.types import Problem

# See above.
Record = dict[str, Any]


def of_samples(
  problem: Problem,
  source: str,
  split: str,
  samples: Sequence[sampling.Sample],
) -> Record:
  """Returns the record of sampled solutions; each sample is a unit."""
  trajectories = [
    {
      "unit": unit,
      "steps": list(each.steps),
      "answer": each.answer,
      "verdict": each.verdict or "failed",
      "value": each.value,
      "tokens": each.tokens,
    }
    for unit, each in enumerate(samples)
  ]
  spent = list(itertools.accumulate(each.tokens for each in samples))
  return _record(problem, source, split, trajectories, spent)


def of_tree(
  tree: Tree,
  source: str,
  split: str,
  how: TrajectoryValue,
  visited: bool = False,
) -> Record:
  """Returns the record of one search; each rollout is a unit.

  An answer belongs to the rollout that sampled it; with `visited`, to the first
  rollout that ended there.

  Args:
    tree: a finished search.
    source: one of `sources.SOURCES`.
    split: the problem's split.
    how: the value of a solution; see `tree.trajectory_value`.
    visited: whether answers at which no rollout ended are left out.
  """
  ends = [nodes for _, nodes, _ in tree.growth]
  spent = [tokens for tokens, _, _ in tree.growth]
  if not spent:  # No beam of a beam search was finished.
    ends, spent = [len(tree)], [tree.tokens]
  # Nodes sampled after the last rollout belong to that rollout.
  last = len(ends) - 1
  ended: dict[int, int] = {}
  for unit, (_, _, end) in enumerate(tree.growth):
    ended.setdefault(end, unit)

  def unit_of(node: int) -> int:
    if visited:
      return ended[node]
    return min(int(np.searchsorted(ends, node, side="right")), last)

  trajectories = [
    each | {"unit": unit_of(node)}
    for node, each in _answered(tree, how, visited)
  ]
  spent[-1] = tree.tokens
  return _record(tree.problem, source, split, trajectories, spent)


def of_trees(
  trees: Sequence[Tree],
  source: str,
  split: str,
  how: TrajectoryValue,
) -> Record:
  """Returns the record of one problem's searches; each search is a unit."""
  trajectories = [
    each | {"unit": unit}
    for unit, tree in enumerate(trees)
    for _, each in _answered(tree, how, False)
  ]
  spent = list(itertools.accumulate(tree.tokens for tree in trees))
  return _record(trees[0].problem, source, split, trajectories, spent)


def _answered(
  tree: Tree, how: TrajectoryValue, visited: bool
) -> list[tuple[int, dict]]:
  """Returns the answered nodes of a tree, each with its trajectory."""
  nodes = tree_lib.answers_of(tree, visited)
  return [
    (
      node,
      {
        "steps": list(each.steps),
        "answer": each.answer,
        "verdict": tree_lib.VERDICTS[int(tree.correct[node])],
        "value": each.value,
        "tokens": None,
      },
    )
    for node, each in zip(
      nodes, tree_lib.trajectories(tree, visited, how), strict=True
    )
  ]


def _record(
  problem: Problem,
  source: str,
  split: str,
  trajectories: list[dict],
  spent: list[int],
) -> Record:
  return {
    "problem_id": problem.id,
    "split": split,
    "level": problem.level,
    "family": problem.source,
    "gold": problem.answer,
    "source": source,
    "reward": None,
    "stop": None,
    "spent": spent,
    "tokens": spent[-1],
    "trajectories": trajectories,
  }
