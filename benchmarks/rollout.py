"""What one rollout round costs: how long the device waits, and for what.

  python -m benchmarks.rollout --problems=16 --rollouts=8

Searches synthetic problems with the shipped base model, the sandbox and the
grader; and once toy problems with scripted callables, where nothing but the
controller is left. Prints one JSON line for each:

  wall_seconds, generated_tokens_per_second, nodes
  device_wait_share: of the wall time, in which the device had nothing to do
  controller_share: CPU seconds of the thread that runs the searches, outside
    of their callables, as a share of the wall time
  controller_us_per_node: the same for a node
"""

import concurrent.futures
import dataclasses
import pathlib
import tempfile
import time
from collections.abc import Callable
from typing import Any

import jax
from absl import app, flags

from benchmarks import lines
from configs import tiny
from rstar_jax import testing
from rstar_jax.config.schema import SearchConfig
from rstar_jax.data.synthetic import generator
from rstar_jax.pipeline import backends
from rstar_jax.pipeline import context as session
from rstar_jax.search import mcts
from rstar_jax.types import Problem

_PROBLEMS = flags.DEFINE_integer("problems", 16, "Number of trees.", 2)
_ROLLOUTS = flags.DEFINE_integer("rollouts", 8, "Rollouts per tree.", 1)
_CANDIDATES = flags.DEFINE_integer("candidates", 8, "Candidates per leaf.", 1)
_IN_FLIGHT = flags.DEFINE_integer("in_flight", 16, "Trees at once.", 1)
_REPEATS = flags.DEFINE_integer("repeats", 1, "Measured repetitions.", 1)


class Timed:
  """A callable with a clock around its `submit`.

  The thread that runs the searches calls nothing else of a callable.

  Attributes:
    seconds: CPU seconds of that thread in `submit`.
  """

  def __init__(self, call: Any):
    self.seconds = 0.0
    self._call = call

  def submit(self, *row: Any) -> concurrent.futures.Future:
    start = time.thread_time()
    try:
      return self._call.submit(*row)
    finally:
      self.seconds += time.thread_time() - start


def measure(
  problems: list[Problem],
  config: SearchConfig,
  calls: mcts.Calls,
  usage: Callable[[], dict[str, float]] | None = None,
) -> dict[str, float]:
  """Runs one search; returns the numbers of the module's docstring."""
  timed = {
    name: Timed(call)
    for name, call in vars(calls).items()
    if hasattr(call, "submit")
  }
  calls = calls.replace(**timed)
  before = usage() if usage else {}
  start, cpu = time.perf_counter(), time.thread_time()
  trees = mcts.search(problems, config, calls, seed=0)
  wall, cpu = time.perf_counter() - start, time.thread_time() - cpu
  controller = cpu - sum(each.seconds for each in timed.values())
  nodes = sum(len(tree) - 1 for tree in trees)
  row = {
    "wall_seconds": wall,
    "nodes": nodes,
    "controller_share": controller / wall,
    "controller_us_per_node": 1e6 * controller / max(nodes, 1),
  }
  if usage:
    after = usage()
    # From shares since the device was made to seconds of this search.
    waited = [
      each["seconds"] * each["device_idle_share"] for each in (before, after)
    ]
    row["device_wait_share"] = (waited[1] - waited[0]) / (
      after["seconds"] - before["seconds"]
    )
    row["generated_tokens_per_second"] = sum(t.tokens for t in trees) / wall
  return row


def scripted() -> None:
  """Measures the controller alone, with callables that take no time."""
  options = tuple(f"x += {i}" for i in range(101))
  calls = mcts.Calls(
    expand=testing.ToySum(options, levels=6, offsets=(0, 1)),
    verify=testing.run_trusted,
    grade=testing.grade_equal,
    score=testing.score_by_hash,
  )
  problems = [Problem(f"p{i}", "sum", "300") for i in range(_PROBLEMS.value)]
  config = SearchConfig(
    rollouts=_ROLLOUTS.value,
    candidates=_CANDIDATES.value,
    annotation="ppm",
    in_flight=_IN_FLIGHT.value,
  )
  lines.show("scripted", **measure(problems, config, calls))


def main(_):
  config = tiny.get_config()
  problems = generator.problems(
    split="train", count=_PROBLEMS.value, seed=config.seed
  )
  search = dataclasses.replace(
    config.search,
    rollouts=_ROLLOUTS.value,
    candidates=_CANDIDATES.value,
    in_flight=_IN_FLIGHT.value,
  )
  lines.show("device", name=jax.devices()[0].device_kind)
  scripted()
  with tempfile.TemporaryDirectory() as folder:
    with session.open_context(config, pathlib.Path(folder)) as context:
      backend = backends.ModelBackend(context, 0)
      calls = backend.steps()
      for call in calls.expand.engine.warm_up_calls():
        call()
      for repeat in range(_REPEATS.value):
        # The sandbox remembers programs, so each turn has seeds of its own.
        turn = [
          dataclasses.replace(each, id=f"{each.id}/{repeat}")
          for each in problems
        ]
        lines.show("model", **measure(turn, search, calls, backend.usage))


if __name__ == "__main__":
  app.run(main)
