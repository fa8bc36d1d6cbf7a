"""What searches and samples cost in seconds, on the engine.

  nice -n 10 python -m benchmarks.seconds > seconds.jsonl

The searches of `benchmarks.simulation`, on its problems, with its policy and
PPM, each step of it paid for: the shipped base model's engine samples as many
tokens as each candidate has, after the same prefix, the sandbox runs the code,
and a PPM of the same size reads what it values. What these say is thrown away.
So a search has the tokens, the prefixes to compute, the turns and the waits
that it would have with models that write so, and the words of the simulation.

Methods take turns, with all problems, --in_flight at once: "majority" samples
--samples whole solutions of each problem, "best" values all their steps as
well, and searches are those of the simulation. Before, a short turn of each
compiles.

Prints JSON lines: "turn" of each method and number in flight: seconds, those in
which a model computed ("device"), CPU seconds of this process; tokens that were
generated, computed as prefixes, and read by the PPM; expansions; and tokens
that had to be written one after the other ("serial"), which is what counts
where a step of few rows takes as long as one of many; of a problem each.
"rate", over turns: seconds for a thousand generated tokens, what searches need
for the PPM included; of "read", for a thousand tokens that the PPM reads after
samples: what "best" takes more than "majority". Beside other programs the CPU
seconds of two turns differ by some percent, the others by half.
"""

import collections
import dataclasses
import json
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future

import numpy as np
from absl import app, flags
from flax import nnx

from benchmarks import scripted, simulation
from configs import tiny
from rstar_jax import rng, testing
from rstar_jax.config.schema import EngineConfig
from rstar_jax.data.synthetic.solutions import SolvedProblem
from rstar_jax.hf.folders import BASE_MODEL, load_policy
from rstar_jax.inference import futures
from rstar_jax.inference.busy import Busy
from rstar_jax.inference.engine import Engine
from rstar_jax.inference.generated import Generated, Stop
from rstar_jax.inference.ppm import Scorer
from rstar_jax.inference.scoring import ScoringEngine
from rstar_jax.models.transformer import ppm_from_policy
from rstar_jax.sandbox.pool import Sandbox
from rstar_jax.search import beam, driver, mcts, sampling
from rstar_jax.search.requests import Calls, Search
from rstar_jax.search.tree import Tree
from rstar_jax.steps import grammar
from rstar_jax.steps.tokenizer import HfTokenizer, encode_piece
from rstar_jax.types import Candidate, Prefix

_IN_FLIGHT = flags.DEFINE_list(
  "in_flight", ["1", "32"], "Numbers of problems in flight."
)
_SLIP = flags.DEFINE_float("slip", 0.3, "Error rate of the policy.", 0, 1)
_FLIP = flags.DEFINE_float("flip", 0.1, "Error rate of the PPM.", 0, 1)
_TURNS = flags.DEFINE_integer("turns", 2, "Repetitions of each method.", 1)
_ALONE = flags.DEFINE_integer("alone", 4, "Problems when 1 is in flight.", 1)
_SAMPLED = ("majority", "best")
# Ways to measure time, as in a turn's line.
_CLOCKS = ("seconds", "device", "cpu")


def engine_config() -> EngineConfig:
  """Returns the demo's engine, with room for long solutions."""
  return dataclasses.replace(
    tiny.get_config().engine, max_block_tokens=640, max_prefix_tokens=1024
  )


class Devices:
  """The engines of a policy and a PPM, and the sandbox."""

  def __init__(self, sandbox: Sandbox):
    model, config = load_policy(BASE_MODEL), engine_config()
    self.busy = Busy()
    shared = {"lock": threading.Lock(), "busy": self.busy}
    ppm = ppm_from_policy(model, rngs=nnx.Rngs(0))
    self.tokenizer = HfTokenizer(BASE_MODEL)
    self.engine = Engine(model, config, **shared)
    self.scoring = ScoringEngine(ppm, config, **shared)
    self.scorer = Scorer(self.scoring, self.tokenizer)
    self.sandbox = sandbox

  def usage(self) -> dict[str, float]:
    """Returns the totals so far of what a turn's line has."""
    return {
      "seconds": time.perf_counter(),
      "device": self.busy.seconds,
      "cpu": time.process_time(),
      "generated": self.engine.generated_tokens,
      "prefilled": self.engine.prefilled_tokens,
      "read": self.scoring.prefilled_tokens,
    }


