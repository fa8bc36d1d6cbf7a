"""A policy that slips and a PPM of any quality, scripted: no model is needed.

Both work on one generated problem (`data/synthetic`). What they write is run by
`arithmetic.py`, so that a search takes milliseconds.

The policy computes what the answer needs in order, a quantity a step. At each
it slips with a given probability: it makes the typical error of the relation
(`relations.py`), takes another quantity or another number, computes the
quantity as another one is computed, prints what it has, or computes what nobody
needs (which is harmless). Which of these there are is drawn for each prefix,
and then the same for all samples, so that samples have equal errors, as those
of a model have. After a slip it goes on as before, from wrong values. It prints
and repeats the result without a slip.

The PPM gives 0.9 to 1 to what is right so far (`oracle.py`) and -1 to -0.9 to
what is wrong, with the sign flipped at some. The flips, and the part that keeps
values apart, are functions of the problem and the path.
"""

import bisect
import dataclasses
import itertools
import math
import random
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np

from rstar_jax import rng
from rstar_jax.data.synthetic import arithmetic, oracle, solutions
from rstar_jax.data.synthetic.solutions import Planned, SolvedProblem
from rstar_jax.search.requests import Request, Search
from rstar_jax.search.tree import RIGHT
from rstar_jax.steps import grammar
from rstar_jax.types import Candidate, ExecResult, Finish, Prefix

# How likely kinds of slips are, as multiples of the least likely.
_TYPICAL, _OTHER = 3.0, 1.0
# Most other quantities, and numbers, that are taken in the place of the right.
_VARIANTS = 2
_UINT32 = 1 << 32
_Result = TypeVar("_Result")


@dataclasses.dataclass(frozen=True)
class _Place:
  """Where a path is: quantities of the plan so far, and all known names."""

  step: int = 0
  known: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class _Options:
  """What may come next: candidates, and the ends of their shares of [0, 1)."""

  candidates: tuple[Candidate, ...]
  ends: tuple[float, ...]

  def draw(self, at: float) -> Candidate:
    return self.candidates[bisect.bisect_right(self.ends, at)]


