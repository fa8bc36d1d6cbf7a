"""Solves problems by the methods of a study, on one set of callables.

`sources.py` describes each source of solutions, and what it needs.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from rstar_jax.config.schema import Config, SearchConfig, StudyConfig
from rstar_jax.evaluation import choices, cost, solutions, sources
from rstar_jax.evaluation.solutions import Record
from rstar_jax.search import (
  ab_mcts,
  beam,
  mcts,
  named,
  rebase,
  sampling,
  values,
)
from rstar_jax.search.requests import Calls, Search
from rstar_jax.search.tree import TrajectoryValue, Tree
from rstar_jax.types import Problem, Score


@dataclasses.dataclass(frozen=True)
class Setting:
  """How problems are solved.

  Attributes:
    split: name of the problems' split.
    config: of the run; `study` and `eval.search` are used.
    name: identities that seeds derive from, e.g. the split.
  """

  split: str
  config: Config
  name: Sequence[int | str]


def by_plugin(
  method: str, problems: Sequence[Problem], calls: Calls, setting: Setting
) -> list[Record]:
  """Solves problems by a search plugin.

  Args:
    method: "module:function".
    problems: to solve.
    calls: those of a search.
    setting: config and names.

  Returns:
    One record per problem; see `solutions.py`.
  """
  config = dataclasses.replace(
    setting.config.eval.search,
    method=method,
    rollouts=setting.config.study.trajectories,
  )
  trees = named.search(
    problems,
    config,
    calls,
    seed=setting.config.seed,
    name=(*setting.name, method),
  )
  how = config.trajectory_value
  return [solutions.of_tree(each, method, setting.split, how) for each in trees]


def in_flight(method: str, config: Config) -> int:
  """Returns the most problems that are solved at once."""
  samples = cost.samples_of_study(config)
  return sources.of(method).in_flight(config.eval.search, samples)


def stops_samples(study: StudyConfig) -> bool:
  """Returns whether sampling may stop once the majority is settled."""
  return study.early_stop and study.early_choice == "majority"


def rescore(
  records: Sequence[Record],
  questions: Sequence[str],
  score: Score,
  how: TrajectoryValue,
) -> list[Record]:
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
          yield from values.partials_of(question, tuple(each["steps"]), how)

  by_prefix = values.values_of(score, partials())

  def valued(question: str, each: dict[str, Any]) -> dict[str, Any]:
    if each["answer"] is None:
      return each | {"value": None}
    nodes = tuple(each["steps"])
    value = values.trajectory_value(by_prefix, question, nodes, how)
    return each | {"value": value}

  return [
    record
    | {"trajectories": [valued(question, t) for t in record["trajectories"]]}
    for record, question in zip(records, questions, strict=True)
  ]


def _greedy(problem: Problem, setting: Setting) -> Search[Record]:
  return _sampled("greedy", 1, problem, setting)


def _samples(problem: Problem, setting: Setting) -> Search[Record]:
  count = cost.samples_of_study(setting.config)
  record = yield from _sampled("samples", count, problem, setting)
  stops = stops_samples(setting.config.study)
  return record | {"stop": "majority" if stops else None}


def _sampled(
  source: str, count: int, problem: Problem, setting: Setting
) -> Search[Record]:
  study = setting.config.study
  options = {"name": (*setting.name, source)}
  sample = sampling.solutions
  if source == "samples" and stops_samples(study):
    sample = sampling.solutions_until
    options["confidence"] = study.confidence
  samples = yield from sample(problem, count, setting.config.seed, **options)
  return solutions.of_samples(problem, source, setting.split, samples)


def _beam(problem: Problem, setting: Setting) -> Search[Record]:
  return _beams("beam", 1, problem, setting)


def _diverse_beam(problem: Problem, setting: Setting) -> Search[Record]:
  return _beams(
    "diverse_beam", setting.config.study.beam_groups, problem, setting
  )


def _beams(
  source: str, groups: int, problem: Problem, setting: Setting
) -> Search[Record]:
  config = setting.config
  tree = yield from beam.beams(
    Tree(problem),
    config.study.beam_width,
    config.eval.search,
    config.seed,
    # Both beam methods share a name, and so differ in their groups alone.
    name=(*setting.name, "beam"),
    groups=groups,
  )
  return _one_unit(tree, source, setting)


def _rebase(problem: Problem, setting: Setting) -> Search[Record]:
  study = setting.config.study
  tree = yield from rebase.rebase(
    Tree(problem),
    cost.samples_of_study(setting.config),
    study.rebase_temperature,
    setting.config.eval.search,
    setting.config.seed,
    name=(*setting.name, "rebase"),
  )
  return _one_unit(tree, "rebase", setting)


def _one_unit(tree: Tree, source: str, setting: Setting) -> Record:
  """Returns the record of a search that has answers only at its end."""
  how = setting.config.eval.search.trajectory_value
  # Only finished beams are answers.
  record = solutions.of_tree(tree, source, setting.split, how, visited=True)
  trajectories = [each | {"unit": 0} for each in record["trajectories"]]
  return record | {"trajectories": trajectories, "spent": [record["tokens"]]}


def _mcts(problem: Problem, setting: Setting) -> Search[Record]:
  return _search("mcts", setting.config.eval.search, problem, setting)


def _puct(problem: Problem, setting: Setting) -> Search[Record]:
  config = dataclasses.replace(setting.config.eval.search, selection="puct")
  return _search("puct", config, problem, setting)


def _search(
  source: str, config: SearchConfig, problem: Problem, setting: Setting
) -> Search[Record]:
  count = setting.config.study.trajectories
  # Both searches share a name, and so differ in their selection alone.
  tree = yield from _tree(problem, setting, config, count, "mcts")
  return solutions.of_tree(tree, source, setting.split, config.trajectory_value)


def _ab_mcts(problem: Problem, setting: Setting) -> Search[Record]:
  config = setting.config
  tree = yield from ab_mcts.search_tree(
    Tree(problem),
    config.eval.search,
    config.seed,
    (*setting.name, "ab_mcts"),
    config.study.trajectories,
  )
  how = config.eval.search.trajectory_value
  record = solutions.of_tree(tree, "ab_mcts", setting.split, how, visited=True)
  # In the order in which they were found, which is not the tree's.
  return record | {
    "trajectories": sorted(
      record["trajectories"], key=lambda each: each["unit"]
    )
  }


def _searches(problem: Problem, setting: Setting) -> Search[Record]:
  study, how = setting.config.study, setting.config.eval.search.trajectory_value
  units, trees = study.trajectories, []
  stop = study.early_choice if study.early_stop else None
  while True:
    name = ("search", len(trees))
    tree = yield from _tree(
      problem, setting, setting.config.eval.search, study.rollouts_each, *name
    )
    trees.append(tree)
    record = solutions.of_trees(trees, "searches", setting.split, how)
    settled = stop and (
      choices.settled(record, stop, units, confidence=study.confidence)
      <= len(trees)
    )
    if settled or len(trees) == units:
      return record | {"stop": stop}


def _tree(
  problem: Problem,
  setting: Setting,
  config: SearchConfig,
  rollouts: int,
  *name: str | int,
) -> Search[Tree]:
  return mcts.search_tree(
    Tree(problem),
    config,
    setting.config.seed,
    (*setting.name, *name),
    rollouts,
  )


# A method's `expand` writes whole code blocks for "greedy" (at temperature 0)
# and "samples", and steps for the others, which `score` guides
# (`Source.guided`).
METHODS: dict[str, Callable[[Problem, Setting], Search[Record]]] = {
  "greedy": _greedy,
  "samples": _samples,
  "beam": _beam,
  "diverse_beam": _diverse_beam,
  "rebase": _rebase,
  "mcts": _mcts,
  "puct": _puct,
  "searches": _searches,
  "ab_mcts": _ab_mcts,
}