class Paid:
  """A scripted policy and PPM of one problem, paid for on the devices."""

  def __init__(self, solved: SolvedProblem, devices: Devices, seed: int):
    tokenizer = devices.tokenizer
    self._devices, self._tokenizer = devices, tokenizer
    checker = scripted.Checker(solved)
    chances = scripted.Chances(rng.seed_for(seed, "ppm", solved.problem.id))
    self._ppm = scripted.Ppm(checker, _FLIP.value, chances)
    self._policy = scripted.Policy(
      solved, _SLIP.value, lambda text: len(encode_piece(tokenizer, text)), seed
    )
    # What the engine wrote in the place of a text, from the question on: so the
    # next step finds it in pages, as it would find its own.
    question = tokenizer.encode(tokenizer.prompt(solved.problem.question))
    self._ids: dict[str, list[int]] = {"": question}

  def calls(self, blocks: bool) -> Calls:
    """Returns the callables of a search.

    Args:
      blocks: whether the policy writes all steps of the code in one text.
    """
    return Calls(
      expand=_Submits(self._block if blocks else self._step),
      verify=self._devices.sandbox.run,
      grade=testing.grade_equal,
      score=_Submits(self._score),
    )

  def _step(
    self, question: str, prefix: Prefix, seeds: np.ndarray
  ) -> Future[list[Candidate]]:
    del question
    return self._written(prefix, self._policy.expand(prefix, seeds))

  def _block(
    self, question: str, prefix: Prefix, seeds: np.ndarray
  ) -> Future[list[Candidate]]:
    del question
    return self._written(prefix, self._policy.block(prefix, seeds))

  def _score(
    self, question: str, prefix: Prefix, steps: Sequence[str]
  ) -> Future[np.ndarray]:
    values = [self._ppm((*prefix, each)) for each in steps]
    paid = self._devices.scorer.submit(question, prefix, steps)
    return futures.then(paid, lambda _: np.array(values))

  def _written(
    self, prefix: Prefix, candidates: list[Candidate]
  ) -> Future[list[Candidate]]:
    """Has the engine write as much as each candidate."""
    before, ids = "".join(prefix), self._read(prefix)
    found: Future[list[Candidate]] = Future()
    left = [len(candidates)]

    def take(each: Candidate, steps: Future[list[Generated]]) -> None:
      try:
        (step,) = steps.result()
      except BaseException as error:
        found.set_exception(error)
        return
      self._ids.setdefault(before + each.text, [*ids, *step.token_ids])
      left[0] -= 1
      if not left[0]:
        found.set_result(candidates)

    for number, each in enumerate(candidates):
      stop = Stop(len(each.token_ids))
      self._devices.engine.submit(ids, [number], stop).add_done_callback(
        lambda steps, each=each: take(each, steps)
      )
    return found

  def _read(self, prefix: Prefix) -> list[int]:
    """Returns the ids of a prefix that the policy is asked to go on from."""
    text = "".join(prefix)
    written, shown, output = text.partition(f"\n{grammar.OUTPUT}")
    ids = self._ids[written]
    return [*ids, *encode_piece(self._tokenizer, shown + output)]


class _Submits:
  """A callable of a search that is asked a row at a time."""

  def __init__(self, submit):
    self.submit = submit


def searches_of(
  method: str, solved: SolvedProblem, samples: int, seed: int
) -> Search:
  """Returns the search of one problem by a method."""
  problem, config = solved.problem, simulation.search_configs()["mcts"]
  if method in _SAMPLED:
    return sampling.solutions(
      problem,
      samples,
      seed,
      name=("samples",),
      scored=method == "best",
      trajectory_value="mean",
    )
  if method == "mcts":
    return mcts.search_tree(Tree(problem), config, seed, ("mcts",))
  width = int(method.removeprefix("beam_"))
  return beam.beams(Tree(problem), width, config, seed, name=("beam",))


