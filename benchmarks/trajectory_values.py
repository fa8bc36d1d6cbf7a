"""How the values of a solution's steps are best made one, on validation data.

  make demo
  python -m benchmarks.trajectory_values --workdir=runs/tiny

The models of a round solve --problems of --split, which no run trains on or is
evaluated on. Each search of --backups backs up solutions' values by one of
"last", "mean" and "min" (`search.trajectory_value`); of its tree, as of as many
samples as a run's evaluation takes, answers are chosen by each of the three.

Prints JSON lines: "right" for each round, search (or "samples"), choice and way
to make values: how often the answer is right, and generated tokens. "gap": that
less the same by the last value, in points, with 95% bootstrap intervals over
problems, paired; for searches by the same values backed up, and, in "whole",
with the way both backed up and chosen by.
"""

import dataclasses
from typing import get_args

import numpy as np
from absl import app, flags

from benchmarks import lines
from rstar_jax.config import identity
from rstar_jax.config.schema import DataConfig
from rstar_jax.data.problems import load_problems
from rstar_jax.evaluation import choices, cost, intervals, solutions, solvers
from rstar_jax.pipeline import backends, run
from rstar_jax.pipeline.context import Context
from rstar_jax.search import driver, mcts, sampling
from rstar_jax.search.tree import TrajectoryValue, Tree
from rstar_jax.storage import layout, store
from rstar_jax.types import Problem

_WORKDIR = flags.DEFINE_string("workdir", "runs/tiny", "Folder of a run.")
_ROUNDS = flags.DEFINE_list("rounds", ["4"], "Rounds of the models.")
_SPLIT = flags.DEFINE_string("split", "validation", "The generator's split.")
_PROBLEMS = flags.DEFINE_integer("problems", 200, "Problems of the split.", 1)
_WAYS: tuple[TrajectoryValue, ...] = get_args(TrajectoryValue)
_BACKUPS = flags.DEFINE_list("backups", list(_WAYS), "Values to back up.")
_CHOICES = ("best", "weighted")
# (what was made, how its solutions are valued, choice) -> bool [P].
Verdicts = dict[tuple[str, str, str], np.ndarray]


def solved(
  context: Context, backend: backends.ModelBackend, problems: list[Problem]
) -> tuple[Verdicts, dict[str, float]]:
  """Solves problems; returns what was right, and tokens by what was made."""
  config, verdicts, tokens = context.config, {}, {}
  settings, count = config.eval.search, cost.samples_of_evaluation(config)

  def keep(made: str, rows: list[dict], how: str) -> None:
    for choice in _CHOICES:
      found = [choices.choose(row, choice) for row in rows]
      verdicts[made, how, choice] = np.array([each.right for each in found])
      tokens[made] = float(np.mean([each.tokens for each in found]))

  samples = driver.run_searches(
    [
      sampling.solutions(each, count, config.seed, name=("values",))
      for each in problems
    ],
    backend.blocks(),
    settings.in_flight,
  )
  rows = [
    solutions.of_samples(problem, "samples", _SPLIT.value, found)
    for problem, found in zip(problems, samples, strict=True)
  ]
  questions = [each.question for each in problems]
  for how in _WAYS:
    keep("samples", solvers.rescore(rows, questions, backend.score, how), how)
  for backup in _BACKUPS.value:
    search = dataclasses.replace(settings, trajectory_value=backup)
    trees = driver.run_searches(
      [
        mcts.search_tree(Tree(each), search, config.seed, ("values",))
        for each in problems
      ],
      backend.steps(),
      settings.in_flight,
    )
    for how in _WAYS:
      rows = [
        solutions.of_tree(each, "mcts", _SPLIT.value, how) for each in trees
      ]
      keep(f"search, {backup}", rows, how)
  return verdicts, tokens


def report(round_: int, verdicts: Verdicts, tokens: dict[str, float]) -> None:
  """Prints the lines of a round."""

  def gap(of: str, by: str, one: np.ndarray, other: np.ndarray) -> None:
    apart = 100.0 * (one.astype(float) - other)
    lines.show(
      "gap",
      **dict(round=round_, of=of, by=by),
      points=[float(apart.mean()), *intervals.bootstrap(apart, 0)],
    )

  for (made, how, choice), right in verdicts.items():
    lines.show(
      "right",
      **dict(round=round_, of=made, by=how, choice=choice, n=len(right)),
      **dict(right=float(right.mean()), tokens=tokens[made]),
    )
  for (made, how, choice), right in verdicts.items():
    if how != "last":
      gap(f"{made}, {choice}", how, right, verdicts[made, "last", choice])
  others = [each for each in _BACKUPS.value if each != "last"]
  for how in others if "last" in _BACKUPS.value else ():
    for choice in _CHOICES:
      gap(
        f"whole, {choice}",
        how,
        verdicts[f"search, {how}", how, choice],
        verdicts["search, last", "last", choice],
      )


def main(_):
  folder = store.path(_WORKDIR.value)
  config = identity.from_json((folder / layout.CONFIG).read_text())
  source = DataConfig(source=f"synthetic:{_SPLIT.value}", count=_PROBLEMS.value)
  problems = load_problems(source)
  with run.open_run(config, folder, reads=True) as context:
    for round_ in map(int, _ROUNDS.value):
      backend = backends.trained(context, round_)
      report(round_, *solved(context, backend, problems))


if __name__ == "__main__":
  app.run(main)
