"""Reads a workdir into one dict, the whole input of the report.

It needs no model, config file or finished run: it reads the files that exist.
`forest.py` chooses the trees that fit.
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from etils import epath

from rstar_jax.data import unsolved as unsolved_lib
from rstar_jax.evaluation import accuracy
from rstar_jax.report import judged
from rstar_jax.report.forest import Budget, Forest
from rstar_jax.storage import json_io, layout, scalars, store
from rstar_jax.storage.records import each_row
from rstar_jax.storage.snapshot import Snapshot

# Fields of a manifest that describe its files and not the stage.
_OF_FILES = ("files", "sha256")
_FOLDERS = ("trees", "sft", "pairs", "policy", "ppm", "eval")
# Most unsolved problems shown, the most suspicious first.
_UNSOLVED = 30


def read(workdir: epath.PathLike, budget: Budget | None = None) -> dict:
  """Reads everything that the report shows.

  The newest round comes first, and in a round the evaluation before the
  training problems. Each of these sets takes at most half of the remaining
  budget, and the last one all of it, so that every set gets a share.

  Args:
    workdir: folder of a run, finished or not.
    budget: size limits of the page; None is the default.

  Returns:
    {"name", "results", "metrics", "rounds", "problems", "trees", "sets"}:
    results.json, empty if there is none; the rows of metrics.jsonl; for each
    round its manifests, unsolved problems, study, and an oracle's figures for
    its evaluation; and the fields of `Forest`.

  Raises:
    ValueError: there is no such folder, or a record has an unknown schema.
  """
  workdir = epath.Path(workdir)
  if not workdir.is_dir():
    raise ValueError(f"{workdir} is not a folder: give the --workdir of a run")
  results = _results(_object(workdir / layout.RESULTS) or {})
  numbers = layout.rounds(each.name for each in workdir.iterdir())
  folders = {each: workdir / layout.round_name(each) for each in numbers}
  config = _object(workdir / layout.CONFIG) or results["config"]
  rounds = [
    _round(folders[number], number, config.get("eval", {}))
    for number in numbers
  ]
  sets = [
    (name, each)
    for each in reversed(rounds)
    for name in ("eval", "trees")
    if (folders[each["round"]] / name).is_dir()
  ]
  forest = Forest(budget or Budget(), config)
  for index, (name, each) in enumerate(sets):
    number, last = each["round"], index == len(sets) - 1
    if name == "eval":
      forest.evaluation(folders[number], number, last)
    else:
      suspects = set(each["unsolved"]["suspects"])
      forest.training(folders[number], number, last, suspects)
  return {
    "name": store.name_of(workdir),
    "results": results,
    "metrics": _metrics(each_row(workdir / layout.METRICS)),
    "rounds": rounds,
    "problems": forest.problems,
    "trees": forest.trees,
    "sets": forest.sets,
  }


def now(name: str, files: Snapshot) -> dict[str, Any]:
  """Reads the report's data of a run in progress, from small files alone.

  Args:
    name: name of the run.
    files: the run's folder.

  Returns:
    The dict of `read`, without problems and trees, and "config". A round's
    figures are there as soon as its stage is done; results.json may be older.
  """
  results = _results(files.read(layout.RESULTS))
  config = files.read(layout.CONFIG) or results["config"]
  rounds = []
  for number in layout.rounds(files.folders()):
    folder = layout.round_name(number)
    manifests = {
      each: _stage_fields(
        files.read(f"{folder}/{each}/{layout.MANIFEST}") or None
      )
      for each in _FOLDERS
    }
    unsolved = {"count": 0, "suspects": [], "rows": []}
    rounds.append(
      {
        **{"round": number, "unsolved": unsolved, "decisions": []},
        **{"study": "", "quality": []},
        **manifests,
      }
    )
  metrics = _metrics(files.lines(layout.METRICS))
  return {
    "name": name,
    "config": config,
    "results": {
      "config": config,
      "rows": _with_newer(results["rows"], metrics, config.get("eval", {})),
      "solved": [
        accuracy.solved(each["round"], each["trees"])
        for each in rounds
        if each["trees"] and "solved" in each["trees"]
      ],
      "ppm": [
        {"round": each["round"], **each["ppm"]}
        for each in rounds
        if each["ppm"]
      ],
    },
    "metrics": metrics,
    "rounds": rounds,
    "problems": [],
    "trees": [],
    "sets": [],
  }


def shown(names: Iterable[str]) -> list[str]:
  """Returns those of a run's files that `now` reads."""
  tops = (layout.CONFIG, layout.RESULTS, layout.METRICS)
  return [
    each
    for each in names
    if each in tops or each.rpartition("/")[2] == layout.MANIFEST
  ]


