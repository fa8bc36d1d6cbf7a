"""Hosts that search on Ray and die, simulated: how much of their time is used.

  python -m benchmarks.searchers --hosts=512 --problems=747000

Problems are put in order, and shards given to searchers, by what does it in a
run: `outcomes.hardest_first`, `work.Turns` and `work.Load`. When a host dies,
the attempts that it had in flight are lost, and what it had finished is not. It
comes back after `--away` seconds and loads models for `--load`. Lengths of
problems are those of `fleet_work.py`; speed is what `docs/results/fleet.md` has
for a host. Printed is where the time of hosts goes, of which *the end* is what
is left: hosts that have nothing to do, or too little to be at full speed.
"""

import collections
import dataclasses
import heapq
import itertools
import random
from collections.abc import Sequence

from absl import app, flags

from benchmarks import fleet_work
from rstar_jax.data import outcomes
from rstar_jax.data.outcomes import Outcome
from rstar_jax.pipeline.work import Load, Turns

_HOSTS = flags.DEFINE_list("hosts", ["512"], "Numbers of hosts.")
_PROBLEMS = flags.DEFINE_integer("problems", 747_000, "Problems of the round.")
_ROUND = flags.DEFINE_enum(
  "round", "4", list(fleet_work.ROUNDS), "Round of the paper."
)
_SIZE = flags.DEFINE_list(
  "shard_size", ["25", "50", "100", "400"], "Sizes of shards, in problems."
)
_IN_FLIGHT = flags.DEFINE_integer(
  "in_flight", 64, "Problems in flight per host."
)
_SPEED = flags.DEFINE_float(
  "speed", 14_100.0, "Tokens per second of a fully loaded host."
)
_FULL = flags.DEFINE_integer(
  "full",
  24,
  "Problems in flight that fully load a host; with fewer its speed is "
  "proportional. With 24 it does 400 problems at 88% of its speed, as in "
  "fleet.md.",
)
_DEATHS = flags.DEFINE_list(
  "deaths", ["0", "1", "24"], "Deaths per host and day."
)
_AWAY = flags.DEFINE_float("away", 600.0, "Seconds until a dead host is back.")
_LOAD = flags.DEFINE_float("load", 300.0, "Seconds to load and compile models.")
_SEED = flags.DEFINE_integer("seed", 0, "Seed of lengths and deaths.")
_DRAWN = flags.DEFINE_integer("drawn", 2000, "Problems whose length is drawn.")
_ORDERED = flags.DEFINE_bool(
  "ordered", True, "Whether hard problems come first."
)
_KEEPS = flags.DEFINE_bool("keeps", True, "Whether finished attempts are kept.")
_SURPRISES = flags.DEFINE_float(
  "surprises",
  0.0,
  "Share of problems with extra rollouts that the last round had solved.",
)

_DAY = 86_400.0
# Sigma of a problem's tokens from a round to the next, in logarithms.
_SPREAD = 0.3

