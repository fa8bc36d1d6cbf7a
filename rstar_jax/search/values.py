"""Values partial solutions with a reward model, each of them once."""

import math
from collections.abc import Iterable, Mapping

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
  keys = list(dict.fromkeys(partials))
  scored = yield [
    requests.score(question, nodes[:-1], nodes[-1:]) for question, nodes in keys
  ]
  return {key: float(v[0]) for key, v in zip(keys, scored, strict=True)}


def values_of(
  score: Score, partials: Iterable[Partial]
) -> dict[Partial, float]:
  """Scores partial solutions; repeated ones are scored once.

  Args:
    score: the reward model.
    partials: partial solutions of at least one node.
  """
  # Solutions of a problem share prefixes.
  found = dict.fromkeys(partials, math.nan)
  values = score(
    [question for question, _ in found],
    [nodes[:-1] for _, nodes in found],
    [nodes[-1:] for _, nodes in found],
  )
  for key, value in zip(found, values, strict=True):
    found[key] = float(value[0])
  return found


def trajectory_value(
  found: Mapping[Partial, float],
  question: str,
  nodes: Prefix,
  how: TrajectoryValue,
) -> float:
  """Returns the value of a whole solution; see `tree.trajectory_value`."""
  path = [found[each] for each in wanted(question, nodes, how)]
  return tree_lib.trajectory_value(path, how)
