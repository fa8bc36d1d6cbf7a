"""Killed workers, a closed sandbox, and a parent that ends."""

import contextlib
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time
from unittest import mock

from absl.testing import absltest, parameterized

from rstar_jax.sandbox import pool, process
from rstar_jax.sandbox.pool import Limits, Sandbox

_PARENT = """
import signal, sys, threading, time
from rstar_jax.sandbox.pool import Limits, Sandbox
# A shell's background jobs ignore Ctrl-C from the start.
signal.signal(signal.SIGINT, signal.default_int_handler)
sandbox = Sandbox(2, Limits(wall_seconds=300), without=sys.argv[1:])
sleeper = [["import time", f"time.sleep({i})"] for i in (100, 101)]
threading.Thread(target=sandbox.run, args=(sleeper,), daemon=True).start()
spaces = "pid" in sandbox.isolation["layers"]["namespaces"]
print(spaces, *sandbox.pids, flush=True)
time.sleep(300)
"""
# A module's globals are cleared after its threads have ended, and on a Python
# later than 3.12 they can then not be joined.
_KEPT = """
import atexit, os
sandbox = None
atexit.register(lambda: print("closed", sandbox._closed, flush=True))
from rstar_jax.sandbox.pool import Sandbox
sandbox = Sandbox(workers=1)
class Kept:
  close = sandbox.close
  def __del__(self):
    self.close()
kept = Kept()
kept.itself = kept
before = sandbox.pids
if pid := os.fork():
  print("forked", os.waitpid(pid, 0)[1])
  print(sandbox.run([["print(5)"]])[0].status, sandbox.pids == before)
else:
  del Kept.__del__
"""
# A worker without site-packages, as a plain Python has none of the packages
# that `--user`, `--target` or PYTHONPATH add.
_bare = mock.patch.object(pool, "_FLAGS", (*pool._FLAGS, "-S"))


def _children(pid: int) -> list[int]:
  path = pathlib.Path(f"/proc/{pid}/task/{pid}/children")
  with contextlib.suppress(FileNotFoundError):
    return [int(child) for child in path.read_text().split()]
  return []


def _programs(worker: int, spaces: bool) -> list[int]:
  """Returns the pids of a worker's programs; a namespace adds one process."""
  inner = _children(worker) if spaces else [worker]
  return [pid for each in inner for pid in _children(each)]


def _has_spaces(sandbox: Sandbox) -> bool:
  return "pid" in sandbox.isolation["layers"]["namespaces"]


def _alive(pid: int) -> bool:
  try:
    stat = pathlib.Path(f"/proc/{pid}/stat").read_text()
  except (FileNotFoundError, ProcessLookupError):
    return False
  return stat.rpartition(")")[2].split()[0] not in "ZX"


def _wait_for(condition, what: str):
  for _ in range(1200):
    if value := condition():
      return value
    time.sleep(0.05)
  raise AssertionError(f"waited a minute for {what}")


