"""Shards of a stage: cut alike on every host, made by one, waited for by one.

A shard of problems is the unit of work. Which host makes it follows from its
number, and what is in it from the config alone, so that the bytes of a stage do
not depend on how many hosts there are.
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
  """Problems that are worked on together, always in the same batches.

  Attributes:
    problems: some.
    path: of the file that is written last.
    files: all that are written; the shard is done where they are whole.
  """

  problems: list[Problem]
  path: store.Path
  files: tuple[store.Path, ...]

  def done(self) -> bool:
    """Says whether all its files are whole."""
    return all(map(records.is_complete, self.files))


def cut(
  problems: Sequence[Problem],
  size: int,
  folder: store.Path,
  prefixes: Sequence[str] = ("",),
) -> list[Shard]:
  """Cuts problems into shards.

  Args:
    problems: of all shards.
    size: problems of a shard.
    folder: of the shards.
    prefixes: what the names of the files of one shard begin with, "" for the
      one that is written last.
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


def unwritten(
  host: Host, shards: Sequence[Shard], description: str, first: int = 0
) -> Iterator[tuple[Shard, metrics.Progress]]:
  """Yields the shards of a host that are not yet written.

  Args:
    host: this one.
    shards: of all hosts.
    description: for people.
    first: shards of the same stage before these, which decide whose turn it is.
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


def account(
  writer: metrics.Writer,
  round_: int,
  usage: Mapping[str, float],
  name: str,
  progress: metrics.Progress,
) -> None:
  """Writes down what shards have taken so far.

  Args:
    writer: of metrics.
    round_: from 0.
    usage: of a device.
    name: of the stage in metrics.
    progress: shows how much of it was compiling.
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
    host: this one.
    folder: of the stage.
    info: makes what the manifest says, once all shards are done.
    shards: of all hosts.
    files: lists those that the manifest names; None is all there are.
  """
  if not host.leads:
    wait_until(
      lambda: records.read_manifest(folder) is not None,
      f"{folder / records.MANIFEST}",
    )
    return
  left = list(shards)

  def all_done() -> bool:
    # One listing tells which of thousands are worth a look.
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
    # Checkpoints are for resuming; the manifest names what later stages read,
    # and nothing that a killed writer left.
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
  """Returns the trees of finished folders, showing how far it is.

  Args:
    folders: of several rounds, say.
    description: for people.
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
