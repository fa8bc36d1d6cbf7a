"""The methods that a study compares, on one set of callables.

  greedy        one solution at temperature 0
  samples       independent solutions; a unit is a solution
  beam          step beam search; the whole search is one unit
  diverse_beam  step beam search in groups that differ in their first steps
  mcts          one search; a unit is a rollout
  searches      independent searches; a unit is one
  module:function  a search of the user's (`SearchConfig.method`); a unit is a
                rollout, where it records them

A reward model guides all but the first two. "samples" needs none; each reward
model then scores the same samples.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from rstar_jax.config.schema import Config
from rstar_jax.evaluation import choices, solutions
from rstar_jax.search import beam, mcts, named, sampling, values
from rstar_jax.search.requests import Calls
from rstar_jax.search.tree import TrajectoryValue, Tree
from rstar_jax.types import Problem, Score


@dataclasses.dataclass(frozen=True)
class Task:
  """Problems of one split, and the callables that solve them.

  Attributes:
    split: name of the split.
    config: the run's; `study` and `eval.search` are used.
    calls: of whole code blocks for "greedy" (at temperature 0) and "samples",
      of steps for the others.
    name: identities that seeds are derived from, e.g. the split.
  """

  problems: Sequence[Problem]
  split: str
  config: Config
  calls: Calls
  name: Sequence[int | str]


def solve(method: str, task: Task) -> list[dict[str, Any]]:
  """Solves problems by one method.

  Args:
    method: one of `METHODS`, or "module:function".
    task: the problems; `calls.score` guides, where the method `is_guided`.

  Returns:
    One record per problem; see `solutions.py`.
  """
  if method in METHODS:
    return METHODS[method](task)
  config = dataclasses.replace(
    task.config.eval.search,
    method=method,
    rollouts=task.config.study.trajectories,
  )
  trees = named.search(
    task.problems,
    config,
    task.calls,
    seed=task.config.seed,
    name=(*task.name, method),
  )
  how = config.trajectory_value
  return [solutions.of_tree(each, method, task.split, how) for each in trees]


def is_guided(method: str) -> bool:
  """Says whether a reward model guides a method while it searches."""
  return method not in ("greedy", "samples")


def rescore(
  records: Sequence[dict[str, Any]],
  questions: Sequence[str],
  score: Score,
  how: TrajectoryValue,
) -> list[dict[str, Any]]:
  """Returns records with the values of another reward model.

  Args:
    records: records with the texts of all solutions.
    questions: the question of each record's problem.
    score: the other reward model.
    how: the value of a solution; see `tree.trajectory_value`.
  """

  def partials():
    for record, question in zip(records, questions, strict=True):
      for each in record["trajectories"]:
        if each["answer"] is not None:
          yield from values.wanted(question, tuple(each["steps"]), how)

  found = values.values_of(score, partials())

  def valued(question: str, each: dict[str, Any]) -> dict[str, Any]:
    if each["answer"] is None:
      return each | {"value": None}
    nodes = tuple(each["steps"])
    value = values.trajectory_value(found, question, nodes, how)
    return each | {"value": value}

  return [
    record
    | {"trajectories": [valued(question, t) for t in record["trajectories"]]}
    for record, question in zip(records, questions, strict=True)
  ]


def _greedy(task: Task) -> list[dict]:
  return _sampled("greedy", 1, task)


def _samples(task: Task) -> list[dict]:
  count = task.config.study.trajectories
  return _stopped(task, _sampled("samples", count, task))


def _sampled(source: str, count: int, task: Task) -> list[dict]:
  early = task.config.study.early_stop
  found = (sampling.sample_until if early else sampling.sample)(
    task.problems,
    count,
    task.calls,
    task.config.seed,
    name=(*task.name, source),
    in_flight=sampling.in_flight_of(task.config.eval.search, count),
  )
  return [
    solutions.of_samples(problem, source, task.split, each)
    for problem, each in zip(task.problems, found, strict=True)
  ]


def _stopped(task: Task, records: list[dict]) -> list[dict]:
  """Marks records with the choice that may have ended them early."""
  stop = "majority" if task.config.study.early_stop else None
  return [each | {"stop": stop} for each in records]


def _beam(task: Task) -> list[dict]:
  return _beams("beam", 1, task)


def _diverse_beam(task: Task) -> list[dict]:
  return _beams("diverse_beam", task.config.study.beam_groups, task)


def _beams(source: str, groups: int, task: Task) -> list[dict]:
  config = task.config
  trees = beam.beam_search(
    task.problems,
    config.study.beam_width,
    config.eval.search,
    task.calls,
    seed=config.seed,
    # Both beam methods share a name, and so differ in their groups alone.
    name=(*task.name, "beam"),
    groups=groups,
  )
  how = config.eval.search.trajectory_value
  return [
    # Only finished beams are answers, known once all beams are finished.
    _one_unit(solutions.of_tree(tree, source, task.split, how, visited=True))
    for tree in trees
  ]


def _one_unit(record: dict[str, Any]) -> dict[str, Any]:
  trajectories = [each | {"unit": 0} for each in record["trajectories"]]
  return record | {"trajectories": trajectories, "spent": [record["tokens"]]}


def _mcts(task: Task) -> list[dict]:
  trees = _search(task, task.config.study.trajectories, "mcts")
  how = task.config.eval.search.trajectory_value
  return [solutions.of_tree(each, "mcts", task.split, how) for each in trees]


def _searches(task: Task) -> list[dict]:
  study, how = task.config.study, task.config.eval.search.trajectory_value
  units = study.trajectories
  forest: list[list[Tree]] = [[] for _ in task.problems]

  def record(trees: list[Tree]) -> dict[str, Any]:
    return solutions.of_trees(trees, "searches", task.split, how)

  going = list(range(len(task.problems)))
  for number in range(units):
    part = dataclasses.replace(task, problems=[task.problems[i] for i in going])
    trees = _search(part, study.rollouts_each, "search", number)
    for i, tree in zip(going, trees, strict=True):
      forest[i].append(tree)
    if study.early_stop:
      going = [
        i
        for i in going
        if choices.settled(record(forest[i]), "majority", units) > number + 1
      ]
  return _stopped(task, list(map(record, forest)))


def _search(task: Task, rollouts: int, *name: str | int) -> list[Tree]:
  config = dataclasses.replace(task.config.eval.search, rollouts=rollouts)
  return mcts.search(
    task.problems,
    config,
    task.calls,
    seed=task.config.seed,
    name=(*task.name, *name),
  )


METHODS: dict[str, Callable[[Task], list[dict[str, Any]]]] = {
  "greedy": _greedy,
  "samples": _samples,
  "beam": _beam,
  "diverse_beam": _diverse_beam,
  "mcts": _mcts,
  "searches": _searches,
}
