"""The stage that compares methods and reward models on the held-out problems.

Everything is written down by problem, as `evaluation/solutions.py` says, below
round_k/study/MODEL/METHOD/SPLIT; MODEL is "policy" where no reward model has a
say. Tables are made of these records alone.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from rstar_jax.config.schema import StudyConfig
from rstar_jax.data import held_out, pools
from rstar_jax.evaluation import compare as compare_lib
from rstar_jax.evaluation import cost, markdown, quality, solvers
from rstar_jax.pipeline import backends, extract, ppm
from rstar_jax.pipeline import units as units_lib
from rstar_jax.pipeline.context import Context
from rstar_jax.pipeline.shards import (
  Shard,
  Unit,
  cut,
  finish,
  read_rows,
  read_solutions,
  splits,
)
from rstar_jax.search.requests import Calls, Search
from rstar_jax.storage import layout, records, store

_POLICY = "policy"
# Names of metrics begin so: a model and a method follow.
_WORK = "study"
# Before the folder or name of a PPM that was made here.
_OTHER = "ppm:"


def study(context: Context, round_: int) -> None:
  """Runs all that `config.study` names with the models of a round.

  Args:
    context: the run.
    round_: from 1.

  Raises:
    ValueError: two reward models would have one folder, or a method is there
      that was made with other settings.
  """
  config = context.config.study
  names = [_POLICY, *config.rewards]
  folders = [folder_of(context, round_, each).name for each in names]
  for name, folder in zip(names, folders, strict=True):
    if folders.count(folder) > 1:
      raise ValueError(
        f"config.study.rewards: {name!r} would share the folder {folder!r} "
        "with another; give one of them another name, e.g. by a link"
      )
  alone = [each for each in config.methods if not solvers.is_guided(each)]
  if alone:
    _solve_alone(context, round_, alone)
  for reward in config.rewards:
    if reward in ("orm", "pqm"):
      ppm.train(context, round_, reward, reward)
    _solve_guided(context, round_, reward)


def folder_of(context: Context, round_: int, model: str) -> store.Path:
  """Returns where the records of a reward model, or of "policy", are."""
  name = model.replace(":", "_").strip("./").replace("/", "_")
  return context.folder(round_, layout.STUDY) / name


def _done(context: Context, folder: store.Path) -> bool:
  """Says whether a method is finished, with what the config says now.

  Raises:
    ValueError: it was made with other settings.
  """
  info = records.read_manifest(folder)
  if info is None:
    return False
  # A setting that was not there yet had its default; there were as many samples
  # as rollouts.
  made_with = info["made_with"]
  found = dataclasses.asdict(StudyConfig()) | made_with
  found["samples"] = made_with.get("samples", found["trajectories"])
  differing = ", ".join(
    f"{name}={found[name]!r} and not {value!r}"
    for name, value in _settings(context).items()
    if found[name] != value
  )
  if differing:
    raise ValueError(
      f"{folder} was made with config.study.{differing}: give the settings "
      "that it was made with, or delete it to have it made again"
    )
  return True


def _settings(context: Context) -> dict[str, Any]:
  """Returns what of the study's config shapes the records of a method."""
  fields = dataclasses.asdict(context.config.study)
  for name in ("methods", "rewards", "top_k"):
    del fields[name]
  return fields


def read(folder: store.Path) -> list[dict[str, Any]]:
  """Returns the records of all that is finished of a study.

  Args:
    folder: round_k/study of a run.
  """
  return [
    row
    for method in _methods(folder)
    for each in sorted(_models(folder, method), key=_rank)
    if records.read_manifest(each) is not None
    for row in read_solutions(each)
  ]


def _methods(folder: store.Path) -> list[str]:
  """Returns the names of the folders of methods, those of plugins last."""
  found = {
    name
    for model in store.children(folder)
    if model != layout.TABLES
    for name in store.children(folder / model)
  }
  own = found - {*solvers.METHODS, layout.QUALITY}
  return [*solvers.METHODS, *sorted(own)]


def _at(top: store.Path, method: str) -> store.Path:
  """Returns the folder of a method; a plugin's name makes one too."""
  return top / layout.split_name(method)


def _models(folder: store.Path, method: str) -> list[store.Path]:
  """Returns the folders that a method may have, one a model."""
  return [folder / model / method for model in store.children(folder)]


