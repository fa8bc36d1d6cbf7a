"""Work on the hosts of a Ray cluster, which may join and leave at any time.

Ray starts processes where there is room, notices when one dies, and returns
results. This module maps a stage onto it: a searcher is an actor, which holds
models and stays alive; a shard is a call of an actor; the calls of an actor
that died go to another one. A replacement is requested immediately, and starts
when a host has room.

An actor that is taken for dead may still be running. It does no harm: it writes
the same bytes as its replacement (`units.py`).
"""

import collections
import contextlib
import dataclasses
import importlib
import os
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Any, Protocol, TypeVar

from absl import logging

from rstar_jax import outside
from rstar_jax.config.schema import Config, RayConfig
from rstar_jax.pipeline.hosts import Host
from rstar_jax.pipeline.shards import Shard, unfinished
from rstar_jax.pipeline.work import Run, Searcher, Turns
from rstar_jax.storage import layout, logs, metrics, stopping, store

Item = TypeVar("Item")
Result = TypeVar("Result")

# More deaths at one item than this, or of searchers in a row before any of them
# has loaded its models, end the run: the item or the models are the cause.
_MOST_DEATHS = 20
# Concurrent calls of a searcher; each is a thread.
_MOST_AT_ONCE = 256
# Seconds that searchers get to close their files.
_GRACE = 30.0
# Seconds without an answer after which a line says how many are at work.
_SILENCE = 300.0


class Opens(Protocol):
  """Opens a run in another process; see `run.open_run`."""

  def __call__(
    self, config: Config, workdir: store.Path, host: Host
  ) -> contextlib.AbstractContextManager[Any]: ...


class Ray:
  """The backend for a Ray cluster; see `work.Work`."""

  def __init__(self, config: RayConfig, opens: Opens):
    """Imports the package; the cluster is joined when it is first needed.

    Args:
      config: the cluster's address, the number of searchers and their
        resources.
      opens: opens the run on a searcher's host; it is pickled by name.

    Raises:
      ValueError: the package is not installed.
    """
    self._config, self._opens = config, opens
    try:
      self._ray = importlib.import_module("ray")
    except ImportError:
      raise ValueError(
        f"config.ray.address={config.address!r} needs Ray: "
        "pip install 'rstar_jax[ray]', or leave it empty"
      ) from None

  def map(
    self, function: Callable[[Item], Result], items: Iterable[Item]
  ) -> Iterator[tuple[Item, Result]]:
    """See `work.Work`; Ray repeats the calls of a host that died."""
    ray = self._join()
    task = ray.remote(max_retries=_MOST_DEATHS)(_call)
    left = iter(items)
    calls: dict[Any, Item] = {}
    while True:
      # The cluster may have grown since the last turn.
      ahead = 2 * max(int(ray.cluster_resources().get("CPU", 1)), 1)
      while len(calls) < ahead and (item := next(left, None)) is not None:
        calls[task.remote(function, item)] = item
      if not calls:
        return
      for call in ray.wait(list(calls), num_returns=1)[0]:
        yield calls.pop(call), self._result(call)

  def search(
    self, run: Run, make: Callable[[Any], Searcher], shards: Sequence[Shard]
  ) -> None:
    """See `work.Work`; of several joined hosts only the first calls Ray."""
    left = unfinished(shards) if run.host.leads else []
    if not left:
      return
    ray = self._join()
    needs = _options(self._config.needs)
    actor = ray.remote(max_concurrency=_MOST_AT_ONCE, **needs)(_Searcher)
    count = min(self._config.searchers, len(left))

    def begin(number: int) -> Any:
      host = Host(number + 1, count + 1)
      return actor.remote(self._opens, run.config, run.workdir, host, make)

    folder = shards[0].path.parent
    what = "/".join(folder.relative_to(run.workdir).parts[:2])
    crew = _Crew(ray, begin, count)
    try:
      with metrics.Progress(
        sum(map(_problems, shards)),
        f"{what} by searchers of Ray",
        start=sum(map(_problems, shards)) - sum(map(_problems, left)),
        unit="problem",
      ) as bar:
        for shard in crew.search(left):
          bar.update(_problems(shard), searchers=crew.open)
      crew.close()
    finally:
      crew.end()

  def _join(self) -> Any:
    """Joins the cluster, once per process; returns the package."""
    ray, address = self._ray, self._config.address
    if not ray.is_initialized():
      try:
        # Searchers write logs of their own.
        ray.init(address, log_to_driver=False, logging_level="WARNING")
      except Exception as error:
        raise ValueError(
          f"config.ray.address={address!r} cannot be joined "
          f"({type(error).__name__}: {outside.first_line(error)}): start a "
          "cluster by `ray start --head`, or leave it empty"
        ) from error
      # Ray replaces the handler of SIGTERM.
      stopping.listen_again()
    return ray

  def _result(self, call: Any) -> Any:
    ray = self._ray
    try:
      return ray.get(call)
    except ray.exceptions.RayTaskError as error:
      raise error.cause from None
    except ray.exceptions.RayError as error:
      raise OSError(f"Ray gave up: {outside.first_line(error)}") from error


@dataclasses.dataclass(eq=False)
class _Member:
  """A searcher, as the crew knows it.

  Attributes:
    number: from 0; that of its replacement too.
    actor: holds the models.
    given: number of shards given to it so far; None until it has loaded its
      models.
  """

  number: int
  actor: Any
  given: int | None = None