def counted(search: Search, totals: collections.Counter) -> Search:
  """Counts the expansions of a search, and tokens one after the other.

  Args:
    search: the search.
    totals: its "expansions" and "serial" are added to.
  """
  answer = None
  while True:
    try:
      asked = search.send(answer)
    except StopIteration as end:
      return end.value
    answer = yield asked
    many = isinstance(asked, list)
    lengths = [
      len(each.token_ids)
      for request, row in zip(
        asked if many else [asked], answer if many else [answer], strict=True
      )
      if request.to == "expand"
      for each in row
    ]
    # What is asked for at once is written side by side.
    totals["serial"] += max(lengths, default=0)
    totals["expansions"] += sum(
      each.to == "expand" for each in (asked if many else [asked])
    )


def turn(
  method: str,
  problems: Sequence[SolvedProblem],
  samples: int,
  in_flight: int,
  devices: Devices,
  seed: int,
) -> dict[str, float]:
  """Solves problems by a method; returns what one of them took."""
  totals: collections.Counter = collections.Counter()

  def searches() -> Iterator[tuple[Search, Calls]]:
    for solved in problems:
      search = counted(searches_of(method, solved, samples, seed), totals)
      paid = Paid(solved, devices, seed)
      yield search, paid.calls(blocks=method in _SAMPLED)

  before = devices.usage()
  driver.run(searches(), in_flight, lambda index, result: None)
  taken = {k: v - before[k] for k, v in devices.usage().items()}
  taken |= totals
  return {name: value / len(problems) for name, value in taken.items()}


def rates(turns: Sequence[dict]) -> Iterator[dict]:
  """Yields seconds for a thousand tokens, of each method and number in flight.

  Args:
    turns: as printed.
  """
  totals: dict[tuple[int, str], collections.Counter] = {}
  for each in turns:
    place = each["in_flight"], each["method"]
    total = totals.setdefault(place, collections.Counter())
    for name in (*_CLOCKS, "generated", "read"):
      total[name] += each[name]
  for (in_flight, method), total in totals.items():
    if method == "best":
      continue
    line = {"in_flight": in_flight, "method": method}
    for name in _CLOCKS:
      line[name] = 1e3 * total[name] / total["generated"]
    yield line
    if method == "majority" and (in_flight, "best") in totals:
      both = totals[in_flight, "best"]
      line = {"in_flight": in_flight, "method": "read"}
      for name in _CLOCKS:
        # Both wrote the same.
        line[name] = max(1e3 * (both[name] - total[name]) / both["read"], 0.0)
      yield line


def main(_):
  methods = (
    *_SAMPLED,
    "mcts",
    *(f"beam_{each}" for each in simulation.BEAMS.value),
  )
  levels = list(map(int, simulation.LEVELS.value))
  problems = simulation.drawn(levels, simulation.PROBLEMS.value, seed=0)
  turns: list[dict] = []

  def show(line: str, **fields) -> None:
    print(json.dumps({"line": line} | fields), flush=True)

  with Sandbox(workers=2) as sandbox:
    devices = Devices(sandbox)
    for job in devices.engine.warm_up_calls() + devices.scoring.warm_up_calls():
      job()
    for method in methods:
      turn(method, problems[:2], 8, 2, devices, -1)
    for seed in range(_TURNS.value):
      for in_flight in map(int, _IN_FLIGHT.value):
        # Levels in turn, so that a part has all of them.
        count = len(problems) // len(levels)
        mixed = [problems[i::count] for i in range(count)]
        some = [each for group in mixed for each in group]
        if in_flight == 1:
          some = some[: _ALONE.value * len(levels)]
        for method in methods:
          found = turn(
            *(method, some, simulation.SAMPLES.value, in_flight, devices),
            seed,
          )
          turns.append({"method": method, "in_flight": in_flight} | found)
          show("turn", **turns[-1], n=len(some), seed=seed)
  for each in rates(turns):
    show("rate", **each)


if __name__ == "__main__":
  app.run(main)
