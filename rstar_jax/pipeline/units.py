"""Finds the units of a stage, and journals each as soon as it is done.

A unit's bytes do not depend on other units, their order, the host or the number
in flight. So one run of the driver makes all missing units of several shards.
Each finished unit goes into a journal beside its shard. Once all units of a
shard are there, the shard is written and its journals are removed. A killed
process loses only the units in flight; a long unit may also journal its
progress.

Two processes may work on one shard, if the first was taken for dead. Each has
its own journal. The first to finish writes the shard; the other would write the
same bytes, and may find the shard there.
"""

import collections
import contextlib
import dataclasses
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
from rstar_jax.pipeline.shards import Shard, Unit, unfinished
from rstar_jax.pipeline.work import Load
from rstar_jax.search import driver, queues
from rstar_jax.search.queues import Usage
from rstar_jax.search.requests import Calls, Kind, Search
from rstar_jax.storage import json_io, layout, metrics, records, stopping, store
from rstar_jax.storage.journal import Journal

# The rows that a unit adds to its shard's files, by the file's prefix.
Rows = dict[str, list[dict[str, Any]]]

# The name of a journal, or of one of its objects in a bucket.
_JOURNAL = re.compile(
  rf"({layout.BEGUN}(shard-\d+-of-\d+)(?:-\d+)?-[0-9a-f]+\.jsonl)(?:\.\d+)?"
)
# Seconds between two uploads of journals to a bucket.
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
  """Returns the units of a stage, with metrics written after each shard.

  Args:
    context: the run.
    round_: from 0; also the metrics' step.
    stage: prefix of the metrics' names.
    backend: the models, whose usage is written.
    shards: the shards that this process makes.
    description: label of the progress bar, after the round.
    *more: what decides units' bytes in addition to stage, round and config.
    load: counts unfinished units, those of other threads included.
  """
  checks.check_bound(context.config, context.workdir)
  # Rounds may be added at the end of a run.
  bound = identity_lib.changes(context.config)
  bound.pop("rounds", None)

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
  """The units that this process makes for a stage; a context manager.

  Attributes:
    missing: number of units that neither shards nor journals had at the start.
    passed_over: damaged or truncated lines of the journals.
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
    """Reads the journals of shards, of all hosts.

    Args:
      shards: the shards.
      identity: JSON-able; journalled units of another identity are not used.
      description: label of the progress bar.
      written: called after each shard with the bar, and the usage of each kind
        of callable so far.
      host: index of this process, a part of its journals' names.
      load: see `of_stage`.
    """
    self._load = load or Load(1)
    journals: dict[tuple[store.Path, str], set[str]] = {}
    for folder in {each.path.parent for each in shards}:
      for name in store.children(folder):
        if match := _JOURNAL.fullmatch(name):
          journals.setdefault((folder, match[2]), set()).add(match[1])
    self._parts = []
    for shard in unfinished(shards):
      others = journals.get((shard.path.parent, shard.name), ())
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
    self._bar = metrics.Progress(
      total, description, start=total - left, unit="problem"
    )

  def kept(self, unit: Unit) -> "Kept":
    """Returns the journalled progress of an unfinished unit."""
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
    """Makes all missing units, each by a search of its own.

    Args:
      make: returns the search of a unit, and the callables that it needs.
      in_flight: most searches at once.
      methods: makes only units of these; None is all.
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
    self, make: Callable[[Shard], Sequence[Rows]], method: str = ""
  ) -> None:
    """Makes missing units, all units of a shard in one call.

    Args:
      make: returns the rows of each unit of a shard, which is given with the
        units of that method alone.
      method: makes only units of this one.
    """
    for part in self._parts:
      units = part.shard.units
      places = [n for n, unit in enumerate(units) if unit.method == method]
      if part.left.isdisjoint(places):
        continue
      stopping.check()
      chosen = [units[place] for place in places]
      results = make(dataclasses.replace(part.shard, units=chosen))
      for place, rows in zip(places, results, strict=True):
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
    """Uploads the new lines of the journals to the bucket."""
    for part in self._parts:
      try:
        part.save()
      except OSError as error:  # A failed copy must not end a run.
        logging.warning("%s: a journal was not sent: %s", part.path, error)


