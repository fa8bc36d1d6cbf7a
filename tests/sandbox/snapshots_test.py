"""Live interpreters: no result depends on which ones are alive."""

import functools
import os
import random
import signal
import socket
import subprocess
import sys
from unittest import mock

import hypothesis
from absl.testing import absltest, parameterized
from hypothesis import strategies as st

from rstar_jax.sandbox import children, program, snapshots, zygote
from rstar_jax.sandbox.isolation import confinement
from rstar_jax.sandbox.pool import Limits, Sandbox
from tests.sandbox import forks

_LIMITS = Limits(wall_seconds=20.0)


class SnapshotsTest(parameterized.TestCase):
  """The process tree of a worker, with the test as worker."""

  def setUp(self):
    super().setUp()
    host, theirs = socket.socketpair()
    self.addCleanup(host.close)
    self.addCleanup(theirs.close)
    self.told = []
    self.tree = self.make(theirs, 7)
    self.addCleanup(self.tree.clear)

  def make(self, connection, limit):
    return snapshots.Snapshots(
      children.Watch(connection, 65536),
      functools.partial(zygote.enter, confinement.limit_program, 1009, 0),
      self.told.append,
      limit=limit,
      memory_bytes=1 << 26,
      cpu_seconds=7,
      output_bytes=1009,
    )

  def run_one(self, *steps):
    result = forks.as_worker(lambda: self.tree.run(list(steps)))
    self.tree.settle()
    return result and list(result[:3])

  def test_only_the_new_step_is_executed(self):
    first = ["import time", "t = time.perf_counter_ns()"]
    self.run_one(*first)
    seen = {self.run_one(*first, f"print(t)  # {i}")[1] for i in range(5)}
    self.assertLen(seen, 1)
    # The time of a program runs while its steps do.
    self.assertEqual(self.told, ["step", "fork", *["step"] * 6])

  def test_siblings_do_not_see_each_other(self):
    self.run_one("x = [1]")
    self.run_one("x = [1]", "x.append(2)")
    self.assertEqual(self.run_one("x = [1]", "print(x)"), ["ok", "[1]\n", ""])

  def test_the_cap_holds(self):
    steps = [f"x{i} = {i}" for i in range(31)]
    for n in range(1, 32):
      self.run_one(*steps[:n])
      self.assertLessEqual(len(self.tree.pids), 7)
    self.assertEqual(self.run_one(*steps[:3], "print(x2)"), ["ok", "2\n", ""])

  def test_memory_of_all_is_capped(self):
    if not children.memory_of(os.getpid()):
      self.skipTest("not known here")
    grab = "x = bytearray(range(256)) * 2**{}"
    self.run_one(grab.format(10))
    small = self.tree.pids
    self.assertLen(small, 1)
    # A snapshot over the memory limit is not kept; its steps run again.
    large = grab.format(19)
    self.run_one(large)
    self.assertEqual(self.tree.pids, small)
    result = self.run_one(large, "y = 1", "print(len(x))")
    self.assertEqual(result, ["ok", f"{2**27}\n", ""])
    for i in range(5):  # 32 MB each.
      self.run_one(f"i = {i}\n{grab.format(17)}")
      self.assertLessEqual(len(self.tree.pids), 2)
    self.assertNotEmpty(self.tree.pids)

  def test_none_is_kept_where_their_memory_is_not_known(self):
    with mock.patch.object(children, "memory_of", return_value=0):
      tree = self.make(socket.socket(), 7)
    self.assertEqual(tree._limit, 0)

  def test_a_failed_step_is_no_snapshot(self):
    self.run_one("x = 1")
    before = self.tree.pids
    for step in ("1 / 0", "import os; os._exit(3)", "raise SystemExit"):
      self.run_one("x = 1", step)
    self.assertEqual(self.tree.pids, before)

  @parameterized.parameters(
    "import signal; signal.setitimer(signal.ITIMER_REAL, 500)",
    "import os; f = open(os.__file__)",
    "import threading; t = threading.Thread(target=lambda: e.wait())\n"
    "e = threading.Event(); t.daemon = True; t.start()",
  )
  def test_what_a_fork_would_not_keep_is_executed_anew(self, step):
    self.run_one("x = 1")
    before = self.tree.pids
    status, _, error = self.run_one("x = 1", step)
    if "can't start new thread" in error:
      self.skipTest("RLIMIT_NPROC binds who is not root")
    self.assertEqual(status, "ok")
    self.assertEqual(self.tree.pids, before)
    result = self.run_one("x = 1", step, "print(x)")
    self.assertEqual(result, ["ok", "1\n", ""])
    # Once, whichever of the steps before it was kept.
    counted = ["x = 1", f"{step}\nx += 1", "x += 10", "print(x)"]
    self.assertEqual(self.run_one(*counted), ["ok", "12\n", ""])
    self.tree.clear()
    self.assertEqual(self.run_one(*counted), ["ok", "12\n", ""])

  def test_positions_of_files_are_not_shared(self):
    steps = ["import os; f = open(os.__file__)", "print(f.readline())"]
    once, twice = self.run_one(*steps), self.run_one(*steps)
    self.assertEqual(once, twice)
    self.assertNotEmpty(once[1].strip())

  @parameterized.parameters(
    "import json; json.loads = None",
    "import socket; socket.recv_fds = None",
    "import builtins; builtins.len = None",
    "import sys; sys.modules.clear()",
    "import os; os.closerange(3, 99)",
  )
  def test_a_process_that_does_not_fork_costs_nothing(self, step):
    prefix = ["x = 5", step]
    self.run_one(*prefix)
    status = self.run_one(*prefix, "print(x)")
    if "closerange" in step:
      self.assertEqual(status[0], "crashed")
    else:
      self.assertIn(status, (["ok", "5\n", ""], ["crashed", "", status[2]]))

  def test_a_dead_snapshot_costs_nothing(self):
    steps = ["x = 1", "y = 2"]
    self.run_one(*steps)
    for pid in self.tree.pids:
      os.kill(pid, signal.SIGKILL)
    for i in range(5):
      self.assertEqual(
        self.run_one(*steps, f"print(x + y + {i})"), ["ok", f"{3 + i}\n", ""]
      )

  def test_a_full_process_table_costs_the_snapshots(self):
    self.run_one("x = 1", "y = 2")
    fork, failures = os.fork, [OSError(11, "full")] * 3

    def fail_some():
      if failures:
        raise failures.pop()
      return fork()

    with mock.patch.object(os, "fork", fail_some):
      self.assertEqual(self.run_one("print(5)"), ["ok", "5\n", ""])
    self.assertLen(self.tree.pids, 1)
    result = self.run_one("x = 1", "y = 2", "print(x + y)")
    self.assertEqual(result, ["ok", "3\n", ""])

  def test_no_process_is_left(self):
    for i in range(13):
      self.run_one(f"x = {i}", "y = x", "1 / 0")
    self.tree.clear()
    with self.assertRaises(ChildProcessError):
      os.waitpid(-1, os.WNOHANG)

  def test_a_snapshot_is_stopped_whatever_it_reported(self):
    forged = """
import os, struct
report = b'["ok", "forged", "", 0, 0.0, true]'
os.write(60, struct.pack(">I", len(report)) + report)
x = b"a" * (100 << 20)
while True: pass
"""
    self.tree._cpu_seconds = 1
    self.assertEqual(self.run_one("import os", forged), ["ok", "forged", ""])
    for pid in self.tree.pids:
      with open(f"/proc/{pid}/stat") as file:
        self.assertEqual(file.read().rpartition(")")[2].split()[0], "T")
    self.assertLen(self.tree.pids, 2)
    # It goes on when it is to fork, and is not kept once it has grown.
    self.run_one("import os", forged, "print(5)")
    self.assertLen(self.tree.pids, 1)

  def test_a_process_with_children_of_its_own_is_no_snapshot(self):
    # The limit of processes does not bind root.
    step = "import os, time\nif os.fork() == 0:\n  time.sleep(300)"
    if self.run_one(step)[0] != "ok":
      self.skipTest("RLIMIT_NPROC binds who is not root")
    self.assertEmpty(self.tree.pids)
    children.end_orphans(())

  def test_cpu_time_is_limited_for_each_step(self):
    burn = "import time\nt = time.process_time()\nwhile time.process_time() < "
    self.tree._cpu_seconds = 1
    steps = [f"{burn}t + 0.7: pass", f"{burn}t + 0.6: pass"]
    self.assertEqual(self.run_one(*steps)[0], "ok")
    expected = ["timeout", "", "CPU time limit"]
    self.assertEqual(self.run_one(f"{burn}t + 9: pass"), expected)
    whole = ["x = [1,", f"2]\n{burn}t + 9: 0"]
    self.assertIsNone(self.run_one(*whole))
    found = forks.as_worker(lambda: self.tree.run_whole(whole))
    self.assertEqual(list(found[:3]), expected)

  def test_the_line_is_that_of_the_last_step(self):
    future = "from __future__ import annotations"
    for steps, line in (
      (["x=1\ny=="], 2),
      ([f"{future}\nx=1", "y=2\n1/0"], 2),
      ([f"{future}\n\n\n\nx=1", "y=2\nx\nx\nx\nx\n1/0"], 6),
      # In an earlier step.
      ([f"{future}\n1/0", "y=2"], 0),
    ):
      found = forks.as_worker(lambda steps=steps: self.tree.run_whole(steps))
      self.assertEqual((found.status, found.line), ("error", line), steps)

  def test_a_prefix_that_does_not_end_is_the_verdict(self):
    self.tree._cpu_seconds = 1
    head = "print('early')\nn = 0\nwhile True:\n  n += 1"
    tail = "  if n > 3: break\nprint('late', n)"
    whole = forks.as_worker(lambda: self.tree.run_whole([head, tail]))
    self.assertEqual(whole, ("timeout", "", "CPU time limit", 0, 0.0))
    ends = head.replace("while True", "for n in range(9)")
    whole = forks.as_worker(lambda: self.tree.run_whole([ends, tail]))
    self.assertEqual(whole[:3], ("ok", "late 4\n", ""))
    prints = ["print('early')\nwhile True:\n  print('y')", "  break"]
    whole = forks.as_worker(lambda: self.tree.run_whole(prints))
    self.assertEqual(whole[:3], ("output_limit", "", program.OVER))
    # The output of a prefix that fails alone is known.
    fails = f"{head}\n  if n > 2: 1 / 0"
    handled = "  if n > 1: break\nprint('late', n)"
    whole = forks.as_worker(lambda: self.tree.run_whole([fails, handled]))
    self.assertEqual(whole[:3], ("ok", "late 2\n", ""))

  @parameterized.parameters("run", "run_whole")
  def test_a_program_killed_before_it_is_told_runs_again(self, run):
    limit, killed = confinement.limit_cpu, []

    def kill_first(pid, seconds):
      limit(pid, seconds)
      if not killed:
        killed.append(pid)
        os.kill(pid, signal.SIGKILL)
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)

    with mock.patch.object(confinement, "limit_cpu", kill_first):
      found = forks.as_worker(lambda: getattr(self.tree, run)(["print(5)"]))
    self.assertEqual(list(found[:3]), ["ok", "5\n", ""])
    self.assertLen(killed, 1)

  def test_a_program_that_was_killed_runs_again(self):
    killed = program.Report("crashed", "", "killed by signal 9", 0, 0.0)
    fine = program.Report("ok", "", "", 0, 0.0)
    for results, wanted, left in (
      ([fine, killed], fine, 1),
      ([killed, fine, killed], fine, 1),
      ([killed] * 4, killed, 1),
      ([None, fine], None, 1),
    ):
      queue = list(results)
      found = snapshots.again(lambda queue=queue: (queue.pop(0), 7))
      self.assertEqual(found, (wanted, 7))
      self.assertLen(queue, left)

  def test_no_address_tells_whether_a_prefix_was_alive(self):
    show = "class A: pass\nprint(A(), A)\nraise ValueError(A())"
    whole = forks.as_worker(lambda: self.tree.run_whole(["x = 1", show]))
    alive = self.run_one("x = 1", show)
    self.assertEqual(alive, list(whole[:3]))
    self.assertEqual(
      alive[1:],
      [
        "<__main__.A object at 0x0> <class '__main__.A'>\n",
        "ValueError: <__main__.A object at 0x0>",
      ],
    )

  def test_deaths(self):
    for status, killed, wanted in (
      (signal.SIGXCPU, False, ["timeout", "CPU time limit"]),
      (signal.SIGSEGV, False, ["crashed", "killed by signal 11"]),
      (3 << 8, False, ["crashed", "exited with status 3"]),
      (199 << 8, False, ["output_limit", "more output than the limit"]),
      (198 << 8, False, ["memory", "MemoryError"]),
      (signal.SIGKILL, True, ["timeout", ""]),
    ):
      found = snapshots.death(status, killed)
      self.assertEqual([found[0], found[2]], wanted)

  def test_no_memory_even_to_report(self):
    def action(channel):
      raise MemoryError

    child = forks.as_worker(lambda: self.tree.fork(action))
    host, theirs = socket.socketpair()
    with host, theirs:
      self.assertIsNone(children.Watch(theirs, 101).next(child))
    self.assertEqual(snapshots.death(child.end())[0], "memory")

  @parameterized.parameters(
    (program.TOO_MUCH << 8, False, "output_limit", program.OVER),
    (program.NO_MEMORY << 8, False, "memory", "MemoryError"),
    (0, False, "crashed", "exited with status 0"),
    (3 << 8, False, "crashed", "exited with status 3"),
    (signal.SIGSEGV, False, "crashed", "killed by signal 11"),
    (signal.SIGXCPU, False, "timeout", "CPU time limit"),
    # Whatever the status is, if the host had it killed.
    (signal.SIGKILL, True, "timeout", ""),
    (3 << 8, True, "timeout", ""),
  )
  def test_how_a_process_ended_says_what_happened(
    self, status, killed, word, reason
  ):
    found = snapshots.death(status, killed)
    self.assertEqual(found, (word, "", reason, 0, 0.0))

  def test_reports_are_not_trusted(self):
    honest = ["ok", "o" * 1009, "e" * 1201, 2, 3.5, True]
    self.assertEqual(self.tree.checked(honest), (tuple(honest[:5]), True))
    self.assertFalse(self.tree.checked([*honest[:5], 1])[1])
    for place, wrong in (
      (0, "crashed"),
      (0, "timeout"),
      (0, []),
      (1, "o" * 1010),
      (1, ["o"]),
      (1, "\ud800"),
      (2, "e" * 2001),
      (2, "\udfff"),
      (2, None),
      (2, []),
      (2, {}),
      (3, "1"),
      (3, -1),
      (3, 1 << 31),
      (4, float("nan")),
      (4, float("inf")),
      (4, -0.1),
      (4, None),
    ):
      with self.assertRaises(TypeError, msg=(place, wrong)):
        self.tree.checked([*honest[:place], wrong, *honest[place + 1 :]])
    for answer in (None, 3, {}, "ok", honest[:5], [*honest, True]):
      with self.assertRaises(TypeError):
        self.tree.checked(answer)
    for both in ([], {}, ["o"]):
      with self.assertRaises(TypeError):
        self.tree.checked(["ok", both, both, 2, 3.5, True])

  @parameterized.parameters("Infinity", "NaN", "null", "[1]", '"x"')
  def test_a_length_of_the_prefix_is_not_trusted(self, length):
    forged = f"""
from __future__ import annotations
import os, struct
text = b'["before", {length}]'
os.write(60, struct.pack(">I", len(text)) + text)
print(5)
"""
    found = forks.as_worker(lambda: self.tree.run_whole([forged]))
    self.assertEqual(found.status, "crashed")
    self.assertEqual(found.error, "sent no valid report")


