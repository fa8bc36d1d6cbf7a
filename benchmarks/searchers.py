"""Hosts that search on Ray and die, simulated: how much of their time is used.

  python -m benchmarks.searchers --hosts=512 --problems=747000

Simulated is what `pipeline/on_ray.py` does: a searcher gets a shard more when
fewer problems are left to it than it may have in flight, and a shard whose
searcher died is the next one that another gets. Of what a searcher had in
flight everything is lost, what it had finished is not. A host that died comes
back after `--away` seconds and loads models for `--load`. Lengths of problems
are those of `fleet_work.py`; speed is what `docs/results/fleet.md` has for a
host. *The middle* is the time from when models are loaded for the first time
until the last shard is begun.
"""

import collections
import dataclasses
import heapq
import random
from collections.abc import Sequence

from absl import app, flags

from benchmarks import fleet_work

_HOSTS = flags.DEFINE_list("hosts", ["512"], "Hosts.")
_PROBLEMS = flags.DEFINE_integer("problems", 747_000, "Problems of the round.")
_ROUND = flags.DEFINE_enum("round", "4", list(fleet_work.ROUNDS), "Round.")
_SIZE = flags.DEFINE_list("shard_size", ["25", "50", "100", "400"], "")
_IN_FLIGHT = flags.DEFINE_integer(
  "in_flight", 64, "Problems of a host at once."
)
_SPEED = flags.DEFINE_float(
  "speed", 14_100.0, "Tokens a second of a full host."
)
_FULL = flags.DEFINE_integer(
  "full",
  24,
  "Problems at once of a full host; with fewer it is as much slower. With 24 "
  "it does 400 problems at 88% of its speed, which fleet.md has.",
)
_DEATHS = flags.DEFINE_list("deaths", ["0", "1", "24"], "Of a host, a day.")
_AWAY = flags.DEFINE_float("away", 600.0, "Seconds until a dead host is back.")
_LOAD = flags.DEFINE_float("load", 300.0, "Seconds to load and compile models.")
_SEED = flags.DEFINE_integer("seed", 0, "Of lengths and deaths.")
_DRAWN = flags.DEFINE_integer("drawn", 2000, "Problems whose length is drawn.")

_DAY = 86_400.0


@dataclasses.dataclass(frozen=True)
class Fleet:
  """Hosts that are alike.

  Attributes:
    count: of hosts.
    in_flight: problems of a shard at once; with fewer a host gets another one.
    full: problems at once from which on a host is at full speed.
    speed: work a second of a full host.
    deaths: of a host, a second.
    away, load: seconds until a host that died is back, and has its models.
  """

  count: int
  in_flight: int
  full: int = 1
  speed: float = 1.0
  deaths: float = 0.0
  away: float = 0.0
  load: float = 0.0


@dataclasses.dataclass
class Found:
  """What came of it.

  Attributes:
    seconds: until the last shard was there.
    lost: work that was done and lost.
    deaths: of hosts.
    up: seconds that hosts were there and had their models, all together.
    begun: seconds until the last shard was begun for the first time.
    middle: work that was done until then and not lost.
  """

  seconds: float = 0.0
  lost: float = 0.0
  deaths: int = 0
  up: float = 0.0
  begun: float = 0.0
  middle: float = 0.0


class _Host:
  """A host whose problems share its speed.

  Attributes:
    calls: its shards: problems that wait, and how many are in flight.
    left: problems of all of these.
    version: changes whenever what it does next changes.
    since: when it had its models, None without.
    done: work so far.
  """

  def __init__(self, fleet: Fleet):
    self._fleet = fleet
    self.calls: dict[int, list] = {}
    self.version = self.left = 0
    self.since: float | None = None
    self.done = 0.0
    # Work that each problem in flight has got, since the host began; and what
    # it had then at the beginning and will have at the end of each problem.
    self._got, self._at = 0.0, 0.0
    self._ends: list[tuple[float, float, int]] = []

  def _rate(self) -> float:
    fleet, count = self._fleet, len(self._ends)
    return fleet.speed * min(1.0, count / fleet.full) / count if count else 0.0

  def pass_until(self, now: float) -> None:
    got = self._rate() * (now - self._at)
    self._got, self._at = self._got + got, now
    self.done += got * len(self._ends)

  def next(self) -> float | None:
    """Returns when the next problem is done."""
    if not self._ends:
      return None
    return self._at + max(self._ends[0][0] - self._got, 0.0) / self._rate()

  def begin(self, number: int, problems: Sequence[float]) -> None:
    self.calls[number] = [collections.deque(problems), 0]
    self.left += len(problems)
    self._fill(number)

  def _fill(self, number: int) -> None:
    waiting, going = self.calls[number]
    while waiting and going < self._fleet.in_flight:
      work = waiting.popleft()
      heapq.heappush(self._ends, (self._got + work, self._got, number))
      going += 1
    self.calls[number][1] = going

  def finish(self) -> bool:
    """Ends the next problem; says whether it was the last of its shard."""
    _, _, number = heapq.heappop(self._ends)
    self.left -= 1
    self.calls[number][1] -= 1
    self._fill(number)
    if self.calls[number][1]:
      return False
    del self.calls[number]
    return True

  def die(self) -> tuple[dict[int, list[float]], float]:
    """Returns what is left of its shards, and the work that is lost."""
    left = {n: list(waiting) for n, (waiting, _) in self.calls.items()}
    lost = 0.0
    for end, start, number in self._ends:
      left[number].append(end - start)
      lost += self._got - start
    self.calls, self._ends, self.left = {}, [], 0
    return left, lost


