"""Shards of a stage: the files of its records, which hosts divide.

The config alone decides the content of a shard, and its number decides which
host makes it (in `units.py`). The first host waits for all shards and writes
the manifest.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rstar_jax.pipeline.hosts import Host, wait_until
from rstar_jax.storage import layout, manifests, records, store
from rstar_jax.types import Problem

# Returns a header's fields for the rows of its shard.
Info = Callable[[Sequence[Mapping[str, Any]]], Mapping[str, Any]]


@dataclasses.dataclass(frozen=True)
class Unit:
  """The unit of work and of resuming: one problem, solved by one method.

  Attributes:
    problem: to solve.
    method: how, where a stage has several methods; or the folder of what else
      is made of the problem, such as a reward model's values of its trees.
    split: the problem's split, where a stage has several.
  """

  problem: Problem
  method: str = ""
  split: str = ""


@dataclasses.dataclass(frozen=True)
class Shard:
  """Files with the rows of some units.

  Attributes:
    units: the units, in the order of their rows.
    path: the file that is written last.
    prefixes: prefixes of its files' names; the last is "", for `path` itself.
    info: returns the header's fields for the rows of `path`; None adds none.
  """

  units: list[Unit]
  path: store.Path
  prefixes: tuple[str, ...] = ("",)
  info: Info | None = None

  @property
  def name(self) -> str:
    """The name of `path` without its ending."""
    return self.path.name.partition(".")[0]

  @property
  def files(self) -> list[store.Path]:
    """All files of the shard, in the order of `prefixes`."""
    return [
      self.path.with_name(each + self.path.name) for each in self.prefixes
    ]

  def done(self) -> bool:
    """Returns whether all files are complete."""
    return all(map(records.is_complete, self.files))


def cut(
  problems: Sequence[Problem],
  size: int,
  folder: store.Path,
  prefixes: Sequence[str] = ("",),
  units: Callable[[Sequence[Problem]], list[Unit]] = lambda part: [
    *map(Unit, part)
  ],
  info: Info | None = None,
) -> list[Shard]:
  """Cuts problems into shards.

  Args:
    problems: all problems of the stage, in order.
    size: number of problems per shard, at least 1.
    folder: the folder that the shards are written to.
    prefixes: see `Shard`.
    units: returns the units of a shard's problems, in the order of its rows.
    info: see `Shard`.

  Raises:
    ValueError: the folder has shards of another number of problems, which would
      stay beside these.
  """
  total = -(-len(problems) // size)
  shards = [
    Shard(
      units(problems[index * size : (index + 1) * size]),
      folder / records.shard_name(index, total),
      tuple(prefixes),
      info,
    )
    for index in range(total)
  ]
  known = {shard.path.name for shard in shards}
  for name in store.children(folder):
    if name.startswith("shard-") and name not in known:
      raise ValueError(
        f"{folder / name} is of another number of problems than the "
        f"{len(problems)} that there are now: restore the data with which the "
        f"run began, or delete {folder}"
      )
  return shards


def unfinished(shards: Sequence[Shard]) -> list[Shard]:
  """Returns the shards that are not `done`, in order."""
  if not shards:
    return []
  done = store.prefetch(Shard.done, shards, shards[0].path)
  pairs = zip(shards, done, strict=True)
  return [shard for shard, is_done in pairs if not is_done]


def begin(host: Host, folder: store.Path) -> dict | None:
  """Begins a stage: returns its folder's manifest if it is finished.

  If the folder is damaged, the first host prepares it to be made again, and
  others wait for that: it could take what they have made for damaged files.

  Args:
    host: this process.
    folder: the folder of the stage.
  """
  if host.leads:
    return manifests.reopen(folder)
  path, finished = folder / layout.MANIFEST, _finished(folder)
  wait_until(
    lambda: store.version(path) is None or finished(),
    f"the first host to begin on {folder}, which is damaged",
  )
  return manifests.read(folder)


def finish(
  host: Host,
  folder: store.Path,
  info: Callable[[], Mapping[str, Any]],
  shards: Sequence[Shard] = (),
  files: Callable[[], Sequence[str]] | None = None,
) -> None:
  """Ends a stage: the first host writes its manifest, others wait for it.

  Args:
    host: this process.
    folder: the folder of the stage.
    info: returns the manifest's fields; called once all shards are done.
    shards: the shards of all hosts.
    files: lists the files that the manifest names; None is all files.
  """
  if not host.leads:
    wait_until(_finished(folder), f"{folder / layout.MANIFEST}")
    return
  left = list(shards)

  def all_done() -> bool:
    # One listing, rather than a look at each of thousands of shards.
    there = {folder / name for name in store.files(folder)}
    missing = [each for each in left if not there.issuperset(each.files)]
    ready = [each for each in left if there.issuperset(each.files)]
    left[:] = missing + unfinished(ready)
    return not left

  wait_until(all_done, f"shards of other hosts in {folder}")
  manifests.write(folder, info(), files and files())


def _finished(folder: store.Path) -> Callable[[], bool]:
  """Returns a function that returns whether a folder is finished by now.

  A damaged folder has a manifest while another host makes it again. The
  manifest is read again when a file has changed, so that its warning is not
  repeated at each look.
  """
  seen: dict[str, store.Version] = {}

  def look() -> bool:
    nonlocal seen
    if store.version(folder / layout.MANIFEST) is None:
      return False
    # A shared file system may show a shard later than the manifest.
    there = {
      name: version
      for name, version in store.files(folder).items()
      if not store.matches(name, *manifests.LEFTOVERS)
    }
    if there == seen:
      return False
    seen = there
    return manifests.read(folder) is not None

  return look


def finish_model(
  host: Host, folder: store.Path, info: Mapping[str, Any]
) -> None:
  """Ends a stage that trains a model: writes the manifest of its folder.

  The packed training rows are removed first; a run that is killed before it
  writes the manifest packs them again.
  """
  if host.leads:
    manifests.remove(folder / layout.ROWS)

  def files() -> list[str]:
    # The manifest names the files that later stages read: neither checkpoints,
    # which are for resuming, nor the temporary files of a killed writer.
    return [
      name
      for name in store.files(folder)
      if "/" not in name
      and name != layout.MANIFEST
      and not name.startswith(".")
    ]

  finish(host, folder, lambda: info, files=files)
