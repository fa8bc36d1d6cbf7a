"""Simulates a TPU host that searches problems with the step engine.

  python -m benchmarks.fleet --round=4 --topology=v5e:4x4

prints tokens per second and chip, the share of token slots that compute what is
needed, and what else keeps the device waiting: of all problems, and of the
middle, in which all trees are in flight, if more than these are searched.
Lengths, sandbox and grader are
recorded (fleet_work.py); a call of a program takes what
`rstar_jax/tools/aot/cost.py` says, at the efficiency that the plan assumes.
Nothing here is measured on a TPU.
"""

import collections
import dataclasses
import heapq
import itertools
import json
from collections.abc import Iterable, Iterator

import numpy as np
from absl import app, flags

from benchmarks.fleet_work import ROUNDS, Source, Tick
from configs import qwen2_5_math_7b
from rstar_jax.models import meshes
from rstar_jax.models.config import PAGE, ModelConfig
from rstar_jax.tools.aot import chips, cost, plan, programs

_ROUND = flags.DEFINE_enum("round", "4", [*ROUNDS], "Round of the paper.")
_TOPOLOGY = flags.DEFINE_string("topology", "v5e:4x4", "TPU slice.")
_PROBLEMS = flags.DEFINE_integer(
  "problems", 200, "Problems that the host searches.", 1
)
_SLOW = flags.DEFINE_float("slow", 0.0, "Share of programs that time out.")
_PATIENT = flags.DEFINE_bool(
  "patient", False, "The PPM waits until its calls are full; see `Host`."
)
_SIZES = {
  "rows": "rows",
  "inner_steps": "steps",
  "prefill_tokens": "slots",
  "pages": "pages",
  "in_flight": "in_flight",
  "workers": "workers",
}
for _name in _SIZES:
  flags.DEFINE_integer(_name, None, "Overrides the config's.")


@dataclasses.dataclass(frozen=True)
class Host:
  """A host's device, and what keeps it at work.

  Attributes:
    model: of the policy and the PPM.
    where: its chips, all of them one data shard.
    rows, steps, slots, pages: `rows`, `inner_steps`, `prefill_tokens` and
      `pages` of `EngineConfig`.
    span: tokens of pages that a candidate is promised.
    in_flight: trees at once.
    workers, graders: processes, each with a core of its own.
    controller: seconds of the search's process for each candidate.
    efficiency, call_seconds: see `plan.Assumptions`.
    patient: whether the PPM lets the policy go first until a call of its own is
      full, as long as all rows are taken; else they take turns.
  """

  model: ModelConfig
  where: chips.Slice
  rows: int = 256
  steps: int = 8
  slots: int = 512
  pages: int = 8192
  span: int = 256
  in_flight: int = 64
  workers: int = 32
  graders: int = 4
  controller: float = 0.0
  efficiency: float = 0.5
  call_seconds: float = 0.005
  patient: bool = False

  def decode(self, keys: float, read: float) -> float:
    """Returns the seconds of a call that samples.

    Args:
      keys: tokens that all rows attend to in a step.
      read: tokens whose keys and values a step reads.
    """
    work = cost.step(
      self.model,
      tokens=self.rows,
      keys=keys,
      read=read,
      sampled=self.rows,
      tensor=self.where.chips,
    )
    return self._call(self.steps * work.seconds(self.where))

  def prefill(self, keys: float, read: float) -> float:
    """Returns the seconds of a call that reads; see `decode`."""
    work = cost.step(
      self.model,
      tokens=self.slots,
      keys=keys,
      read=read,
      tensor=self.where.chips,
    )
    return self._call(work.seconds(self.where))

  def _call(self, seconds: float) -> float:
    return seconds / self.efficiency + self.call_seconds


