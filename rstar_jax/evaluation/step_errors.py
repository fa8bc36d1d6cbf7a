"""Solutions in prose with known wrong steps, and reward models' view of them.

The common part of ProcessBench (`processbench.py`) and PRMBench
(`prmbench.py`).
"""

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from rstar_jax import outside
from rstar_jax.data.rows import ProblemError, Row
from rstar_jax.search import values as values_lib
from rstar_jax.steps import grammar
from rstar_jax.types import Prefix, Score

_LONGEST = 1 << 20  # Characters of a text.
# Solutions scored at once, which bounds memory.
_AT_ONCE = 64


@dataclasses.dataclass(frozen=True)
class Marked:
  """A solution with its wrong steps.

  Attributes:
    question: plain text.
    steps: texts, at least one.
    wrong: indices of the wrong steps, from 0; empty if all are right.
    kind: subset, or kind of error.
  """

  question: str
  steps: tuple[str, ...]
  wrong: frozenset[int]
  kind: str


def read(
  rows: Iterable[Row], parse: Callable[[Mapping[str, Any]], Marked], name: str
) -> list[Marked]:
  """Reads a benchmark's rows.

  Args:
    rows: objects.
    parse: returns the solution of a row's fields; raises `outside.Bad`.
    name: names the benchmark in errors.

  Raises:
    ProblemError: a row has another form, or there are no rows.
  """
  solutions = []
  for row in rows:
    if row.error or not isinstance(row.value, Mapping):
      raise ProblemError(f"{row.place}: {row.error or 'is no object'}")
    try:
      solutions.append(parse(row.value))
    except outside.Bad as error:
      raise ProblemError(f"{row.place} {error}") from None
  if not solutions:
    raise ProblemError(f"{name} has no solutions")
  return solutions


def text(fields: Mapping[str, Any], name: str) -> str:
  """Returns a row's text field; raises `outside.Bad`."""
  return outside.string(fields.get(name), name, _LONGEST)


def texts(fields: Mapping[str, Any], name: str) -> tuple[str, ...]:
  """Returns a row's list of texts, at least one; raises `outside.Bad`."""
  items = tuple(outside.sequence(fields.get(name), name, str))
  if not items:
    raise outside.Bad(f"has no {name}")
  return items


def number(value: Any, what: str, least: int, most: int) -> int:
  """Returns an integer, which the data may hold as text; see `outside`."""
  if isinstance(value, str) and value.removeprefix("-").isdecimal():
    value = int(value[:20])
  return outside.integer(value, what, least, most)


def nodes_of(steps: Sequence[str]) -> Prefix:
  """Returns steps in prose as node texts.

  Published reward models do not see the step markers; this package's PPM reads
  its values at them.
  """
  nodes = [f"{step}\n{grammar.END_OF_STEP}" for step in steps]
  return (f"{grammar.CODE}\n{nodes[0]}", *nodes[1:])


def chances(score: Score, marked: Sequence[Marked]) -> list[np.ndarray]:
  """Returns a reward model's chance that each step is good.

  Args:
    score: the reward model, with values v in [-1, 1].
    marked: solutions.

  Returns:
    (1 + v) / 2 for each solution, float64 [steps]. It is a probability if the
    model gives probabilities; a PPM's is only an order.
  """
  out = []
  for start in range(0, len(marked), _AT_ONCE):
    part = [
      values_lib.partials_of(each.question, nodes_of(each.steps), "mean")
      for each in marked[start : start + _AT_ONCE]
    ]
    values = values_lib.values_of(score, [p for path in part for p in path])
    out += [
      (1 + np.array([values[each] for each in path], np.float64)) / 2
      for path in part
    ]
  return out


def harmonic(first: float, second: float) -> float:
  """Returns the harmonic mean of two shares; 0 if both are 0."""
  both = first + second
  return 2 * first * second / both if both else 0.0
