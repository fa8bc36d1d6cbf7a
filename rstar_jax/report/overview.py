"""Computes the numbers of the first page from `inputs.read`.

Pure functions of records; each returns rows that the page shows unchanged.
"""

import dataclasses
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rstar_jax.evaluation.methods import METHODS
from rstar_jax.storage import scalars

Rows = list[dict[str, Any]]

# Most points of a curve.
_POINTS = 200
# Lines of a chart, in order.
_LINES = ("policy", "majority", "best_of_n", "mcts", "pass@k")
_STAGES = {
  "rollout": "Search for data",
  "sft": "Training the policy",
  "ppm": "Training the PPM",
  "eval": "Evaluation",
  "study": "Comparing methods",
}


def overview(records: Mapping[str, Any]) -> dict[str, Any]:
  """Returns all sections of the first page; see the functions below."""
  results, metrics = records["results"], records["metrics"]
  return {
    "name": records["name"],
    "config": results["config"],
    "accuracy": accuracy(results["rows"]),
    "solved": results["solved"],
    "losses": losses(metrics),
    "ppm": ppm(results["ppm"]),
    "quality": quality(records["rounds"]),
    "decisions": decisions(records["rounds"]),
    "time": time_spent(metrics),
    "sets": records["sets"],
    "grader": grader(records["rounds"]),
    "unsolved": unsolved(records["rounds"]),
    "study": [
      {"round": each["round"], "blocks": blocks(each["study"])}
      for each in records["rounds"]
      if each["study"]
    ],
  }


def accuracy(rows: Iterable[Mapping[str, Any]]) -> Rows:
  """Returns the lines of a chart for each split.

  Args:
    rows: the rows of results.json; see `evaluation/accuracy.py:table`.

  Returns:
    {"split", "lines": [{"method", "name", "points"}]} each; a point holds the
    fields of a row that are shown. Lines are in the order of `_LINES`.
  """
  splits: dict[str, dict[str, Rows]] = {}
  for row in rows:
    lines = splits.setdefault(row["split"], {name: [] for name in _LINES})
    lines.setdefault(row["method"], []).append(
      {
        name: row.get(name)
        for name in (
          *("round", "accuracy", "low", "high", "n", "samples"),
          *("tokens_per_problem", "wrong", "undecided", "failed"),
        )
      }
    )
  return [
    {
      "split": split,
      "lines": [
        {"method": method, "name": _name(method), "points": points}
        for method, points in lines.items()
        if points
      ],
    }
    for split, lines in splits.items()
  ]


def _name(method: str) -> str:
  # Of another version's method only the name is known.
  return METHODS[method].title if method in METHODS else method


