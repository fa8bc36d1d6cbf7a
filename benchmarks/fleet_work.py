"""What searches of problems ask of a host, drawn from what runs recorded.

`fleet_record.json` holds searches of a tiny model: each expansion ("tick") as
[rollout, tokens before it, programs, answers, tokens of each candidate]. A
larger model's steps are longer and vary more, so lengths are scaled to those of
the released solutions. It also writes fewer steps twice: nearly each candidate
is a program of its own. How many ticks a rollout has, and which of them end in
answers, is as recorded. (The script that recorded it is in commit bd421b8.)
"""

import dataclasses
import itertools
import json
import pathlib
import statistics
from collections.abc import Sequence

import numpy as np

_RECORD = pathlib.Path(__file__).parent / "fleet_record.json"
# Of a tick of the record, before the candidates' tokens.
_ROLLOUT, _PATH, _PROGRAMS, _ANSWERS, _LENGTHS = 0, 1, 3, 4, 5
# Sigma of a lognormal factor of mean 1 of each length: as much as the lengths
# of the released solutions vary beyond those of the record.
_SPREAD = 0.32
# Most tokens of a step.
_LIMIT = 512


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


# Rollouts and candidates are the paper's. Shares of problems that are still
# unsolved are those after the round before, and after this one (Table 2).
ROUNDS = {
  "2": Round(16, 8, extra=((0.334, 16),)),
  "3": Round(16, 8, extra=((0.334, 16),), ppm=True),
  "4": Round(16, 16, trees=2, extra=((0.221, 64), (0.0975, 64)), ppm=True),
}


@dataclasses.dataclass(frozen=True)
class Tick:
  """What one expansion of one leaf asks for.

  Attributes:
    lengths: int [C], tokens of each candidate.
    path: tokens before the leaf.
    after: the tick of the same tree that made the leaf, -1 for the root.
    child: which of that tick's candidates the leaf is.
    scored: candidates that the PPM scores.
    programs: seconds of each in the sandbox.
    answers: seconds of each in the grader.
  """

  lengths: np.ndarray
  path: int
  after: int
  child: int = 0
  scored: int = 0
  programs: tuple[float, ...] = ()
  answers: tuple[float, ...] = ()


class Source:
  """Draws trees.

  Attributes:
    controller: seconds of the search's own process for each candidate.
  """

  def __init__(
    self,
    round_: Round,
    *,
    distinct: float = 0.9,
    slow: float = 0.0,
    wall: float = 5.0,
    seed: int = 0,
  ):
    """Reads the record.

    Args:
      round_: what is searched.
      distinct: share of the candidates of a step that are programs of their
        own.
      slow: share of programs that take `wall` seconds.
      wall: the sandbox's limit.
      seed: of all draws.
    """
    record = json.loads(_RECORD.read_text())
    self._round, self._distinct = round_, distinct
    self._slow, self._wall = slow, wall
    self._rng = np.random.default_rng(seed)
    self._programs = 1e-3 * np.array(record["released"])
    self._answers = 1e-3 * np.array(record["labelled"])
    mine = [n for t in record["trees"] for tick in t for n in tick[_LENGTHS:]]
    theirs = itertools.chain.from_iterable(record["released_tokens"])
    self._scale = statistics.mean(theirs) / statistics.mean(mine)
    rollouts = [_by_rollout(tree) for tree in record["trees"]]
    solved = record["solved"]
    self._solved = [t for t, s in zip(rollouts, solved, strict=True) if s]
    self._unsolved = [t for t, s in zip(rollouts, solved, strict=True) if not s]
    micro = record["controller_us"] + distinct * record["program_us"]
    self.controller = 1e-6 * micro

  def problem(self) -> list[list[Tick]]:
    """Draws the trees of one problem, that are searched in turn.

    Extra rollouts are a tree of their own here: they would go on in the last.
    """
    spec, rng = self._round, self._rng
    luck = rng.random()
    hard = bool(spec.extra) and luck < spec.extra[0][0]
    pools = self._unsolved, self._solved
    pool = (pools[0] if hard else pools[1]) or pools[0] or pools[1]
    chosen = pool[rng.integers(len(pool))]
    counts = [spec.rollouts] * spec.trees
    counts += [each for share, each in spec.extra if luck < share]
    return [self._tree(chosen, count) for count in counts]

  def _tree(self, rollouts: list[list[list[int]]], count: int) -> list[Tick]:
    """Draws the ticks of so many rollouts of a recorded tree.

    Beyond what was recorded, rollouts of its second half come again.
    """
    half = len(rollouts) // 2
    late = self._rng.integers(half, len(rollouts), count).tolist()
    numbers = [i if i < len(rollouts) else late[i] for i in range(count)]
    ticks, after = [], []
    for number in numbers:
      for depth, tick in enumerate(rollouts[number]):
        after.append(len(ticks) - 1 if depth else _before(ticks, tick))
        ticks.append(tick)
    return self._ticks(ticks, after)

  def _ticks(self, ticks: Sequence[list[int]], after: list[int]) -> list[Tick]:
    """Scales ticks, all at once."""
    rng, candidates = self._rng, self._round.candidates
    recorded = np.array([tick[_LENGTHS:] for tick in ticks], float)
    more = candidates / recorded.shape[1]
    shape = (len(ticks), candidates)
    columns = rng.integers(recorded.shape[1], size=shape)
    lengths = self._scale * np.take_along_axis(recorded, columns, 1)
    noise = rng.standard_normal(shape)
    lengths *= np.exp(_SPREAD * noise - _SPREAD**2 / 2)
    lengths = np.clip(np.rint(lengths), 1, _LIMIT).astype(int)
    each = round(self._distinct * candidates)
    programs = [each if tick[_PROGRAMS] else 0 for tick in ticks]
    answers = [round(more * tick[_ANSWERS]) for tick in ticks]
    # Leaves of other depths are other candidates of a tick.
    children: dict[int, list[int]] = {}
    child = []
    for tick, before in zip(ticks, after, strict=True):
      known = children.setdefault(before, [])
      if tick[_PATH] not in known:
        known.append(tick[_PATH])
      child.append(known.index(tick[_PATH]) % candidates)
    run = self._seconds(self._programs, sum(programs))
    run[rng.random(len(run)) < self._slow] = self._wall
    run = iter(run.tolist())
    graded = iter(self._seconds(self._answers, sum(answers)).tolist())
    return [
      Tick(
        lengths=row,
        path=round(self._scale * tick[_PATH]),
        after=before,
        child=number,
        scored=min(n + m, candidates) if self._round.ppm else 0,
        programs=tuple(itertools.islice(run, n)),
        answers=tuple(itertools.islice(graded, m)),
      )
      for tick, before, number, row, n, m in zip(
        ticks, after, child, lengths, programs, answers, strict=True
      )
    ]

  def _seconds(self, samples: np.ndarray, count: int) -> np.ndarray:
    return samples[self._rng.integers(len(samples), size=count)]


def _before(ticks: list[list[int]], tick: list[int]) -> int:
  """Returns the newest tick that can have made a later rollout's leaf."""
  paths = [each[_PATH] for each in ticks]
  shorter = [path for path in paths if path < tick[_PATH]]
  if not shorter:
    return -1
  return len(paths) - 1 - paths[::-1].index(max(shorter))


def _by_rollout(ticks: list[list[int]]) -> list[list[list[int]]]:
  """Returns the ticks of each rollout that had any."""
  found: dict[int, list[list[int]]] = {}
  for tick in ticks:
    found.setdefault(tick[_ROLLOUT], []).append(tick)
  return list(found.values())
