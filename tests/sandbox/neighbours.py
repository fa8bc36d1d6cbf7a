"""Attacks on other programs, and programs whose verdicts must not change.

  python -m tests.sandbox.neighbours

Every attack is tried in every way to run a program, in a sandbox without the
audit hook (as by a program that has bypassed it) and without one more layer of
the kernel at a time. Innocent programs run before, between and after. Prints
one JSON line for each set of layers:

  without: the layers left out
  attacks: tried, in all ways
  contained: of these, how many changed no verdict beside them
  left_out: attacks that fork, where the report says that nothing prevents it
  innocents: programs beside them
  changed: of these, how many got another verdict than without attacks
  loose: processes that still ran, and were not stopped, when all was done
"""

import json
import pathlib
import time

from absl import app

from rstar_jax.sandbox import process
from rstar_jax.sandbox.pool import Limits, Sandbox
from rstar_jax.types import ExecResult

LIMITS = Limits(wall_seconds=3.0, memory_bytes=1 << 28, live=8)
# The hook alone is no boundary; what a machine lacks beside it is tried, too.
LAYERS = (
  (),
  ("hook",),
  ("hook", "seccomp"),
  ("hook", "landlock"),
  ("hook", "credentials"),
  ("hook", "namespaces"),
)
PREFIX = "import math\nbase = [1, 2, 3]"
_FRAMES = """
import sys
def found(name):
  frame = sys._getframe()
  while frame:
    if name in frame.f_globals: return frame.f_globals[name]
    frame = frame.f_back
"""
_REPORT = """
import json, os, struct
def send(message, length=None):
  text = message if isinstance(message, bytes) else json.dumps(message).encode()
  os.write(60, struct.pack(">I", length or len(text)) + text)
"""
_FORGED = f'{_REPORT}\nsend(["ok", "forged\\n", "", 0, 0.0, True])\n'
_EACH = """
import os
for pid in [*range(2, 400), *range(os.getpid() - 40, os.getpid() + 40)]:
  if pid != os.getpid():
    try: {}
    except (OSError, ValueError): pass
"""

# Each is one step. It must neither end a worker nor touch another program.
ATTACKS: dict[str, str] = {
  # Told to fork, its process answers with its own pid.
  "own_pid": f"{_FRAMES}\nfound('children').fork_sibling = lambda: 0",
  "no_fork": f"{_FRAMES}\nimport time\n"
  "found('children').fork_sibling = lambda: time.sleep(60)",
  # Told to fork, it forks many, which spin.
  "bomb": f"""{_FRAMES}
import os
fork = found('children').fork_sibling
def bomb():
  for _ in range(200):
    try:
      if fork() == 0:
        while True: pass
    except OSError: break
  return fork()
found('children').fork_sibling = bomb""",
  "bomb_at_once": "import os\nfor _ in range(100):\n"
  "  if os.fork() == 0:\n    while True: pass",
  "stop_all": _EACH.format("os.kill(pid, 19)"),
  "kill_all": _EACH.format("os.kill(pid, 9)"),
  "kill_worker": "import os; os.kill(os.getppid(), 9)",
  "stop_worker": "import os; os.kill(os.getppid(), 19)",
  "limit_memory": "import resource as r\n"
  + _EACH.format("r.prlimit(pid, r.RLIMIT_AS, (1 << 20, 1 << 20))"),
  "limit_worker": "import os, resource as r\n"
  "r.prlimit(os.getppid(), r.RLIMIT_AS, (1 << 20, 1 << 20))",
  "limit_time": "import os, resource as r\n"
  "r.prlimit(os.getppid(), r.RLIMIT_CPU, (1, 1))",
  # Its report comes before its end.
  "forge_and_spin": f"{_FORGED}\nwhile True: pass",
  "forge_and_grow": f"{_FORGED}\nx = []\nwhile True: x.append(bytes(1 << 20))",
  "forge_and_fork": f"{_FORGED}\nwhile True:\n  try: os.fork()\n"
  "  except OSError: pass",
  "forge_twice": f"{_FORGED * 2}",
  "forge_status": f'{_REPORT}\nsend(["timeout", "", "", 0, 0.0, True])',
  "forge_numbers": f'{_REPORT}\nsend(["ok", "", "", 1e999, float("nan"), 1])',
  "forge_lists": f'{_REPORT}\nsend(["ok", [], [], 0, 0.1, True])',
  "forge_text": f'{_REPORT}\nsend(["ok", "\\ud800", "\\x1b[2J", 0, 0.0, True])',
  "forge_output": f'{_REPORT}\nsend(["ok", "x" * 10**5, "", 0, 0.0, True])',
  "forge_depth": f'{_REPORT}\nsend(b"[" * 10**5)',
  "forge_junk": f'{_REPORT}\nsend(b"\\xff\\0{{")',
  "forge_length": f'{_REPORT}\nsend(b"x" * 99, 1 << 31)',
  "forge_whole": f'{_REPORT}\nsend("whole")',
  "forge_before": f'{_REPORT}\nsend(["before", 10**9])',
  "forge_endless": f'{_REPORT}\nsend(["before", 1e999])',
  "flood": "import os\nwhile True: os.write(60, b'\\0' * 65536)",
  "deaf": "import os; os.closerange(3, 99)",
  "deaf_and_spin": "import os; os.closerange(3, 99)\nwhile True: pass",
  # Open files that a fork would share.
  "pipe_for_stdin": "import os\nr, w = os.pipe()\nos.dup2(r, 0)\n"
  "os.dup2(w, 1)\nos.close(r); os.close(w); os.write(1, b'x')",
  "flags_of_null": "import fcntl\nfor n in range(3):\n"
  "  fcntl.fcntl(n, fcntl.F_SETFL, 0o6000)",
  # Text that is slow to compile, or takes much memory.
  "slow_to_compile": "".join(
    f"{' ' * n}try:\n{' ' * (n + 1)}x\n{' ' * n}finally:\n" for n in range(18)
  )
  + " " * 18
  + "y",
  "constants": "x = [" + "'a' * 4096, " * 1200 + "]",
  "deep": "x = " + "[" * 90 + "]" * 90,
  # Time and memory.
  "spin": "while True: pass",
  "grow": "x = ['a']\nwhile True: x = x + x",
  "no_ballast": "x = []\nwhile True:\n  try: x.append(bytes(1 << 20))\n"
  "  except MemoryError: break",
}

