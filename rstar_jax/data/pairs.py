"""Makes preference pairs for the PPM from trees (paper section 3.3, A.1).

Q-values are too noisy as regression targets but good enough for ranking. At
each node, the best and worst children form pairs that share a prefix. For the
final answer, full trajectories are paired, which share only the question.

Pairs of siblings train the order among siblings alone, while a search also
compares steps after different prefixes: `extract.pairs_across` adds pairs of
those.
"""

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from rstar_jax import rng
from rstar_jax.config.schema import ExtractConfig
from rstar_jax.data import trajectories as trajectories_lib
from rstar_jax.search import tree as tree_lib
from rstar_jax.search.tree import Tree
from rstar_jax.types import PairKind, PreferencePair, Prefix, Problem


class _Side(NamedTuple):
  """A candidate for one side of a pair: its node texts and its Q."""

  prefix: Prefix
  q: float


def pairs(
  trees: Iterable[Tree], config: ExtractConfig
) -> tuple[list[PreferencePair], dict[str, int]]:
  """Makes the preference pairs of all problems.

  At each node, the positives are the `config.positives` children of highest Q
  with a right answer at or below them, the negatives the `config.negatives`
  children of lowest Q with a wrong one. A child can be both, but is not paired
  with itself. For the final answer, the positives are the problem's right
  trajectories of highest average Q over all its trees, the negatives its wrong
  ones of lowest. All positives are paired with all negatives; pairs whose Q
  differs by more than `config.min_margin` are kept. Each weighs 1 / (p x n),
  with p and n the numbers of distinct positives and negatives in these pairs
  (Eq. 4). A pair that an earlier tree of the problem gave is left out, and does
  not count in p and n.

  With `config.pairs_across` each step pair of a problem adds a pair of the same
  weight: a node with a right answer at or below it, and one with wrong answers
  alone that has another parent. Both are drawn from all such nodes of the
  problem's trees, each once before any is drawn again; the margin of Q is that
  of the other pairs.

  A child counts only if a rollout visited it or it is an answer; a child
  without a graded answer below it is neither positive nor negative. Steps whose
  code failed are not nodes and hence not negatives.

  Args:
    trees: searched trees with graded answers; several may share a problem.
    config: `positives`, `negatives`, `min_margin`, `final_pairs`,
      `pairs_across` and `max_pairs_per_problem` are used.

  Returns:
    The pairs, by problem in order of first appearance, for each the step pairs
    in order of nodes, then those across prefixes, then the final pairs; and
    counts: problems, with_pairs, step, across, final (pairs kept), low_margin,
    repeated, over_cap (pairs left out).
  """
  all_pairs: list[PreferencePair] = []
  stats = dict.fromkeys(
    (
      *("problems", "with_pairs", "step", "across", "final"),
      *("low_margin", "repeated", "over_cap"),
    ),
    0,
  )
  for group in trajectories_lib.by_problem(trees):
    candidates = _of_problem(group, config, stats)
    kept = _evenly(candidates, config.max_pairs_per_problem)
    stats["problems"] += 1
    stats["with_pairs"] += bool(kept)
    stats["over_cap"] += len(candidates) - len(kept)
    for pair in kept:
      stats[pair.kind] += 1
    all_pairs += kept
  return all_pairs, stats


def from_dict(row: Mapping[str, Any]) -> PreferencePair:
  """Returns the pair of a stored row.

  Raises:
    TypeError: if a field is missing or unknown.
  """
  return PreferencePair(
    **{
      **row,
      "chosen": tuple(row["chosen"]),
      "rejected": tuple(row["rejected"]),
    }
  )


def _of_problem(
  trees: Sequence[Tree], config: ExtractConfig, stats: dict[str, int]
) -> list[PreferencePair]:
  """Makes a problem's pairs, and counts what is left out; see `pairs`."""
  made = _Pairs(trees[0].problem, config, stats)
  to_right: list[_Side] = []
  to_wrong: list[_Side] = []
  for tree in trees:
    for right, wrong in _siblings(tree):
      made.add_extremes("step", right, wrong)
      to_right += right
      to_wrong += wrong
  if config.pairs_across:
    _add_across(made, to_right, to_wrong)
  if config.final_pairs:
    right, wrong, _ = (
      [_Side(t.steps, t.mean_q) for t in side]
      for side in trajectories_lib.graded(trees)
    )
    made.add_extremes("final", right, wrong)
  return made.pairs


