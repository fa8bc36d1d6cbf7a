"""Writes results.json, the measurements of a run."""

import dataclasses
from typing import Any

from rstar_jax.evaluation import accuracy
from rstar_jax.pipeline.context import Context
from rstar_jax.pipeline.reading import read_solutions
from rstar_jax.storage import json_io, layout, manifests


def write(context: Context) -> dict[str, Any]:
  """Writes results.json, and returns what it holds; see `collect`.

  Only the first host writes the file; the others return {}.
  """
  if not context.host.leads:
    return {}
  measured = collect(context)
  json_io.write(context.workdir / layout.RESULTS, measured)
  return measured


def collect(context: Context) -> dict[str, Any]:
  """Collects what was measured from the records of the finished stages.

  Returns:
    {"config", "rows", "solved", "ppm"}: "rows" of `accuracy.table`; "solved",
    for each round the share of training problems that its trees solve, by level
    too, and how many are easy, medium and hard; and "ppm", the PPM's accuracy
    on held-out pairs.
  """
  config = context.config
  rows, solved, ppm = [], [], []
  base: accuracy.Right = {}
  for round_ in range(len(config.rounds) + 1):
    folder = context.folder(round_, "eval")
    if manifests.read(folder) is not None:
      if not round_:
        base = accuracy.alone(read_solutions(folder))
      rows += accuracies(context, round_, base if round_ else None)
    trees = manifests.read(context.folder(round_, "trees"))
    if trees is not None:
      solved.append(accuracy.solved(round_, trees))
    measured = manifests.read(context.folder(round_, "ppm"))
    if measured is not None:
      measured.pop("files")
      ppm.append({"round": round_, **measured})
  return {
    "config": dataclasses.asdict(config),
    "rows": rows,
    "solved": solved,
    "ppm": ppm,
  }


def accuracies(
  context: Context, round_: int, base: accuracy.Right | None = None
) -> list[dict[str, Any]]:
  """Returns the rows of `accuracy.table` for a round's evaluation."""
  config = context.config
  return accuracy.table(
    read_solutions(context.folder(round_, "eval")),
    round_=round_,
    seed=config.seed,
    select=config.eval.answer_select,
    k=config.eval.top_k,
    base=base,
  )
