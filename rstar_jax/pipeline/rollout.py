"""The rollout stage: from problems to trees.

Round k searches with the policy of round k - 1 (round 0 is the base model, or
the larger one at `remote.url`) and, if a PPM annotates its trees, the PPM of
round k - 1 (paper section 3.4, A.1).
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

from rstar_jax.config import identity
from rstar_jax.config.schema import Config, SearchConfig
from rstar_jax.data import counts as counts_lib
from rstar_jax.data import outcomes, pools, training
from rstar_jax.pipeline import backends, checks
from rstar_jax.pipeline import units as units_lib
from rstar_jax.pipeline.context import Context
from rstar_jax.pipeline.shards import Shard, begin, cut, finish
from rstar_jax.pipeline.work import Load
from rstar_jax.search import mcts, named, sampled_tree
from rstar_jax.search import tree as tree_lib
from rstar_jax.search.requests import Search
from rstar_jax.search.tree import ROOT_INDEX, Tree
from rstar_jax.storage import json_io, layout, manifests, scalars, store
from rstar_jax.types import Problem

# Fields of `search` that a round has too, and so replaces.
_OF_ROUND = ("rollouts", "candidates", "annotation")


def check_search(context: Context) -> None:
  """Checks that `search` sets nothing that rounds replace.

  Runs that have begun are not checked, since earlier versions let them.

  Raises:
    ValueError: it does; the message names the round's field.
  """
  said = in_vain(context.config.search)
  if said and not checks.begun(context.workdir):
    raise ValueError(said)


def in_vain(search: SearchConfig) -> str:
  """Returns a line on a setting of `search` that rounds replace, "" if none."""
  usual = SearchConfig()
  for name in (*_OF_ROUND, "terminal_reward"):
    value, default = (getattr(each, name) for each in (search, usual))
    if value != default:
      instead = (
        f"rounds have their own, config.rounds[k].{name}"
        if name in _OF_ROUND
        else "rounds learn from the truth"
      )
      return (
        f"config.search.{name}={value!r} does nothing in a run: {instead}; "
        f"leave it {default!r}"
      )
  return ""


def rollout(context: Context, round_: int) -> None:
  """Searches all training problems: round_k/trees.

  Problems that overlap with an evaluation set are left out, and listed in
  decontamination.json.
  """
  folder = context.folder(round_, "trees")
  if begin(context.host, folder) is not None:
    return
  problems, retired = problems_of(context, round_)
  shards = cut(
    _hardest_first(context, round_, problems),
    context.config.shard_size,
    folder,
    info=outcomes.header_of,
  )
  _check_order(shards)
  make = functools.partial(Searcher, round_=round_)
  context.work.search(context, make, shards)
  finish(
    context.host, folder, lambda: info(context, round_, folder, retired), shards
  )


class Searcher:
  """The models that search a round's problems on one host; see `work.py`."""

  def __init__(self, context: Context, round_: int):
    config, spec = context.config, context.config.rounds[round_ - 1]
    self._context, self._round = context, round_
    self._samples = spec.rollout == "samples"
    self._backend: backends.ModelBackend | backends.RemoteBackend
    if round_ == 1 and config.remote.url:
      self._backend = backends.RemoteBackend(
        context, context.workdir / layout.round_name(round_)
      )
      self._calls = self._backend.steps()
    else:
      self._backend = backends.searching(context, round_)
      self._calls = (
        self._backend.blocks() if self._samples else self._backend.steps()
      )
    self._search = _search_config(config, round_)
    self._plugin = not self._samples and self._search.method != "mcts"
    self.load = Load(1 if self._plugin else self._search.in_flight)
    self._backend.warm_up()

  def __call__(self, shards: Sequence[Shard]) -> None:
    """Searches the problems of shards, and writes their trees."""
    config, round_ = self._context.config, self._round
    if not (self._samples or self._plugin):
      problems = [unit.problem for shard in shards for unit in shard.units]
      mcts.check(problems, self._search, self._calls)
    with units_lib.of_stage(
      self._context,
      round_,
      "rollout",
      self._backend,
      shards,
      "rollout",
      identity.changes(config.rounds[round_ - 1]),
      load=self.load,
    ) as units:
      if self._plugin:
        units.search_shards(self._by_plugin)
      else:
        units.search(
          lambda unit: (
            _trees(unit.problem, config, round_, units.kept(unit)),
            self._calls,
          ),
          self._search.in_flight,
        )

  def _by_plugin(self, shard: Shard) -> list[units_lib.Rows]:
    """Does as `_trees` with a search plugin, which cannot continue a tree."""
    config, problems = self._context.config, [u.problem for u in shard.units]
    spec = config.rounds[self._round - 1]
    forest: list[list[Tree]] = [[] for _ in problems]
    budgets = (*[spec.rollouts] * spec.trees, *spec.extra_rollouts)
    for number, rollouts in enumerate(budgets):
      going = [
        i
        for i, trees in enumerate(forest)
        if number < spec.trees or not any(map(tree_lib.solved, trees))
      ]
      if not going:
        break
      new_trees = named.search(
        [problems[i] for i in going],
        dataclasses.replace(self._search, rollouts=rollouts),
        self._calls,
        config.seed,
        name=("rollout", self._round, number),
      )
      for i, tree in zip(going, new_trees, strict=True):
        forest[i].append(tree)
    return [{"": [tree.to_record() for tree in trees]} for trees in forest]


