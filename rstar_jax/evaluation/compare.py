"""Compares two runs on the problems that have records in both."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rstar_jax import rng
from rstar_jax.evaluation import choices, cost, intervals, sources
from rstar_jax.evaluation.solutions import Record
from rstar_jax.evaluation.tables import (
  choices_for,
  grouped,
  right_by_problem,
)
from rstar_jax.storage.formatting import grid


def of_evaluation(records: Iterable[Record]) -> list[dict[str, Any]]:
  """Converts the records of an evaluation to records of a study.

  A study has records of samples without values, for votes, and further records
  per reward model. An evaluation's reward model is called "ppm" here, even if
  `eval.reward_model` names another. It is a method's on all problems of a split
  or on none: a problem without an answer has no values that would say so.
  """
  records = list(records)
  valued = {_group(each) for each in records if choices.valued([each])}
  found = []
  for record in records:
    source = sources.of(record["source"])
    rewards: tuple[str | None, ...] = (None,)
    if _group(record) in valued and not source.greedy:
      rewards = (None, "ppm") if source.shared else ("ppm",)
    found += [{**record, "reward": reward} for reward in rewards]
  return found


def _group(record: Record) -> tuple[str, str]:
  return record["split"], record["source"]


def rows(
  first: Iterable[Record], second: Iterable[Record], *, seed: int, k: int = 4
) -> list[dict[str, Any]]:
  """Compares the methods and choices that both runs have.

  Args:
    first: records of the first run; see `solutions.py`.
    second: records of the second run.
    seed: root seed of the bootstrap.
    k: number of solutions that vote in "top_k", at least 1.

  Returns:
    Rows with split, reward, method, choice, units (the smaller of both runs'
    numbers), and "found", an `intervals.Difference`.
  """
  theirs = grouped(second)
  compared = []
  for key, ours in grouped(first).items():
    other = theirs.get(key)
    if other is None:
      continue
    units = min(cost.units_of(ours), cost.units_of(other))
    theirs_too = choices_for(other)
    for choice in filter(theirs_too.__contains__, choices_for(ours)):
      difference = intervals.compare(
        right_by_problem(ours, choice, units, k),
        right_by_problem(other, choice, units, k),
        rng.seed_for(seed, "compare", *map(str, key), choice),
      )
      if difference is not None:
        split, reward, method = key
        compared.append(
          {
            "split": split,
            "reward": reward,
            "method": method,
            "choice": choice,
            "units": units,
            "found": difference,
          }
        )
  return compared


def render(compared: Sequence[Mapping[str, Any]]) -> str:
  """Renders the rows of `rows` as a Markdown table."""
  if not compared:
    return "The two runs have no problem in common that both have solved.\n"
  cells = [
    [
      row["split"],
      row["method"],
      row["reward"] or "-",
      row["choice"],
      str(row["units"]),
      str(row["found"].n),
      f"{100 * row['found'].first:.1f}",
      f"{100 * row['found'].second:.1f}",
      row["found"].points,
      f"{row['found'].only_first}:{row['found'].only_second}",
      f"{row['found'].p:.3f}",
    ]
    for row in compared
  ]
  head = [
    *("Split", "Method", "Guided by", "Choice", "Units", "Problems"),
    *("First, %", "Second, %", "Difference", "Only one right", "McNemar p"),
  ]
  return "\n".join(grid(head, cells)) + "\n"
