"""Finds the units of a stage, and keeps each as soon as it is found.

The bytes of a unit do not depend on the other units, their order, the host or
the number in flight. So one run of the driver finds all that is yet to be found
of some shards. What is found goes into a journal beside the shard that will
hold it. A shard whose units are all there is written, and its journals are
removed. A process that is killed loses the units in flight and no others; of
long ones what is there so far may be kept, too.

Two processes may find the same shard, where one was thought dead. Each has a
journal of its own; whichever ends first writes the shard, and the other one,
which would write the same bytes, may find that it is there.
"""

import collections
import contextlib
import re
import threading
import uuid
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Protocol

from absl import logging

from rstar_jax import outside
from rstar_jax.config import identity as identity_lib
from rstar_jax.pipeline import checks
from rstar_jax.pipeline.context import Context
from rstar_jax.pipeline.shards import Shard, Unit
from rstar_jax.pipeline.work import Load
from rstar_jax.search import driver, queues
from rstar_jax.search.queues import Usage
from rstar_jax.search.requests import Calls, Kind, Search
from rstar_jax.storage import json_io, layout, metrics, records, stopping, store
from rstar_jax.storage.journal import Journal

# What a unit adds to the files of its shard: rows by the prefix of a file.
Rows = dict[str, list[dict[str, Any]]]

# A journal, or one of its objects in a bucket.
_JOURNAL = re.compile(
  rf"({layout.BEGUN}(shard-\d+-of-\d+)(?:-\d+)?-[0-9a-f]+\.jsonl)(?:\.\d+)?"
)
# Between two sendings of journals to a bucket.
_SECONDS = 1.0


class Backend(Protocol):
  """Models that count their work; see `backends.ModelBackend`."""

  def usage(self) -> dict[str, float]: ...


def of_stage(
  context: Context,
  round_: int,
  stage: str,
  backend: Backend,
  shards: Sequence[Shard],
  description: str,
  *more: Any,
  load: Load | None = None,
) -> "Units":
  """Returns the units of a stage, which writes metrics after each shard.

  Args:
    context: the run.
    round_: from 0; the step of the metrics.
    stage: prefix of the metrics' names.
    backend: the models.
    shards: those that this process finds.
    description: what the stage does, for people.
    *more: what decides the bytes of units, beside stage, round and config.
    load: counts the units that are left, with those of other threads.
  """
  checks.check_bound(context.config, context.workdir)
  # A run may get more rounds at the end.
  bound = identity_lib.identity(context.config)
  del bound["rounds"]

  def written(bar: metrics.Progress, asked: Mapping[Kind, Usage]) -> None:
    usage = backend.usage()
    context.writer.write(round_, usage | queues.shares(asked), stage)
    if programs := usage.get("programs"):
      taken = f"{programs:.0f} programs in {usage['compile_seconds']:.0f} s"
      bar.update(0, compiled=taken)

  return Units(
    shards,
    [bound, stage, round_, *more],
    f"round {round_} {description}",
    written,
    context.host.index,
    load,
  )


