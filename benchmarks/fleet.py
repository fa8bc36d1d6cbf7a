"""Simulates hosts that share the shards of a stage, event by event.

  python -m benchmarks.fleet --hosts=10,100 --problems=10000

prints how long the stage takes over an ideal in which no host is ever idle, by
shard size, assignment and deaths. A shard is searched alone, so its time does
not depend on who takes it, or when; a stage ends when its last shard does. The
times are those of docs/results/fleet.md, or your own run's, from the
log: --minutes=50:7,400:27.
"""

import collections
import dataclasses
import heapq
import random
import statistics
from collections.abc import Sequence
from typing import Literal, get_args

from absl import app, flags

_PROBLEMS = flags.DEFINE_integer("problems", 747_000, "Problems of the stage.")
_HOSTS = flags.DEFINE_list("hosts", ["1", "10", "100", "1000"], "How many.")
_MINUTES = flags.DEFINE_list(
  "minutes",
  ["50:6.9", "100:9.5", "200:14.6", "400:26.9", "800:52.1"],
  "Mean minutes of a shard by its problems, on one host.",
)
_DEVIATION = flags.DEFINE_float(
  "deviation", 0.04, "Standard deviation of a shard's time over its mean."
)
_HOURS = flags.DEFINE_float("hours", 24.0, "Mean between deaths of a host.")
_REPAIR = flags.DEFINE_float("repair", 10.0, "Minutes until it is back.")
# Runs of which the median is printed, where hosts die.
_SEEDS = 5

# "static": shard i goes to host i modulo the hosts. "list": a free host takes
# the first shard that nobody has. "steal": static, and a host that has finished
# its own takes a random unfinished one, whether or not another is at it.
Assignment = Literal["static", "list", "steal"]


@dataclasses.dataclass(frozen=True)
class Loss:
  """How hosts die.

  Attributes:
    between: mean seconds of work between failures of one host; 0 is never.
    repair: seconds until a host is back.
    notice: seconds until a shard that died with a host is on the list again.
  """

  between: float = 0.0
  repair: float = 0.0
  notice: float = 0.0


@dataclasses.dataclass
class Stage:
  """What a stage took.

  Attributes:
    seconds: until its last shard was done.
    useful: host seconds of shards that were done, each once.
    lost: host seconds of work that died with a host.
    twice: host seconds of work that another host had done already.
    failures: how many.
  """

  seconds: float = 0.0
  useful: float = 0.0
  lost: float = 0.0
  twice: float = 0.0
  failures: int = 0

  def idle(self, hosts: int) -> float:
    """Returns the share of the hosts' time that made nothing of the result."""
    return 1 - self.useful / (hosts * self.seconds)


def run(
  shards: Sequence[float],
  hosts: int,
  *,
  assignment: Assignment = "static",
  loss: Loss = Loss(),
  speeds: Sequence[float] | None = None,
  seed: int = 0,
) -> Stage:
  """Runs a stage.

  Args:
    shards: seconds of each, on a host of speed 1.
    hosts: how many there are.
    assignment: who takes what.
    loss: how hosts die.
    speeds: of each host; None is 1 for all.
    seed: of deaths, and of what is stolen.
  """
  rng = random.Random(seed)
  stage, done = Stage(), [False] * len(shards)
  left = len(shards)
  own: list[collections.deque[int]] = [
    collections.deque(range(host, len(shards), hosts)) for host in range(hosts)
  ]
  shared = collections.deque(range(len(shards)))
  idle: list[int] = []
  # What may be stolen: unfinished shards, in any order.
  open_, places = list(range(len(shards))), list(range(len(shards)))
  events: list[tuple[float, int, str, int, int]] = []
  serial = 0

  def push(at: float, kind: str, host: int, shard: int = -1) -> None:
    nonlocal serial
    serial += 1
    heapq.heappush(events, (at, serial, kind, host, shard))

  def take(host: int) -> int:
    if assignment == "list":
      return shared.popleft() if shared else -1
    while own[host]:
      if not done[own[host][0]]:
        return own[host].popleft()
      own[host].popleft()
    if assignment == "steal" and open_:
      return rng.choice(open_)
    return -1

  def start(now: float, host: int) -> None:
    shard = take(host)
    if shard < 0:
      idle.append(host)
      return
    seconds = shards[shard] / (speeds[host] if speeds else 1.0)
    dies = rng.expovariate(1 / loss.between) if loss.between else seconds
    if dies < seconds:
      stage.failures += 1
      stage.lost += dies
      push(now + dies, "dies", host, shard)
    else:
      push(now + seconds, "ends", host, shard)

  for host in range(hosts):
    start(0.0, host)
  while left:
    now, _, kind, host, shard = heapq.heappop(events)
    if kind == "ends":
      seconds = shards[shard] / (speeds[host] if speeds else 1.0)
      if done[shard]:
        stage.twice += seconds
      else:
        done[shard] = True
        left -= 1
        stage.useful += seconds
        stage.seconds = now
        last, at = open_[-1], places[shard]
        open_[at], places[last] = last, at
        open_.pop()
      start(now, host)
    elif kind == "dies":
      if assignment == "list":
        push(now + loss.notice, "listed", -1, shard)
      else:
        own[host].appendleft(shard)
      push(now + loss.repair, "back", host)
    elif kind == "back":
      start(now, host)
    else:
      shared.appendleft(shard)
      if idle:
        start(now, idle.pop())
  return stage


def over_ideal(
  shards: Sequence[float], hosts: int, ideal: float, loss: Loss
) -> list[str]:
  """Returns, by assignment, the time over the ideal and the share wasted."""
  cells = []
  for assignment in get_args(Assignment):
    stages = [
      run(shards, hosts, assignment=assignment, loss=loss, seed=seed)
      for seed in range(_SEEDS if loss.between else 1)
    ]
    over = statistics.median(each.seconds for each in stages) / ideal
    wasted = statistics.median(
      (each.lost + each.twice) / (each.useful + each.lost + each.twice)
      for each in stages
    )
    cells.append(f"{over:.2f} ({wasted:.1%})")
  return cells


def main(_) -> None:
  seconds = {}
  for each in _MINUTES.value:
    size, _, minutes = each.partition(":")
    seconds[int(size)] = 60 * float(minutes)
  best = min(mean / size for size, mean in seconds.items())
  deaths = Loss(3600 * _HOURS.value, 60 * _REPAIR.value, 60 * _REPAIR.value)
  names = get_args(Assignment)
  head = ["hosts", "shard_size", *names, *(f"{n}, deaths" for n in names)]
  print(f"| {' | '.join(head)} |\n|{' ---: |' * len(head)}")
  for hosts in map(int, _HOSTS.value):
    for size, mean in seconds.items():
      rng = random.Random(size)
      shards = [
        max(0.0, rng.gauss(mean, _DEVIATION.value * mean))
        for _ in range(-(-_PROBLEMS.value // size))
      ]
      ideal = best * _PROBLEMS.value / hosts
      cells = [
        cell
        for loss in (Loss(), deaths)
        for cell in over_ideal(shards, hosts, ideal, loss)
      ]
      print(f"| {hosts} | {size} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
  app.run(main)
