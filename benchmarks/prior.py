"""A search that trusts the policy too, as a plugin, and its figures.

  rstar_jax study --config=CONFIG --workdir=DIR --round=1 \\
    --config.study.methods='("mcts", "benchmarks.prior:search")'
  python -m benchmarks.prior --workdir=runs/long-0,runs/long-1,runs/long-2

A PPM may know less about the next step than the policy that it guides
(docs/results/tiny_long.md). This is MCTS with PUCT in the place of UCT (Silver
et al. 2017, "Mastering the game of Go without human knowledge", Methods):

  score(s) = Q(s) + c P(s) sqrt(N of all siblings) / (1 + N(s))

P(s) is the policy's probability of a child's text at temperature 1, as a share
of its siblings'; c is `search.c`.

The command solves --problems of --split, which no run trains on or is evaluated
on, with the models of a round of runs that differ in their seed: by one rollout
of each search, and by --samples. It prints a JSON line for each way to answer:
"right" and "tokens", means over runs and problems; "by_run", what is right by
run; and "puct_less", the lead of PUCT in points with its 95% interval over runs
and problems.
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
from rstar_jax.search import driver, mcts, sampling, uct
from rstar_jax.search.requests import Calls
from rstar_jax.search.tree import ROOT_INDEX, Tree
from rstar_jax.storage import layout, store
from rstar_jax.types import Problem

_WORKDIR = flags.DEFINE_list("workdir", ["runs/long-0"], "Folders of runs.")
_ROUND = flags.DEFINE_integer("round", 1, "Round of the models.", 1)
_SPLIT = flags.DEFINE_string(
  "split", "long_validation", "The generator's split."
)
_PROBLEMS = flags.DEFINE_integer("problems", 200, "Problems of the split.", 1)
_SAMPLES = flags.DEFINE_integer("samples", 8, "Samples of a problem.", 1)
_CHOICES = ("best", "weighted", "majority", "pass")


def scores(tree: Tree, node: int, c: float) -> np.ndarray:
  """Returns the scores of a node's children, float64 [C]."""
  span = tree.span(node)
  visits, logprob = tree.visits[span], tree.logprob[span]
  share = np.exp(logprob - logprob.max())
  bonus = c * share / share.sum() * np.sqrt(visits.sum()) / (1 + visits)
  return uct.q_values(tree, node) + bonus


def select_leaf(
  tree: Tree, config: SearchConfig, node: int = ROOT_INDEX
) -> int:
  """Descends from a node to an unexpanded leaf or to an answer."""
  while tree.num_children[node]:
    span = tree.span(node)
    found = scores(tree, node, config.c)
    node = span.start + int(
      np.where(tree.exhausted[span], -np.inf, found).argmax()
    )
  return node


def search(
  problems: Sequence[Problem],
  config: SearchConfig,
  calls: Calls,
  seed: int = 0,
  name: Sequence[int | str] = (),
) -> list[Tree]:
  """Searches one tree for each problem; see `mcts.search`."""
  return mcts.search(
    problems, config, calls, seed, name=name, select=select_leaf
  )


def solved(
  workdir: str, problems: Sequence[Problem]
) -> Iterator[tuple[str, list[choices.Outcome]]]:
  """Yields each way to answer, and the outcomes of a run's models."""
  folder = store.path(workdir)
  config = identity.from_json((folder / layout.CONFIG).read_text())
  settings = dataclasses.replace(config.eval.search, rollouts=1)
  how, name = settings.trajectory_value, ("val",)
  with run.open_run(config, folder, reads=True) as context:
    backend = backends.trained(context, _ROUND.value)
    for method, select in (("puct", select_leaf), ("uct", uct.select_leaf)):
      trees = mcts.search(
        *(problems, settings, backend.steps(), config.seed),
        name=name,
        select=select,
      )
      rows = [
        solutions.of_tree(each, method, _SPLIT.value, how) for each in trees
      ]
      yield method, [choices.choose(each, "best") for each in rows]
    count = _SAMPLES.value
    samples = driver.run_searches(
      [
        sampling.solutions(each, count, config.seed, name=name)
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
    rows = solvers.rescore(rows, questions, backend.score, how)
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
