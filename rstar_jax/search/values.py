"""Values of partial solutions by a reward model, each scored once.

The steps of a solution are scored in order, and siblings together: the engine
has read the prefix by then, and has it in its pages.
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


def partials_of(
  question: str, nodes: Prefix, how: TrajectoryValue
) -> list[Partial]:
  """Returns the partial solutions whose values `trajectory_value` needs."""
  first = len(nodes) if how == "last" else 1
  return [(question, nodes[:end]) for end in range(first, len(nodes) + 1)]


def values_in_search(
  partials: Iterable[Partial],
) -> Search[dict[Partial, float]]:
  """Scores partial solutions as a part of a search; see `values_of`."""
  values: dict[Partial, float] = {}
  for turn in _turns(partials):
    rows = yield [requests.score(*before, steps) for before, steps in turn]
    values |= _by_partial(turn, rows)
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
    values |= _by_partial(turn, rows)
  return values


# (question, prefix) and the steps after it; the prefixes of a turn are equally
# long.
_Turn = list[tuple[Partial, list[str]]]


def _turns(partials: Iterable[Partial]) -> Iterator[_Turn]:
  """Yields what can be scored together, the shortest prefixes first."""
  after: dict[Partial, list[str]] = {}
  for question, nodes in dict.fromkeys(partials):
    after.setdefault((question, nodes[:-1]), []).append(nodes[-1])
  for length in sorted({len(prefix) for _, prefix in after}):
    yield [each for each in after.items() if len(each[0][1]) == length]


def _by_partial(
  turn: _Turn, rows: Iterable[np.ndarray]
) -> dict[Partial, float]:
  """Returns the values of a turn, by partial solution."""
  return {
    (question, (*prefix, step)): float(value)
    for ((question, prefix), steps), row in zip(turn, rows, strict=True)
    for step, value in zip(steps, row, strict=True)
  }


def trajectory_value(
  values: Mapping[Partial, float],
  question: str,
  nodes: Prefix,
  how: TrajectoryValue,
) -> float:
  """Returns the value of a whole solution; see `tree.trajectory_value`."""
  path = [values[each] for each in partials_of(question, nodes, how)]
  return tree_lib.trajectory_value(path, how)