class Policy:
  """Writes steps of one problem; what it writes is a function of the seed.

  Args:
    solved: the problem.
    slip: mean probability of a slip at each step, in [0, 1).
    tokens: returns the number of tokens of a text.
    seed: draws the slips that there are.
    spread: how unequal the probabilities of a problem's steps are: 0, all
      `slip`; else of a Beta distribution of this mean and the variance
      spread * slip * (1 - slip), drawn for each quantity; below 1.
  """

  def __init__(
    self,
    solved: SolvedProblem,
    slip: float,
    tokens: Callable[[str], int],
    seed: int = 0,
    spread: float = 0.0,
  ):
    self._solved = solved
    self._tokens = tokens
    self._seed = seed
    self._rates = [self._rate(each, slip, spread) for each in solved.plan]
    self._places: dict[Prefix, _Place] = {(): _Place()}
    self._options: dict[Prefix, _Options] = {}

  def expand(self, prefix: Prefix, seeds: np.ndarray) -> list[Candidate]:
    """Returns a candidate for each seed, uint32 [C]."""
    options = self.options(prefix)
    return [options.draw(int(seed) / _UINT32) for seed in seeds]

  def block(self, prefix: Prefix, seeds: np.ndarray) -> list[Candidate]:
    """Returns, for each seed, all that comes until the code or answer ends."""
    return [self._block(prefix, int(seed)) for seed in seeds]

  def options(self, prefix: Prefix) -> _Options:
    """Returns what may follow a prefix that the policy wrote, cached."""
    if prefix not in self._options:
      self._options[prefix] = self._made(prefix)
    return self._options[prefix]

  def _block(self, prefix: Prefix, seed: int) -> Candidate:
    written: list[Candidate] = []
    for index in itertools.count():
      draw = rng.seed_for(seed, index) / _UINT32
      each = self.options(prefix).draw(draw)
      written.append(each)
      if each.finish != "step":
        break
      prefix = (*prefix, each.text)
    return Candidate(
      "".join(each.text for each in written),
      tuple(itertools.chain(*(each.token_ids for each in written))),
      sum(each.logprob for each in written),
      written[-1].finish,
    )

  def _rate(self, planned: Planned, slip: float, spread: float) -> float:
    if not spread:
      return slip
    sharpness = 1 / spread - 1
    name = rng.seed_for(self._seed, "rate", self._solved.problem.id, planned.x)
    return random.Random(name).betavariate(
      slip * sharpness, (1 - slip) * sharpness
    )

  def _made(self, prefix: Prefix) -> _Options:
    if prefix and grammar.OUTPUT in prefix[-1]:
      (shown,) = grammar.output_spans(prefix[-1])
      output = grammar.MARKER.sub("", prefix[-1][slice(*shown)]).strip()
      return self._of([(1.0, solutions.boxing(output), "answer")])
    if prefix not in self._places:
      self.options(prefix[:-1])  # Finds the places after it.
    place, plan = self._places[prefix], self._solved.plan
    if place.step == len(plan):
      printing = solutions.printing(plan[-1].x)
      return self._of([(1.0, printing, "code")])
    right = plan[place.step]
    codes = [(right, right.relation.code, 1.0)]
    name = rng.seed_for(self._seed, self._solved.problem.id, *prefix)
    codes += self._slips(place, random.Random(name))
    found: list[tuple[float, str, Finish]] = []
    seen = set()
    for planned, code, weight in codes:
      text = solutions.step(planned.body(code), not prefix)
      if text in seen:
        continue
      seen.add(text)
      found.append((weight, text, "step"))
      done = planned.x == right.x
      self._places[(*prefix, text)] = _Place(
        place.step + done, (*place.known, planned.x)
      )
    if place.known:
      found.append((_OTHER, solutions.printing(place.known[-1]), "code"))
    total = sum(weight for weight, _, _ in found[1:])
    rate = self._rates[place.step] if total else 0.0
    shares = [1 - rate, *(rate * weight / total for weight, _, _ in found[1:])]
    return self._of(
      [
        (share, text, finish)
        for share, (_, text, finish) in zip(shares, found, strict=True)
      ]
    )

  def _of(self, found: Sequence[tuple[float, str, Finish]]) -> _Options:
    candidates = tuple(
      Candidate(
        text,
        (0,) * self._tokens(text),
        math.log(share) if share else -math.inf,
        finish,
      )
      for share, text, finish in found
    )
    *ends, _ = itertools.accumulate(share for share, _, _ in found)
    return _Options(candidates, tuple(ends))

  def _slips(
    self, place: _Place, random_: random.Random
  ) -> list[tuple[Planned, str, float]]:
    """Draws the slips of a place: (what is computed, code, weight)."""
    solved = self._solved
    right = solved.plan[place.step]
    relation, values = right.relation, right.values
    found: list[tuple[Planned, str, float]] = []
    if relation.wrong_code:
      found.append((right, relation.wrong_code, _TYPICAL))

    def take(key: str, choices: Sequence[object]) -> None:
      wrong = [each for each in choices if each != values[key]]
      count = min(_VARIANTS, len(wrong))
      for each in random_.sample(wrong, count):
        other = dataclasses.replace(right, values={**values, key: each})
        found.append((other, relation.code, _OTHER / count))

    keys = [key for key in ("y", "x") if key in values]
    if keys:
      take(keys[0], [each for each in place.known if each not in right.needs])
    if "n" in values:
      given = {n for f in solved.facts for n in solutions.numbers(f.values)}
      # A single number is read as a neighbour of it.
      apart = given - {values["n"]} or {values["n"] + 1, values["n"] + 10}
      take("n", sorted(apart))
    others = [
      each
      for each in solved.facts
      if each.x != right.x and set(each.needs) <= set(place.known)
    ]
    plans = solutions.plan(others, solved.question)[: len(others)]
    mixed = [dataclasses.replace(each, x=right.x) for each in plans]
    # Of its own quantity it would be a wrong relation.
    mixed = [each for each in mixed if right.x not in each.needs]
    if mixed:
      each = random_.choice(mixed)
      found.append((each, each.relation.code, _OTHER))
    needed = {each.x for each in solved.plan}
    spare = [
      each
      for each in plans
      if each.x not in needed and each.x not in place.known
    ]
    if spare:
      each = random_.choice(spare)
      found.append((each, each.relation.code, _OTHER))
    return found