class Units:
  """Units of a stage that this process finds; a context manager.

  Attributes:
    missing: number of units that journals and shards lacked at first.
    passed_over: damaged or cut lines of the journals.
  """

  def __init__(
    self,
    shards: Sequence[Shard],
    identity: Any,
    description: str,
    written: Callable[
      [metrics.Progress, Mapping[Kind, Usage]], None
    ] = lambda *_: None,
    host: int = 0,
    load: Load | None = None,
  ):
    """Reads the journals of shards, whichever host wrote them.

    Args:
      shards: the shards.
      identity: JSON-able; units are taken from journals of this one alone.
      description: label of the progress bar.
      written: called after each shard with the bar and with what searches
        asked so far.
      host: number of this process, for who looks at the folder.
      load: see `of_stage`.
    """
    self._load = load or Load(1)
    journals: dict[tuple[store.Path, str], set[str]] = {}
    for folder in {each.path.parent for each in shards}:
      for name in store.children(folder):
        if match := _JOURNAL.fullmatch(name):
          journals.setdefault((folder, match[2]), set()).add(match[1])
    self._parts = []
    for shard, done in zip(shards, _done(shards), strict=True):
      if not done:
        key = shard.path.parent, shard.name
        others = journals.get(key, ())
        self._parts.append(_Part(shard, identity, others, host))
    self.passed_over = sum(each.passed_over for each in self._parts)
    self._missing = [
      (part, place) for part in self._parts for place in part.in_order()
    ]
    self.missing = len(self._missing)
    self._places = {
      _name(part.shard.units[place]): (part, place)
      for part, place in self._missing
    }
    self._remote = any(store.is_remote(each.path) for each in shards)
    self._over = threading.Event()
    self._thread = threading.Thread(target=self._run, daemon=True)
    self._written = written
    self._asked: dict[Kind, Usage] = {}
    total, left = (
      sum(len({unit.problem.id for unit in each.units}) for each in shards),
      sum(len(each.problems_left) for each in self._parts),
    )
    self._bar = metrics.progress(
      total, description, start=total - left, unit="problem"
    )

  def kept(self, unit: Unit) -> "Kept":
    """Returns what is there of a unit that is still to be found."""
    return Kept(*self._places[_name(unit)])

  def __enter__(self) -> "Units":
    self._load.begin(self.missing)
    self._bar.__enter__()
    if self._remote:
      self._thread.start()
    for part in self._parts:
      self._write_if_whole(part)
    return self

  def __exit__(self, *error: Any) -> None:
    self._load.end(sum(len(part.left) for part in self._parts))
    self._over.set()
    if self._remote:
      self._thread.join()
      self._save()
    self._bar.__exit__(*error)

  def search(
    self,
    make: Callable[[Unit], tuple[Search[Rows], Calls]],
    in_flight: int,
    methods: Collection[str] | None = None,
  ) -> None:
    """Finds all missing units by searches of their own.

    Args:
      make: returns the search of a unit, and the callables that it asks.
      in_flight: most searches at once.
      methods: those of the units; None is all.
    """
    wanted = [
      (part, place)
      for part, place in self._missing
      if methods is None or part.shard.units[place].method in methods
    ]

    def done(index: int, rows: Rows) -> None:
      self._put(*wanted[index], rows)

    driver.run(
      (make(part.shard.units[place]) for part, place in wanted),
      in_flight,
      done,
      self._asked,
    )

  def search_shards(
    self, make: Callable[[list[Unit]], Sequence[Rows]], method: str = ""
  ) -> None:
    """Finds missing units shard by shard, always together.

    Args:
      make: returns the rows of all units of a shard by the method.
      method: that of the units.
    """
    for part in self._parts:
      units = part.shard.units
      places = [n for n, unit in enumerate(units) if unit.method == method]
      if part.left.isdisjoint(places):
        continue
      stopping.check()
      found = make([units[place] for place in places])
      for place, rows in zip(places, found, strict=True):
        if place in part.left:
          self._put(part, place, rows)

  def _put(self, part: "_Part", place: int, rows: Rows) -> None:
    with stopping.deferred():
      self._bar.update(part.put(place, rows))
      self._write_if_whole(part)
      self._load.end(1)

  def _write_if_whole(self, part: "_Part") -> None:
    if not part.left:
      part.write()
      self._written(self._bar, self._asked)

  def _run(self) -> None:
    while not self._over.wait(_SECONDS):
      self._save()

  def _save(self) -> None:
    """Sends to the bucket what it lacks of the journals."""
    for part in self._parts:
      try:
        part.save()
      except OSError as error:  # A failed copy must not end a run.
        logging.warning("%s: a journal was not sent: %s", part.path, error)


class Kept:
  """The part of an unfinished unit that is kept.

  Attributes:
    times: how often something was kept of it, by whichever process.
  """

  def __init__(self, part: "_Part", place: int):
    self._part, self._place, self.times = part, place, 0
    while part.has(place, self.times + 1):
      self.times += 1

  def rows(self) -> Rows:
    """Returns what was kept last; {} if nothing was."""
    return self._part.rows(self._place, self.times) if self.times else {}

  def keep(self, rows: Rows) -> None:
    """Keeps what a process that is killed shall not lose.

    Args:
      rows: all that there is of the unit so far; no file has them.
    """
    with stopping.deferred():
      self._part.keep(self._place, rows, self.times + 1)
      self.times += 1


def _name(unit: Unit) -> tuple[str, str, str]:
  return unit.method, unit.split, unit.problem.id


def _done(shards: Sequence[Shard]) -> list[bool]:
  if not shards:
    return []
  return list(store.prefetch(Shard.done, shards, shards[0].path))