def simulate(fleet: Fleet, shards: Sequence[Sequence[float]], seed: int = 0):
  """Searches shards.

  Args:
    fleet: the hosts.
    shards: the work of each problem of each.
    seed: of the deaths.

  Returns:
    `Found`.
  """
  drawn, found = random.Random(seed), Found()
  hosts = [_Host(fleet) for _ in range(fleet.count)]
  left = collections.deque(enumerate(shards))
  room: collections.deque[int] = collections.deque()
  undone = len(shards)
  # (when, order, host, version); the version of a host that dies or opens: its
  # life, below 0, since those events hold whatever it does.
  events: list[tuple[float, int, int, int]] = []
  order = 0

  def note(when: float, host: int, version: int) -> None:
    nonlocal order
    order += 1
    heapq.heappush(events, (when, order, host, version))

  def plan(number: int) -> None:
    host = hosts[number]
    host.version += 1
    if (when := host.next()) is not None:
      note(when, number, host.version)

  def give() -> None:
    """Gives shards to those that have room, as `on_ray.py` does."""
    changed = set()
    while left and room:
      number = room.popleft()
      host = hosts[number]
      if host.since is None:
        continue
      host.pass_until(now)
      host.begin(*left.popleft())
      changed.add(number)
      if host.left < fleet.in_flight:
        room.append(number)
    for number in changed:
      plan(number)
    if not (left or found.begun):
      for each in hosts:
        each.pass_until(now)
      found.begun = now
      found.middle = sum(each.done for each in hosts) - found.lost

  for number in range(fleet.count):
    note(fleet.load, number, -1)
  while undone:
    now, _, number, version = heapq.heappop(events)
    host = hosts[number]
    if version > 0 and version != host.version:
      continue
    host.pass_until(now)
    if version == -1:  # It has its models.
      host.since = now
      room.append(number)
      if fleet.deaths:
        note(now + drawn.expovariate(fleet.deaths), number, -2)
      give()
    elif version == -2:  # It dies.
      found.deaths += 1
      found.up += now - host.since
      host.since = None
      rest, lost = host.die()
      host.version += 1
      found.lost += lost
      left.extendleft(rest.items())
      note(now + fleet.away + fleet.load, number, -1)
      give()
    else:
      undone -= host.finish()
      plan(number)
      if host.left == fleet.in_flight - 1:
        room.append(number)
        give()
  found.seconds = now
  found.up += sum(now - each.since for each in hosts if each.since is not None)
  return found


def lengths(round_: str, drawn: int, seed: int) -> list[float]:
  """Returns the tokens of so many problems of a round of the paper."""
  source = fleet_work.Source(fleet_work.ROUNDS[round_], seed=seed)
  return [
    float(sum(sum(tick.lengths) for tree in source.problem() for tick in tree))
    for _ in range(drawn)
  ]


def main(_) -> None:
  known = lengths(_ROUND.value, _DRAWN.value, _SEED.value)
  drawn = random.Random(_SEED.value)
  work = drawn.choices(known, k=_PROBLEMS.value)
  mean = sum(work) / len(work)
  print(
    f"round {_ROUND.value}: {len(work)} problems of {mean:.0f} tokens "
    f"({min(known):.0f} to {max(known):.0f})\n\n"
    "| hosts | problems a shard | deaths a day | hours | lost "
    "| of what hosts could do that never die | the middle of it |\n"
    "| ---: | ---: | ---: | ---: | ---: | ---: | ---: |"
  )
  for count in map(int, _HOSTS.value):
    for size in map(int, _SIZE.value):
      shards = [work[n : n + size] for n in range(0, len(work), size)]
      for deaths in map(float, _DEATHS.value):
        fleet = Fleet(
          count,
          _IN_FLIGHT.value,
          _FULL.value,
          _SPEED.value,
          deaths / _DAY,
          _AWAY.value,
          _LOAD.value,
        )
        found = simulate(fleet, shards, _SEED.value)
        could = count * fleet.speed
        print(
          f"| {count} | {size} | {deaths:g} | {found.seconds / 3600:.2f} "
          f"| {found.lost / sum(work):.2%} "
          f"| {sum(work) / could / found.seconds:.1%} "
          f"| {found.middle / could / (found.begun - fleet.load):.1%} |",
          flush=True,
        )


if __name__ == "__main__":
  app.run(main)