def _results(found: Mapping[str, Any]) -> dict[str, Any]:
  """Returns the fields of results.json that are of a known form.

  A task or another program may have put other fields there, or other values.
  """
  config = found.get("config")
  rows = _rows(found.get("rows"), round=int, split=str, method=str)
  return {
    "config": config if isinstance(config, dict) else {},
    "rows": [
      {**numbers, "split": each["split"], "method": each["method"]}
      for each in rows
      if "accuracy" in (numbers := _numbers(each))
    ],
    "solved": [
      {**_numbers(each), "levels": _levels(each.get("levels"))}
      for each in _rows(found.get("solved"), round=int)
    ],
    "ppm": [
      {
        **_numbers(each),
        "kind": kind if isinstance(kind := each.get("kind"), str) else "ppm",
        "held_out_step": _numbers(each.get("held_out_step")),
        "held_out_final": _numbers(each.get("held_out_final")),
      }
      for each in _rows(found.get("ppm"), round=int)
    ],
  }


def _levels(found: Any) -> dict[str, dict[str, float]]:
  """Returns the levels with a number of problems and of those solved."""
  levels = found if isinstance(found, dict) else {}
  return {
    name: numbers
    for name, each in levels.items()
    if {"problems", "solved"} <= (numbers := _numbers(each)).keys()
  }


def _numbers(found: Any) -> dict[str, float]:
  """Returns the fields of an object that are finite numbers."""
  fields = found if isinstance(found, dict) else {}
  return {name: each for name, each in fields.items() if _is_finite(each)}


def _rows(found: Any, **fields: type) -> list[dict[str, Any]]:
  """Returns the objects in a list that have fields of these types."""
  return [
    each
    for each in (found if isinstance(found, list) else ())
    if isinstance(each, dict)
    and all(type(each.get(name)) is kind for name, kind in fields.items())
  ]


def _metrics(lines: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
  """Returns lines of metrics, with None for what is no finite number."""
  return [
    {k: v if _is_finite(v) else None for k, v in line.items()}
    for line in scalars.stepped(lines)
  ]


def _with_newer(
  rows: list[dict[str, Any]],
  metrics: Iterable[Mapping[str, Any]],
  evaluation: Mapping[str, Any],
) -> list[dict[str, Any]]:
  """Adds accuracies from metrics that results.json does not have yet."""
  known = {(each["round"], each["split"]) for each in rows}
  data = [evaluation.get("data", {}), *evaluation.get("more", ())]
  splits = [each["source"] for each in data if "source" in each]
  newer = [
    each
    for each in scalars.accuracies_in(metrics, splits)
    if (each["round"], each["split"]) not in known
  ]
  return [*rows, *newer]


def _is_finite(value: Any) -> bool:
  return type(value) is int or type(value) is float and math.isfinite(value)


def _stage_fields(manifest: dict[str, Any] | None) -> dict[str, Any] | None:
  """Returns a manifest's fields about its stage, without its files."""
  if manifest is None:
    return None
  return {k: v for k, v in manifest.items() if k not in _OF_FILES}


def _round(
  folder: epath.Path, number: int, evaluation: Mapping[str, Any]
) -> dict[str, Any]:
  """Reads the records of a round, except its trees."""
  fields: dict[str, Any] = {"round": number}
  for name in _FOLDERS:
    fields[name] = _stage_fields(_object(folder / name / layout.MANIFEST))
  unsolved: dict[str, Any] = {"count": 0, "suspects": [], "rows": []}
  for row in _unsolved(folder / "sft"):
    unsolved["count"] += 1
    if row["suspect"]:
      unsolved["suspects"].append(row["problem_id"])
    unsolved["rows"].append(row)
    if len(unsolved["rows"]) > 2 * _UNSOLVED:
      unsolved["rows"] = _most_suspicious(unsolved["rows"])
  unsolved["rows"] = _most_suspicious(unsolved["rows"])
  fields["unsolved"] = unsolved
  fields["decisions"] = judged.of_round(folder, evaluation)
  study = folder / layout.STUDY
  tables = study / layout.TABLES
  fields["study"] = (
    tables.read_bytes().decode(errors="replace") if tables.exists() else ""
  )
  shards = study.glob(f"*/{layout.QUALITY}/shard-*") if study.is_dir() else []
  fields["quality"] = [row for path in sorted(shards) for row in each_row(path)]
  return fields


def _unsolved(folder: epath.Path) -> Iterator[dict[str, Any]]:
  """Yields the problems that no tree solved."""
  # Earlier versions wrote one file, "unsolved.jsonl".
  shards = folder.glob("unsolved*") if folder.is_dir() else []
  for path in sorted(shards):
    yield from each_row(path)


def _most_suspicious(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
  """Returns the most suspicious rows, in order."""
  return sorted(rows, key=unsolved_lib.rank)[:_UNSOLVED]


def _object(path: epath.Path) -> dict[str, Any] | None:
  """Returns the JSON object in a file, None if it cannot be read."""
  value = json_io.read(path)
  return value if isinstance(value, dict) else None