# Where nothing keeps a program from forking, they would fill the machine.
_FORKS = ("bomb", "bomb_at_once", "forge_and_fork")
# They use up their time or memory: tried in one way.
_LONG = ("forge_length", "slow_to_compile", "spin", "grow")

# What is printed must be the same beside any neighbour.
INNOCENTS: dict[str, list[str]] = {
  "arithmetic": ["a = 6", "print(a * 7)"],
  "sibling": [PREFIX, "print(math.gcd(12, 18), base)"],
  "deeper": [PREFIX, "base.append(4)", "print(sum(base))"],
  "whole": ["x = [1,", "2]", "print(x)"],
  "error": [PREFIX, "1 / 0"],
  "large": ["import math", "x = bytes(100 << 20); print(len(x))"],
  "large_sibling": [PREFIX, "x = bytearray(80 << 20); print(len(x))"],
  "descriptors": [
    "import fcntl, os",
    "print([(fcntl.fcntl(n, fcntl.F_GETFL), os.fstat(n).st_rdev) "
    "for n in range(3)])\nprint(os.read(0, 9))",
  ],
  "limits": [
    "import resource as r",
    "print([r.getrlimit(n) for n in (r.RLIMIT_AS, r.RLIMIT_NPROC)])",
  ],
}


def ways(name: str, attack: str) -> list[list[str]]:
  """Returns programs that contain an attack, one for each way to run it."""
  note = f"# {name}"
  if name in _LONG:
    return [[PREFIX, f"{attack}\n{note}"]]
  return [
    [f"{attack}\n{note}"],  # A new process.
    [PREFIX, f"{attack}\n{note}"],  # A fork of what innocents come from.
    [PREFIX, f"{attack}\n{note}", "print(1)"],  # It forks when it is told to.
    ["z = (1,", f"2)\n{attack}\n{note}"],  # Compiled as one.
  ]


def innocents(number: int) -> list[list[str]]:
  """Returns the innocent programs, different for each number."""
  return [
    [*steps[:-1], f"{steps[-1]}  # {number}"] for steps in INNOCENTS.values()
  ]


def verdict(result: ExecResult) -> tuple[str, str, str]:
  return result.status, result.stdout, result.error


def run(
  without: tuple[str, ...], prefixes: tuple[str, ...] = ("",)
) -> dict[str, object]:
  """Runs attacks and innocents in a sandbox without some layers.

  Args:
    without: the layers left out.
    prefixes: of the names of the attacks.

  Returns:
    The figures of the module's docstring; under "examples" what changed.
  """
  with Sandbox(1, LIMITS, cache=1, without=without) as sandbox:
    degraded = sandbox.isolation["degraded"]
    known = [verdict(each) for each in sandbox.run(innocents(-1))]
    counts = dict.fromkeys(("attacks", "contained", "innocents", "changed"), 0)
    examples, touched = [], set()
    may_fork = f"fork: {sandbox.isolation['fork']}" in degraded
    left_out = _FORKS if may_fork else ()
    for number, (name, attack) in enumerate(ATTACKS.items()):
      if name in left_out or not name.startswith(prefixes):
        continue
      first, *others = ways(name, attack)
      beside, after = innocents(2 * number), innocents(2 * number + 1)
      programs = [first, *beside, *others, *after]
      kinds = [None, *range(len(known)), *[None] * len(others)]
      kinds += range(len(known))
      for kind, result in zip(kinds, sandbox.run(programs), strict=True):
        if kind is None:
          counts["attacks"] += 1
          continue
        counts["innocents"] += 1
        if verdict(result) != known[kind]:
          counts["changed"] += 1
          touched.add(name)
          examples.append((name, list(INNOCENTS)[kind], verdict(result)))
      if name not in touched:
        counts["contained"] += kinds.count(None)
    for _ in range(100):  # The worker tidies up once it has answered.
      if not (loose := _loose(sandbox)):
        break
      time.sleep(0.1)
  return {
    "without": without,
    **counts,
    "left_out": left_out,
    "loose": loose,
    "degraded": degraded,
    "examples": examples[:5],
  }


def _loose(sandbox: Sandbox) -> int:
  """Returns how many processes below the workers are not stopped.

  The workers themselves, and the parents of their namespaces, do not count.
  """
  count = 0
  workers = set(sandbox.pids)
  if "pid" in sandbox.isolation["layers"]["namespaces"]:
    workers |= {
      below
      for worker in workers
      for below in process._descendants(worker)
      if _parent(below) in workers
    }
  for pid in (each for w in sandbox.pids for each in process._descendants(w)):
    state = _stat(pid)[0]
    count += pid not in workers and state not in "TZX"
  return count


def _stat(pid: int) -> list[str]:
  try:
    text = pathlib.Path(f"/proc/{pid}/stat").read_text()
  except OSError:
    return ["X", "0"]
  return text.rpartition(")")[2].split()


def _parent(pid: int) -> int:
  return int(_stat(pid)[1])


def main(_) -> None:
  for without in LAYERS:
    print(json.dumps(run(without)), flush=True)


if __name__ == "__main__":
  app.run(main)