class Kept:
  """The journalled progress of an unfinished unit.

  Attributes:
    times: how often progress was kept, by any process.
  """

  def __init__(self, part: "_Part", place: int):
    self._part, self._place, self.times = part, place, 0
    while part.has(place, self.times + 1):
      self.times += 1

  def rows(self) -> Rows:
    """Returns the rows that were kept last; {} for none, see `_Part.rows`."""
    return self._part.rows(self._place, self.times) if self.times else {}

  def keep(self, rows: Rows) -> None:
    """Journals progress, so that a killed process does not lose it.

    Args:
      rows: all rows of the unit so far; they are in no file yet.
    """
    with stopping.deferred():
      self._part.keep(self._place, rows, self.times + 1)
      self.times += 1


def _name(unit: Unit) -> tuple[str, str, str]:
  return unit.method, unit.split, unit.problem.id


class _Part:
  """A shard that is not written yet, and the journals of its units.

  Each process appends to a journal of its own: a killed one may have left half
  a line, and one that was taken for dead may still append.

  Attributes:
    shard: the shard.
    path: its path.
    left: indices in `shard.units` of the unfinished units.
    problems_left: number of unfinished units by problem id.
    passed_over: damaged or truncated lines of the journals.
    elsewhere: whether another process was found to have written the shard.
  """

  elsewhere = False

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
    # Held while a journal is uploaded, or closed.
    self._lock = threading.Lock()
    self._over = False

  def in_order(self) -> list[int]:
    """Returns `left` problem by problem, so that methods mix in a batch."""
    units = self.shard.units
    first: dict[str, int] = {}
    for place, unit in enumerate(units):
      first.setdefault(unit.problem.id, place)
    return sorted(self.left, key=lambda n: (first[units[n].problem.id], n))

  def _key(self, place: int, time: int) -> str:
    key = self._keys[place]
    return json_io.digest([key, time]) if time else key

  def has(self, place: int, time: int = 0) -> bool:
    """Returns whether a journal has a unit, or its progress; see `keep`."""
    return self._journal is not None and (
      self._key(place, time) in self._journal
    )

  def rows(self, place: int, time: int = 0) -> Rows:
    """Returns a unit's rows from the journal; see `keep`.

    If another process has written the shard, and removed a journal, they are
    lost, and not needed: {}.
    """
    if self.elsewhere:
      return {}
    assert self._journal is not None
    try:
      return self._journal.get(self._key(place, time))["rows"]
    except (OSError, ValueError):
      if not self.shard.done():
        raise
      self.elsewhere = True
      return {}

  def keep(self, place: int, rows: Rows, time: int = 0) -> None:
    """Puts rows into the journal.

    Args:
      place: index of the unit.
      rows: all rows of the unit so far.
      time: 0 if the unit is done, else the number of this progress, from 1.
    """
    if self._journal is None:
      self._journal = self._open()
    entry = {"rows": rows, "sha256": json_io.digest(rows)}
    self._journal.put(self._key(place, time), entry)

  def put(self, place: int, rows: Rows) -> int:
    """Journals a unit; returns how many problems that finished, 0 or 1."""
    self.keep(place, rows)
    self.left.remove(place)
    problem = self.shard.units[place].problem.id
    self.problems_left[problem] -= 1
    return int(not self.problems_left[problem])

  def save(self) -> None:
    """Uploads the journal, if its folder is in a bucket."""
    with self._lock:
      if self._journal is not None and not self._over:
        self._journal.save()

  def write(self) -> None:
    """Writes the files of the shard, then removes the journals."""
    with self._lock:
      self._over = True
    files = self._files()
    if not self.elsewhere:
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
    """Returns each file's rows, as a later process would read them."""
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
  """Raises `outside.Bad` for an entry whose rows do not have its hash."""
  if not isinstance(entry, dict) or json_io.digest(
    entry.get("rows")
  ) != entry.get("sha256"):
    raise outside.Bad("is damaged")