class _Crew:
  """The searchers of a stage.

  Attributes:
    open: number of searchers that have loaded their models.
  """

  def __init__(self, ray: Any, begin: Callable[[int], Any], count: int):
    """Requests all searchers.

    Args:
      ray: the package, joined to a cluster.
      begin: makes the actor of that number; Ray starts it when there is room.
      count: number of searchers.
    """
    self._ray, self._begin = ray, begin
    errors = ray.exceptions
    # Errors of a process that died, or seems to have.
    self._deaths = (
      errors.RayActorError,
      errors.NodeDiedError,
      errors.ObjectLostError,
      errors.OutOfMemoryError,
      errors.WorkerCrashedError,
    )
    # Calls in flight: who was called, and the shard. The shard is None for
    # `open` and `wait`, after which a searcher has room for one more.
    self._calls: dict[Any, tuple[_Member, Shard | None]] = {}
    self._turns: Turns[Shard] = Turns([])
    self._died_in_a_row = 0
    self._members = [self._new(number) for number in range(count)]

  @property
  def open(self) -> int:
    return sum(each.given is not None for each in self._members)

  def search(self, shards: Iterable[Shard]) -> Iterator[Shard]:
    """Yields each shard once its files are written.

    Raises:
      Exception: what a searcher raised.
      OSError: too many searchers died at one shard, or while loading models.
    """
    self._turns.left.extend(shards)
    died: collections.Counter[store.Path] = collections.Counter()
    while self._turns.left or self._busy():
      self._give()
      calls = list(self._calls)
      done, _ = self._ray.wait(calls, num_returns=1, timeout=_SILENCE)
      if not done:
        outside.say(
          f"waiting for searchers: {self.open} of {len(self._members)} are at "
          "work, the others wait for hosts, or load their models",
          sys.stderr,
        )
        continue
      (call,) = done
      member, shard = self._calls.pop(call)
      replaced = member is not self._members[member.number]
      try:
        self._ray.get(call)
      except self._ray.exceptions.RayTaskError as error:
        raise error.cause from None
      except self._deaths as error:
        if shard is not None:
          self._turns.lost(shard)
          died[shard.path] += 1
        self._died_in_a_row += member.given is None
        if max([self._died_in_a_row, *died.values()]) > _MOST_DEATHS:
          what = shard.path if shard else "the models"
          raise OSError(
            f"more than {_MOST_DEATHS} searchers died at {what}; the last one: "
            f"{outside.first_line(error)}"
          ) from error
        if not replaced:
          logging.warning(
            "searcher %d seems to be dead, and its shards go to others: %s",
            member.number + 1,
            outside.first_line(error),
          )
          # It may still run.
          self._kill(member)
          self._turns.gone(member.number)
          self._members[member.number] = self._new(member.number)
        continue
      if shard is not None:
        yield shard
      elif not replaced:
        member.given = member.given or 0
        self._turns.has_room(member.number)
        self._died_in_a_row = 0

  def _busy(self) -> bool:
    return any(shard is not None for _, shard in self._calls.values())

  def _give(self) -> None:
    """Gives shards to searchers that have room."""
    for number, shard in self._turns.take():
      member = self._members[number]
      member.given += 1
      self._calls[member.actor.search.remote(shard)] = member, shard
      self._calls[member.actor.wait.remote(member.given)] = member, None

  def _new(self, number: int) -> _Member:
    """Requests a searcher, which loads its models first."""
    member = _Member(number, self._begin(number))
    self._calls[member.actor.open.remote()] = member, None
    return member

  def close(self) -> None:
    """Lets searchers that are open flush their logs and metrics."""
    closing = [
      each.actor.close.remote()
      for each in self._members
      if each.given is not None
    ]
    if closing:
      self._ray.wait(closing, num_returns=len(closing), timeout=_GRACE)

  def end(self) -> None:
    """Ends all searchers, first those that wait, so that none starts now."""
    for each in sorted(self._members, key=lambda each: each.given is not None):
      self._kill(each)

  def _kill(self, member: _Member) -> None:
    with contextlib.suppress(Exception):
      self._ray.kill(member.actor)


class _Searcher:
  """An actor: a run that is opened on its host, and the models of a stage."""

  def __init__(
    self,
    opens: Opens,
    config: Config,
    workdir: store.Path,
    host: Host,
    make: Callable[[Any], Searcher],
  ):
    self._run = opens, config, workdir, host
    self._make = make
    self._stack = contextlib.ExitStack()
    self._searcher: Searcher | None = None

  def open(self) -> None:
    """Loads the models."""
    opens, config, workdir, host = self._run
    own = layout.host_folder(workdir, host.index)
    self._stack.enter_context(logs.to_file(own / layout.LOG))
    logging.info("process %d on %s", os.getpid(), os.uname().nodename)
    context = self._stack.enter_context(opens(config, workdir, host))
    self._searcher = self._make(context)

  def search(self, shard: Shard) -> None:
    """Writes the files of a shard."""
    assert self._searcher is not None
    self._searcher([shard])

  def wait(self, given: int) -> None:
    """Returns when there is room for a shard more than the `given` ones."""
    assert self._searcher is not None
    self._searcher.load.wait(given)

  def close(self) -> None:
    """Closes logs, metrics and the sandbox."""
    self._stack.close()


def _call(function: Callable[[Item], Result], item: Item) -> Result:
  return function(item)


def _problems(shard: Shard) -> int:
  return len({unit.problem.id for unit in shard.units})


def _options(needs: Collection[str]) -> dict[str, Any]:
  """Returns Ray's options for the resources of a searcher."""
  amounts = {
    name: float(amount) for name, _, amount in (n.partition("=") for n in needs)
  }
  options: dict[str, Any] = {
    f"num_{name.lower()}s": amounts.pop(name)
    for name in ("CPU", "GPU")
    if name in amounts
  }
  return options | {"resources": amounts}
