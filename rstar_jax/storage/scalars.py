"""The names of a run's metrics.

A name is PREFIX/WHAT. By round, with the round as the step:

  rollout/solved, rollout/level_3/solved   shares of the training problems
  sft/..., pairs/...                       counts of solutions and pairs
  ppm/held_out_step/accuracy, and _final   the PPM's, on held-out pairs
  eval/SPLIT/pass_at_1, majority, best_of_n, search, pass_at_k   accuracy
  eval/SPLIT/picks_ppm, _policy, _chance   right steps picked, with an oracle
  rollout/..., eval/...                    tokens/s, useful slots and so on

By update: round_1_sft/loss, round_1_ppm/loss, round_1_reinforce/..., with
tokens/s and seconds; and by turn, round_1_rollout/reward.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from rstar_jax.storage import layout

# Prefix of metrics by round -> the stage that writes them.
STAGES = {
  "rollout": "rollout",
  "sft": "extract",
  "pairs": "extract",
  "ppm": "ppm",
  "eval": "evaluate",
}
# Reinforcement alternates with the search, and is a part of its stage.
REINFORCE = "reinforce"
# Methods of an evaluation -> the metric of their accuracy.
METHODS = {
  "policy": "pass_at_1",
  "majority": "majority",
  "best_of_n": "best_of_n",
  "mcts": "search",
  "pass@k": "pass_at_k",
}
_TRAINING = re.compile(r"round_(\d+)_(\w+)")


def training(round_: int, name: str) -> str:
  """Returns the prefix of a training's metrics."""
  return f"{layout.round_name(round_)}_{name}"


def of_training(prefix: str) -> tuple[int, str] | None:
  """Returns the round and name in a training's prefix, None for others."""
  match = _TRAINING.fullmatch(prefix)
  return (int(match[1]), match[2]) if match else None


def stepped(lines: Iterable[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
  """Yields the lines of metrics that have an integer "step"."""
  for line in lines:
    if type(line.get("step")) is int:
      yield dict(line)


def accuracies(
  rows: Iterable[Mapping[str, Any]],
  decisions: Iterable[Mapping[str, Any]] = (),
) -> dict[str, float]:
  """Returns the metrics of an evaluation, without "eval/".

  Args:
    rows: see `evaluation.accuracy.table`.
    decisions: see `report.judged.of_round`.
  """
  metrics = {}
  for row in rows:
    split = layout.folder_name(row["split"])
    metrics[f"{split}/{METHODS[row['method']]}"] = row["accuracy"]
  for row in decisions:
    for who in ("ppm", "policy", "chance"):
      if who in row:
        split = layout.folder_name(row["split"])
        metrics[f"{split}/picks_{who}"] = row[who][0]
  return metrics


def accuracies_in(
  lines: Iterable[Mapping[str, Any]], splits: Iterable[str]
) -> list[dict[str, Any]]:
  """Returns the accuracies in lines of metrics, the inverse of `accuracies`.

  Args:
    lines: lines of metrics.jsonl.
    splits: names of the run's splits.

  Returns:
    Rows with "round", "split", "method" and "accuracy".
  """
  places = {
    f"eval/{layout.folder_name(split)}/{name}": (split, method)
    for split in splits
    for method, name in METHODS.items()
  }
  found = {}
  for line in lines:
    for key in places.keys() & line.keys():
      found[line["step"], *places[key]] = line[key]
  return [
    {"round": round_, "split": split, "method": method, "accuracy": value}
    for (round_, split, method), value in found.items()
  ]


def solved(manifest: Mapping[str, Any]) -> dict[str, float]:
  """Returns the metrics of a round's trees, without "rollout/".

  Args:
    manifest: of the round's trees.
  """
  levels = {
    f"level_{level}/solved": each["solved"] / each["problems"]
    for level, each in manifest["levels"].items()
  }
  return {"solved": manifest["solved"], **levels}
