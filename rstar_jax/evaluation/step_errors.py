"""Solutions in prose whose wrong steps people marked, and what models say.

The common part of ProcessBench (`processbench.py`) and PRMBench
(`prmbench.py`).
"""

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from rstar_jax import outside
from rstar_jax.data.files import ProblemError, Row
from rstar_jax.search import values as values_lib
from rstar_jax.steps import grammar
from rstar_jax.types import Prefix, Score

_LONGEST = 1 << 20  # Characters of a text.
# Solutions that are scored at once, so that few are in memory.
_AT_ONCE = 64


@dataclasses.dataclass(frozen=True)
class Marked:
  """A solution with its wrong steps.

  Attributes:
    question: plain text.
    steps: texts, at least one.
    wrong: indices of the wrong steps, from 0; none if all are right.
    kind: subset, or kind of error.
  """

  question: str
  steps: tuple[str, ...]
  wrong: frozenset[int]
  kind: str


def fields_of(rows: Iterable[Row]) -> Iterator[tuple[str, Mapping[str, Any]]]:
  """Yields the places and the fields of rows; raises ProblemError."""
  for row in rows:
    if row.error or not isinstance(row.value, Mapping):
      raise ProblemError(f"{row.place}: {row.error or 'is no object'}")
    yield row.place, row.value


def text(fields: Mapping[str, Any], name: str) -> str:
  """Returns a text of a row; raises `outside.Bad`."""
  return outside.string(fields.get(name), name, _LONGEST)


def texts(fields: Mapping[str, Any], name: str) -> tuple[str, ...]:
  """Returns a list of texts of a row, at least one; raises `outside.Bad`."""
  found = tuple(outside.sequence(fields.get(name), name, str))
  if not found:
    raise outside.Bad(f"has no {name}")
  return found


def number(value: Any, what: str, least: int, most: int) -> int:
  """Returns an integer, which a JSON file has as text; see `outside`."""
  if isinstance(value, str) and value.removeprefix("-").isdecimal():
    value = int(value[:20])
  return outside.integer(value, what, least, most)


def nodes_of(steps: Sequence[str]) -> Prefix:
  """Returns steps in prose as texts of nodes.

  A reward model of others does not see the markers; our PPM reads its values at
  them.
  """
  nodes = [f"{step}\n{grammar.END_OF_STEP}" for step in steps]
  return (f"{grammar.CODE}\n{nodes[0]}", *nodes[1:])


def chances(score: Score, marked: Sequence[Marked]) -> list[np.ndarray]:
  """Returns how likely a reward model says each step to be good.

  Args:
    score: gives values v in [-1, 1].
    marked: solutions.

  Returns:
    For each solution float64 [steps], (1 + v) / 2. It is a probability where
    the model gives one, and of a PPM a number in the order of its values.
  """
  found = []
  for start in range(0, len(marked), _AT_ONCE):
    part = [
      values_lib.wanted(each.question, nodes_of(each.steps), "mean")
      for each in marked[start : start + _AT_ONCE]
    ]
    values = values_lib.values_of(score, [p for path in part for p in path])
    found += [
      (1 + np.array([values[each] for each in path], np.float64)) / 2
      for path in part
    ]
  return found


def harmonic(first: float, second: float) -> float:
  """Returns the harmonic mean of two shares; 0 if both are."""
  both = first + second
  return 2 * first * second / both if both else 0.0