@dataclasses.dataclass
class Spent:
  """What a search took.

  Attributes:
    seconds: from its start to its end.
    sampling, reading, scoring: seconds of the device's calls.
    tokens: sampled.
    rows: slots of all steps that sampled.
    prefilled: tokens of prefixes that the policy read.
    scored: tokens that the PPM read.
    again: of both, those whose pages had been dropped.
    slots: slots of all calls that read.
  """

  seconds: float = 0.0
  sampling: float = 0.0
  reading: float = 0.0
  scoring: float = 0.0
  tokens: int = 0
  rows: int = 0
  prefilled: int = 0
  scored: int = 0
  again: int = 0
  slots: int = 0

  @property
  def idle(self) -> float:
    """Share of the time in which the device waits."""
    return 1 - (self.sampling + self.reading + self.scoring) / self.seconds

  @property
  def useful(self) -> float:
    """Share of the slots that computed what was needed."""
    done = self.tokens + self.prefilled + self.scored
    return done / (self.rows + self.slots)


class Pages:
  """Pages of a model by candidate; those used longest ago are dropped."""

  def __init__(self, count: int):
    self._count, self._used = count, 0
    self._blocks: collections.OrderedDict[tuple[int, int, int], int] = (
      collections.OrderedDict()
    )

  def missing(self, tree: int, ticks: list[Tick], index: int) -> int:
    """Touches the path of a tick's leaf; returns its tokens without pages."""
    found, end = 0, ticks[index].path
    while end:
      tick = ticks[index]
      index, key = tick.after, (tree, tick.after, tick.child)
      # No tick made the prompt.
      start = ticks[index].path if index >= 0 else 0
      if key not in self._blocks:
        found += end - start
        self._add(key, start, end - start)
      # What is before is used after all that follows it, and so outlives it.
      self._blocks.move_to_end(key)
      end = start
    self._drop()
    return found

  def put(
    self, tree: int, ticks: list[Tick], index: int, lengths: np.ndarray
  ) -> None:
    """Adds what was computed of a tick's candidates."""
    for child, length in enumerate(lengths.tolist()):
      self._add((tree, index, child), ticks[index].path, length)
    self.missing(tree, ticks, index)

  def _add(self, key: tuple[int, int, int], path: int, length: int) -> None:
    # A page that is partly full is copied.
    pages = -(-(path % PAGE + length) // PAGE)
    self._used += pages - self._blocks.pop(key, 0)
    self._blocks[key] = pages

  def _drop(self) -> None:
    while self._used > self._count:
      self._used -= self._blocks.popitem(last=False)[1]


class Workers:
  """Equal workers that take tasks first come, first served."""

  def __init__(self, count: int):
    self._free = [0.0] * count

  def run(self, now: float, tasks: Iterable[float]) -> float:
    """Returns when the last of tasks ends that arrive now, in time's order."""
    last = now
    for seconds in tasks:
      end = max(now, self._free[0]) + seconds
      heapq.heapreplace(self._free, end)
      last = max(last, end)
    return last


@dataclasses.dataclass
class _Read:
  """Tokens of a path that are to be computed, and who waits for them."""

  left: int
  path: int
  who: int


class Simulation:
  """Problems, one after the other on each of the trees in flight."""

  def __init__(self, host: Host, source: Source, problems: int):
    self.spent = Spent()
    self._host, self._source, self._problems = host, source, problems
    self._events: list[tuple[float, int, str, int]] = []
    self._serial = itertools.count()
    # Of each search in flight: its generator, and its tick at hand.
    self._going: dict[int, Iterator[str]] = {}
    self._ticks: dict[int, Tick] = {}
    self._reads: collections.deque[_Read] = collections.deque()
    self._scores: collections.deque[_Read] = collections.deque()
    self._ready: collections.deque[tuple[int, int]] = collections.deque()
    # Rows under way: tokens left, tokens so far, and whose they are.
    self._left = np.zeros(0, int)
    self._done = np.zeros(0, int)
    self._owner = np.zeros(0, int)
    self._open: dict[int, int] = {}
    self._policy, self._value = Pages(host.pages), Pages(host.pages)
    self._pools = {
      "controller": Workers(1),
      "sandbox": Workers(host.workers),
      "grader": Workers(host.graders),
    }
    self._idle, self._turn = True, "policy"

  def run(self) -> Spent:
    """Searches all problems."""
    for _ in range(min(self._host.in_flight, self._problems)):
      self._begin(0.0)
    self._call(0.0)
    while self._events:
      now, _, kind, who = heapq.heappop(self._events)
      self.spent.seconds = now
      if kind == "device":
        self._idle = True
        for each in self._ended:
          self._move_on(now, each)
      else:
        self._move_on(now, who)
      if self._idle:
        self._call(now)
    return self.spent

  def _push(self, at: float, kind: str, who: int = -1) -> None:
    heapq.heappush(self._events, (at, next(self._serial), kind, who))

  def _begin(self, now: float) -> None:
    if self._problems:
      self._problems -= 1
      if not self._problems:
        self.steady = dataclasses.replace(self.spent)
      who = next(self._serial)
      self._going[who] = self._search(who)
      self._move_on(now, who)

  def _move_on(self, now: float, who: int) -> None:
    """Gives a search its answer, and sends what it asks for next."""
    kind = next(self._going[who], None)
    if kind is None:
      del self._going[who], self._ticks[who]
      self._begin(now)
    elif kind != "device":
      tick = self._ticks[who]
      tasks = {
        "controller": [self._host.controller * len(tick.lengths)],
        "sandbox": tick.programs,
        "grader": tick.answers,
      }[kind]
      self._push(self._pools[kind].run(now, tasks), kind, who)

  def _search(self, who: int) -> Iterator[str]:
    """Yields what the search of a problem waits for next."""
    for ticks in self._source.problem():
      tree = next(self._serial)
      for index, tick in enumerate(ticks):
        self._ticks[who] = tick
        missing = self._policy.missing(tree, ticks, index)
        self.spent.again += missing * (index > 0)
        if missing:
          self._reads.append(_Read(missing, tick.path, who))
          yield "device"
        self._ready += [(who, n) for n in tick.lengths.tolist()]
        self._open[who] = len(tick.lengths)
        yield "device"
        self._policy.put(tree, ticks, index, tick.lengths)
        yield "controller"
        yield "sandbox"
        if tick.scored:
          missing = self._value.missing(tree, ticks, index)
          self.spent.again += missing * (index > 0)
          steps = tick.lengths[: tick.scored]
          missing += int(steps.sum())
          self._scores.append(_Read(missing, tick.path, who))
          yield "device"
          self._value.put(tree, ticks, index, steps)
        yield "grader"

  def _call(self, now: float) -> None:
    """Lets the policy and the PPM take turns at the device."""
    if self._host.patient:
      waiting = sum(each.left for each in self._scores)
      rows = len(self._left) + len(self._ready)
      if waiting >= self._host.slots:
        self._turn = "ppm"
      elif rows >= self._host.rows:
        self._turn = "policy"
    for _ in range(2):
      turn = self._turn
      self._turn = "ppm" if turn == "policy" else "policy"
      if turn == "ppm" and self._scores:
        seconds, read = self._read(self._scores)
        self.spent.scored += read
        self.spent.scoring += seconds
      elif turn == "policy" and (self._ready or self._reads or len(self._left)):
        seconds = self._policy_call()
      else:
        continue
      self._idle = False
      self._push(now + seconds, "device")
      return

  def _policy_call(self) -> float:
    """As `Engine._plan_call`: prefixes alone if they are many, else both."""
    pending = sum(each.left for each in self._reads)
    sampling = self._ready or len(self._left)
    if pending and (not sampling or pending >= self._host.slots // 2):
      seconds, read = self._read(self._reads)
      self.spent.prefilled += read
      self.spent.reading += seconds
      return seconds
    return self._decode()

  def _read(self, waiting: collections.deque[_Read]) -> tuple[float, int]:
    """Reads what a call has slots for; returns its seconds and tokens."""
    room, keys, read, self._ended = self._host.slots, 0, 0, []
    self.spent.slots += room
    while waiting and room:
      each = waiting[0]
      some = min(each.left, room)
      each.left -= some
      room -= some
      keys += some * each.path
      read += each.path
      if not each.left:
        self._ended.append(waiting.popleft().who)
    tokens = self._host.slots - room
    return self._host.prefill(keys, read + tokens), tokens

  def _decode(self) -> float:
    """Samples K tokens of each row, after ended rows were refilled."""
    host, steps = self._host, self._host.steps
    self._ended = []
    free = host.rows - len(self._left)
    # Slots of prefixes, as `Engine._put_prefixes` has them.
    most = free // 2 if self._ready else free
    while self._reads and most:
      each = self._reads[0]
      wide = min(-(-each.left // steps), most)
      some = min(each.left, wide * steps)
      each.left -= some
      most, free = most - wide, free - wide
      self.spent.prefilled += some
      if not each.left:
        self._ended.append(self._reads.popleft().who)
    # A candidate begins if the pages that it may need can be had.
    free = min(free, host.pages // -(-host.span // PAGE) - len(self._left))
    new = [self._ready.popleft() for _ in range(min(free, len(self._ready)))]
    if new:
      owners, lengths = np.array(new).T
      self._owner = np.concatenate([self._owner, owners])
      self._left = np.concatenate([self._left, lengths])
      self._done = np.concatenate([self._done, np.zeros(len(new), int)])
    paths = {who: self._ticks[who].path for who in set(self._owner.tolist())}
    own = int(self._done.sum()) + len(self._done) * steps // 2
    keys = own + sum(paths[who] for who in self._owner.tolist())
    seconds = host.decode(keys, own + sum(paths.values()))
    useful = np.minimum(self._left, steps)
    self.spent.tokens += int(useful.sum())
    self.spent.rows += host.rows * steps
    self.spent.sampling += seconds
    self._left = self._left - useful
    self._done = self._done + useful
    for who in self._owner[self._left == 0].tolist():
      self._open[who] -= 1
      if not self._open[who]:
        self._ended.append(who)
    going = self._left > 0
    self._left, self._done = self._left[going], self._done[going]
    self._owner = self._owner[going]
    return seconds


def host_of(where: chips.Slice, source: Source, **changes) -> Host:
  """Returns the host of the 7B's config, with changes of `Host`."""
  config = qwen2_5_math_7b.get_config()
  engine, assumed = config.engine, plan.Assumptions()
  sizes = meshes.sizes_of(config.search_mesh, where.chips)
  assert sizes[:2] == (1, 1), "one data shard"
  options = {
    "rows": engine.rows,
    "steps": engine.inner_steps,
    "slots": engine.prefill_tokens,
    "pages": engine.pages,
    "span": engine.max_step_tokens,
    "in_flight": config.search.in_flight,
    "workers": config.sandbox.workers,
    "graders": config.grader.workers,
    "controller": source.controller,
    "efficiency": assumed.efficiency,
    "call_seconds": assumed.call_seconds,
  }
  model = programs.model_config(config.policy.path, config.policy.dtype)
  return Host(model, where, **(options | changes))


def row_of(spent: Spent, host: Host) -> dict[str, float]:
  """Returns what is printed of a search."""
  rate = spent.tokens / spent.seconds
  row = {
    "tokens_per_second_per_chip": rate / host.where.chips,
    "rows_useful": spent.tokens / spent.rows,
    "slots_useful": spent.useful,
    "idle": spent.idle,
    "sampling": spent.sampling / spent.seconds,
    "scoring": spent.scoring / spent.seconds,
    "scored": spent.scored / spent.tokens,
    "read_again": spent.again / spent.tokens,
  }
  return {name: plan.significant(value) for name, value in row.items()}


def main(_) -> None:
  source = Source(ROUNDS[_ROUND.value], slow=_SLOW.value)
  where = chips.parse(_TOPOLOGY.value).host
  changes = {
    name: flags.FLAGS[flag].value
    for flag, name in _SIZES.items()
    if flags.FLAGS[flag].value is not None
  }
  host = host_of(where, source, patient=_PATIENT.value, **changes)
  simulation = Simulation(host, source, _PROBLEMS.value)
  whole = simulation.run()
  print(json.dumps(row_of(whole, host) | {"of": "all problems"}))
  # Until the last problem begins all trees are in flight.
  if simulation.steady.seconds:
    print(json.dumps(row_of(simulation.steady, host) | {"of": "the middle"}))


if __name__ == "__main__":
  app.run(main)
