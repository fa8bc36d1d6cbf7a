"""What it costs to run the steps of a search tree, in four ways.

  python -m benchmarks.verification --depths=4,10,16 --candidates=8 --trees=2

At each depth every tree has so many candidates, all run at once, the first of
which becomes the prefix of the next depth. Steps are *light* (a few lines with
a function and the math module) or *sympy* (an equation solved). The ways:

  tree: this package's sandbox; a candidate runs in a fork of its prefix
  replay: the same with no live interpreters; a candidate runs in a fork of the
    worker, its prefix before it
  pool: workers that `exec` the concatenation one after another in themselves,
    as the released rStar code does; no isolation
  fresh: a new interpreter for each candidate

Two processes each. Prints one JSON line for each kind, depth and way:

  steps_per_second: candidates by wall seconds, start-up left out
  ratio: of that of `tree` in the same turn, the median of the turns
  agree: whether all printed what `pool` printed

`fresh` has the first turn only: it takes longer than all the others.
"""

import concurrent.futures
import contextlib
import io
import json
import multiprocessing
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

from absl import app, flags

from rstar_jax.sandbox.pool import Limits, Sandbox

_DEPTHS = flags.DEFINE_list("depths", ["4", "10", "16"], "Depths of trees.")
_CANDIDATES = flags.DEFINE_integer(
  "candidates", 8, "Candidates at each depth.", 1
)
_TREES = flags.DEFINE_integer("trees", 2, "Trees side by side.", 1)
_TURNS = flags.DEFINE_integer("turns", 3, "Repetitions of all ways.", 1)
_FRESH = flags.DEFINE_bool("fresh", True, "Also measure new interpreters.")

_WORKERS = 2
Program = list[str]
Run = Callable[[list[Program]], list[str]]


def light_step(tree: int, depth: int, candidate: int) -> str:
  """Returns the code of a candidate, different from all others."""
  return (
    f"# tree {tree}, depth {depth}\n"
    "import math\n"
    f"def f{depth}(n):\n  return n * n + {candidate}\n"
    f"a{depth} = math.gcd(f{depth}({depth + tree}), {6 * candidate + 6})\n"
    f"print(a{depth})"
  )


def sympy_step(tree: int, depth: int, candidate: int) -> str:
  """Returns the code of a candidate, different from all others."""
  return (
    f"# tree {tree}, depth {depth}\n"
    "import sympy\n"
    "x = sympy.symbols('x')\n"
    f"r{depth} = sympy.solve(x**2 - {depth + 2} * x - {candidate}, x)\n"
    f"print(r{depth})"
  )


def in_pool(steps: Program) -> str:
  """Runs a program in this process, as a tool without isolation does."""
  stdout = io.StringIO()
  with contextlib.redirect_stdout(stdout):
    names: dict = {"__name__": "__main__"}
    exec("\n".join(steps[:-1]), names)
    start = stdout.tell()
    exec(steps[-1], names)
  return stdout.getvalue()[start:]


def in_fresh(steps: Program) -> str:
  """Runs a program in a new interpreter; returns all that it prints."""
  source = "\n".join(steps)
  command = [sys.executable, "-c", source]
  return subprocess.run(command, capture_output=True, text=True).stdout


def grow(run: Run, step, depth: int, salt: int) -> tuple[float, list[str]]:
  """Runs all candidates of all trees; returns seconds, and what was printed."""
  trees, candidates = _TREES.value, _CANDIDATES.value
  prefixes: list[Program] = [[] for _ in range(trees)]
  printed, seconds = [], 0.0
  for level in range(depth):
    programs = [
      [*prefixes[tree], step(salt + tree, level, candidate)]
      for tree in range(trees)
      for candidate in range(candidates)
    ]
    start = time.perf_counter()
    printed += run(programs)
    seconds += time.perf_counter() - start
    prefixes = [programs[tree * candidates] for tree in range(trees)]
  return seconds, printed


def measure(ways: dict[str, Run], step, depth: int) -> dict[str, dict]:
  """Runs every way in turn.

  Returns:
    For each way, the figures that are printed.
  """
  rates: dict[str, list[float]] = {name: [] for name in ways}
  agree = dict.fromkeys(ways, True)
  for turn in range(_TURNS.value):
    outputs = {}
    for name, run in ways.items():
      if name == "fresh" and turn > 0:
        continue
      # No program twice: the sandbox remembers results.
      seconds, outputs[name] = grow(run, step, depth, 1000 * turn)
      rates[name].append(len(outputs[name]) / seconds)
    for name in outputs:
      agree[name] &= outputs[name] == outputs["pool"]
  return {
    name: {
      "steps_per_second": round(statistics.median(rates[name]), 1),
      "ratio": round(
        statistics.median(
          mine / tree
          for mine, tree in zip(rates[name], rates["tree"], strict=False)
        ),
        3,
      ),
      "agree": agree[name],
    }
    for name in ways
  }


def main(_) -> None:
  context = multiprocessing.get_context("spawn")
  limits = {"tree": Limits(), "replay": Limits(live=0)}
  with contextlib.ExitStack() as stack:
    sandboxes = {
      name: stack.enter_context(Sandbox(_WORKERS, limits=each, cache=1))
      for name, each in limits.items()
    }
    pool = stack.enter_context(context.Pool(_WORKERS))
    threads = stack.enter_context(
      concurrent.futures.ThreadPoolExecutor(_WORKERS)
    )
    ways: dict[str, Run] = {
      name: lambda programs, sandbox=sandbox: [
        result.stdout for result in sandbox.run(programs)
      ]
      for name, sandbox in sandboxes.items()
    }
    ways["pool"] = lambda programs: pool.map(in_pool, programs, chunksize=1)
    if _FRESH.value:
      ways["fresh"] = lambda programs: [
        whole.removeprefix("".join(before))
        for whole, before in zip(
          threads.map(in_fresh, programs),
          [_before(steps) for steps in programs],
          strict=True,
        )
      ]
    for step in (light_step, sympy_step):
      # Every worker has imported what it needs.
      for run in ways.values():
        run([[step(-1 - i, 0, 0)] for i in range(4 * _WORKERS)])
      for depth in map(int, _DEPTHS.value):
        for name, row in measure(ways, step, depth).items():
          kind = step.__name__.removesuffix("_step")
          row = {"kind": kind, "depth": depth, "way": name, **row}
          print(json.dumps(row), flush=True)


_printed: dict[str, str] = {}


def _before(steps: Program) -> list[str]:
  """Returns what the steps before the last print, each by itself."""
  return [_printed.setdefault(step, in_pool([step])) for step in steps[:-1]]


if __name__ == "__main__":
  app.run(main)