class Checker:
  """Runs what a policy writes of one problem, and says what is right."""

  def __init__(self, solved: SolvedProblem):
    self._solved = solved
    self._values: dict[tuple[str, ...], arithmetic.Values] = {(): {}}
    self._states: dict[Prefix, tuple[oracle.State, int]] = {
      (): (oracle.START, RIGHT)
    }

  def run(self, program: Sequence[str]) -> ExecResult:
    """Runs a program as the sandbox does: all steps, for the last's output."""
    *before, last = program
    try:
      values = self._after(tuple(before))
      after, printed = arithmetic.execute(last, values)
    except (KeyError, ZeroDivisionError) as error:
      return ExecResult("error", error=repr(error))
    self._values[tuple(program)] = after
    return ExecResult("ok", printed)

  def right(self, path: Prefix) -> bool:
    """Returns whether a path is right so far."""
    return self._judged(path)[1] == RIGHT

  def first_wrong(self, path: Prefix) -> Prefix:
    """Returns a path up to its first step that is wrong; all if none is."""
    for end in range(1, len(path)):
      if not self.right(path[:end]):
        return path[:end]
    return path

  def _after(self, program: tuple[str, ...]) -> arithmetic.Values:
    if program not in self._values:
      before = self._after(program[:-1])
      self._values[program], _ = arithmetic.execute(program[-1], before)
    return self._values[program]

  def _judged(self, path: Prefix) -> tuple[oracle.State, int]:
    if path not in self._states:
      state, _ = self._judged(path[:-1])
      self._states[path] = oracle.judge(self._solved, state, path[-1])
    return self._states[path]


class Chances:
  """Draws two numbers in [0, 1) for each path of one problem, cached."""

  def __init__(self, seed: int):
    self._drawn: dict[Prefix, tuple[float, float, int]] = {(): (0.0, 0.0, seed)}

  def __call__(self, path: Prefix) -> tuple[float, float, int]:
    """Returns both, and the path's name."""
    if path not in self._drawn:
      *_, before = self(path[:-1])
      name = rng.seed_for(before, path[-1])
      other = rng.seed_for(name)
      self._drawn[path] = name / _UINT32, other / _UINT32, name
    return self._drawn[path]


@dataclasses.dataclass(frozen=True)
class Ppm:
  """Values paths of one problem.

  Attributes:
    checker: of the problem.
    flip: probability that a path has the wrong sign, in [0, 1]. A right path
      then has a higher value than a wrong one with probability 1 - flip.
    chances: draw the flips; of the same chances, a higher flip has those of a
      lower one, and more.
    blind: whether a wrong step that it takes for right stays so: all paths that
      go on from there have the sign of that step. Else each path has its own.
  """

  checker: Checker
  flip: float
  chances: Chances
  blind: bool = False

  def __call__(self, path: Prefix) -> float:
    """Returns the value of a path of at least one node."""
    first, second, _ = self.chances(path)
    right = self.checker.right(path)
    if self.blind and not right:
      first, *_ = self.chances(self.checker.first_wrong(path))
    sign = 1 if right != (first < self.flip) else -1
    return sign * (1 - 0.1 * second)


@dataclasses.dataclass(frozen=True)
class World:
  """Answers the requests of searches on one problem, in this thread."""

  policy: Policy
  checker: Checker
  ppm: Ppm | None = None

  def run(self, search: Search[_Result], *, blocks: bool = False) -> _Result:
    """Runs a search to its end.

    Args:
      search: the search.
      blocks: whether the policy writes all steps of the code in one text.
    """
    answer = None
    while True:
      try:
        asked = search.send(answer)
      except StopIteration as end:
        return end.value
      if isinstance(asked, list):
        answer = [self._answer(each, blocks) for each in asked]
      else:
        answer = self._answer(asked, blocks)

  def _answer(self, request: Request, blocks: bool) -> Any:
    match request:
      case Request("expand", (_, prefix, seeds)):
        write = self.policy.block if blocks else self.policy.expand
        return write(prefix, seeds)
      case Request("verify", (programs,)):
        return [self.checker.run(each) for each in programs]
      case Request("score", (_, prefix, steps)):
        return [self.ppm((*prefix, each)) for each in steps]
      case Request("judge", (answered,)):
        right = [problem.answer == given for problem, given in answered]
        return [("equal", 1.0) if e else ("different", -1.0) for e in right]
    raise ValueError(f"a request to {request.to}")
