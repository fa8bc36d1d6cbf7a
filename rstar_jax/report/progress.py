"""Reads a run's progress from its folder.

It loads no models and reads only small files, so it is quick at any time. The
folder does not show whether a process is running, but when one last wrote
metrics, or a problem's rows.
"""

import dataclasses
import math
import pathlib
import re
import time
from collections.abc import Iterator
from typing import Any

from rstar_jax.storage import layout, scalars, store
from rstar_jax.storage.snapshot import Snapshot

# Shards of earlier versions have no second suffix.
_SHARD = re.compile(r"^(?:(.*)/)?shard-(\d+)-of-(\d+)\.jsonl(?:\.zst)?$")
# A journal of a shard, or a part of one.
_BEGUN = re.compile(
  rf"^(?:(.*)/)?{layout.BEGUN}shard-(\d+)-of-(\d+)(?:-(\d+))?-\w+\.jsonl"
  r"(?:\.\d+)?$"
)


@dataclasses.dataclass
class Stage:
  """A stage of a round.

  Attributes:
    round: from 0, which is the base model.
    name: a key of `layout.STAGES`.
    state: "done", "begun" or "left".
    done: number of finished shards, updates of a training, or turns of
      reinforcement.
    of: their total number, None if not yet known.
    unit: "shards", "updates" or "turns", "" if the stage has no parts.
    begun: number of shards or turns with some finished problems.
    seconds: time spent so far, lost work included; None without metrics.
    left: estimated seconds until the stage is done; None without an estimate.
  """

  round: int
  name: str
  state: str = "left"
  done: int = 0
  of: int | None = None
  unit: str = ""
  begun: int = 0
  seconds: float | None = None
  left: float | None = None


@dataclasses.dataclass
class AtWork:
  """A host that searches.

  Attributes:
    host: index of the host.
    shards: number of shards that it has begun.
    age: seconds since it last finished a problem of these.
  """

  host: int
  shards: int
  age: float


@dataclasses.dataclass
class Status:
  """The progress of a run.

  Attributes:
    workdir: the run's folder.
    stages: all stages, in order; empty if there is no run.
    studies: begun methods of studies, by "round_k/MODEL/METHOD".
    last: host -> the last line of its metrics, and "age", the seconds since.
    at_work: hosts with journals of unfinished shards.
    left: estimated seconds until the run is done; None if any stage has no
      estimate.
  """

  workdir: str
  stages: list[Stage] = dataclasses.field(default_factory=list)
  studies: dict[str, Stage] = dataclasses.field(default_factory=dict)
  last: dict[int, dict[str, Any]] = dataclasses.field(default_factory=dict)
  at_work: list[AtWork] = dataclasses.field(default_factory=list)
  left: float | None = None


def look(workdir: store.Path, files: Snapshot | None = None) -> Status:
  """Reads the progress of the run in a folder, which may hold none.

  Args:
    workdir: a folder on a disk or in a bucket.
    files: a view of the folder; None lists it now.

  Raises:
    OSError: the bucket cannot be read.
    ValueError: config.json is not a run's config.
  """
  found = Status(str(workdir))
  files = files or Snapshot(workdir)
  config = files.read(layout.CONFIG)
  if not config and layout.CONFIG not in files:
    return found
  indices = [0, *layout.hosts(files.folders())]
  hosts = dict(
    zip(
      indices,
      store.prefetch(lambda each: _metrics_of(files, each), indices, workdir),
      strict=True,
    )
  )
  spent = _spent(hosts[0])
  try:
    plan = list(_plan(config))
    work = {key: _work(*key, config, files) for key in plan}
    # Configs of older runs lack the field.
    splits = 1 + len(config["eval"].get("more", ()))
  except (AttributeError, LookupError, TypeError) as error:
    lacks = isinstance(error, KeyError)
    why = f"it lacks {error}" if lacks else str(error)
    raise ValueError(
      f"{workdir / layout.CONFIG} is not the config of a run ({why}): "
      "restore it, or remove it and run the same command again"
    ) from error
  found.stages = [
    _stage(files, config, *key, hosts[0], spent, splits) for key in plan
  ]
  for top in files.folders():
    study = f"{top}/{layout.STUDY}"
    for model in files.folders(study):
      for method in files.folders(f"{study}/{model}"):
        name, folders = f"{top}/{model}/{method}", [f"{study}/{model}/{method}"]
        whole = method in (layout.VALUES, layout.QUALITY)
        parts = 1 if whole else splits
        stage = Stage(0, name, **_shards(files, folders, parts))
        stage.state = _state(files, folders, stage.done + stage.begun > 0)
        found.studies[name] = stage
  _estimate(found, work)
  found.at_work = _at_work(files)
  for index, lines in sorted(hosts.items()):
    if lines:
      age = max(time.time() - lines[-1]["time"], 0.0)
      found.last[index] = {**lines[-1], "age": age}
  return found


