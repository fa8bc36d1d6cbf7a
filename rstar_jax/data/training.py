"""Loads training problems; leaves out what is in an evaluation set."""

from typing import Any

from absl import logging

from rstar_jax.config.schema import Config
from rstar_jax.data import problems as problems_lib
from rstar_jax.data.decontaminate import Screen
from rstar_jax.data.rows import ProblemError
from rstar_jax.tasks.named import load_task
from rstar_jax.types import Problem


def load(config: Config) -> tuple[list[Problem], dict[str, Any]]:
  """Loads the training problems that are in no evaluation set.

  Args:
    config: `task`, `train`, `eval` and `decontaminate` are used.

  Returns:
    The problems, at least one, and the report of `Screen`, whose summary is
    logged; {} if `decontaminate.ngram` is 0.

  Raises:
    ProblemError: see `problems.load_problems`; or no problem is left.
  """
  problems = problems_lib.load_problems(
    config.train, task=load_task(config.task)
  )
  against = screen(config)
  if against is None:
    return problems, {}
  kept = [
    each for each in problems if not against.holds(each.id, each.question)
  ]
  return kept, reported(against, config.train.source)


def screen(config: Config) -> Screen | None:
  """Loads the evaluation sets that training data are compared with.

  Args:
    config: see `load`.

  Returns:
    None if `decontaminate.ngram` is 0. The sets are loaded in any case, so that
    their errors show early.
  """
  task = load_task(config.task)
  held_out: dict[str, list[Problem]] = {}
  for data in (*config.eval.sets, *config.decontaminate.against):
    # A source may occur twice with different counts.
    held_out.setdefault(data.source, []).extend(
      problems_lib.load_problems(data, task=task)
    )
  ngram = config.decontaminate.ngram
  return Screen(held_out, ngram) if ngram else None


def reported(against: Screen, source: str) -> dict[str, Any]:
  """Returns the report on a source of training data, and logs its summary.

  Raises:
    ProblemError: all of them are in an evaluation set.
  """
  report = against.report()
  logging.info(
    "%s: dropped %d of %d problems that share %d words in a row with an "
    "evaluation set (%s)",
    source,
    report["dropped"],
    report["problems"],
    report["ngram"],
    ", ".join(f"{k}: {v['dropped']}" for k, v in report["sets"].items()),
  )
  if report["dropped"] == report["problems"]:
    raise ProblemError(
      f"{source}: all {report['problems']} problems are in an "
      "evaluation set: train on others, or set decontaminate.ngram=0"
    )
  return report
