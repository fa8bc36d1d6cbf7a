"""The numbers of the first page, from what `records.read` has read.

Pure functions of records; each returns rows that the page draws as they are.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

Rows = list[dict[str, Any]]

# Points of a curve: more cannot be told apart on a page.
_POINTS = 200
# Problems that are shown as unsolved, the most suspicious first.
_UNSOLVED = 30
_NAMES = {
  "policy": "Policy alone",
  "majority": "Majority vote",
  "best_of_n": "Best of N by PPM",
  "mcts": "Search with PPM",
  "pass@k": "Any sample right",
}
_TRAINING = re.compile(r"round_(\d+)_(\w+)")
_STAGES = {
  "rollout": "Search for data",
  "sft": "Training the policy",
  "ppm": "Training the PPM",
  "eval": "Evaluation",
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
    rows: of results.json, see `evaluate.table`.

  Returns:
    {"split", "lines": [{"method", "name", "points"}]}; a point is the part of a
    row that is shown. Lines are in the order of `_NAMES`.
  """
  splits: dict[str, dict[str, Rows]] = {}
  for row in rows:
    lines = splits.setdefault(row["split"], {name: [] for name in _NAMES})
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
        {"method": method, "name": _NAMES.get(method, method), "points": points}
        for method, points in lines.items()
        if points
      ],
    }
    for split, lines in splits.items()
  ]


def losses(metrics: Iterable[Mapping[str, Any]]) -> Rows:
  """Returns the curve of each training: {"name", "round", "kind", "points"}.

  A resumed run may have written an update twice: the later line counts. Long
  curves are thinned to `_POINTS`, at even distances.
  """
  curves: dict[str, dict[int, float]] = {}
  for row in metrics:
    for key, value in row.items():
      name, _, what = key.rpartition("/")
      if what == "loss" and _TRAINING.fullmatch(name):
        curves.setdefault(name, {})[row["step"]] = value
  found = []
  for name, points in curves.items():
    match = _TRAINING.fullmatch(name)
    steps = sorted(points)
    # Rounded up, and the last one always.
    every = -(-len(steps) // _POINTS)
    kept = sorted({*steps[::every], *steps[-1:]})
    found.append(
      {
        "name": name,
        "round": int(match[1]),
        "kind": match[2],
        "points": [[step, points[step]] for step in kept],
      }
    )
  return found


def ppm(rows: Iterable[Mapping[str, Any]]) -> Rows:
  """Returns how often each PPM prefers the better side of held-out pairs."""
  found = []
  for row in rows:
    each = {"round": row["round"], "pairs": row.get("pairs")}
    for kind in ("step", "final"):
      measured = row.get(f"held_out_{kind}") or {}
      each[kind] = {
        "accuracy": measured.get("accuracy"),
        "pairs": measured.get("pairs"),
      }
    found.append(each)
  return found


def quality(rounds: Iterable[Mapping[str, Any]]) -> Rows:
  """Returns what the studies measured of reward models, by round and model."""
  names = ("reward", "auc", "auc_within", "calibration_error", "solutions")
  return [
    {"round": each["round"], "bins": row.get("bins", [])}
    | {name: row.get(name) for name in names}
    for each in rounds
    for row in each["quality"]
  ]


def time_spent(metrics: Iterable[Mapping[str, Any]]) -> Rows:
  """Returns where the time of the first host went.

  A stage writes the seconds since it began; where they fall it was begun again,
  and both parts count.

  Returns:
    {"round", "stage", "name", "seconds", "idle", "rate"}: idle is the share in
    which the device waited, rate is in tokens a second; null if not recorded.
  """
  parts: dict[tuple[int, str], list[tuple[float, Any, Any]]] = {}
  for row in metrics:
    for key, seconds in row.items():
      name, _, what = key.rpartition("/")
      if what != "seconds":
        continue
      match = _TRAINING.fullmatch(name)
      place = (int(match[1]), match[2]) if match else (row["step"], name)
      told = (
        seconds,
        row.get(f"{name}/device_idle_share"),
        row.get(f"{name}/generated_tokens_per_second"),
      )
      ends = parts.setdefault(place, [])
      if ends and seconds >= ends[-1][0]:
        ends[-1] = told
      else:
        ends.append(told)
  order = list(_STAGES)
  found = []
  for (round_, stage), ends in sorted(
    parts.items(),
    key=lambda each: (
      each[0][0],
      order.index(each[0][1]) if each[0][1] in order else len(order),
      each[0][1],
    ),
  ):
    total = sum(seconds for seconds, _, _ in ends)
    found.append(
      {
        "round": round_,
        "stage": stage,
        "name": _STAGES.get(stage, f"Training the {stage.upper()}"),
        "seconds": total,
        "idle": _mean([(s, idle) for s, idle, _ in ends], total),
        "rate": _mean([(s, rate) for s, _, rate in ends], total),
      }
    )
  return found


def grader(rounds: Iterable[Mapping[str, Any]]) -> Rows:
  """Returns the verdicts over the solutions that a round's data are made of."""
  names = ("answers", "right", "wrong", "undecided")
  return [
    {"round": each["round"]} | {name: each["sft"][name] for name in names}
    for each in rounds
    if each["sft"] and all(name in each["sft"] for name in names)
  ]


def unsolved(rounds: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
  """Returns what the newest round that tells of it left unsolved."""
  for each in reversed(rounds):
    if each["sft"] is not None:
      return {
        "round": each["round"],
        "count": len(each["unsolved"]),
        "suspects": sum(row["suspect"] for row in each["unsolved"]),
        "rows": each["unsolved"][:_UNSOLVED],
      }
  return None


def blocks(text: str) -> Rows:
  """Cuts the Markdown of a study into headings, paragraphs and tables.

  Returns:
    {"heading"}, {"text"} or {"head", "rows"} each, in order.
  """
  found: Rows = []
  for part in re.split(r"\n\s*\n", text.strip()):
    lines = part.strip().splitlines()
    if not lines:
      continue
    if lines[0].startswith("#"):
      found.append({"heading": lines[0].lstrip("# ")})
    elif lines[0].startswith("|"):
      cells = [
        [cell.strip() for cell in line.strip().strip("|").split("|")]
        for line in lines
      ]
      # The second line only rules off the head.
      found.append({"head": cells[0], "rows": cells[2:]})
    else:
      found.append({"text": " ".join(lines)})
  return found


def _mean(parts: Sequence[tuple[float, Any]], total: float) -> float | None:
  """Returns a mean over seconds, None where one part does not tell."""
  if not total or any(value is None for _, value in parts):
    return None
  return sum(seconds * value for seconds, value in parts) / total
