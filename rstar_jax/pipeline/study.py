"""The study stage: compares methods and reward models on held-out problems.

Records are written by problem (see `evaluation/solutions.py`) to
round_k/study/MODEL/METHOD/SPLIT, where MODEL is "policy" for methods without a
reward model. `study_tables.py` makes tables from these records alone.
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

from rstar_jax.config import identity
from rstar_jax.config.schema import StudyConfig
from rstar_jax.data import held_out, outcomes, pools
from rstar_jax.data import problems as problems_lib
from rstar_jax.evaluation import cost, quality, solvers, sources
from rstar_jax.pipeline import backends, extract, models, ppm
from rstar_jax.pipeline import units as units_lib
from rstar_jax.pipeline.context import Context
from rstar_jax.pipeline.reading import rows_of
from rstar_jax.pipeline.shards import (
  Shard,
  Unit,
  begin,
  cut,
  finish,
  unfinished,
)
from rstar_jax.pipeline.work import Load
from rstar_jax.search.requests import Calls, Search
from rstar_jax.storage import layout, records, store
from rstar_jax.training import ppm as ppm_lib
from rstar_jax.types import Problem


def study(context: Context, round_: int) -> None:
  """Runs the methods and reward models of `config.study` on a round.

  Args:
    context: the run.
    round_: from 1.

  Raises:
    ValueError: two reward models or methods would share a folder, or records of
      a method were made with other settings.
  """
  config = context.config.study
  rewards = [layout.UNGUIDED, *config.rewards]
  folders = [folder_of(context, round_, each).name for each in rewards]
  _check_folders("rewards", rewards, folders)
  methods = [layout.VALUES, layout.QUALITY, *config.methods]
  _check_folders("methods", methods, list(map(layout.folder_name, methods)))
  alone = [each for each in config.methods if not sources.of(each).guided]
  guided = [each for each in config.methods if sources.of(each).guided]
  _search(context, round_, "", alone)
  # Samples that stopped early serve the majority vote alone.
  if not solvers.stops_samples(config):
    shared = [each for each in alone if sources.of(each).shared]
    guided = shared + guided
  for reward in config.rewards:
    if reward in ("orm", "pqm"):
      ppm.train(context, round_, reward, reward, updates=config.updates)
    _search(context, round_, reward, guided)
    if context.config.extract.needs_trees:
      _measure(context, round_, reward)


def _check_folders(
  field: str, names: Sequence[str], folders: Sequence[str]
) -> None:
  """Raises ValueError if two names of a setting have the same folder."""
  for name, folder in zip(names, folders, strict=True):
    if folders.count(folder) > 1:
      raise ValueError(
        f"config.study.{field}: {name!r} would share the folder {folder!r} "
        "with another; give one of them another name, e.g. by a link"
      )


def folder_of(context: Context, round_: int, model: str) -> store.Path:
  """Returns the folder of the records of a reward model, or of "policy"."""
  name = layout.folder_name(model.strip("./"))
  return context.folder(round_, layout.STUDY) / name


def _done(context: Context, folder: store.Path) -> bool:
  """Returns whether a method is finished, with the config's settings.

  Raises:
    ValueError: it was made with other settings.
  """
  info = begin(context.host, folder)
  if info is None:
    return False
  _check_settings(context, folder, info["made_with"])
  return True


def _check_shards(
  context: Context, folder: store.Path, shards: Sequence[Shard]
) -> None:
  """Checks the finished shards of a method that was not finished.

  Raises:
    ValueError: one was made with other settings. Earlier versions did not write
      them into shards, which then count as made with the config's.
  """
  left = {each.path for each in unfinished(shards)}
  paths = [each.path for each in shards if each.path not in left]
  for head in store.prefetch(records.header, paths, folder):
    if made_with := head.get("info", {}).get("made_with"):
      _check_settings(context, folder, made_with)


def _check_settings(
  context: Context, folder: store.Path, made_with: Mapping[str, Any]
) -> None:
  """Checks that a method's records were made with the config's settings.

  Raises:
    ValueError: they were not; names the settings and says what to do.
  """
  # A setting that is newer than the records counts as its default, except that
  # earlier versions drew as many samples as rollouts.
  previous = dataclasses.asdict(StudyConfig()) | made_with
  previous["samples"] = made_with.get("samples", previous["trajectories"])
  differing = ", ".join(
    f"{name}={previous[name]!r} and not {value!r}"
    for name, value in _settings(context).items()
    if previous[name] != value
  )
  if differing:
    raise ValueError(
      f"{folder} was made with config.study.{differing}: give the settings "
      "that it was made with, or delete it to have it made again"
    )


def _settings(context: Context) -> dict[str, Any]:
  """Returns the study's settings that a method's records depend on."""
  fields = dataclasses.asdict(context.config.study)
  for name in ("methods", "rewards", "top_k"):
    del fields[name]
  return fields


def _at(top: store.Path, method: str) -> store.Path:
  """Returns the folder of a method, which may be a plugin's name."""
  return top / layout.folder_name(method)


