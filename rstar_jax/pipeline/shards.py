"""Shards of a stage: the unit of work that the hosts of a run divide.

The config alone decides the content of a shard, and its number decides which
host makes it, so that the bytes of a stage do not depend on the number of
hosts. The first host waits for all shards and writes the manifest.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from rstar_jax.data import pairs as pairs_lib
from rstar_jax.pipeline.hosts import Host, wait_until
from rstar_jax.search import tree as tree_lib
from rstar_jax.search.tree import Tree
from rstar_jax.storage import metrics, records, stopping, store
from rstar_jax.types import PreferencePair, Problem


@dataclasses.dataclass(frozen=True)
class Shard:
  """Problems that are processed together, always in the same batches.

  Attributes:
    problems: the shard's problems.
    path: the file that is written last.
    files: all files of the shard; it is done when all are complete.
  """

  problems: list[Problem]
  path: store.Path
  files: tuple[store.Path, ...]

  def done(self) -> bool:
    """Says whether all files are complete."""
    return all(map(records.is_complete, self.files))


def cut(
  problems: Sequence[Problem],
  size: int,
  folder: store.Path,
  prefixes: Sequence[str] = ("",),
) -> list[Shard]:
  """Cuts problems into shards.

  Args:
    problems: all problems of the stage, in order.
    size: number of problems per shard, at least 1.
    folder: the folder that the shards are written to.
    prefixes: prefixes of the file names of a shard, "" for the file that is
      written last.
  """
  total = -(-len(problems) // size)
  shards = []
  for index in range(total):
    path = folder / records.shard_name(index, total)
    shards.append(
      Shard(
        list(problems[index * size : (index + 1) * size]),
        path,
        tuple(path.with_name(prefix + path.name) for prefix in prefixes),
      )
    )
  return shards


def missing_shards(
  host: Host, shards: Sequence[Shard], description: str, first: int = 0
) -> Iterator[tuple[Shard, metrics.Progress]]:
  """Yields the shards that a host has yet to make, with a progress bar.

  Args:
    host: this process.
    shards: the shards of all hosts.
    description: label of the progress bar.
    first: number in the stage of the first of `shards`, from 0.
  """
  own = [
    shard for number, shard in enumerate(shards, first) if host.owns(number)
  ]
  left = [shard for shard in own if not shard.done()]
  total, todo = (sum(len(s.problems) for s in each) for each in (own, left))
  with metrics.progress(
    total, description, start=total - todo, unit="problem"
  ) as bar:
    for shard in left:
      stopping.check()
      yield shard, bar


def write_usage(
  writer: metrics.Writer,
  round_: int,
  usage: Mapping[str, float],
  name: str,
  progress: metrics.Progress,
) -> None:
  """Writes a backend's usage to the metrics.

  Args:
    writer: writes metrics.
    round_: the step of the metrics, from 0.
    usage: the result of `ModelBackend.usage`.
    name: prefix of the metrics' names.
    progress: shows the number of compiled programs and their seconds.
  """
  writer.write(round_, usage, name)
  if programs := usage.get("programs"):
    taken = f"{programs:.0f} programs in {usage['compile_seconds']:.0f} s"
    progress.update(0, compiled=taken)


def finish(
  host: Host,
  folder: store.Path,
  info: Callable[[], Mapping[str, Any]],
  shards: Sequence[Shard] = (),
  files: Callable[[], Sequence[str]] | None = None,
) -> None:
  """Ends a stage: the first host writes the manifest, others wait for it.

  Args:
    host: this process.
    folder: the folder of the stage.
    info: makes the manifest's fields, once all shards are done.
    shards: the shards of all hosts.
    files: lists the files that the manifest names; None is all files.
  """
  if not host.leads:
    wait_until(
      lambda: records.read_manifest(folder) is not None,
      f"{folder / records.MANIFEST}",
    )
    return
  left = list(shards)

  def all_done() -> bool:
    # One listing finds the candidates among thousands of shards.
    there = {folder / name for name in store.files(folder)}
    ready = [shard for shard in left if there.issuperset(shard.files)]
    whole = {
      shard.path
      for shard, done in zip(
        ready, store.prefetch(Shard.done, ready, folder), strict=True
      )
      if done
    }
    left[:] = [shard for shard in left if shard.path not in whole]
    return not left

  wait_until(all_done, f"shards of other hosts in {folder}")
  records.write_manifest(folder, info(), files and files())


def finish_model(
  host: Host, folder: store.Path, info: Mapping[str, Any]
) -> None:
  """Ends a stage that trains a model: writes the manifest of its folder."""

  def files() -> list[str]:
    # The manifest names the files that later stages read: no checkpoints, which
    # are for resuming, and no temporary files of a killed writer.
    return [
      name
      for name in store.files(folder)
      if "/" not in name
      and name != records.MANIFEST
      and not name.startswith(".")
    ]

  finish(host, folder, lambda: info, files=files)


def read_rows(folder: store.Path) -> list[dict]:
  """Returns the rows of all shards below a finished folder, in order."""
  paths = _paths(folder)
  return [
    row
    for rows in store.prefetch(records.read_shard, paths, folder)
    for row in rows
  ]


def read_trees(folder: store.Path | str) -> list[Tree]:
  """Returns the trees of a finished folder, `round_k/trees`."""
  return [tree_lib.from_record(row) for row in read_rows(store.path(folder))]


def read_pairs(folder: store.Path | str) -> list[PreferencePair]:
  """Returns the preference pairs of a finished folder, `round_k/pairs`."""
  return [pairs_lib.from_dict(row) for row in read_rows(store.path(folder))]


def pool_trees(folders: Sequence[store.Path], description: str) -> list[Tree]:
  """Returns the trees of finished folders, with a progress bar.

  Args:
    folders: folders of trees, one per round.
    description: label of the progress bar.
  """
  shards = [(each, _paths(each)) for each in folders]
  total = sum(len(paths) for _, paths in shards)
  trees: list[Tree] = []
  with metrics.progress(total, description, unit="shard") as bar:
    for folder, paths in shards:
      for rows in store.prefetch(records.read_shard, paths, folder):
        trees += map(tree_lib.from_record, rows)
        bar.update()
  return trees


def _paths(folder: store.Path) -> list[store.Path]:
  """Returns the shards of a folder, however deep, in order."""
  return sorted(
    folder / name
    for name in store.files(folder)
    if name.rpartition("/")[2].startswith("shard-")
  )
