"""Loads the training problems of a run, without those of evaluation sets."""

from typing import Any

from absl import logging

from rstar_jax.config.schema import Config
from rstar_jax.data import problems as problems_lib
from rstar_jax.data.decontaminate import decontaminate
from rstar_jax.data.files import ProblemError
from rstar_jax.tasks.named import load_task
from rstar_jax.types import Problem


def load(config: Config) -> tuple[list[Problem], dict[str, Any]]:
  """Loads the training problems that are in no evaluation set.

  Args:
    config: `task`, `train`, `eval` and `decontaminate` are used.

  Returns:
    The problems, at least one, and the report of `decontaminate`, whose summary
    is logged; {} if `decontaminate.ngram` is 0. The evaluation sets are loaded
    in any case, so that their errors show early.

  Raises:
    ProblemError: see `problems.load_problems`; or no problem is left.
  """
  task = load_task(config.task)
  problems = problems_lib.load_problems(config.train, task=task)
  held_out: dict[str, list[Problem]] = {}
  for data in (*config.eval.sets, *config.decontaminate.against):
    # A source may occur twice with different counts.
    held_out.setdefault(data.source, []).extend(
      problems_lib.load_problems(data, task=task)
    )
  if not config.decontaminate.ngram:
    return problems, {}
  kept, report = decontaminate(problems, held_out, config.decontaminate.ngram)
  logging.info(
    "%s: dropped %d of %d problems that share %d words in a row with an "
    "evaluation set (%s)",
    config.train.source,
    report["dropped"],
    report["problems"],
    report["ngram"],
    ", ".join(f"{k}: {v['dropped']}" for k, v in report["sets"].items()),
  )
  if not kept:
    raise ProblemError(
      f"{config.train.source}: all {len(problems)} problems are in an "
      "evaluation set: train on others, or set decontaminate.ngram=0"
    )
  return kept, report