def _search(
  context: Context, round_: int, reward: str, methods: Sequence[str]
) -> None:
  """Writes the records of methods, and the values of held-out trees.

  Args:
    context: the run.
    round_: from 1.
    reward: name of the reward model; "" is none.
    methods: names of methods.
  """
  top = folder_of(context, round_, reward or layout.UNGUIDED)
  left = {
    folder: _shards(context, method, folder)
    for method in methods
    if not _done(context, folder := _at(top, method))
  }
  if reward and context.config.extract.needs_trees:
    # Earlier versions wrote a summary, and no values.
    folder = top / layout.VALUES
    if not any(_done(context, each) for each in (top / layout.QUALITY, folder)):
      left[folder] = _held_out(context, round_, reward, folder)
  for folder, part in left.items():
    _check_shards(context, folder, part)
  make = functools.partial(Searcher, round_=round_, reward=reward)
  shards = [shard for each in left.values() for shard in each]
  if shards:
    context.work.search(context, make, shards)
  for folder, shards in left.items():
    info = functools.partial(_info, context, shards)
    finish(context.host, folder, info, shards)


def _info(context: Context, shards: Sequence[Shard]) -> dict[str, Any]:
  """Returns the manifest's fields for a method's folder."""
  # Searchers write the policy's number of parameters into headers.
  first = records.header(shards[0].path) if shards else {}
  return {**first.get("info", {}), "made_with": _settings(context)}


class Searcher:
  """The models of a round and a reward model, on one host; see `work.py`."""

  def __init__(self, context: Context, round_: int, reward: str = ""):
    self._context, self._round, self._reward = context, round_, reward
    self._top = folder_of(context, round_, reward or layout.UNGUIDED)
    self._backend = backends.ModelBackend(context, round_, reward=reward)
    self._calls: dict[str, Calls] = {}
    # One call at a time, since each method's cost is measured.
    self.load = Load(1)
    self._backend.warm_up()

  def __call__(self, shards: Sequence[Shard]) -> None:
    """Writes the records of shards, method by method."""
    folders: dict[str, list[Shard]] = {}
    for shard in shards:
      folders.setdefault(shard.units[0].method, []).append(shard)
    for method, part in folders.items():
      self._write(method, part)

  def _write(self, method: str, shards: Sequence[Shard]) -> None:
    context, backend = self._context, self._backend
    folder = _at(self._top, method)
    name = folder.parent.name, folder.name
    count = backend.parameters()
    known = {"made_with": _settings(context)}
    if count is not None:
      known["parameters"] = count
    before = backend.usage()
    changes = identity.changes(context.config.study)
    with units_lib.of_stage(
      context,
      self._round,
      "study",
      backend,
      [dataclasses.replace(each, info=lambda _: known) for each in shards],
      f"study, {' '.join(name)}",
      *name,
      {name: v for name, v in changes.items() if name in known["made_with"]},
      load=self.load,
    ) as units:
      self._find(method, units)
    work = cost.work(before, backend.usage(), units.missing)
    context.writer.write(
      self._round, dataclasses.asdict(work), "/".join((layout.STUDY, *name))
    )

  def _find(self, method: str, units: units_lib.Units) -> None:
    """Makes the missing rows of a method's shards."""
    if method == layout.VALUES:
      units.search_shards(self._valued, method)
    elif sources.of(method).shared and self._reward:
      units.search_shards(self._rescored, method)
    elif method in solvers.METHODS:
      calls = self._calls_of(method)
      in_flight = solvers.in_flight(method, self._context.config)
      units.search(lambda unit: (self._solution(unit), calls), in_flight)
    else:
      units.search_shards(self._by_plugin, method)

  def _solution(self, unit: Unit) -> Search[units_lib.Rows]:
    """Solves a problem by a method of `solvers.METHODS`."""
    solve = solvers.METHODS[unit.method]
    row = yield from solve(unit.problem, self._setting(unit.split))
    return self._rows([row])[0]

  def _by_plugin(self, shard: Shard) -> list[units_lib.Rows]:
    """Solves a shard's problems by a search plugin."""
    first, problems = shard.units[0], [unit.problem for unit in shard.units]
    calls, setting = self._calls_of(first.method), self._setting(first.split)
    return self._rows(solvers.by_plugin(first.method, problems, calls, setting))

  def _rescored(self, shard: Shard) -> list[units_lib.Rows]:
    """Values the samples that were drawn without a reward model."""
    top = folder_of(self._context, self._round, layout.UNGUIDED)
    return self._rows(
      solvers.rescore(
        records.read_shard(top / shard.path.relative_to(self._top)),
        [unit.problem.question for unit in shard.units],
        self._backend.score,
        self._context.config.eval.search.trajectory_value,
      )
    )

  def _valued(self, shard: Shard) -> list[units_lib.Rows]:
    """Values the trees of held-out problems."""
    workdir, extraction = self._context.workdir, self._context.config.extract
    path = workdir / shard.path.relative_to(self._top / layout.VALUES)
    wanted = {unit.problem.id for unit in shard.units}
    by_problem = {
      trees[0].problem.id: quality.of_problem(
        trees, self._backend.score, extraction
      )
      for trees in pools.problems(self._parts[path])
      if trees[0].problem.id in wanted
    }
    return [{"": [by_problem[unit.problem.id]]} for unit in shard.units]

  @functools.cached_property
  def _parts(self) -> dict[store.Path, pools.Part]:
    """The files of trees, by path."""
    folders = extract.tree_folders(self._context, self._round)
    return {each.path: each for each in pools.parts(folders)}

  def _setting(self, split: str) -> solvers.Setting:
    return solvers.Setting(split, self._context.config, ("study", split))

  def _rows(self, records: Sequence[dict[str, Any]]) -> list[units_lib.Rows]:
    return [{"": [row | {"reward": self._reward or None}]} for row in records]

  def _calls_of(self, method: str) -> Calls:
    if method not in self._calls:
      self._calls[method] = backends.calls_of(self._backend, method)
    return self._calls[method]


