"""Values partial solutions with a reward model, each of them once.

A solution's steps are valued in order, and steps after the same ones together:
what is before them has been read by then, and is in the pages of an engine.
"""

from collections.abc import Iterable, Iterator, Mapping

import numpy as np

from rstar_jax.search import requests
from rstar_jax.search import tree as tree_lib
from rstar_jax.search.requests import Search
from rstar_jax.search.tree import TrajectoryValue
from rstar_jax.types import Prefix, Score

# A partial solution: (question, node texts).
Partial = tuple[str, Prefix]


def wanted(question: str, nodes: Prefix, how: TrajectoryValue) -> list[Partial]:
  """Returns the partial solutions whose values `trajectory_value` needs."""
  first = len(nodes) if how == "last" else 1
  return [(question, nodes[:end]) for end in range(first, len(nodes) + 1)]


def found(partials: Iterable[Partial]) -> Search[dict[Partial, float]]:
  """Has partial solutions scored, as a part of a search; see `values_of`."""
  values: dict[Partial, float] = {}
  for turn in _turns(partials):
    rows = yield [requests.score(*before, steps) for before, steps in turn]
    values |= _named(turn, rows)
  return values


def values_of(
  score: Score, partials: Iterable[Partial]
) -> dict[Partial, float]:
  """Scores partial solutions; repeated ones are scored once.

  Args:
    score: the reward model.
    partials: partial solutions of at least one node.
  """
  values: dict[Partial, float] = {}
  for turn in _turns(partials):
    rows = score(
      [question for (question, _), _ in turn],
      [prefix for (_, prefix), _ in turn],
      [steps for _, steps in turn],
    )
    values |= _named(turn, rows)
  return values


# What steps come after, and these steps; of one number of nodes.
_Turn = list[tuple[Partial, list[str]]]


def _turns(partials: Iterable[Partial]) -> Iterator[_Turn]:
  """Yields what can be scored at once, the shortest prefixes first."""
  after: dict[Partial, list[str]] = {}
  for question, nodes in dict.fromkeys(partials):
    after.setdefault((question, nodes[:-1]), []).append(nodes[-1])
  for length in sorted({len(prefix) for _, prefix in after}):
    yield [each for each in after.items() if len(each[0][1]) == length]


def _named(turn: _Turn, rows: Iterable[np.ndarray]) -> dict[Partial, float]:
  """Returns the values of a turn, by partial solution."""
  return {
    (question, (*prefix, step)): float(value)
    for ((question, prefix), steps), row in zip(turn, rows, strict=True)
    for step, value in zip(steps, row, strict=True)
  }


def trajectory_value(
  found: Mapping[Partial, float],
  question: str,
  nodes: Prefix,
  how: TrajectoryValue,
) -> float:
  """Returns the value of a whole solution; see `tree.trajectory_value`."""
  path = [found[each] for each in wanted(question, nodes, how)]
  return tree_lib.trajectory_value(path, how)
