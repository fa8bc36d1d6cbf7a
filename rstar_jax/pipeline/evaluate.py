"""Evaluates a round on held-out problems."""

import dataclasses
import functools
from collections.abc import Iterator, Sequence
from typing import Any

from rstar_jax.config.schema import Config
from rstar_jax.data import problems as problems_lib
from rstar_jax.evaluation import cost, methods, solutions, sources
from rstar_jax.pipeline import backends, results
from rstar_jax.pipeline import units as units_lib
from rstar_jax.pipeline.context import Context
from rstar_jax.pipeline.shards import Shard, Unit, begin, cut, finish
from rstar_jax.pipeline.work import Load
from rstar_jax.report import judged
from rstar_jax.search import mcts, named, sampling
from rstar_jax.search.requests import Search
from rstar_jax.search.tree import Tree
from rstar_jax.storage import layout, scalars


def evaluate(context: Context, round_: int) -> None:
  """Solves the held-out problems by each method: round_k/eval.

  Round 0 has no PPM: without an `eval.reward_model` only the greedy policy and
  the majority vote are evaluated.
  """
  folder = context.folder(round_, "eval")
  if begin(context.host, folder) is not None:
    return
  shards = list(_shards(context, round_))
  context.work.search(
    context, functools.partial(Searcher, round_=round_), shards
  )
  finish(context.host, folder, lambda: _measure(context, round_), shards)


def _measure(context: Context, round_: int) -> dict[str, Any]:
  """Writes the metrics of an evaluation; returns its manifest's fields."""
  evaluation, known = context.config.eval, []
  # For generated problems an oracle knows which steps are right.
  if any(each.source.startswith("synthetic:") for each in evaluation.sets):
    folder = context.folder(round_, "eval").parent
    known = judged.of_round(folder, dataclasses.asdict(evaluation))
  rows = results.accuracies(context, round_)
  context.writer.write(round_, scalars.accuracies(rows, known), "eval")
  return {"round": round_}


class Searcher:
  """The models of a round on one host; see `work.py`."""

  def __init__(self, context: Context, round_: int):
    self._context, self._round = context, round_
    search = context.config.eval.search
    self._backend = backend = backends.trained(context, round_)
    self._calls = {
      each: backends.calls_of(backend, each)
      for each in _sources(backend.score is not None)
    }
    # Sources that a search plugin provides.
    self._by_plugin = [
      each
      for each in self._calls
      if sources.of(each).guided and search.method != "mcts"
    ]
    self.load = Load(1 if self._by_plugin else search.in_flight)
    backend.warm_up()

  def __call__(self, shards: Sequence[Shard]) -> None:
    """Solves the problems of shards; writes records, and trees of searches."""
    config, round_, calls = self._context.config, self._round, self._calls
    scored = self._backend.score is not None
    with units_lib.of_stage(
      self._context,
      round_,
      "eval",
      self._backend,
      shards,
      "evaluation",
      load=self.load,
    ) as units:
      units.search(
        lambda unit: (_solve(unit, config, round_, scored), calls[unit.method]),
        config.eval.search.in_flight,
        calls.keys() - set(self._by_plugin),
      )
      for each in self._by_plugin:
        units.search_shards(self._searched, each)

  def _searched(self, shard: Shard) -> list[units_lib.Rows]:
    """Searches a shard's problems by a search plugin."""
    config, first = self._context.config, shard.units[0]
    trees = named.search(
      [unit.problem for unit in shard.units],
      config.eval.search,
      self._calls[first.method],
      config.seed,
      name=("eval", self._round, first.split),
    )
    return [
      _of_tree(tree, unit, config)
      for tree, unit in zip(trees, shard.units, strict=True)
    ]


def _sources(scored: bool) -> list[str]:
  """Returns the sources of solutions, with or without a reward model."""
  return [
    each
    for each in methods.OF_EVALUATION
    if scored or not sources.of(each).guided
  ]


def _shards(context: Context, round_: int) -> Iterator[Shard]:
  """Yields the shards of all splits and sources."""
  config = context.config
  names = _sources(backends.scores(context, round_))
  trees = any(sources.of(each).guided for each in names)
  early = config.eval.early_problems if round_ < len(config.rounds) else 0
  for split, problems in problems_lib.splits(config):
    chosen = {problem.id for problem in problems[: early or len(problems)]}

    def units(part, split=split, chosen=chosen) -> list[Unit]:
      return [
        Unit(problem, each, split)
        for each in names
        for problem in part
        if sources.of(each).greedy or problem.id in chosen
      ]

    yield from cut(
      problems,
      config.shard_size,
      context.folder(round_, "eval") / layout.folder_name(split),
      (layout.TREES_OF, "") if trees else ("",),
      units,
    )


def _solve(
  unit: Unit, config: Config, round_: int, scored: bool
) -> Search[units_lib.Rows]:
  """Searches or samples solutions of one problem."""
  name, source = ("eval", round_, unit.split), sources.of(unit.method)
  if source.guided:
    tree = yield from mcts.search_tree(
      Tree(unit.problem), config.eval.search, config.seed, name
    )
    return _of_tree(tree, unit, config)
  samples = yield from sampling.solutions(
    unit.problem,
    source.count(cost.samples_of_evaluation(config)),
    config.seed,
    name=name,
    scored=scored,
    trajectory_value=config.eval.search.trajectory_value,
  )
  row = solutions.of_samples(unit.problem, unit.method, unit.split, samples)
  return {"": [row]}


def _of_tree(tree: Tree, unit: Unit, config: Config) -> units_lib.Rows:
  how = config.eval.search.trajectory_value
  row = solutions.of_tree(tree, unit.method, unit.split, how)
  return {"": [row], layout.TREES_OF: [tree.to_record()]}