def _shards(context: Context, method: str, folder: store.Path) -> list[Shard]:
  """Returns the shards of a method over all splits."""
  shards: list[Shard] = []
  for split, problems in problems_lib.splits(context.config):
    shards += cut(
      problems,
      context.config.shard_size,
      folder / layout.folder_name(split),
      units=lambda part, split=split: [
        Unit(problem, method, split) for problem in part
      ],
    )
  return shards


def _held_out(
  context: Context, round_: int, reward: str, folder: store.Path
) -> list[Shard]:
  """Returns shards of the problems that no reward model was trained on.

  They come from the rounds whose trees the round's models learn from. Each file
  of trees with such problems has a shard, under the file's name. Units have no
  question, which is in the tree. The policy that reward models start from was
  trained on these problems too, unless `sft.held_out` held them out.

  Args:
    context: the run.
    round_: from 1.
    reward: name of the reward model. There are no such problems if it had
      nothing else to learn from.
    folder: the folder of the shards.
  """
  seed, one_in = context.config.seed, ppm.one_in(context.config)
  if reward in ppm_lib.KINDS:
    trained_in = models.trained_in(context, round_, reward)
    one_in = ppm.kept_out_of(context, trained_in, reward)
  shards = []
  for part in pools.parts(extract.tree_folders(context, round_)):
    units = [
      Unit(Problem(each.problem_id, ""), layout.VALUES)
      for each in outcomes.of_file(part.path)
      if held_out.is_held_out(seed, each.problem_id, one_in)
      and each.problem_id not in part.skipped
    ]
    if units:
      name = part.path.relative_to(context.workdir)
      shards.append(Shard(units, folder / name))
  return shards


def _measure(context: Context, round_: int, reward: str) -> None:
  """Measures a reward model's quality by its values on held-out trees."""
  top = folder_of(context, round_, reward)
  folder = top / layout.QUALITY
  if _done(context, folder):
    return
  if context.host.leads:
    summary = quality.summary(rows_of(top / layout.VALUES))
    summary["reward"] = reward
    records.write_shard(folder / records.shard_name(0, 1), [summary])
  finish(context.host, folder, lambda: {"made_with": _settings(context)})