class _Part:
  """A shard that is not written yet, and the journals of what is there of it.

  Each process appends to a journal of its own: one that was killed may have
  left half a line, and one that is late to end does no harm.

  Attributes:
    shard: the shard.
    path: its path.
    left: places in `shard.units` of those that are not there.
    problems_left: how many units of a problem are not there, by its id.
    passed_over: damaged or cut lines of the journals.
  """

  def __init__(
    self,
    shard: Shard,
    identity: Any,
    journals: Collection[str],
    host: int = 0,
  ):
    self.shard, self.path, self._host = shard, shard.path, host
    self._folder, self._stem = shard.path.parent, shard.name
    known = json_io.digest(identity)
    self._keys = [
      json_io.digest([known, unit.method, unit.split, unit.problem.to_record()])
      for unit in shard.units
    ]
    self.left = set(range(len(self._keys)))
    self._journal: Journal | None = None
    self.passed_over = 0
    if journals:
      self._journal = self._open(sorted(journals))
      self.passed_over = self._journal.passed_over
      self.left = {n for n in self.left if not self.has(n)}
    self.problems_left = collections.Counter(
      shard.units[place].problem.id for place in self.left
    )
    # Held where a journal is sent, or given up.
    self._lock = threading.Lock()
    self._over = False

  def in_order(self) -> list[int]:
    """Returns `left` problem by problem, so that long and short ones mix."""
    units = self.shard.units
    first: dict[str, int] = {}
    for place, unit in enumerate(units):
      first.setdefault(unit.problem.id, place)
    return sorted(self.left, key=lambda n: (first[units[n].problem.id], n))

  def _key(self, place: int, time: int) -> str:
    key = self._keys[place]
    return json_io.digest([key, time]) if time else key

  def has(self, place: int, time: int = 0) -> bool:
    """Says whether a journal has a unit; see `keep`."""
    return self._journal is not None and (
      self._key(place, time) in self._journal
    )

  def rows(self, place: int, time: int = 0) -> Rows:
    """Returns the rows of a unit that a journal has."""
    assert self._journal is not None
    return self._journal.get(self._key(place, time))["rows"]

  def keep(self, place: int, rows: Rows, time: int = 0) -> None:
    """Puts rows into the journal.

    Args:
      place: of the unit.
      rows: of the unit, or what there is of them.
      time: 0 if the unit is done, else how often something was kept before.
    """
    if self._journal is None:
      self._journal = self._open()
    entry = {"rows": rows, "sha256": json_io.digest(rows)}
    self._journal.put(self._key(place, time), entry)

  def put(self, place: int, rows: Rows) -> int:
    """Keeps what was found; returns how many problems this finished, 0 or 1."""
    self.keep(place, rows)
    self.left.remove(place)
    problem = self.shard.units[place].problem.id
    self.problems_left[problem] -= 1
    return int(not self.problems_left[problem])

  def save(self) -> None:
    """Sends the journal to the bucket, if it is in one."""
    with self._lock:
      if self._journal is not None and not self._over:
        self._journal.save()

  def write(self) -> None:
    """Writes the files of the shard, then removes the journals."""
    with self._lock:
      self._over = True
    try:
      files = self._files()
    except (OSError, ValueError):
      # Another process has written it meanwhile, and removed our journal.
      if not self.shard.done():
        raise
    else:
      for path, rows in zip(self.shard.files, files.values(), strict=True):
        info = self.shard.info if path == self.path else None
        records.write_shard(path, rows, info and info(rows))
    self._journal = None
    for name in store.children(self._folder):
      match = _JOURNAL.fullmatch(name)
      if match and match[2] == self._stem:
        with contextlib.suppress(FileNotFoundError):
          store.remove(self._folder / name)

  def _files(self) -> Rows:
    """Returns the rows of each file, as a later process would read them."""
    files: Rows = {prefix: [] for prefix in self.shard.prefixes}
    for place in range(len(self._keys)):
      for prefix, rows in self.rows(place).items():
        files[prefix] += rows
    return files

  def _open(self, others: Sequence[str] = ()) -> Journal:
    unique = f"{self._host}-{uuid.uuid4().hex}"
    own = f"{layout.BEGUN}{self._stem}-{unique}.jsonl"
    return Journal(
      self._folder / own,
      [self._folder / each for each in others],
      _check,
      durable=False,
    )


def _check(entry: Any) -> None:
  """Raises `outside.Bad` for an entry that is not what was put."""
  if not isinstance(entry, dict) or json_io.digest(
    entry.get("rows")
  ) != entry.get("sha256"):
    raise outside.Bad("is damaged")
