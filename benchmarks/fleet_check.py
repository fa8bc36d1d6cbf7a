"""Whether `fleet_host.py` is right about `search/mcts.py`.

  python -m benchmarks.fleet_check

Searches problems with the real controller and its real threads, whose device
and programs only sleep, and simulates the same trees. Prints a Markdown table
of the seconds and of the share in which the device waits. On a busy machine a
sleep is late, so the real one is slower.
"""

import dataclasses
import threading
import time
from concurrent import futures

from absl import app

from benchmarks import fleet_host
from benchmarks.fleet import percent, table
from benchmarks.fleet_host import Device, Host, Tick
from rstar_jax import testing
from rstar_jax.config.schema import SearchConfig
from rstar_jax.search import mcts
from rstar_jax.types import Problem

# A call, and a program, of the check: seconds that are slept.
_NAP, _PROGRAM = 0.3, 0.2


def main(_) -> None:
  """Real groups and threads against the simulation, on the same trees."""
  problems = [Problem(f"p{i}", "sum", "300") for i in range(12)]
  options = tuple(f"x += {i}" for i in range(7))
  policy = testing.ToySum(options, levels=4, offsets=(0, 1))
  rows = []
  for groups, slots, workers in ((1, 6, 2), (2, 3, 2), (2, 3, 8), (3, 2, 4)):
    config = SearchConfig(
      rollouts=4, candidates=4, slots=slots, groups=groups, max_depth=6
    )
    # What each tree asks for, found without a nap.
    trees = [_asked(problem, config, policy) for problem in problems]
    host = Host(Device(weights=_NAP / 2, row=0.0), slots, groups, workers)
    spent = fleet_host.search(trees, host)
    rows.append(
      [groups, slots, workers, spent.seconds]
      + _slept(problems, config, policy, workers)
      + [percent(spent.idle)]
    )
    rows[-1].insert(5, rows[-1][4] / rows[-1][3])
  table(
    "Seconds of a search whose calls sleep",
    ["groups", "slots", "workers", "simulated", "real", "ratio"]
    + ["idle, real", "idle, simulated"],
    rows,
  )


def _asked(problem: Problem, config: SearchConfig, policy) -> list[Tick]:
  """Returns the ticks of a tree that is searched by itself."""
  ticks: list[Tick] = []

  def expand(questions, prefixes, seeds):
    ticks.append(Tick((1,) * config.candidates))
    return policy(questions, prefixes, seeds)

  def verify(programs):
    naps = (_PROGRAM,) * len(programs)
    ticks[-1] = dataclasses.replace(ticks[-1], programs=naps)
    return testing.run_trusted(programs)

  calls = mcts.Calls(expand, verify, testing.grade_equal)
  mcts.search([problem], config, calls, seed=0)
  return ticks


def _slept(problems, config, policy, workers: int) -> list:
  """Returns seconds and idle share of a real search whose work is sleep."""
  lock, busy = threading.Lock(), [0.0]
  with futures.ThreadPoolExecutor(workers) as pool:

    def expand(questions, prefixes, seeds):
      rows = policy(questions, prefixes, seeds)
      with lock:
        start = time.perf_counter()
        time.sleep(_NAP)
        busy[0] += time.perf_counter() - start
      return rows

    def verify(programs):
      naps = [pool.submit(time.sleep, _PROGRAM) for _ in programs]
      results = testing.run_trusted(programs)
      futures.wait(naps)
      return results

    calls = mcts.Calls(expand, verify, testing.grade_equal)
    start = time.perf_counter()
    mcts.search(problems, config, calls, seed=0)
    seconds = time.perf_counter() - start
  return [seconds, percent(1 - busy[0] / seconds)]


if __name__ == "__main__":
  app.run(main)
