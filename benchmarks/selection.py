"""Whether PUCT finds more than UCT and samples of equal cost, in one rollout.

  python -m benchmarks.selection --workdir=runs/long-0,runs/long-1,runs/long-2

The models of a round of runs that differ in their seed solve --problems of
--split, which no run trains on or is evaluated on: by one rollout of UCT and of
PUCT, and by --samples. Prints a JSON line for each way to answer: "right" and
"tokens", means over runs and problems; "by_run", what is right by run; and
"puct_less", the lead of PUCT in points with its 95% interval over runs and
problems.
"""

import dataclasses
import json
from collections.abc import Iterator, Sequence

import numpy as np
from absl import app, flags

from rstar_jax.config import identity
from rstar_jax.config.schema import DataConfig, SearchConfig
from rstar_jax.data.problems import load_problems
from rstar_jax.evaluation import choices, intervals, solutions, solvers
from rstar_jax.pipeline import backends, run
from rstar_jax.search import driver, mcts, sampling
from rstar_jax.search.requests import Calls
from rstar_jax.storage import layout, store
from rstar_jax.types import Problem, Score

_WORKDIR = flags.DEFINE_list("workdir", ["runs/long-0"], "Folders of runs.")
_ROUND = flags.DEFINE_integer("round", 1, "Round of the models.", 1)
_SPLIT = flags.DEFINE_string(
  "split", "long_validation", "The generator's split."
)
_PROBLEMS = flags.DEFINE_integer("problems", 200, "Problems of the split.", 1)
_SAMPLES = flags.DEFINE_integer("samples", 8, "Samples of a problem.", 1)
_CHOICES = ("best", "weighted", "majority", "pass")


def solved(
  workdir: str, problems: Sequence[Problem]
) -> Iterator[tuple[str, list[choices.Outcome]]]:
  """Yields each way to answer, and the outcomes of a run's models."""
  folder = store.path(workdir)
  config = identity.from_json((folder / layout.CONFIG).read_text())
  with run.open_run(config, folder, reads=True) as context:
    backend = backends.trained(context, _ROUND.value)
    yield from answers(
      problems,
      config.eval.search,
      backend.steps(),
      backend.blocks(),
      backend.score,
      config.seed,
    )


def answers(
  problems: Sequence[Problem],
  config: SearchConfig,
  steps: Calls,
  blocks: Calls,
  score: Score,
  seed: int,
) -> Iterator[tuple[str, list[choices.Outcome]]]:
  """Yields each way to answer, and its outcomes by problem.

  Args:
    problems: to solve.
    config: of the searches, but for its rollouts and its selection.
    steps: of searches.
    blocks: of samples; `score` values them.
    score: the reward model.
    seed: of the run.
  """
  name, how, split = ("val",), config.trajectory_value, _SPLIT.value
  for method in ("puct", "uct"):
    selecting = dataclasses.replace(config, rollouts=1, selection=method)
    trees = mcts.search(problems, selecting, steps, seed, name=name)
    rows = [solutions.of_tree(each, method, split, how) for each in trees]
    yield method, [choices.choose(each, "best") for each in rows]
  count = _SAMPLES.value
  samples = driver.run_searches(
    [sampling.solutions(each, count, seed, name=name) for each in problems],
    blocks,
    config.in_flight,
  )
  rows = [
    solutions.of_samples(problem, "samples", split, found)
    for problem, found in zip(problems, samples, strict=True)
  ]
  rows = solvers.rescore(rows, [each.question for each in problems], score, how)
  for choice in _CHOICES:
    yield (
      f"{choice} of {count}",
      [choices.choose(each, choice) for each in rows],
    )


def lines(found: dict[str, list[list[choices.Outcome]]]) -> Iterator[dict]:
  """Yields a line for each way, from its outcomes by run and problem."""
  right = {
    way: np.array([[float(each.right) for each in one] for one in runs])
    for way, runs in found.items()
  }
  for way, runs in found.items():
    apart = 100 * (right["puct"] - right[way])
    yield {
      "way": way,
      "n": right[way].shape[1],
      "right": 100 * float(right[way].mean()),
      "by_run": (100 * right[way].mean(axis=1)).tolist(),
      "tokens": float(np.mean([each.tokens for one in runs for each in one])),
      "puct_less": [float(apart.mean()), *intervals.crossed(apart, 0)],
    }


def main(argv: Sequence[str]) -> None:
  if len(argv) > 1:
    raise app.UsageError(f"{argv[1]!r} is no flag")
  problems = load_problems(
    DataConfig(source=f"synthetic:{_SPLIT.value}", count=_PROBLEMS.value)
  )
  found: dict[str, list[list[choices.Outcome]]] = {}
  for workdir in _WORKDIR.value:
    for way, outcomes in solved(workdir, problems):
      found.setdefault(way, []).append(outcomes)
  for line in lines(found):
    print(json.dumps(line), flush=True)


if __name__ == "__main__":
  app.run(main)