def _plan(config: dict) -> Iterator[tuple[int, str]]:
  """Yields (round, name) of a run's stages."""
  yield 0, "evaluate"
  extract = config["extract"]
  given = extract["sft_source"] and extract["pairs_source"]
  for number in range(1, len(config["rounds"]) + 1):
    for name in layout.STAGES:
      folders = layout.folders_of(name, _algorithm(config, number))
      if folders and (name != "rollout" or not given):
        yield number, name


def _algorithm(config: dict, number: int) -> str:
  """Returns the algorithm that trains a round's policy, "sft" for round 0."""
  # Configs of older runs lack the field.
  return number and config["rounds"][number - 1].get("algorithm") or "sft"


def _stage(
  files: Snapshot,
  config: dict,
  number: int,
  name: str,
  lines: list[dict],
  spent: dict,
  splits: int,
) -> Stage:
  stage = Stage(number, name, seconds=spent.get((number, name)))
  algorithm = _algorithm(config, number)
  folders = [
    f"{layout.round_name(number)}/{each}"
    for each in layout.folders_of(name, algorithm)
  ]
  if name == "rollout" and algorithm != "sft":
    stage.unit, stage.of = "turns", config["reinforce"]["iterations"]
    turns = files.folders(folders[0])
    stage.done = sum(files.whole(f"{folders[0]}/{turn}") for turn in turns)
    stage.begun = len(turns) - stage.done
    begun = bool(turns)
  elif name in ("sft", "ppm"):
    stage.unit = "updates"
    key = scalars.training(number, name)
    for line in lines:
      if f"{key}/loss" in line:
        stage.done = line["step"]
        stage.of = int(line.get(f"{key}/updates", 0)) or None
    steps = files.checkpoints(f"{folders[0]}/{layout.CHECKPOINTS}")
    # Updates after the last checkpoint are lost if training stops.
    if not files.whole(folders[0]):
      stage.done = max(steps, default=0)
    begun = bool(steps or stage.of)
  else:
    parts = splits if name == "evaluate" else 1
    stage = dataclasses.replace(stage, **_shards(files, folders, parts))
    begun = stage.done + stage.begun > 0
  stage.state = _state(files, folders, begun or bool(stage.seconds))
  return stage


def _state(files: Snapshot, folders: list[str], begun: bool) -> str:
  """Returns the state of a stage that writes folders."""
  if all(map(files.whole, folders)):
    return "done"
  return "begun" if begun else "left"


def _shards(files: Snapshot, folders: list[str], splits: int) -> dict[str, Any]:
  """Counts the shards in folders; a file with a shard's name is complete.

  Args:
    files: the run's folder.
    folders: in which the shards are.
    splits: number of splits whose shards are in a folder of their own in each;
      the total is not known before all of these are begun.

  Returns:
    The fields of a `Stage`: "unit", "done", "begun" and "of".
  """
  done = begun = total = 0
  known = True
  for folder in folders:
    parts: dict[str, int] = {}
    whole, started = set(), set()
    for name in files.below(folder):
      for pattern, found in ((_SHARD, whole), (_BEGUN, started)):
        if match := pattern.match(name):
          found.add((match[1], match[2]))
          parts[match[1]] = int(match[3])
    done += len(whole)
    begun += len(started - whole)
    total += sum(parts.values())
    known &= len(parts) >= splits
  of = total if known else None
  return {"unit": "shards", "done": done, "begun": begun, "of": of}


