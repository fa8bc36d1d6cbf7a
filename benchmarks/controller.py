"""What the search's controller costs, apart from the calls it makes.

Searches toy problems twice on one group, with callables that are timed: once
with instant ones (the baseline: all that is left is the controller), once with
an `expand` that sleeps as long as a device would take. The controller's time is
the wall time less the time within the callables.

  python benchmarks/controller.py --device_ms=50
"""

import time

from absl import app, flags

from rstar_jax import testing
from rstar_jax.config import SearchConfig
from rstar_jax.search import mcts
from rstar_jax.types import Problem

_TREES = flags.DEFINE_integer("trees", 32, "Problems, all in flight at once.")
_ROLLOUTS = flags.DEFINE_integer("rollouts", 16, "Rollouts per tree.")
_CANDIDATES = flags.DEFINE_integer("candidates", 8, "Candidates per leaf.")
_LEVELS = flags.DEFINE_integer("levels", 6, "Code steps of a solution.")
_DEVICE_MS = flags.DEFINE_float("device_ms", 50.0, "Simulated time of expand.")


class Clock:
  """Sums the time spent within callables, and counts their calls."""

  def __init__(self):
    self.seconds = 0.0
    self.calls = 0

  def timed(self, function, sleep: float = 0.0):
    def call(*args):
      start = time.perf_counter()
      if sleep:
        time.sleep(sleep)
      result = function(*args)
      self.seconds += time.perf_counter() - start
      self.calls += 1
      return result

    return call


def measure(device_seconds: float) -> dict[str, float]:
  """Runs one search; returns its wall and controller time in seconds."""
  options = tuple(f"x += {i}" for i in range(101))
  policy = testing.ToySum(options, levels=_LEVELS.value, offsets=(0, 1))
  expand, rest = Clock(), Clock()
  calls = mcts.Calls(
    expand=expand.timed(policy, device_seconds),
    verify=rest.timed(testing.run_trusted),
    grade=rest.timed(testing.grade_equal),
    score=rest.timed(testing.score_by_hash),
  )
  problems = [Problem(f"p{i}", "sum", "300") for i in range(_TREES.value)]
  config = SearchConfig(
    rollouts=_ROLLOUTS.value,
    candidates=_CANDIDATES.value,
    annotation="ppm",
    slots=_TREES.value,
    groups=1,
  )
  start = time.perf_counter()
  trees = mcts.search(problems, config, calls, seed=0)
  wall = time.perf_counter() - start
  return {
    "wall": wall,
    "controller": wall - expand.seconds - rest.seconds,
    "expand_calls": expand.calls,
    "expansions": sum(tree.expansions for tree in trees),
    "nodes": sum(len(tree) - 1 for tree in trees),
    "rollouts": sum(tree.rollouts for tree in trees),
  }


def main(argv):
  del argv
  for title, seconds in (
    ("instant calls", 0.0),
    (f"expand of {_DEVICE_MS.value:g} ms", _DEVICE_MS.value / 1000),
  ):
    row = measure(seconds)
    print(
      f"{title}: wall {row['wall']:.2f} s, controller "
      f"{row['controller']:.3f} s = {row['controller'] / row['wall']:.1%}; "
      f"{1e6 * row['controller'] / row['nodes']:.0f} us per node, "
      f"{1e6 * row['controller'] / row['expansions']:.0f} us per expansion, "
      f"{1e3 * row['controller'] / row['rollouts']:.2f} ms per rollout "
      f"({row['nodes']} nodes, {row['expansions']} expansions in "
      f"{row['expand_calls']} calls, {row['rollouts']} rollouts)"
    )


if __name__ == "__main__":
  app.run(main)
