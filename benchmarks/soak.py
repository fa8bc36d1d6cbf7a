"""Many mixed programs while workers are killed: is anything lost or left?

  python -m benchmarks.soak --programs=20000

Several threads send batches of programs to one sandbox: arithmetic, trees of
steps that share prefixes, sympy, exceptions, exits, refusals, floods, memory,
endless loops, and attacks on all of these (`tests/sandbox/neighbours.py`). All
the while a worker, or an interpreter that it keeps alive, is killed at random.
Prints one JSON line:

  programs, seconds, kills, hostile: how many programs were attacks
  lost: programs without a result; must be 0
  wrong: results that are not what the program does, attacks left out; must
    be 0
  struck: of these, "crashed" ones; a program that is killed runs again, three
    times in all
  processes, descriptors, megabytes: of this process and all below it, before
    the sandbox, with it after a tenth of the programs and after all of them,
    and when it is closed
"""

import collections
import json
import os
import pathlib
import random
import signal
import threading
import time

from absl import app, flags

from rstar_jax.sandbox import process
from rstar_jax.sandbox.pool import Limits, Sandbox
from tests.sandbox import neighbours

_PROGRAMS = flags.DEFINE_integer("programs", 20_000, "Number of programs.", 100)
_THREADS = flags.DEFINE_integer("threads", 4, "Threads that send programs.", 1)
_BATCH = flags.DEFINE_integer("batch", 50, "Programs per call.", 1)
_KILL_SECONDS = flags.DEFINE_float(
  "kill_seconds", 2.0, "Seconds between kills.", 0.01
)
_SEED = flags.DEFINE_integer("seed", 0, "Seed of programs and kills.")

_LIMITS = Limits(wall_seconds=2.0, memory_bytes=1 << 28, live=24)
Wanted = tuple[list[str], str | None, str | None]


def program(n: int, draw: random.Random) -> Wanted:
  """Returns program number n, and its status and output if they are known."""
  kind = draw.choices(
    ("plain", "tree", "sympy", "rare", "hostile"),
    weights=(400, 500, 40, 60, 20),
  )[0]
  if kind == "hostile":
    name, attack = draw.choice(list(neighbours.ATTACKS.items()))
    steps = draw.choice(neighbours.ways(name, attack))
    return [*steps[:-1], f"{steps[-1]}  # {n}"], None, None
  if kind == "plain":
    return [f"a = {n}", "b = a * 2", "print(b + 1)"], "ok", f"{2 * n + 1}\n"
  if kind == "tree":
    root, depth = draw.randrange(40), draw.randint(1, 6)
    steps = [f"import math\ndef f(x): return x + {root}\na = 0"]
    steps += [f"a = f(a) + math.gcd({i}, 6)" for i in range(1, depth)]
    value = sum(root + _gcd(i, 6) for i in range(1, depth))
    return [*steps, f"print(a, {n})"], "ok", f"{value} {n}\n"
  if kind == "sympy":
    steps = ["import sympy", "x = sympy.symbols('x')"]
    return (
      [*steps, f"print(sympy.solve(x**2 - {n**2}, x))"],
      "ok",
      f"[-{n}, {n}]\n" if n else "[0]\n",
    )
  steps, status = draw.choices(
    (
      (f"x = {n}\n1 / 0", "error"),
      (f"import os; os._exit({n % 7})", "crashed"),
      (f"open('/etc/passwd')  # {n}", "blocked"),
      (f"import os; os.fork()  # {n}", "blocked"),
      (f"while True: print({n})", "output_limit"),
      (f"x = bytearray(1 << 40)  # {n}", "memory"),
      (f"import faulthandler; faulthandler._read_null()  # {n}", "crashed"),
      (f"import math\nwhile True: math.pi  # {n}", "timeout"),
    ),
    weights=(9, 6, 6, 6, 3, 6, 3, 1),
  )[0]
  return [steps], status, None


def _gcd(a: int, b: int) -> int:
  return a if b == 0 else _gcd(b, a % b)


def usage() -> dict[str, float]:
  """Returns what this process and all below it hold (Linux)."""
  pids = [os.getpid(), *process._descendants(os.getpid())]
  counts = collections.Counter()
  for pid in pids:
    try:
      counts["descriptors"] += len(os.listdir(f"/proc/{pid}/fd"))
      lines = pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
      size = next(line.split()[1] for line in lines if line.startswith("Pss:"))
    except (OSError, StopIteration):
      continue  # Just ended.
    counts["processes"] += 1
    counts["kilobytes"] += int(size)
  return {
    "processes": counts["processes"],
    "descriptors": counts["descriptors"],
    "megabytes": counts["kilobytes"] // 1024,
  }


class Soak:
  """Counts what comes back."""

  def __init__(self, sandbox: Sandbox):
    self.sandbox = sandbox
    self.counts: collections.Counter = collections.Counter()
    self.examples: list = []
    self.done = threading.Event()
    self._lock = threading.Lock()

  def work(self, numbers: list[int]) -> None:
    """Sends programs, batch by batch."""
    for first in range(0, len(numbers), _BATCH.value):
      batch = numbers[first : first + _BATCH.value]
      wanted = [program(n, random.Random(f"{_SEED.value} {n}")) for n in batch]
      results = self.sandbox.run([steps for steps, *_ in wanted])
      with self._lock:
        self.counts["lost"] += len(wanted) - len(results)
        for (steps, status, stdout), result in zip(
          wanted, results, strict=True
        ):
          self.counts["programs"] += 1
          if status is None:
            self.counts["hostile"] += 1
            continue
          if result.status == status and stdout in (None, result.stdout):
            continue
          self.counts["wrong"] += 1
          self.counts["struck"] += result.status == "crashed"
          if len(self.examples) < 5:
            self.examples.append([steps, status, repr(result)])

  def kill(self) -> None:
    """Kills a worker, or what it keeps alive, again and again."""
    draw = random.Random(_SEED.value)
    while not self.done.wait(_KILL_SECONDS.value):
      pids = self.sandbox.pids
      if draw.random() < 0.5:
        pids = [below for pid in pids for below in process._descendants(pid)]
      if pids:
        try:
          os.kill(draw.choice(pids), signal.SIGKILL)
          self.counts["kills"] += 1
        except ProcessLookupError:
          pass


def main(_) -> None:
  before = usage()
  start = time.perf_counter()
  with Sandbox(workers=2, limits=_LIMITS, cache=1) as sandbox:
    soak = Soak(sandbox)
    killer = threading.Thread(target=soak.kill)
    killer.start()
    early = None
    total = _PROGRAMS.value
    try:
      for numbers in (range(total // 10), range(total // 10, total)):
        threads = [
          threading.Thread(target=soak.work, args=(list(share),))
          for share in (
            numbers[i :: _THREADS.value] for i in range(_THREADS.value)
          )
        ]
        for thread in threads:
          thread.start()
        for thread in threads:
          thread.join()
        early = early or usage()
    finally:
      soak.done.set()
      killer.join()
    late = usage()
  seconds = time.perf_counter() - start
  print(
    json.dumps(
      {
        "seconds": round(seconds, 1),
        **{
          key: soak.counts[key]
          for key in (
            *("programs", "hostile", "kills"),
            *("lost", "wrong", "struck"),
          )
        },
        "before": before,
        "early": early,
        "late": late,
        "closed": usage(),
        "examples": soak.examples,
      }
    )
  )


if __name__ == "__main__":
  app.run(main)