class _Pairs:
  """The pairs of a problem, each once.

  Attributes:
    problem: the problem.
    pairs: in the order in which they were added.
  """

  def __init__(
    self, problem: Problem, config: ExtractConfig, stats: dict[str, int]
  ):
    """Starts without pairs; `stats` counts low_margin and repeated."""
    self.problem, self.pairs = problem, list[PreferencePair]()
    self._config, self._stats = config, stats
    self._seen: set[tuple[str, Prefix, Prefix]] = set()

  def add_extremes(
    self, kind: PairKind, right: list[_Side], wrong: list[_Side]
  ) -> None:
    """Pairs the right sides of highest Q with the wrong ones of lowest."""
    positives = _distinct(sorted(right, key=lambda side: -side.q))
    negatives = _distinct(sorted(wrong, key=lambda side: side.q))
    self.add(
      kind,
      positives[: self._config.positives],
      negatives[: self._config.negatives],
    )

  def add(
    self,
    kind: PairKind,
    positives: list[_Side],
    negatives: list[_Side],
    weight: float = 1.0,
  ) -> None:
    """Pairs all positives with all negatives, which share the weight."""
    decided = []
    for chosen in positives:
      for rejected in negatives:
        key = kind, chosen.prefix, rejected.prefix
        if chosen.prefix == rejected.prefix:
          continue
        if not chosen.q - rejected.q > self._config.min_margin:
          self._stats["low_margin"] += 1
        elif key in self._seen:
          self._stats["repeated"] += 1
        else:
          self._seen.add(key)
          decided.append((chosen.prefix, rejected.prefix))
    # Sides of equal text count once.
    sides = [len(set(side)) for side in zip(*decided, strict=True)]
    self.pairs.extend(
      PreferencePair(
        problem_id=self.problem.id,
        question=self.problem.question,
        chosen=chosen,
        rejected=rejected,
        weight=weight / (sides[0] * sides[1]),
        kind=kind,
      )
      for chosen, rejected in decided
    )


def _siblings(tree: Tree) -> Iterator[tuple[list[_Side], list[_Side]]]:
  """Yields, of each node's children, those that lead to right and to wrong."""
  right = _below(tree, tree_lib.RIGHT)
  wrong = _below(tree, tree_lib.WRONG)
  known = (tree.visits > 0) | (tree.terminal == tree_lib.ANSWERED)
  for node in np.flatnonzero(tree.num_children):
    children = [c for c in tree.children(int(node)) if known[c]]
    sides = {c: _Side(tree.prefix(c), tree.q(c)) for c in children}
    yield (
      [sides[c] for c in children if right[c]],
      [sides[c] for c in children if wrong[c]],
    )


def _add_across(
  made: _Pairs, to_right: list[_Side], to_wrong: list[_Side]
) -> None:
  """Adds a pair of nodes with different parents for each pair so far."""
  random = np.random.default_rng(rng.seed_for(0, "across", made.problem.id))
  # A step leads to wrong answers alone only if it does so in all trees.
  rightly = {each.prefix for each in to_right}
  to_wrong = [each for each in to_wrong if each.prefix not in rightly]
  turns = (_in_turn(each, random) for each in (to_right, to_wrong))
  for step, right, wrong in zip(tuple(made.pairs), *turns, strict=False):
    if right.prefix[:-1] != wrong.prefix[:-1]:
      made.add("across", [right], [wrong], step.weight)


def _below(tree: Tree, verdict: int) -> np.ndarray:
  """Returns whether each node has such an answer at or below it, bool [N]."""
  below = (tree.terminal == tree_lib.ANSWERED) & (tree.correct == verdict)
  for node in range(len(tree) - 1, 0, -1):  # Children come after parents.
    below[tree.parent[node]] |= below[node]
  return below


def _in_turn(
  sides: list[_Side], random: np.random.Generator
) -> Iterator[_Side]:
  """Cycles through the sides in a random order."""
  different = _distinct(sides)
  order = random.permutation(len(different))
  return itertools.cycle([different[index] for index in order])


def _distinct(sides: list[_Side]) -> list[_Side]:
  """Returns the first side of each text."""
  first: dict[Prefix, _Side] = {}
  for side in sides:
    first.setdefault(side.prefix, side)
  return list(first.values())


def _evenly(
  candidates: list[PreferencePair], limit: int
) -> list[PreferencePair]:
  """Returns `limit` evenly spaced pairs; all of them for 0."""
  if not 0 < limit < len(candidates):
    return candidates
  return [
    candidates[index * len(candidates) // limit] for index in range(limit)
  ]