def losses(metrics: Iterable[Mapping[str, Any]]) -> Rows:
  """Returns the curve of each training.

  {"name", "round", "kind", "points", "held_out"} each: points are (update,
  loss), and held_out those of the loss on held-out problems, if it was
  measured.

  A resumed run may have recorded an update twice: the later row counts. Long
  curves are reduced to about `_POINTS` evenly spaced points.
  """
  curves: dict[str, dict[int, float]] = {}
  measured: dict[str, dict[int, float]] = {}
  for row in metrics:
    for key, value in row.items():
      name, _, what = key.rpartition("/")
      kinds = {"loss": curves, "held_out_loss": measured}
      if value is None:
        continue  # Not finite: the training diverged.
      if what in kinds and scalars.of_training(name):
        kinds[what].setdefault(name, {})[row["step"]] = value
  rows_ = []
  for name, points in curves.items():
    round_, kind = scalars.of_training(name)
    steps = sorted(points)
    # The last point is always kept.
    every = -(-len(steps) // _POINTS)
    kept = sorted({*steps[::every], *steps[-1:]})
    rows_.append(
      {
        "name": name,
        "round": round_,
        "kind": kind,
        "points": [[step, points[step]] for step in kept],
        "held_out": [
          list(each) for each in sorted(measured.get(name, {}).items())
        ],
      }
    )
  return rows_


def ppm(rows: Iterable[Mapping[str, Any]]) -> Rows:
  """Returns the accuracy of each reward model on held-out pairs."""
  rows_ = []
  for row in rows:
    each = {
      "round": row["round"],
      "kind": row.get("kind", "ppm"),
      "pairs": row.get("pairs"),
    }
    for kind in ("step", "final"):
      measured = row.get(f"held_out_{kind}") or {}
      each[kind] = {
        "accuracy": measured.get("accuracy"),
        "pairs": measured.get("pairs"),
      }
    rows_.append(each)
  return rows_


def quality(rounds: Iterable[Mapping[str, Any]]) -> Rows:
  """Returns the studies' measures of reward models, by round and model."""
  names = ("reward", "auc", "auc_within", "calibration_error", "solutions")
  return [
    {"round": each["round"], "bins": row.get("bins", [])}
    | {name: row.get(name) for name in names}
    for each in rounds
    for row in each["quality"]
  ]


def decisions(rounds: Iterable[Mapping[str, Any]]) -> Rows:
  """Returns an oracle's figures for each split of generated problems.

  Returns:
    {"split", "rounds", "levels"} each: the figures of each round and, for the
    newest, by level; see `report/judged.py`.
  """
  splits: dict[str, dict[str, Any]] = {}
  for each in rounds:
    for row in each["decisions"]:
      part = splits.setdefault(row["split"], {"rounds": []})
      part["levels"] = row["levels"]
      shown = {k: v for k, v in row.items() if k not in ("split", "levels")}
      part["rounds"].append({"round": each["round"], **shown})
  return [{"split": split, **part} for split, part in splits.items()]


def time_spent(metrics: Iterable[Mapping[str, Any]]) -> Rows:
  """Returns the time that the first host spent in each stage.

  A stage records the seconds since its start. If they decrease, it was
  restarted, and both parts count. A search's recorded rate is its average since
  the start; a training's is that since the last row.

  Returns:
    {"round", "stage", "name", "seconds", "compiling", "idle", "rate", "full",
    "host", "pages", "dropped"} each: compiling and idle are the shares of time
    in which programs were compiled and in which the device waited; rate is in
    tokens per second, generated or trained on; full is the share of useful
    token slots; host is the engine's own time, in microseconds per token; pages
    is the number that held tokens at the end, dropped the number evicted. None
    if not recorded.
  """
  parts: dict[tuple[int, str], list[_Part]] = {}
  for row in metrics:
    for key, seconds in row.items():
      name, _, what = key.rpartition("/")
      if what != "seconds" or seconds is None:
        continue
      training = scalars.of_training(name)
      if training and training[1] == scalars.REINFORCE:
        continue  # Alternates with the search, whose seconds include it.
      place = training or (row["step"], name)
      of_place = parts.setdefault(place, [])
      if not of_place or seconds < of_place[-1].seconds:
        of_place.append(_Part())
      part = of_place[-1]
      if training:
        rate = row.get(f"{name}/tokens_per_second")
        part.tokens = _plus(part.tokens, rate, seconds - part.seconds)
      else:
        rate = row.get(f"{name}/generated_tokens_per_second")
        part.tokens = _plus(0.0, rate, seconds)
      part.idle = _plus(0.0, row.get(f"{name}/device_idle_share"), seconds)
      part.compiling = row.get(f"{name}/compile_seconds")
      part.full = _plus(0.0, row.get(f"{name}/useful_slots"), seconds)
      part.host = row.get(f"{name}/host_seconds")
      part.pages = row.get(f"{name}/pages_used")
      part.dropped = row.get(f"{name}/pages_dropped")
      part.seconds = seconds
  found = []
  for (round_, stage), of_place in sorted(parts.items(), key=_place):
    total = sum(part.seconds for part in of_place)
    found.append(
      {
        "round": round_,
        "stage": stage,
        "name": _STAGES.get(stage, f"Training the {stage.upper()}"),
        "seconds": total,
        "compiling": _share([part.compiling for part in of_place], total),
        "idle": _share([part.idle for part in of_place], total),
        "rate": _share([part.tokens for part in of_place], total),
        "full": _share([part.full for part in of_place], total),
        "host": _per_token(of_place),
        "pages": of_place[-1].pages,
        "dropped": _sum([part.dropped for part in of_place]),
      }
    )
  return found


@dataclasses.dataclass
class _Part:
  """The part of a stage between two starts, or to its end.

  Attributes:
    seconds: its duration.
    compiling: seconds of compilation, None if not recorded.
    idle: seconds in which the device waited, None if not recorded.
    tokens: tokens generated or trained on, None if not recorded.
    full: seconds times the share of useful slots, None if not recorded.
    host: seconds of the engine's threads, None if not recorded.
    pages: number of pages with tokens, None if not recorded.
    dropped: number of evicted pages, None if not recorded.
  """

  seconds: float = 0.0
  compiling: float | None = None
  idle: float | None = 0.0
  tokens: float | None = 0.0
  full: float | None = 0.0
  host: float | None = None
  pages: float | None = None
  dropped: float | None = None


def _place(item: tuple[tuple[int, str], Any]) -> tuple[int, int, str]:
  """Returns a sort key: the round, then the order of stages in it."""
  (round_, stage), _ = item
  order = list(_STAGES)
  rank = order.index(stage) if stage in order else len(order)
  return round_, rank, stage


def _plus(
  so_far: float | None, rate: float | None, seconds: float
) -> float | None:
  """Adds a rate times seconds; None if anything is unknown."""
  if so_far is None or rate is None:
    return None
  return so_far + rate * seconds


def _sum(parts: Sequence[float | None]) -> float | None:
  """Returns the sum of parts; None if a part is unknown."""
  return None if None in parts else sum(parts)


def _per_token(parts: Sequence[_Part]) -> float | None:
  """Returns the engine's own time, in microseconds per token."""
  host, tokens = _sum([p.host for p in parts]), _sum([p.tokens for p in parts])
  return 1e6 * host / tokens if host is not None and tokens else None


def _share(parts: Sequence[float | None], total: float) -> float | None:
  """Returns the sum of parts over the total; None if a part is unknown."""
  if not total or any(part is None for part in parts):
    return None
  return sum(parts) / total


def grader(rounds: Iterable[Mapping[str, Any]]) -> Rows:
  """Returns the counts of verdicts on the solutions of each round."""
  names = ("answers", "right", "wrong", "undecided")
  return [
    {"round": each["round"]} | {name: each["sft"][name] for name in names}
    for each in rounds
    if each["sft"] and all(name in each["sft"] for name in names)
  ]


def unsolved(rounds: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
  """Returns the unsolved problems of the newest round that has SFT data."""
  for each in reversed(rounds):
    if each["sft"] is not None:
      return {
        "round": each["round"],
        "count": each["unsolved"]["count"],
        "suspects": len(each["unsolved"]["suspects"]),
        "rows": each["unsolved"]["rows"],
      }
  return None


def blocks(text: str) -> Rows:
  """Splits the Markdown of a study into headings, paragraphs and tables.

  Returns:
    {"heading"}, {"text"} or {"head", "rows"} each, in order.
  """
  parts: Rows = []
  for part in re.split(r"\n\s*\n", text.strip()):
    lines = part.strip().splitlines()
    if not lines:
      continue
    if lines[0].startswith("#"):
      parts.append({"heading": lines[0].lstrip("# ")})
    elif lines[0].startswith("|"):
      cells = [
        [cell.strip() for cell in line.strip().strip("|").split("|")]
        for line in lines
      ]
      # The second line is the ruler below the head.
      parts.append({"head": cells[0], "rows": cells[2:]})
    else:
      parts.append({"text": " ".join(lines)})
  return parts