def _rank(folder: store.Path) -> tuple[bool, bool, str]:
  """Sort key of a method's folder: without a reward model, the PPM, others."""
  model = folder.parent.name
  return model != _POLICY, model != "ppm", model


def render(context: Context, round_: int) -> str:
  """Returns the tables of all that is finished of a round's study.

  They are written to round_k/study/tables.md too, but for the one of time:
  two runs of a config end with the same files.

  Raises:
    ValueError: nothing is finished.
  """
  folder = context.folder(round_, layout.STUDY)
  rows = read(folder)
  if not rows:
    raise ValueError(
      f"{folder} has no finished method: run --stage=study --round={round_}"
    )
  qualities, sizes = {}, []
  names = (*_methods(folder), layout.QUALITY)
  found = [each for name in names for each in _models(folder, name)]
  for each in sorted(found, key=_rank):
    info = records.read_manifest(each) or {}
    sizes += [info["parameters"]] if "parameters" in info else []
    if each.name == layout.QUALITY and info:
      (row,) = read_rows(each)
      qualities[row["reward"]] = row
  text = markdown.render(
    rows,
    qualities,
    seed=context.config.seed,
    k=context.config.study.top_k,
    parameters=sizes[0] if sizes else None,
  )
  store.write(folder / layout.TABLES, text.encode())
  lines = records.each_row(context.workdir / layout.METRICS)
  work = cost.measured(lines, f"{_WORK}/", round_)
  return "\n".join([text, *markdown.time(work)]) if work else text


def compare(context: Context, other: store.Path, round_: int | None) -> str:
  """Compares this run with another, on the problems that both have solved.

  Args:
    context: the first run.
    other: the folder of the second.
    round_: the round of both runs; None is the newest that both evaluated.

  Raises:
    ValueError: a run has nothing to compare.
  """
  folders = context.workdir, other
  if round_ is None:
    rounds = [
      {
        number
        for number in layout.rounds(store.children(folder))
        if (
          layout.stage_folder(folder, number, "eval") / records.MANIFEST
        ).exists()
      }
      for folder in folders
    ]
    round_ = max(rounds[0] & rounds[1], default=None)
    if round_ is None:
      raise ValueError(
        f"{folders[0]} and {folders[1]} have no evaluated round in common"
      )
  both = []
  for folder in folders:
    top = folder / layout.round_name(round_)
    rows = read(top / layout.STUDY)
    if records.read_manifest(top / "eval") is not None:
      # Of a method that a study has too, the study says more.
      taken = {(row["split"], row["source"]) for row in rows}
      rows += [
        each
        for row in read_solutions(top / "eval")
        if (row["split"], row["source"]) not in taken
        for each in compare_lib.of_evaluation(row)
      ]
    if not rows:
      raise ValueError(f"{top} has neither an evaluation nor a study")
    both.append(rows)
  return compare_lib.render(
    compare_lib.rows(
      *both, seed=context.config.seed, k=context.config.study.top_k
    )
  )


def _solve_alone(context: Context, round_: int, methods: Sequence[str]) -> None:
  top = folder_of(context, round_, _POLICY)
  if all([_done(context, _at(top, each)) for each in methods]):
    return
  backend = backends.ModelBackend(context, round_)
  for method in methods:
    calls = backend.blocks(greedy=method == "greedy")
    backend.warm_up()
    _solve(context, round_, _at(top, method), method, calls, backend)


def _solve_guided(context: Context, round_: int, reward: str) -> None:
  """Solves with a reward model, values the samples, and measures the model."""
  config = context.config.study
  top = folder_of(context, round_, reward)
  guided = [each for each in config.methods if solvers.is_guided(each)]
  # Of samples that ended early nothing but the majority is known.
  valued = [] if solvers.stops_samples(config) else ["samples"]
  valued = [each for each in valued if each in config.methods]
  if all(
    [
      _done(context, _at(top, each))
      for each in (*guided, *valued, layout.QUALITY)
    ]
  ):
    return
  own = reward in ("ppm", "orm", "pqm")
  other = reward.removeprefix(_OTHER) if reward.startswith(_OTHER) else ""
  backend = backends.ModelBackend(
    context,
    round_,
    score="ppm" if other else reward if own else "",
    reward_model="" if own or other else reward,
    ppm=other,
  )
  how = context.config.eval.search.trajectory_value
  for method in valued:
    sampled = {
      (row["split"], row["problem_id"]): row
      for row in read_rows(folder_of(context, round_, _POLICY) / method)
    }

    def value(part: list[Unit], sampled=sampled) -> list[dict[str, Any]]:
      rows = [sampled[unit.split, unit.problem.id] for unit in part]
      questions = [unit.problem.question for unit in part]
      return solvers.rescore(rows, questions, backend.score, how)

    def value_all(units: units_lib.Units, value=value) -> None:
      units.search_shards(lambda part: _rows(value(part), reward))

    _write(context, round_, _at(top, method), value_all, backend)
  if guided:
    calls = backend.steps()
    backend.warm_up()
  for method in guided:
    _solve(context, round_, _at(top, method), method, calls, backend, reward)
  if context.config.extract.needs_trees:
    _measure(context, round_, top / layout.QUALITY, backend, reward)


