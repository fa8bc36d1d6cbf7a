"""One host that searches shards of problems, event by event; pure.

A tree is the list of its ticks. Groups of trees take turns on one device, and
share the workers of a sandbox and of a grader. What `search/mcts.py` does is
followed phase by phase; what a phase takes is given.
"""

import dataclasses
import heapq
import itertools
from collections.abc import Iterable, Iterator, Sequence

import numpy as np


@dataclasses.dataclass(frozen=True)
class Tick:
  """What one expansion of one leaf asks for.

  Attributes:
    lengths: tokens of each candidate.
    path: tokens before the leaf.
    tail: tokens of them whose keys and values are not there yet.
    scored: tokens that the PPM reads, 0 without one.
    programs: seconds of each in the sandbox.
    answers: seconds of each in the grader.
  """

  lengths: Sequence[int] | np.ndarray
  path: int = 0
  tail: int = 0
  scored: int = 0
  programs: tuple[float, ...] = ()
  answers: tuple[float, ...] = ()


@dataclasses.dataclass(frozen=True)
class Device:
  """Seconds of device calls, by a roofline.

  Attributes:
    weights: to read all weights once.
    row: of arithmetic, for one token of one row.
    token: to read the keys and values of one token.
    efficiency: share of the roofline that is reached.
    step: beyond the roofline, for each decode step.
    call: beyond the roofline, for each call.
    compact: whether half of the rows go on alone once the others have ended.
  """

  weights: float
  row: float
  token: float = 0.0
  efficiency: float = 1.0
  step: float = 0.0
  call: float = 0.0
  compact: bool = True

  def read(self, tokens: int) -> float:
    """Returns the seconds of a prefill, which arithmetic bounds."""
    return self.call + max(self.weights, tokens * self.row) / self.efficiency

  def expand(self, batch: Sequence[Tick]) -> float:
    """Returns the seconds of sampling the candidates of a batch.

    Numbers of leaves are padded up to a power of two. The program's rows are
    halved whenever as many of them have ended.
    """
    ended = np.sort(np.concatenate([each.lengths for each in batch]))
    rows = len(batch[0].lengths) << (len(batch) - 1).bit_length()
    total, path = rows, sum(each.path for each in batch)
    seconds, now = self.read(sum(each.tail for each in batch)), 0
    while now < ended[-1]:
      half = rows // 2 if self.compact and rows > 1 else 0
      end = int(ended[-half - 1]) if half < len(ended) else now
      if end > now:
        suffix = rows * (now + end) / 2
        memory = self.weights + (path * rows / total + suffix) * self.token
        bound = max(memory, rows * self.row) / self.efficiency
        seconds += (end - now) * (bound + self.step)
        now = end
      rows = max(half, 1)
    return seconds

  def score(self, batch: Sequence[Tick]) -> float:
    """Returns the seconds of scoring a batch, 0 where there is nothing."""
    tokens = sum(each.scored for each in batch)
    return self.read(tokens) if tokens else 0.0


@dataclasses.dataclass(frozen=True)
class Host:
  """A host's device, its workers, and how trees are dealt.

  Attributes:
    device: shared by the groups; runs one call at a time.
    slots, groups: as in `SearchConfig`.
    workers, graders: processes, each with a core of its own.
    controller: seconds for each candidate in which no other group's controller
      runs: the search, the tokenizer and the threads of the sandbox share one.
  """

  device: Device
  slots: int
  groups: int
  workers: int
  graders: int = 1
  controller: float = 0.0


class Pool:
  """Equal workers that take tasks first come, first served.

  Attributes:
    busy: seconds worked, all workers together.
  """

  def __init__(self, workers: int):
    self.busy = 0.0
    self._free = [0.0] * workers

  def run(self, now: float, tasks: Iterable[float]) -> float:
    """Runs tasks that arrive now; calls come in the order of time.

    Returns:
      When the last of them ends; now, if there are none.
    """
    last = now
    for seconds in tasks:
      end = max(now, self._free[0]) + seconds
      heapq.heapreplace(self._free, end)
      self.busy += seconds
      last = max(last, end)
    return last


@dataclasses.dataclass
class Spent:
  """What a search took.

  Attributes:
    seconds: from its start to its end.
    device, sandbox, grader, controller: seconds that each worked.
    leaves: the sum over expansions of leaves times device seconds.
    expanding: device seconds of expansions.
    tokens: sampled.
  """

  seconds: float = 0.0
  device: float = 0.0
  sandbox: float = 0.0
  grader: float = 0.0
  controller: float = 0.0
  leaves: float = 0.0
  expanding: float = 0.0
  tokens: int = 0

  def __add__(self, other: "Spent") -> "Spent":
    """Returns one search after the other."""
    mine, others = dataclasses.astuple(self), dataclasses.astuple(other)
    return Spent(*(a + b for a, b in zip(mine, others, strict=True)))

  @property
  def idle(self) -> float:
    """The share of the time in which the device waits."""
    return 1 - self.device / self.seconds


def search(trees: Sequence[Sequence[Tick]], host: Host) -> Spent:
  """Searches trees as `mcts.search` does, and returns what it took."""
  spent = Spent()
  pools = {
    "controller": Pool(1),
    "device": Pool(1),
    "sandbox": Pool(host.workers),
    "grader": Pool(host.graders),
  }
  groups = [
    _group(trees[i :: host.groups], host, spent) for i in range(host.groups)
  ]
  events = [(0.0, index) for index in range(host.groups)]
  while events:
    now, index = heapq.heappop(events)
    asked = next(groups[index], None)
    if asked is None:
      spent.seconds = max(spent.seconds, now)
    else:
      name, tasks = asked
      heapq.heappush(events, (pools[name].run(now, tasks), index))
  for name, pool in pools.items():
    setattr(spent, name, pool.busy)
  return spent


def _group(
  trees: Sequence[Sequence[Tick]], host: Host, spent: Spent
) -> Iterator[tuple[str, Iterable[float]]]:
  """Yields what one group asks for next, and of whom."""
  waiting = map(iter, trees)
  active: list[Iterator[Tick]] = []
  while True:
    taken = [(tree, next(tree, None)) for tree in active]
    taken = [each for each in taken if each[1] is not None]
    while len(taken) < host.slots:
      if (tree := next(waiting, None)) is None:
        break
      if (tick := next(tree, None)) is not None:
        taken.append((tree, tick))
    if not taken:
      return
    active = [tree for tree, _ in taken]
    batch = [tick for _, tick in taken]
    candidates = sum(len(each.lengths) for each in batch)
    spent.tokens += int(np.concatenate([t.lengths for t in batch]).sum())
    yield "controller", [host.controller * candidates]
    seconds = host.device.expand(batch)
    spent.expanding += seconds
    spent.leaves += len(batch) * seconds
    yield "device", [seconds]
    yield "sandbox", itertools.chain.from_iterable(t.programs for t in batch)
    if seconds := host.device.score(batch):
      yield "device", [seconds]
    yield "grader", itertools.chain.from_iterable(t.answers for t in batch)
