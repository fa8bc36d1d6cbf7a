"""Reads problems: generated ones, or from a file, TFDS, the Hub or a function.

`sources.py` opens a source, `shapes.py` turns its rows into problems. A
malformed row is reported with file, line and reason. A row whose answer cannot
be graded is left out and counted by reason, and so is an exact repetition, id
included.
"""

import collections
import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from absl import logging

from rstar_jax.config.schema import Config, DataConfig
from rstar_jax.data import fields, shapes
from rstar_jax.data.rows import ProblemError, Row
from rstar_jax.data.sources import open_source
from rstar_jax.data.synthetic import generator
from rstar_jax.tasks.named import load_task
from rstar_jax.tasks.task import MATH, Task
from rstar_jax.types import Problem


def load_problems(
  config: DataConfig,
  *,
  task: Task = MATH,
) -> list[Problem]:
  """Reads the problems that a config names.

  Args:
    config: source, count and field names.
    task: of the run. A problem with neither a gradable answer nor tests is left
      out, unless the task has a reward; its answer is None then.

  Returns:
    At least one problem, with unique ids, in the source's order. The number
    of rows left out is logged, with reasons.

  Raises:
    ProblemError: the source or, if `config.on_error` is "raise", its first
      malformed row cannot be used; one line.
  """
  kind, _, name = config.source.partition(":")
  if kind == "synthetic":
    if name not in generator.SPLITS:
      raise ProblemError(
        f"source {config.source!r}: no split {name!r}, only "
        f"{', '.join(generator.SPLITS)}"
      )
    if config.count < 1:
      raise ProblemError(
        f"source {config.source!r} has no end: set count to at least 1, not "
        f"{config.count}"
      )
    return generator.problems(split=name, count=config.count, seed=config.seed)
  name, rows = open_source(config.source, task)
  return _collect(rows, name, config, task.reward is None)


def splits(config: Config) -> Iterator[tuple[str, list[Problem]]]:
  """Yields the source and the problems of each evaluation set of a run."""
  task = load_task(config.task)
  for data in config.eval.sets:
    yield data.source, load_problems(data, task=task)


def _collect(
  rows: Iterator[Row], source: str, config: DataConfig, needs_answer: bool
) -> list[Problem]:
  """Makes problems of rows; logs what is left out."""
  # By id, with the place of the row.
  found: dict[str, tuple[str, Problem]] = {}
  wanted, left_out = _row_filter(config.where), _LeftOut()
  for row in rows:
    if config.count and len(found) == config.count:
      break
    left_out.rows += 1
    try:
      if not wanted(row.value):
        left_out.others += 1
        continue
      problem = shapes.problem_of(row, source, config, needs_answer)
      place, first = found.setdefault(problem.id, (row.place, problem))
      if first is problem:
        continue
      if first != problem:
        raise ProblemError(f"id {problem.id!r} is taken by {place}")
      left_out.repeats += 1
    except shapes.Ungraded as reason:
      left_out.ungraded[str(reason)] += 1
    except ProblemError as error:
      reason = f"{row.place}: {error}"
      if config.on_error == "raise":
        raise ProblemError(f"{reason}; fix it or set on_error='skip'") from None
      left_out.malformed.append(reason)
  notes = "; ".join(left_out.notes(config.where))
  if left_out.malformed or left_out.ungraded or left_out.repeats:
    logging.warning("%s: %s", config.source, notes)
  if not found:
    why = f" ({notes})" if notes else ""
    raise ProblemError(f"{config.source} holds no problems{why}")
  return [problem for _, problem in found.values()]


@dataclasses.dataclass
class _LeftOut:
  """Numbers of rows that give no problem.

  Attributes:
    rows: all rows that were read.
    others: rows that `where` leaves out.
    malformed: what is wrong with malformed rows, with their places.
    ungraded: rows that cannot be graded, by reason.
    repeats: rows that equal an earlier one.
  """

  rows: int = 0
  others: int = 0
  malformed: list[str] = dataclasses.field(default_factory=list)
  ungraded: collections.Counter[str] = dataclasses.field(
    default_factory=collections.Counter
  )
  repeats: int = 0

  def notes(self, where: tuple[str, ...]) -> Iterator[str]:
    """Yields a text for each kind of rows."""
    total = self.rows - self.others
    if self.others:
      yield f"where={where} left out {self.others} rows"
    if self.malformed:
      yield (
        f"skipped {len(self.malformed)} of {total} problems; the first: "
        f"{self.malformed[0]}"
      )
    if self.ungraded:
      reasons = ", ".join(
        f"{n} {why}" for why, n in sorted(self.ungraded.items())
      )
      yield (
        f"left out {self.ungraded.total()} of {total} problems that "
        f"cannot be graded: {reasons}"
      )
    if self.repeats:
      yield f"left out {self.repeats} repeats of problems"


def _row_filter(where: tuple[str, ...]) -> Callable[[Any], bool]:
  """Returns a function that tells whether a row or a problem is wanted.

  Args:
    where: conditions "FIELD=VALUE,VALUE", checked by `config/validation.py`.
  """
  conditions = [
    (name, set(values.split(",")))
    for name, _, values in (each.partition("=") for each in where)
  ]

  def wanted(value: Any) -> bool:
    if isinstance(value, Problem):
      value = value.to_record()
    if not isinstance(value, Mapping):
      return True  # It will be reported as malformed.
    for name, values in conditions:
      try:
        found = fields.value_of(value, name)
      except ProblemError:
        raise ProblemError(
          f"has no field {name!r} for where={where}, only "
          f"{', '.join(sorted(map(str, value)))}"
        ) from None
      if isinstance(found, bool):
        # JSON writes true, and Python True.
        found = str(found).lower()
        values = set(map(str.lower, values))
      if str(found) not in values:
        return False
    return True

  return wanted