def _at_work(files: Snapshot) -> list[AtWork]:
  """Returns the hosts that have journals of unfinished shards."""
  names = [
    f"{top}/{each}" for top in files.folders() for each in files.below(top)
  ]
  whole = {(m[1], m[2]) for each in names if (m := _SHARD.match(each))}
  journals = {
    each: (m[1], m[2], int(m[4] or 0))
    for each in names
    if (m := _BEGUN.match(each)) and (m[1], m[2]) not in whole
  }
  shards: dict[int, set[tuple[str, str]]] = {}
  ages: dict[int, float] = {}
  for (folder, number, host), age in zip(
    journals.values(), files.ages(list(journals)), strict=True
  ):
    shards.setdefault(host, set()).add((folder, number))
    ages[host] = min(age, ages.get(host, age))
  return [AtWork(n, len(shards[n]), ages[n]) for n in sorted(shards)]


def _metrics_of(files: Snapshot, host: int = 0) -> list[dict[str, Any]]:
  """Returns a host's lines of metrics, those with a step and a time."""
  name = layout.host_folder(pathlib.PurePath(), host) / layout.METRICS
  return [
    line
    for line in scalars.stepped(files.lines(str(name)))
    if all(_is_number(line.get(each)) for each in ("time", "elapsed"))
    and all(map(_is_number, line.values()))
  ]


def _is_number(value: Any) -> bool:
  return type(value) in (int, float)


def _spent(lines: list[dict]) -> dict[tuple[int, str], float]:
  """Returns the seconds of each stage.

  The time before a line counts for the stage that wrote the line. A pause
  between two processes counts for no stage.
  """
  spent: dict[tuple[int, str], float] = {}
  before = -math.inf
  for line in lines:
    seconds = min(line["time"] - before, line["elapsed"])
    before = line["time"]
    if key := _owner(line):
      spent[key] = spent.get(key, 0.0) + max(seconds, 0.0)
  return spent


def _owner(line: dict) -> tuple[int, str] | None:
  """Returns the round and the stage that wrote a line."""
  for name in line:
    prefix = name.partition("/")[0]
    if found := scalars.of_training(prefix):
      round_, stage = found
      return round_, "rollout" if stage == scalars.REINFORCE else stage
    if prefix in scalars.STAGES and prefix != name:
      return line["step"], scalars.STAGES[prefix]
  return None


def _estimate(
  progress: Status, work_of: dict[tuple[int, str], float | None]
) -> None:
  """Estimates the remaining time of each stage, where that is possible."""
  # Seconds and work of the latest finished stage of each name; the evaluation
  # of round 0 differs from the others.
  known: dict[tuple[str, str], tuple[float, float | None]] = {}
  for stage in progress.stages:
    work = work_of[stage.round, stage.name]
    if stage.state == "done":
      stage.left = 0.0
      if stage.round and stage.seconds:
        known[stage.name, stage.unit] = stage.seconds, work
    elif stage.of and stage.done and stage.seconds:
      stage.left = stage.seconds * (stage.of - stage.done) / stage.done
    elif (stage.name, stage.unit) in known:
      seconds, before = known[stage.name, stage.unit]
      if work and before:
        seconds *= work / before
      stage.left = max(seconds - (stage.seconds or 0.0), 0.0)
  times = [stage.left for stage in progress.stages]
  progress.left = None if None in times else sum(times)


def _work(
  number: int, name: str, config: dict, files: Snapshot
) -> float | None:
  """Returns a stage's amount of work, to compare rounds; None if unknown."""
  if name == "rollout":
    spec = config["rounds"][number - 1]
    if _algorithm(config, number) != "sft":
      turns = config["reinforce"]
      each = spec["rollouts"]
      if spec["rollout"] == "search":
        each *= spec["candidates"]
      return float(turns["iterations"] * turns["problems"] * each)
    # Only unsolved problems get extra rollouts; half of them is a guess.
    extra = sum(spec["extra_rollouts"]) / 2
    return (spec["rollouts"] * spec["trees"] + extra) * spec["candidates"]
  if name == "evaluate":
    evaluation = config["eval"]
    early, count = evaluation["early_problems"], evaluation["data"]["count"]
    if early and number < len(config["rounds"]):
      return float(min(early, count) if count else early)
    return float(count) or None
  if name == "ppm":
    pairs = files.read(f"{layout.round_name(number)}/pairs/{layout.MANIFEST}")
    counts = pairs.get("step", 0), pairs.get("final", 0)
    return float(sum(filter(_is_number, counts))) or None
  return None