# The work of each attempt of a problem, in turn.
Attempts = Sequence[float]


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
    keeps: whether attempts that are done outlive a host.
  """

  count: int
  in_flight: int
  full: int = 1
  speed: float = 1.0
  deaths: float = 0.0
  away: float = 0.0
  load: float = 0.0
  keeps: bool = True


@dataclasses.dataclass
class Found:
  """What came of it.

  Attributes:
    seconds: until the last shard was there.
    lost: work that was done and lost.
    deaths: of hosts.
    up: seconds that hosts were there and had their models, all together.
  """

  seconds: float = 0.0
  lost: float = 0.0
  deaths: int = 0
  up: float = 0.0


@dataclasses.dataclass(eq=False)
class _Problem:
  """A problem in flight.

  Attributes:
    shard: number of its shard.
    attempts: the work of each.
    done: how many attempts are.
    since: work that it had got when the one in flight began.
  """

  shard: int
  attempts: Attempts
  done: int = 0
  since: float = 0.0


class _Host:
  """A host whose problems share its speed.

  Attributes:
    calls: its shards: problems that wait, and how many are in flight.
    load: counts the problems of all of these.
    version: changes whenever what it does next changes.
    since: when it had its models, None without.
  """

  def __init__(self, fleet: Fleet):
    self._fleet = fleet
    self.calls: dict[int, list] = {}
    self.load = Load(fleet.in_flight)
    self.version = 0
    self.since: float | None = None
    # Work that each problem in flight has got since the host began; and what it
    # will have at the end of each one's attempt, with a number.
    self._got, self._at = 0.0, 0.0
    self._ends: list[tuple[float, int, _Problem]] = []
    self._numbers = itertools.count()

  def _rate(self) -> float:
    fleet, count = self._fleet, len(self._ends)
    return fleet.speed * min(1.0, count / fleet.full) / count if count else 0.0

  def pass_until(self, now: float) -> None:
    self._got += self._rate() * (now - self._at)
    self._at = now

  def next(self) -> float | None:
    """Returns when the next attempt is done."""
    if not self._ends:
      return None
    return self._at + max(self._ends[0][0] - self._got, 0.0) / self._rate()

  def begin(self, number: int, problems: Sequence[Attempts]) -> None:
    self.calls[number] = [collections.deque(problems), 0]
    self.load.begin(len(problems))
    self._fill(number)

  def _fill(self, number: int) -> None:
    waiting, going = self.calls[number]
    while waiting and going < self._fleet.in_flight:
      self._attempt(_Problem(number, waiting.popleft()))
      going += 1
    self.calls[number][1] = going

  def _attempt(self, problem: _Problem) -> None:
    problem.since = self._got
    end = self._got + problem.attempts[problem.done]
    heapq.heappush(self._ends, (end, next(self._numbers), problem))

  def finish(self) -> bool:
    """Ends the next attempt; says whether it was the last of its shard."""
    _, _, problem = heapq.heappop(self._ends)
    problem.done += 1
    if problem.done < len(problem.attempts):
      self._attempt(problem)
      return False
    number = problem.shard
    self.load.end(1)
    self.calls[number][1] -= 1
    self._fill(number)
    if self.calls[number][1]:
      return False
    del self.calls[number]
    return True

  def die(self) -> tuple[dict[int, list[Attempts]], float]:
    """Returns what is left of its shards, and the work that is lost."""
    left = {n: list(waiting) for n, (waiting, _) in self.calls.items()}
    lost = 0.0
    for _, _, problem in self._ends:
      kept = problem.done if self._fleet.keeps else 0
      left[problem.shard].append(problem.attempts[kept:])
      lost += self._got - problem.since
      lost += sum(problem.attempts[kept : problem.done])
    self.calls, self._ends = {}, []
    self.load = Load(self._fleet.in_flight)
    return left, lost


def simulate(
  fleet: Fleet, shards: Sequence[Sequence[Attempts]], seed: int = 0
) -> Found:
  """Searches shards.

  Args:
    fleet: the hosts.
    shards: the problems of each.
    seed: of the deaths.

  Returns:
    `Found`.
  """
  drawn, found = random.Random(seed), Found()
  hosts = [_Host(fleet) for _ in range(fleet.count)]
  turns = Turns(enumerate(shards))
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
    for number, shard in turns.take():
      host = hosts[number]
      host.pass_until(now)
      host.begin(*shard)
      changed.add(number)
      if host.load.room:
        turns.has_room(number)
    for number in changed:
      plan(number)

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
      turns.has_room(number)
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
      turns.gone(number)
      for shard in rest.items():
        turns.lost(shard)
      note(now + fleet.away + fleet.load, number, -1)
      give()
    else:
      had_room = host.load.room
      undone -= host.finish()
      plan(number)
      if host.load.room and not had_room:
        turns.has_room(number)
        give()
  found.seconds = now
  found.up += sum(now - each.since for each in hosts if each.since is not None)
  return found


def problems(
  round_: str, drawn: int, seed: int
) -> list[tuple[Attempts, Outcome]]:
  """Returns so many problems, and what the round before knows of each.

  Args:
    round_: of the paper; problems that get extra rollouts are those that the
      round before has not solved.
    drawn: how many.
    seed: of the draws.
  """
  spec, luck = fleet_work.ROUNDS[round_], random.Random(seed)
  source, found = fleet_work.Source(spec, seed=seed), []
  for number in range(drawn):
    trees = [
      float(sum(sum(tick.lengths) for tick in tree))
      for tree in source.problem()
    ]
    first, extra = sum(trees[: spec.trees]), trees[spec.trees :]
    before = Outcome(str(number), None, right=not extra)
    before.tokens = round(first * luck.lognormvariate(0.0, _SPREAD))
    found.append(((first, *extra), before))
  return found


def work_of_round() -> list[Attempts]:
  """Returns the work of problems as flags say, in the order of a round."""
  known = problems(_ROUND.value, _DRAWN.value, _SEED.value)
  luck = random.Random(_SEED.value)
  drawn = luck.choices(known, k=_PROBLEMS.value)
  if not _ORDERED.value:
    return [attempts for attempts, _ in drawn]
  before = {}
  for number, (attempts, outcome) in enumerate(drawn):
    surprise = len(attempts) > 1 and luck.random() < _SURPRISES.value
    before[str(number)] = (
      dataclasses.replace(outcome, right=1) if surprise else outcome
    )
  order = outcomes.hardest_first(list(before), before)
  return [drawn[place][0] for place in order]


def main(_) -> None:
  work = work_of_round()
  total = sum(map(sum, work))
  print(
    f"round {_ROUND.value}: {len(work)} problems of {total / len(work):.0f} "
    f"tokens, at most {max(map(sum, work)):.0f}\n\n"
    "| hosts | problems a shard | deaths a day | hours "
    "| of what hosts could do that never die | loading | away | lost "
    "| the end |\n"
    "| ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |"
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
          _KEEPS.value,
        )
        found = simulate(fleet, shards, _SEED.value)
        could = count * found.seconds
        shares = [
          total / fleet.speed / could,
          fleet.load * count / could,
          1 - (found.up + fleet.load * count) / could,
          found.lost / fleet.speed / could,
        ]
        cells = [f"{each:.1%}" for each in (*shares, 1 - sum(shares))]
        print(
          f"| {count} | {size} | {deaths:g} | {found.seconds / 3600:.2f} "
          f"| {' | '.join(cells)} |",
          flush=True,
        )


if __name__ == "__main__":
  app.run(main)