def _measure(
  context: Context,
  round_: int,
  folder: store.Path,
  backend: backends.ModelBackend,
  reward: str,
) -> None:
  """Measures a reward model on trees whose problems none was trained on.

  They are of the rounds whose trees the round's models learn from.
  """
  if _done(context, folder):
    return
  if context.host.leads:
    seed, one_in = context.config.seed, ppm.one_in(context.config)
    # The trees of a file are held, and of a problem's the values.
    groups = (
      [
        tree
        for trees in pools.problems(part)
        if held_out.is_held_out(seed, trees[0].problem.id, one_in)
        for tree in trees
      ]
      for part in pools.parts(extract.tree_folders(context, round_))
    )
    found = quality.measure(groups, backend.score, context.config.extract)
    found["reward"] = reward
    records.write_shard(folder / records.shard_name(0, 1), [found])
  finish(context.host, folder, lambda: {"made_with": _settings(context)})


def _solve(
  context: Context,
  round_: int,
  folder: store.Path,
  method: str,
  calls: Calls,
  backend: backends.ModelBackend,
  reward: str | None = None,
) -> None:
  """Solves the problems of all splits by one method."""
  config = context.config

  def task(split: str) -> solvers.Task:
    return solvers.Task(split, config, ("study", split))

  def search(unit: Unit) -> Search[units_lib.Rows]:
    row = yield from solvers.METHODS[method](unit.problem, task(unit.split))
    return {"": [row | {"reward": reward}]}

  def solve(part: list[Unit]) -> list[units_lib.Rows]:
    problems = [unit.problem for unit in part]
    found = solvers.solve(method, problems, calls, task(part[0].split))
    return _rows(found, reward)

  def solve_all(units: units_lib.Units) -> None:
    if method in solvers.METHODS:
      in_flight = solvers.in_flight(method, config)
      units.search(lambda unit: (search(unit), calls), in_flight)
    else:
      units.search_shards(solve)

  _write(context, round_, folder, solve_all, backend)


def _rows(
  found: Sequence[dict[str, Any]], reward: str | None
) -> list[units_lib.Rows]:
  return [{"": [row | {"reward": reward}]} for row in found]


def _write(
  context: Context,
  round_: int,
  folder: store.Path,
  find: Callable[[units_lib.Units], None],
  backend: backends.ModelBackend,
) -> None:
  """Writes the folder of a method.

  Args:
    context: the run.
    round_: from 1.
    folder: the method's.
    find: finds all units.
    backend: the models.
  """
  if _done(context, folder):
    return
  shards = _shards(context, folder)
  name = folder.parent.name, folder.name
  info: dict[str, Any] = {"made_with": _settings(context)}
  before = backend.usage()
  with units_lib.of_stage(
    *(context, round_, "study", backend, context.host.share(shards)),
    f"study, {' '.join(name)}",
    *(*name, info["made_with"]),
  ) as units:
    find(units)
  work = cost.work(before, backend.usage(), units.missing)
  context.writer.write(
    round_, dataclasses.asdict(work), "/".join((_WORK, *name))
  )
  if (count := backend.parameters()) is not None:
    info["parameters"] = count
  finish(context.host, folder, lambda: info, shards)


def _shards(context: Context, folder: store.Path) -> list[Shard]:
  """Returns the shards of all splits."""
  shards: list[Shard] = []
  for split, problems in splits(context.config):
    shards += cut(
      problems,
      context.config.shard_size,
      folder / layout.split_name(split),
      units=lambda each, split=split: [Unit(each, split=split)],
    )
  return shards
