"""The tables of a study's and an evaluation's records.

`study.py` describes the files that they are made from.
"""

import itertools
from typing import Any

from rstar_jax.evaluation import compare as compare_lib
from rstar_jax.evaluation import cost, markdown, sources
from rstar_jax.pipeline.context import Context
from rstar_jax.pipeline.reading import read_rows, read_solutions
from rstar_jax.storage import layout, manifests, records, store


def read(folder: store.Path) -> list[dict[str, Any]]:
  """Returns the records of all finished methods of a study.

  Args:
    folder: round_k/study of a run.
  """
  return [
    row
    for method in _methods(folder)
    for each in sorted(_models(folder, method), key=_rank)
    if manifests.read(each) is not None
    for row in read_solutions(each)
  ]


def _methods(folder: store.Path) -> list[str]:
  """Returns the names of methods' folders, those of plugins last."""
  names = {
    name
    for model in store.children(folder)
    if model != layout.TABLES
    for name in store.children(folder / model)
  }
  own = names - {*sources.SOURCES, layout.VALUES, layout.QUALITY}
  return [*sources.SOURCES, *sorted(own)]


def _models(folder: store.Path, method: str) -> list[store.Path]:
  """Returns the folders that a method may have, one per model."""
  return [folder / model / method for model in store.children(folder)]


def _rank(folder: store.Path) -> tuple[bool, bool, str]:
  """Sort key of a method's folder: without a reward model, the PPM, others."""
  model = folder.parent.name
  return model != layout.UNGUIDED, model != "ppm", model


def render(context: Context, round_: int) -> str:
  """Returns the tables of all finished methods of a round's study.

  All but the table of times are written to round_k/study/tables.md too: two
  runs of one config write the same bytes, and times differ.

  Raises:
    ValueError: nothing is finished.
  """
  folder = context.folder(round_, layout.STUDY)
  rows = read(folder)
  if not rows:
    raise ValueError(
      f"{folder} has no finished method: run rstar_jax study --round={round_}"
    )
  qualities, sizes = {}, []
  names = (*_methods(folder), layout.QUALITY)
  found = [each for name in names for each in _models(folder, name)]
  for each in sorted(found, key=_rank):
    info = manifests.read(each) or {}
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
  hosts = {0, *layout.hosts(store.children(context.workdir))}
  lines = itertools.chain.from_iterable(
    records.each_row(layout.host_folder(context.workdir, host) / layout.METRICS)
    for host in sorted(hosts)
  )
  work = cost.measured(lines, f"{layout.STUDY}/", round_)
  return "\n".join([text, *markdown.time(work)]) if work else text


def compare(context: Context, other: store.Path, round_: int | None) -> str:
  """Compares this run with another, on the problems that both evaluated.

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
          layout.stage_folder(folder, number, "eval") / layout.MANIFEST
        ).exists()
      }
      for folder in folders
    ]
    round_ = max(rounds[0] & rounds[1], default=None)
    if round_ is None:
      raise ValueError(
        f"{folders[0]} and {folders[1]} have no evaluated round in common: run "
        "rstar_jax evaluate on both, with the same --round"
      )
  both = []
  for folder in folders:
    top = folder / layout.round_name(round_)
    rows = read(top / layout.STUDY)
    if manifests.read(top / "eval") is not None:
      # Where a study has the method too, its records say more.
      taken = {(row["split"], row["source"]) for row in rows}
      rows += compare_lib.of_evaluation(
        row
        for row in read_solutions(top / "eval")
        if (row["split"], row["source"]) not in taken
      )
    if not rows:
      raise ValueError(
        f"{top} has neither an evaluation nor a study: run rstar_jax evaluate "
        f"--round={round_} on it"
      )
    both.append(rows)
  return compare_lib.render(
    compare_lib.rows(
      *both, seed=context.config.seed, k=context.config.study.top_k
    )
  )
