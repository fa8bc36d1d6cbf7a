"""The stage that makes training data: trees to solutions and pairs.

The stage maps each file of trees to files of its own, with counts in their
headers. So a killed run goes on with the files that are left, and adds up all
counts at the end.
"""

import collections
import functools
from typing import Any

from rstar_jax.data import counts as counts_lib
from rstar_jax.data import extraction, pools, released, training
from rstar_jax.pipeline import work
from rstar_jax.pipeline.context import Context
from rstar_jax.pipeline.shards import begin, finish
from rstar_jax.storage import json_io, layout, metrics, records, store

# Rows per shard of training data that do not come from trees.
_SHARD_ROWS = 10_000
# Up to this many bytes of trees, starting processes does not pay.
_FEW = 1 << 26


def tree_folders(context: Context, round_: int) -> list[store.Path]:
  """Returns the tree folders of the last `extract.rounds` rounds."""
  first = max(round_ - context.config.extract.rounds + 1, 1)
  return [
    context.finished(number, "trees") for number in range(first, round_ + 1)
  ]


def extract(context: Context, round_: int) -> None:
  """Makes SFT rows and preference pairs: round_k/sft, round_k/pairs.

  They come from the trees of the last `extract.rounds` rounds, or from
  `extract.sft_source` and `extract.pairs_source` where these are set.
  """
  config = context.config.extract
  # Every host checks, so that each one reports a missing folder.
  trees = tree_folders(context, round_) if config.needs_trees else []
  sources = {"sft": config.sft_source, "pairs": config.pairs_source}
  left = {
    name: folder
    for name in sources
    if begin(context.host, folder := context.folder(round_, name)) is None
  }
  from_trees = [name for name in left if not sources[name]]
  if from_trees and context.host.leads:
    _from_trees(
      context, round_, trees, {name: left[name] for name in from_trees}
    )
  for name, folder in left.items():
    info = functools.partial(
      _info, context, round_, name, folder, sources[name]
    )
    finish(context.host, folder, info)


def _info(
  context: Context, round_: int, name: str, folder: store.Path, source: str
) -> dict[str, Any]:
  """Returns the manifest's fields for "sft" or "pairs"; writes them as metrics.

  Args:
    context: the run.
    round_: from 1.
    name: of the data.
    folder: holds their shards, or will hold those of the source.
    source: of released data; "" for data from trees.
  """
  if source:
    stats = _copy(context, source, name, folder)
  else:
    stats = _counts(folder)
  numbers = {k: v for k, v in stats.items() if not isinstance(v, dict)}
  context.writer.write(round_, numbers, name)
  return stats


def _from_trees(
  context: Context,
  round_: int,
  folders: list[store.Path],
  targets: dict[str, store.Path],
) -> None:
  """Writes the shards of training data, as many as there are files of trees.

  Args:
    context: the run.
    round_: from 1.
    folders: the folders of trees.
    targets: the folders of "sft" and "pairs", or one of them.
  """
  parts = pools.parts(folders)
  jobs = []
  for index, part in enumerate(parts):
    name = records.shard_name(index, len(parts))
    files = {key: folder / name for key, folder in targets.items()}
    job = extraction.Job(part, files.get("sft"), files.get("pairs")).left()
    if job.sft or job.pairs:
      jobs.append(job)
  size = sum(
    version.size
    for folder in folders
    for version in store.files(folder).values()
  )
  divided = context.work if size > _FEW else work.Local(1)
  function = functools.partial(
    extraction.write, config=context.config.extract, seed=context.config.seed
  )
  label = f"round {round_} extract"
  start = len(parts) - len(jobs)
  with metrics.Progress(len(parts), label, start=start, unit="file") as bar:
    for _ in divided.map(function, jobs):
      bar.update()


def _counts(folder: store.Path) -> dict[str, Any]:
  """Adds up the counts in the headers of a folder's shards."""
  total: dict[str, Any] = {}
  files = pools.paths_of(folder)
  for header in store.prefetch(records.header, files, folder):
    counts_lib.add(total, header["info"])
  return total


def _copy(
  context: Context, source: str, name: str, folder: store.Path
) -> dict[str, Any]:
  """Writes released training data as shards; returns counts of its rows.

  Rows whose question is in an evaluation set are left out.
  """
  skipped: released.Skipped = collections.Counter()
  read = {"sft": released.read_sft, "pairs": released.read_pairs}[name]
  screen = None
  if context.config.decontaminate.ngram:
    screen = training.screen(context.config)
  rows = (
    each
    for each in read(source, skipped)
    if screen is None or not screen.holds(each.problem_id, each.question)
  )
  stats = {"rows": records.write_shards(folder, rows, _SHARD_ROWS)}
  if screen is not None:
    report = training.reported(screen, source)
    json_io.update(context.workdir / layout.DECONTAMINATION, {name: report})
    stats["contaminated"] = report["dropped"]
  return stats | {"skipped": skipped.total(), "reasons": dict(skipped)}
