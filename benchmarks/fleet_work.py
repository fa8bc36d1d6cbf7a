"""What shards of problems ask of a host, drawn from what runs recorded; pure.

`fleet_record.json` (by `fleet_record.py`) holds searches of a tiny model. A
larger model's steps are longer and vary more, so lengths are scaled. It also
writes fewer steps twice, so that a tree does not run out of them early, and
nearly each candidate is a program of its own. How many ticks a rollout has, and
which of them end in answers, is as recorded.
"""

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks import fleet_host
from benchmarks.fleet_host import Host, Spent, Tick

# Of a tick of the record, before the candidates' tokens.
_ROLLOUT, _PATH, _PROGRAMS, _ANSWERS, _LENGTHS = 0, 1, 3, 4, 5


@dataclasses.dataclass(frozen=True)
class Round:
  """What a round searches.

  Attributes:
    rollouts, candidates, trees: as in `RoundConfig`.
    extra: (share of the problems, rollouts) of each further attempt.
    ppm: whether candidates are scored.
  """

  rollouts: int
  candidates: int
  trees: int = 1
  extra: tuple[tuple[float, int], ...] = ()
  ppm: bool = False


@dataclasses.dataclass(frozen=True)
class Scale:
  """How a larger model's work differs from the recorded.

  Attributes:
    step: factor of tokens.
    spread: sigma of a lognormal factor of mean 1 of each candidate's tokens.
    limit: most tokens of a step.
    long: share of candidates that have so many.
    equal: whether all candidates of a tree are as long, their mean.
    distinct: share of the candidates of a step that are programs of their own;
      0 is as recorded.
    full: whether all rollouts are done; a recorded tree may run out early.
    sandbox: factor of seconds in the sandbox and the grader.
    slow: share of programs that take `wall` seconds.
    wall: the sandbox's limit.
  """

  step: float = 1.0
  spread: float = 0.0
  limit: int = 512
  long: float = 0.0
  equal: bool = False
  distinct: float = 0.0
  full: bool = False
  sandbox: float = 1.0
  slow: float = 0.0
  wall: float = 5.0


