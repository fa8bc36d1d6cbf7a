"""Every status by a real program; no state outlives a program."""

import concurrent.futures
import contextlib
import io
import os
import random
import subprocess
import sys

import numpy as np
from absl.testing import absltest, parameterized

from rstar_jax.sandbox import process
from rstar_jax.sandbox.pool import Limits, Sandbox

# Long enough for a busy machine, short enough for tests that wait for it.
_WALL = 4.0
_LIMITS = Limits(wall_seconds=_WALL, memory_bytes=1 << 28, output_bytes=1009)


class SandboxTest(parameterized.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    cls.sandbox = Sandbox(workers=2, limits=_LIMITS)

  @classmethod
  def tearDownClass(cls):
    cls.sandbox.close()
    super().tearDownClass()

  def run_one(self, *steps):
    return self.sandbox.run([list(steps)])[0]

  @parameterized.named_parameters(
    ("pure_arithmetic", ["a = 7", "print(a * 3)"], "21\n"),
    ("prefix_output_dropped", ["print('no')", "print('yes')"], "yes\n"),
    ("many_prints", ["print(1)\nprint(2)\nx = 3\nprint(x)"], "1\n2\n3\n"),
    ("unrounded", ["print(0.1 + 0.2)"], "0.30000000000000004\n"),
    ("said_error", ["print('standard error: 0.2')"], "standard error: 0.2\n"),
    ("no_output", ["x = 1"], ""),
    ("no_steps", [], ""),
    ("import", ["import math", "print(math.gcd(12, 18))"], "6\n"),
    ("function", ["def f(n):\n  return n * n", "print(f(5))"], "25\n"),
    ("main", ["print(__name__)"], "__main__\n"),
    ("unicode", ["print('\u221a2 = \u2248 1.41')"], "\u221a2 = \u2248 1.41\n"),
    ("no_newline", ["print(5, end='')"], "5"),
    ("write", ["import sys; sys.stdout.write('ab')"], "ab"),
    ("closed", ["import sys; print(5); sys.stdout.close()"], "5\n"),
    (
      "else",
      ["x = 1\nif x:\n  print('a')", "else:\n  print(2)\nprint(3)"],
      "3\n",
    ),
    ("bracket", ["print(0)", "x = (1 +", "2)\nprint(x)"], "3\n"),
    ("header", ["def f():", "  return 11", "print(f())"], "11\n"),
    ("string", ['x = """a', 'b"""', "print(x)"], "a\nb\n"),
    (
      "future",
      ["from __future__ import annotations", "def f(x: nope): ...\nprint(1)"],
      "1\n",
    ),
    ("caught", ["try:\n  1 / 0\nexcept ZeroDivisionError:\n  print(9)"], "9\n"),
    ("sympy", ["import sympy", "print(sympy.sqrt(8))"], "2*sqrt(2)\n"),
  )
  def test_ok(self, steps, stdout):
    result = self.sandbox.run([steps])[0]
    self.assertEqual(
      (result.status, result.stdout, result.error, result.line),
      ("ok", stdout, "", 0),
    )

  @parameterized.named_parameters(
    ("division", ["print(1)\n1 / 0"], "ZeroDivisionError: division by zero"),
    ("name", ["print(x)"], "NameError: name 'x' is not defined"),
    ("key", ["{}['a']"], "KeyError: 'a'"),
    ("exit", ["exit(3)"], "SystemExit: 3"),
    ("sys_exit", ["import sys", "sys.exit()"], "SystemExit"),
    ("interrupt", ["raise KeyboardInterrupt"], "KeyboardInterrupt"),
    ("empty", ["assert False"], "AssertionError"),
    ("lines", ["raise ValueError('a\\nb')"], "ValueError: a b"),
    (
      "earlier_step",
      ["1 / 0", "print(1)"],
      "ZeroDivisionError: division by zero",
    ),
    ("stdin", ["input()"], "EOFError: EOF when reading a line"),
    ("late_future", ["x = 1", "from __future__ import annotations"], None),
    ("syntax", ["print(1", ")", "x ="], None),
    ("null", ["x = '\0'"], None),
  )
  def test_error(self, steps, error):
    result = self.sandbox.run([steps])[0]
    self.assertEqual(result.status, "error")
    if error is not None:
      self.assertEqual(result.error, error)
    else:
      self.assertRegex(result.error, r"^(SyntaxError|ValueError): ")

  def test_recursion_is_an_error(self):
    result = self.run_one("def f(n):\n  return f(n + 1)\nf(0)")
    self.assertEqual(result.status, "error")
    self.assertStartsWith(result.error, "RecursionError: ")

  def test_timeouts_do_not_hold_up_the_rest(self):
    hangs = [
      ["while True:\n  pass"],  # Pure arithmetic: shares a process.
      ["while True:\n  try:\n    while True: pass\n  except BaseException: 0"],
      ["import time", "time.sleep(1000)"],
      ["import signal", "signal.pause()"],
    ]
    quick = [[f"print({i})"] for i in range(11)]
    results = self.sandbox.run(hangs + quick)
    late = len(hangs)
    self.assertEqual([r.status for r in results[:late]], ["timeout"] * late)
    seconds = self.sandbox._limits.wall_seconds
    for result in results[:late]:
      self.assertEqual(result.seconds, seconds)
      self.assertEqual(result.error, f"wall time limit of {seconds:g} s")
    self.assertEqual(
      [r.stdout for r in results[late:]], [f"{i}\n" for i in range(11)]
    )

  @parameterized.named_parameters(
    ("pure_arithmetic", ["x = 'a' * (1 << 40)"]),
    ("at_once", ["x = bytearray(1 << 40)"]),
    ("grown", ["x = [0]", "while True:\n  x = x + x"]),
    ("raised", ["raise MemoryError"]),
  )
  def test_memory(self, steps):
    self.assertEqual(self.sandbox.run([steps])[0].status, "memory")

  @parameterized.named_parameters(
    ("write", ["open('rstar_written', 'w')"]),
    ("append", ["import os", "os.open('/dev/shm/x', os.O_APPEND)"]),
    ("read", ["print(open('/etc/passwd').read())"]),
    ("remove", ["import os", "os.remove('/dev/shm/nothing')"]),
    ("socket", ["import socket", "socket.create_connection(('127.0.0.1', 9))"]),
    (
      "url",
      ["import urllib.request as u", "u.urlopen('http://127.0.0.1:9')"],
    ),
    ("subprocess", ["import subprocess", "subprocess.run(['true'])"]),
    ("system", ["import os", "os.system('true')"]),
    ("exec", ["import os", "os.execv('/bin/true', ['true'])"]),
    ("fork", ["import os", "os.fork()"]),
    (
      "multiprocessing",
      [
        "import multiprocessing as m",
        "m.get_context('spawn').Process().start()",
      ],
    ),
    ("kill", ["import os", "os.kill(os.getppid(), 9)"]),
    ("killpg", ["import os", "os.killpg(0, 9)"]),
    ("thread", ["import threading as t", "t.Thread(target=print).start()"]),
    ("null", ["import os", "open(os.devnull, 'w')"]),
    ("project", ["import sys", f"print(open({__file__!r}).read())"]),
    ("ctypes", ["import ctypes", "ctypes.CDLL(None)"]),
    (
      "unlimit",
      ["import resource as r", "r.setrlimit(r.RLIMIT_AS, (-1, -1))"],
    ),
  )
  def test_blocked(self, steps):
    result = self.sandbox.run([steps])[0]
    self.assertEqual(result.status, "blocked", result)
    self.assertStartsWith(result.error, "Blocked: ")

  def test_blocked_left_nothing_behind(self):
    self.assertFalse(os.path.exists("/rstar_written"))

  @parameterized.named_parameters(
    ("once", ["print('a' * 5000)"]),
    ("many", ["for i in range(5000):\n  print(i)"]),
    (
      "swallowed",
      ["try:\n  print('a' * 50000)\nexcept BaseException:\n  pass"],
    ),
  )
  def test_output_limit(self, steps):
    result = self.sandbox.run([steps])[0]
    self.assertEqual(result.status, "output_limit")
    self.assertLen(result.stdout, _LIMITS.output_bytes)

  def test_output_limit_is_of_the_last_step(self):
    result = self.run_one("print('a' * 800)", "print('b' * 800)")
    self.assertEqual((result.status, result.stdout), ("ok", "b" * 800 + "\n"))

  @parameterized.named_parameters(
    ("exit", ["import os", "os._exit(0)"]),
    ("segfault", ["import faulthandler", "faulthandler._read_null()"]),
    ("abort", ["import os", "os.abort()"]),
  )
  def test_crashed(self, steps):
    results = self.sandbox.run([steps, ["import math", "print(math.pi)"]])
    self.assertEqual([r.status for r in results], ["crashed", "ok"])

  def test_no_state_leaks(self):
    poison = [
      ["import math", "math.pi = 3"],
      ["import builtins", "builtins.sum = None"],
      ["import random", "random.seed(5)"],
      ["import sys", "sys.setrecursionlimit(50)"],
      ["leaked = 1"],
      ["abs = 5"],
    ]
    probe = ["import math, random, sys", "r = random.random()"]
    ask = "print(math.pi, sum([1, 2]), r, sys.getrecursionlimit(), abs(-1))"
    expected = self.run_one(*probe, ask)
    self.assertStartsWith(expected.stdout, "3.141592653589793 3 0.8444218515")
    for _ in range(3):
      steps = [*probe, f"{ask}  # {random.random()}"]
      *_, result = self.sandbox.run([*poison, steps])
      self.assertEqual(result.stdout, expected.stdout)
    result = self.run_one("print(leaked)")
    self.assertEqual(result.error, "NameError: name 'leaked' is not defined")

  def test_randomness_and_hashes_repeat(self):
    steps = ["import random", "print(random.random(), hash('a'), {'a', 'b'})"]
    seen = {
      self.run_one(*steps[:1], f"{steps[1]}  # {i}").stdout for i in range(5)
    }
    with Sandbox(workers=1, limits=_LIMITS) as other:
      seen.add(other.run([steps])[0].stdout)
    self.assertLen(seen, 1)
    drawn = self.run_one("import numpy as np", "print(np.random.rand())")
    self.assertEqual(drawn.stdout, f"{np.random.RandomState(0).rand()}\n")

  def test_a_generator_without_a_seed_has_one(self):
    programs = [
      ["import random", f"print({each})"]
      for each in (
        "random.Random().random()",
        "random.Random(None).random()",
        "random.random(), random.seed(), random.random()",
        "random.Random(7).random()",
      )
    ] + [
      ["import numpy as np", f"print({each})"]
      for each in (
        "np.random.default_rng().random()",
        "np.random.RandomState().random_sample()",
        "np.random.Generator(np.random.MT19937()).random()",
        "np.random.default_rng(7).random()",
      )
    ]
    found = [result.stdout for result in self.sandbox.run(programs)]
    with Sandbox(workers=1, limits=_LIMITS) as other:
      again = [result.stdout for result in other.run(programs)]
    self.assertEqual(found, again)
    zero, seven = random.Random(0).random(), random.Random(7).random()
    self.assertEqual(
      found[:4],
      [
        *(f"{zero}\n" for _ in range(2)),
        f"{zero} None {zero}\n",
        f"{seven}\n",
      ],
    )
    self.assertEqual(found[7], f"{np.random.default_rng(7).random()}\n")

  @parameterized.parameters("numpy", "scipy", "pandas")
  def test_random_numbers_are_seeded_whatever_imports_numpy(self, name):
    # As that library would.
    step = f"from importlib import import_module as load  # {name}"
    result = self.run_one(step, "print(load('num' + 'py').random.rand())")
    seeded = np.random.RandomState(0).rand()
    self.assertEqual(result.stdout, f"{seeded}\n")

  def test_last_step_prints_what_the_whole_adds(self):
    programs = [
      ["import sys", "print(1)", "for i in range(3):\n  print(i)"],
      ["x = 0", "for i in range(3):\n  print(x)", "  x += i", "print(x)"],
      ["print('a')", "if False:\n  print('b')", "else:\n  print('c')"],
      ["class A:\n  n = 3", "print(A().n)", "a = A(); a.n = 4; print(a.n)"],
    ]

    def python(steps):
      command = [sys.executable, "-c", "\n".join(steps)]
      return subprocess.run(command, capture_output=True, text=True).stdout

    for steps, result in zip(programs, self.sandbox.run(programs), strict=True):
      added = python(steps).removeprefix(python(steps[:-1]))
      self.assertEqual((result.status, result.stdout), ("ok", added), steps)

  def test_arithmetic_agrees_with_the_interpreter(self):
    numbers = random.Random(7)
    operators = ("+", "-", "*", "//", "%", "/", "**")

    def program():
      steps = [f"v0 = {numbers.randint(-20, 20)}"]
      for i in range(1, numbers.randint(2, 6)):
        symbol, right = numbers.choice(operators), numbers.randint(0, 5)
        steps.append(f"# step\nv{i} = v{i - 1} {symbol} {right}")
      return [*steps, f"print(v{len(steps) - 1}, [v0] * 2)\nv0 += 1\nprint(v0)"]

    programs = [program() for _ in range(97)]
    for steps, result in zip(programs, self.sandbox.run(programs), strict=True):
      stdout, error = io.StringIO(), ""
      with contextlib.redirect_stdout(stdout):
        try:
          exec("\n".join(steps), {})
        except Exception as failure:
          error = f"{type(failure).__name__}: {failure}"
      self.assertEqual(
        (result.stdout, result.error), (stdout.getvalue(), error)
      )

  def test_a_text_is_no_program(self):
    for programs in (["print(1)"], "print(1)", [["x = 1"], "print(1)"]):
      with self.assertRaisesRegex(TypeError, r"list of steps: give \[\["):
        self.sandbox.run(programs)

  def test_order_and_threads(self):
    def work(thread):
      programs = [[f"t = {thread}", f"print(t, {i % 13})"] for i in range(53)]
      return [result.stdout for result in self.sandbox.run(programs)]

    with concurrent.futures.ThreadPoolExecutor(7) as pool:
      for thread, stdout in enumerate(pool.map(work, range(7))):
        self.assertEqual(stdout, [f"{thread} {i % 13}\n" for i in range(53)])

  def test_equal_programs_run_once(self):
    # The time differs between runs, so that equal output means one run.
    steps = ["import time", "print(time.perf_counter_ns())"]
    one, two, three = self.sandbox.run([steps, ["x = 1"], steps])
    self.assertEqual(one, three)
    self.assertEqual(two.stdout, "")
    self.assertEqual(self.sandbox.run([steps])[0], one)

  def test_a_program_finds_nothing_of_others(self):
    secret = "xyzzy"
    look = f"""
import gc, sys
word = "".join([{secret[:2]!r}, {secret[2:]!r}])
def texts(thing, depth=0):
  if isinstance(thing, (str, bytes)): yield thing
  elif depth < 4 and isinstance(thing, dict):
    for pair in list(thing.items()):
      for each in pair: yield from texts(each, depth + 1)
  elif depth < 4 and isinstance(thing, (list, tuple, set)):
    for each in list(thing): yield from texts(each, depth + 1)
found = []
frame = sys._getframe()
while frame:
  found.append(dict(frame.f_locals)); frame = frame.f_back
for thing in found + gc.get_objects():
  for text in texts(thing):
    if word in str(text) and len(text) > 5: print(type(thing), text); break
"""
    prefix = "import math"
    with Sandbox(workers=1, limits=_LIMITS) as sandbox:
      others = [
        [f"{secret} = 1\nprint('an {secret}')"],
        [prefix, f"{secret} = 2", "print(1)"],
        [prefix, f"{secret} = 3"],
        ["x = [1,", f"2]  # {secret}"],
        [f"1 / 0  # {secret}"],
      ]
      sandbox.run(others)
      looks = [[look], [prefix, look], ["z = (1,", f"2)\n{look}"]]
      found = sandbox.run([*others, *looks, *others])[len(others) :]
    for result in found[: len(looks)]:
      self.assertEqual((result.status, result.stdout), ("ok", ""), result.error)

  def test_sets_print_alike_in_all_workers(self):
    steps = [
      "import sympy",
      "x = sympy.Symbol('x'); d = [sympy.Dummy() for _ in range(9)]",
      "print({x, *d}, {sympy.sin(e) for e in d})",
      "print(hash(None), hash(int), {int, float, str, None})",
    ]
    seen = set()
    for _ in range(3):
      with Sandbox(workers=1) as sandbox:
        programs = [steps[:3], steps]
        seen.add(tuple(each.stdout for each in sandbox.run(programs)))
    self.assertLen(seen, 1)

  def test_what_a_program_leaves_running_ends(self):
    """Where nothing keeps a program from forking."""
    with Sandbox(workers=1, without=("hook", "rlimits")) as sandbox:
      step = (
        "import os, time\n"
        "if os.fork() == 0:\n  os.closerange(3, 99)\n  time.sleep(300)"
      )
      self.assertEqual(sandbox.run([[step]])[0].status, "ok")
      self.assertEqual(sandbox.run([["print(1)"]])[0].stdout, "1\n")
      for pid in process._descendants(sandbox.pids[0]):
        # It may end meanwhile, as it has to.
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
          with open(f"/proc/{pid}/wchan") as file:
            self.assertNotIn("nanosleep", file.read())


if __name__ == "__main__":
  absltest.main()