# Lines of programs; any line may follow any other.
_LINES = (
  "a = 3",
  "a += 1",
  "b = [a] * 3",
  "b = b + [len(b)]",
  "def f(n):",
  "  return n * a",
  "c = f(5)",
  "if a > 3:",
  "  a -= 2",
  "else:",
  "  b = [7]",
  "for i in range(3):",
  "  print(i, a)",
  "print(a)",
  "print(b)",
  "print(c)",
  "x = (1 +",
  "2)",
  'd = """s',
  't"""',
  "print(d, end='')",
  "import math",
  "print(math.gcd(a, 12))",
  "import random",
  "print(random.random())",
  "class A:",
  "  k = a",
  "print(A.k, A.__module__)",
  "g = (n * n for n in range(9))",
  "print(next(g))",
  "import sys; sys.stdout.write('w')",
  "try:",
  "  1 / 0",
  "except ZeroDivisionError:",
  "  print('caught')",
  "print({'a', 'b'}, hash('x'))",
  "raise ValueError(a)",
  "",
)


def _fresh(source: str) -> tuple[str, str]:
  """Returns the output of a new interpreter, and its final exception."""
  done = subprocess.run(
    [sys.executable, "-P", "-s", "-B", "-c", f"{_SEEDED}{source}"],
    capture_output=True,
    text=True,
    env={"PYTHONHASHSEED": "0"},
  )
  last = done.stderr.strip().rpartition("\n")[2]
  # A traceback adds text that is not part of the message.
  last = last.partition(". Did you ")[0]
  return done.stdout, last if done.returncode else ""