class LifeTest(parameterized.TestCase):
  @parameterized.parameters(True, False)
  def test_a_kill_costs_no_verdict(self, of_the_worker):
    limits = Limits(wall_seconds=300)
    with Sandbox(workers=1, limits=limits) as sandbox:
      programs = [["import time", "time.sleep(4)"]]
      programs += [[f"import time; print({i})"] for i in range(5)]
      results = []
      thread = threading.Thread(
        target=lambda: results.extend(sandbox.run(programs))
      )
      thread.start()
      pid = sandbox.pids[0]
      spaces = _has_spaces(sandbox)
      child = _wait_for(lambda: _programs(pid, spaces), "the first program")[0]
      os.kill(pid if of_the_worker else child, signal.SIGKILL)
      thread.join()
      self.assertEqual([r.status for r in results], ["ok"] * 6)
      self.assertEqual(pid in sandbox.pids, not of_the_worker)
      _wait_for(lambda: not _alive(child), "the program to end")
      # The death of an idle worker costs nothing. In a process namespace, the
      # parent of the serving process only waits for it.
      idle = sandbox.pids[0]
      os.kill(_children(idle)[0] if spaces else idle, signal.SIGKILL)
      self.assertEqual(sandbox.run([["print(5)"]])[0].stdout, "5\n")

  def test_a_deadline_costs_the_program_and_not_its_worker(self):
    with Sandbox(workers=1, limits=Limits(wall_seconds=1.0)) as sandbox:
      pids = sandbox.pids
      hang = ["import time", "time.sleep(1000)"]
      programs = [["print(1)"], hang, ["print(2)"], hang, ["print(3)"]]
      results = sandbox.run(programs)
      self.assertEqual(
        [each.status for each in results], ["ok", "timeout"] * 2 + ["ok"]
      )
      self.assertEqual(sandbox.pids, pids)

  def test_an_error_of_the_host_leaves_no_answer_to_the_next_program(self):
    real, failures = pool.ExecResult, [MemoryError()]

    def fail_once(*args, **options):
      if len(args) == 5 and failures:
        raise failures.pop()
      return real(*args, **options)

    with Sandbox(workers=1, limits=Limits(wall_seconds=300)) as sandbox:
      programs = [["import os", f"print({i})"] for i in range(8)]
      with mock.patch.object(pool, "ExecResult", fail_once):
        with self.assertRaises(MemoryError):
          sandbox.run(programs)
      self.assertEmpty(sandbox.pids)
      later = [["import os", f"print({i})"] for i in (40, 50)]
      results = sandbox.run([*later, *programs])
      self.assertEqual(
        [int(each.stdout) for each in results], [40, 50, *range(8)]
      )

  def test_a_sandbox_that_is_refused_leaves_nothing(self):
    before = set(_children(os.getpid())), set(os.listdir("/proc/self/fd"))
    # `assertRaises` would clear the error's frames, which hold the worker.
    try:
      Sandbox(workers=2, require=("hook",), without=("hook",))
    except RuntimeError as error:
      self.assertIn("require asks for", str(error))
      after = set(_children(os.getpid())), set(os.listdir("/proc/self/fd"))
      self.assertEqual(after, before)
    else:
      self.fail("it is not refused")

  def test_workers_of_either_kind_are_replaced(self):
    programs = [["import sympy", "print(sympy.sqrt(4))"], ["print(3)"]]
    with Sandbox(workers=1) as sandbox:
      for _ in range(2):
        results = sandbox.run(programs)
        self.assertEqual([each.stdout for each in results], ["2\n", "3\n"])
        pids = sandbox.pids
        self.assertLen(pids, 2)
        for pid in pids:
          os.kill(pid, signal.SIGKILL)
      self.assertEqual(sandbox.run(programs), results)

  @parameterized.parameters(
    (signal.SIGKILL,),
    (signal.SIGTERM,),
    (signal.SIGINT,),
    (signal.SIGKILL, "namespaces"),
  )
  def test_all_ends_with_the_parent(self, number, *without):
    root = str(pathlib.Path(__file__).resolve().parents[2])
    with subprocess.Popen(
      [sys.executable, "-c", _PARENT, *without],
      stdout=subprocess.PIPE,
      stderr=subprocess.DEVNULL,
      env={**os.environ, "PYTHONPATH": root},
      text=True,
    ) as parent:
      spaces, *workers = parent.stdout.readline().split()
      workers = [int(pid) for pid in workers]
      self.assertLen(workers, 2)
      programs = [
        _wait_for(
          lambda pid=pid: _programs(pid, spaces == "True"), "a program"
        )[0]
        for pid in workers
      ]
      parent.send_signal(number)
    for pid in workers + programs:
      _wait_for(lambda pid=pid: not _alive(pid), f"the end of {pid}")

  @parameterized.parameters(0.0, 0.5)
  def test_close_ends_what_runs(self, seconds):
    """The worker ends so many seconds after the program that it reports."""
    sandbox = Sandbox(workers=1, limits=Limits(wall_seconds=300))
    failures = []

    def work():
      try:
        sandbox.run([["import time", "time.sleep(200)"]])
      except RuntimeError as error:
        failures.append(str(error))

    thread = threading.Thread(target=work)
    thread.start()
    pid = sandbox.pids[0]
    spaces = _has_spaces(sandbox)
    _wait_for(lambda: _programs(pid, spaces), "the program")
    kill_tree = process.Process.kill_tree

    def kill_slowly(worker):
      for child in _programs(worker.pid, spaces):
        os.kill(child, signal.SIGKILL)
      time.sleep(seconds)
      kill_tree(worker)

    with mock.patch.object(process.Process, "kill_tree", kill_slowly):
      sandbox.close()
    thread.join()
    self.assertEqual(failures, ["the sandbox is closed"])
    self.assertFalse(_alive(pid))
    with self.assertRaisesRegex(RuntimeError, "closed"):
      sandbox.run([["x = 1"]])

  def test_close_ends_a_worker_that_is_being_started(self):
    sandbox = Sandbox(workers=1, limits=Limits(wall_seconds=300))
    begun, go, failures = threading.Event(), threading.Event(), []
    start = process.Process

    def start_slowly(*args):
      begun.set()
      go.wait()
      return start(*args)

    def work():
      try:
        sandbox.run([["import time", "time.sleep(200)"]])
      except RuntimeError as error:
        failures.append(str(error))

    with mock.patch.object(process, "Process", start_slowly):
      (pid,) = sandbox.pids
      os.kill(pid, signal.SIGKILL)
      # Else it may still begin the program, which is then blamed.
      _wait_for(lambda: not _alive(pid), "the end of the worker")
      working = threading.Thread(target=work)
      closing = threading.Thread(target=sandbox.close)
      working.start()
      self.assertTrue(begun.wait(60))
      closing.start()
      _wait_for(lambda: sandbox._closed, "the sandbox to close")
      go.set()
      closing.join(60)
      working.join(60)
    self.assertFalse(closing.is_alive())
    self.assertEqual(failures, ["the sandbox is closed"])

  def test_a_worker_that_cannot_be_started_is_tried_again(self):
    with Sandbox(workers=1) as sandbox:
      start, failures = sandbox._start, [OSError(11, "full")] * 2

      def fail_some(*args):
        if failures:
          raise failures.pop()
        return start(*args)

      with mock.patch.object(sandbox, "_start", fail_some):
        worker = sandbox.pids[0]
        for pid in (*process._descendants(worker), worker):
          with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
          _wait_for(lambda pid=pid: not _alive(pid), f"the end of {pid}")
        self.assertEqual(sandbox.run([["print(5)"]])[0].stdout, "5\n")
      self.assertEmpty(failures)

  def test_closed_before_the_interpreter_is_finalised(self):
    root = str(pathlib.Path(__file__).resolve().parents[2])
    found = subprocess.run(
      [sys.executable, "-c", _KEPT],
      capture_output=True,
      env={**os.environ, "PYTHONPATH": root},
      text=True,
      timeout=100,
    )
    lines = found.stdout.splitlines()
    # The fork ends first, and leaves its parent's workers alone.
    self.assertEqual(
      lines,
      ["closed False", "forked 0", "ok True", "closed True"],
      found.stderr,
    )
    self.assertNotIn("Exception ignored", found.stderr)

  def test_refuses_no_workers(self):
    with self.assertRaisesRegex(ValueError, "workers=0"):
      Sandbox(workers=0)


class PackagesTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    process.warn.cache_clear()

  @_bare
  def test_are_the_host_s_wherever_they_are(self):
    programs = [
      ["import sympy", "print(sympy.sqrt(8))"],
      ["import numpy", "print(numpy.linalg.inv(numpy.eye(2)).sum())"],
      # As above, but unseen: a worker that has not imported it.
      ["n = __import__('num' + 'py')", "print(n.fft.fft([1, 2])[0].real)"],
    ]
    with self.assertNoLogs("absl"), Sandbox(workers=1) as sandbox:
      found = [result.stdout for result in sandbox.run(programs)]
      self.assertEqual(found, ["2*sqrt(2)\n", "2.0\n", "3.0\n"])

  @_bare
  @mock.patch.object(process, "path_of", lambda _: [])
  def test_missing_ones_are_said_once_and_can_be_required(self):
    with self.assertLogs("absl", "WARNING") as logs:
      for _ in range(2):
        with Sandbox(workers=1) as sandbox:
          self.assertLen(sandbox.isolation["degraded"], 2)
          (result,) = sandbox.run([["import sympy"]])
          self.assertEqual(result.status, "error")
    degraded, heavy = [record.getMessage() for record in logs.records]
    self.assertIn("sympy: does not work: ModuleNotFoundError", degraded)
    self.assertIn("sandbox.require", degraded)
    self.assertIn("cannot import numpy (No module named 'numpy'); sym", heavy)
    with self.assertRaisesRegex(RuntimeError, "sympy: does not work"):
      Sandbox(workers=1, require=("sympy",))

  def test_what_is_left_out_on_purpose_is_no_warning(self):
    with (
      self.assertNoLogs("absl"),
      Sandbox(workers=1, without=("hook",)) as sandbox,
    ):
      self.assertIn("hook: switched off", sandbox.isolation["degraded"])


if __name__ == "__main__":
  absltest.main()