class Source:
  """Draws trees.

  Args:
    record: of `fleet_record.py`.
    round_: what is searched.
    scale: how it is scaled.
    kind: whose seconds programs take, as "sympy" or "released".
    seed: of all draws.
  """

  def __init__(
    self,
    record: dict[str, Any],
    round_: Round,
    scale: Scale = Scale(),
    kind: str = "released",
    seed: int = 0,
  ):
    self._round, self._scale = round_, scale
    self._rng = np.random.default_rng(seed)
    self._programs = 1e-3 * np.array(record[kind])
    self._answers = 1e-3 * np.array(record["labelled"])
    rollouts = [_by_rollout(tree) for tree in record["trees"]]
    solved = record["solved"]
    self._solved = [t for t, s in zip(rollouts, solved, strict=True) if s]
    self._unsolved = [t for t, s in zip(rollouts, solved, strict=True) if not s]

  def shard(self, problems: int, host: Host, *, extra: bool = True) -> Spent:
    """Draws a shard, searches it, and returns what it took.

    Args:
      problems: how many.
      host: who searches.
      extra: whether its unsolved problems get further attempts, in the shard.
    """
    spec, rng = self._round, self._rng
    hard = rng.binomial(problems, spec.extra[0][0] if spec.extra else 0.0)
    pools = (self._unsolved or self._solved, self._solved or self._unsolved)
    chosen = [
      self._some(pools[i >= hard]) for i in rng.permutation(problems).tolist()
    ]
    spent = Spent()
    for _ in range(spec.trees):
      trees = [self._tree(each, spec.rollouts) for each in chosen]
      spent += fleet_host.search(trees, host)
    return spent + self.attempts(hard, host) if extra else spent

  def tree(self) -> list[Tick]:
    """Draws the ticks of one tree."""
    pool = self._solved + self._unsolved
    return self._tree(self._some(pool), self._round.rollouts)

  def attempts(self, hard: int, host: Host) -> Spent:
    """Draws the further attempts of unsolved problems; see `shard`.

    Args:
      hard: how many problems the first attempt has.
      host: who searches.
    """
    spent, pool = Spent(), self._unsolved or self._solved
    for share, rollouts in self._round.extra:
      count = round(hard * share / self._round.extra[0][0])
      if count:
        trees = [self._tree(self._some(pool), rollouts) for _ in range(count)]
        spent += fleet_host.search(trees, host)
    return spent

  def _some(self, pool: Sequence) -> Any:
    return pool[self._rng.integers(len(pool))]

  def _tree(self, rollouts: list[list[list[int]]], count: int) -> list[Tick]:
    """Draws the ticks of so many rollouts of a recorded tree.

    Beyond what was recorded, rollouts of its second half come again.
    """
    if not self._scale.full and len(rollouts) < count:
      count = len(rollouts)
    half = len(rollouts) // 2
    late = self._rng.integers(half, len(rollouts), count).tolist()
    numbers = [i if i < len(rollouts) else late[i] for i in range(count)]
    root = rollouts[0][0][_PATH]
    ticks = [tick for number in numbers for tick in rollouts[number]]
    # A rollout begins at the root, and each later tick where the last one was.
    known = [
      tick[_PATH] if depth or not index else root
      for index, number in enumerate(numbers)
      for depth, tick in enumerate(rollouts[number])
    ]
    return self._ticks(ticks, known)

  def _ticks(self, ticks: list[list[int]], known: list[int]) -> list[Tick]:
    """Scales ticks, all at once.

    Args:
      ticks: of the record.
      known: for each, tokens of its path whose keys and values are there.
    """
    scale, rng = self._scale, self._rng
    candidates = self._round.candidates
    recorded = np.array([tick[_LENGTHS:] for tick in ticks], float)
    more = candidates / recorded.shape[1]
    shape = (len(ticks), candidates)
    lengths = scale.step * recorded
    if more != 1:
      columns = rng.integers(recorded.shape[1], size=shape)
      lengths = np.take_along_axis(lengths, columns, 1)
    if scale.spread:
      noise = rng.standard_normal(shape)
      lengths *= np.exp(scale.spread * noise - scale.spread**2 / 2)
    if scale.long:
      lengths[rng.random(shape) < scale.long] = scale.limit
    if scale.equal:
      lengths[:] = lengths.mean()
    lengths = np.clip(np.rint(lengths), 1, scale.limit).astype(int)
    answers = [round(more * tick[_ANSWERS]) for tick in ticks]
    programs = [round(more * tick[_PROGRAMS]) for tick in ticks]
    if scale.distinct:
      each = round(scale.distinct * candidates)
      programs = [each if count else 0 for count in programs]
    run = self._seconds(self._programs, sum(programs))
    if scale.slow:
      run[rng.random(len(run)) < scale.slow] = scale.wall
    run = iter(run.tolist())
    graded = iter(self._seconds(self._answers, sum(answers)).tolist())
    return [
      Tick(
        lengths=row,
        path=round(scale.step * tick[_PATH]),
        tail=round(scale.step * (tick[_PATH] - before)),
        scored=int(row.mean() * (n + m)) if self._round.ppm else 0,
        programs=tuple(itertools.islice(run, n)),
        answers=tuple(itertools.islice(graded, m)),
      )
      for tick, before, row, n, m in zip(
        ticks, known, lengths, programs, answers, strict=True
      )
    ]

  def _seconds(self, samples: np.ndarray, count: int) -> np.ndarray:
    at = self._rng.integers(len(samples), size=count)
    return self._scale.sandbox * samples[at]


def _by_rollout(ticks: list[list[int]]) -> list[list[list[int]]]:
  """Returns the ticks of each rollout that had any."""
  found: dict[int, list[list[int]]] = {}
  for tick in ticks:
    found.setdefault(tick[_ROLLOUT], []).append(tick)
  return list(found.values())