_SEEDED = "import random\nrandom.seed(0)\ndel random\n"


class AgreementTest(absltest.TestCase):
  """Equal to the concatenation in a fresh interpreter."""

  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    # One keeps as many as possible, the other evicts nearly all.
    cls.sandboxes = [
      Sandbox(workers=workers, limits=Limits(20.0, live=live), cache=1)
      for workers, live in ((2, 48), (1, 2), (1, 0))
    ]

  @classmethod
  def tearDownClass(cls):
    for sandbox in cls.sandboxes:
      sandbox.close()
    super().tearDownClass()

  @hypothesis.settings(
    max_examples=37, deadline=None, derandomize=True, database=None
  )
  @hypothesis.given(
    lines=st.lists(st.sampled_from(_LINES), min_size=1, max_size=13),
    cuts=st.sets(st.integers(1, 12), max_size=7),
    seed=st.integers(0, 2**32),
  )
  def test_random_programs_split_at_random_places(self, lines, cuts, seed):
    edges = [0, *sorted(c for c in cuts if c < len(lines)), len(lines)]
    steps = [
      "\n".join(lines[a:b]) for a, b in zip(edges, edges[1:], strict=False)
    ]
    programs = [steps[:n] for n in range(1, len(steps) + 1)]
    order = list(range(len(programs)))
    random.Random(seed).shuffle(order)
    expected = [_fresh("\n".join(each)) for each in programs]
    for sandbox in self.sandboxes:
      found = sandbox.run([programs[i] for i in order])
      for i, result in zip(order, found, strict=True):
        stdout, error = expected[i]
        if error:
          self.assertEqual(result.status, "error", str(programs[i]))
          # The line of a syntax error depends on how the steps are joined.
          if not error.startswith(("SyntaxError", "IndentationError")):
            self.assertEqual(result.error, error, str(programs[i]))
        else:
          before = expected[i - 1][0] if i else ""
          if i and expected[i - 1][1]:
            continue  # The output of its prefix is unknown.
          self.assertEqual(
            (result.status, result.stdout),
            ("ok", stdout.removeprefix(before)),
            str(programs[i]),
          )


if __name__ == "__main__":
  absltest.main()