def problems_of(
  context: Context, round_: int
) -> tuple[list[Problem], list[Problem]]:
  """Returns the problems that a round rolls out, and those it leaves out.

  Raises:
    ValueError: no problem is left.
  """
  problems, report = training.load(context.config)
  if report and context.host.leads:
    json_io.update(context.workdir / layout.DECONTAMINATION, report)
  mastered = _mastered(context, round_)
  retired = [each for each in problems if each.id in mastered]
  problems = [each for each in problems if each.id not in mastered]
  if not problems:
    raise ValueError(
      f"round {round_} has no problem left: all were mastered before; in "
      "another --workdir give harder ones, or leave rounds.retire off"
    )
  return problems, retired


def info(
  context: Context,
  round_: int,
  folder: store.Path,
  retired: Sequence[Problem],
) -> dict[str, Any]:
  """Returns the manifest's fields for a round's trees; writes them as metrics.

  Args:
    context: the run.
    round_: from 1.
    folder: the round's trees, all written.
    retired: problems that were left out; they count as easy.
  """
  searched = outcomes.counts(pools.outcomes_of([folder]))
  known = outcomes.counts(
    outcomes.Outcome(each.id, each.level, right=1) for each in retired
  )
  counts_lib.add(known, searched)
  fields = {
    "problems": searched["problems"],
    "retired": len(retired),
    "solved": known["solved"] / known["problems"],
    "levels": known["levels"],
    # Paper section 3.4 sorts problems by how their rollouts ended.
    **{name: known[name] for name in ("easy", "medium", "hard")},
    "generated_tokens": searched["tokens"],
  }
  context.writer.write(round_, scalars.solved(fields), "rollout")
  return fields


def _hardest_first(
  context: Context, round_: int, problems: list[Problem]
) -> list[Problem]:
  """Puts the problems that the last round did not solve first, if it ran."""
  before = context.folder(round_ - 1, "trees")
  if round_ == 1 or manifests.read(before) is None:
    return problems
  known = {each.problem_id: each for each in pools.outcomes_of([before])}
  ids = [each.id for each in problems]
  return [problems[place] for place in outcomes.hardest_first(ids, known)]


def _check_order(shards: Sequence[Shard]) -> None:
  """Checks that the first finished shard has the problems that it should.

  Raises:
    ValueError: it has others, since another version, or other trees of the last
      round, ordered the problems.
  """
  there = set(store.children(shards[0].path.parent))
  for shard in shards:
    if shard.path.name in there and shard.done():
      written = {each.problem_id for each in outcomes.of_file(shard.path)}
      if written != {unit.problem.id for unit in shard.units}:
        raise ValueError(
          f"{shard.path} has other problems than it should: another version of "
          "rstar_jax has written it, or it followed other trees of the last "
          f"round: go on with that version, or delete {shard.path.parent}"
        )
      return


def _mastered(context: Context, round_: int) -> set[str]:
  """Returns the ids of the problems that a round leaves out.

  Each problem is judged by the last round that searched it, since a round that
  leaves a problem out has no trees of it.
  """
  mastered: set[str] = set()
  seen: set[str] = set()
  number = round_
  while number > 1 and context.config.rounds[number - 1].retire:
    number -= 1
    searched = pools.outcomes_of([context.finished(number, "trees")])
    new = [each for each in searched if each.problem_id not in seen]
    mastered.update(each.problem_id for each in new if each.mastered)
    seen.update(each.problem_id for each in new)
  return mastered


def grow(
  tree: Tree,
  config: Config,
  round_: int,
  name: Sequence[int | str],
  rollouts: int | None = None,
) -> Search[Tree]:
  """Grows a tree by rollouts, as a round does.

  Args:
    tree: a new tree, or one that is searched on.
    config: of the run.
    round_: from 1.
    name: identities that the search's seeds derive from.
    rollouts: number of rollouts; None is the round's.
  """
  spec = config.rounds[round_ - 1]
  count = spec.rollouts if rollouts is None else rollouts
  if spec.rollout == "samples":
    return sampled_tree.sample_tree(tree, count, config.seed, name)
  search_config = _search_config(config, round_)
  return mcts.search_tree(tree, search_config, config.seed, name, count)


def _search_config(config: Config, round_: int) -> SearchConfig:
  """Returns the search config of a round."""
  spec = config.rounds[round_ - 1]
  return dataclasses.replace(
    config.search,
    **{name: getattr(spec, name) for name in _OF_ROUND},
    terminal_reward="truth",
  )


def _trees(
  problem: Problem, config: Config, round_: int, kept: units_lib.Kept
) -> Search[units_lib.Rows]:
  """Rolls out a problem, with extra rollouts while it is unsolved.

  Extra rollouts continue the newest tree. If it is exhausted, or made of
  samples, they grow a new one. An attempt may take an hour, so the trees are
  journalled before each.
  """
  spec = config.rounds[round_ - 1]
  samples = spec.rollout == "samples"
  trees = [tree_lib.from_record(row) for row in kept.rows().get("", ())]

  def more(rollouts: int) -> Search[Tree]:
    # A tree's seeds keep the name that it began with.
    name = ("rollout", round_, len(trees) - 1)
    return grow(trees[-1], config, round_, name, rollouts)

  def rows() -> units_lib.Rows:
    return {"": [tree.to_record() for tree in trees]}

  for _ in range(0 if trees else spec.trees):
    trees.append(Tree(problem))
    yield from more(spec.rollouts)
  for number, extra in enumerate(spec.extra_rollouts, 1):
    if number < kept.times:
      continue
    if any(map(tree_lib.solved, trees)):
      break
    if number > kept.times:
      kept.keep(rows())
    if samples or trees[-1].exhausted[ROOT_INDEX]:
      trees.append(Tree(problem))
    yield from more(extra)
  return rows()
