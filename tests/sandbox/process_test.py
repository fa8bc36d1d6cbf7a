"""A worker process, seen from the host."""

import os
import signal
import sys
import threading
import time
from unittest import mock

from absl.testing import absltest

from rstar_jax.sandbox import process, wire
from rstar_jax.sandbox.isolation import confinement

_OPTIONS = {
  "heavy": False,
  "probe": False,
  "without": (),
  "memory_bytes": 1 << 30,
  "output_bytes": 101,
  "cpu_seconds": 100,
  "live": 3,
}


def _alive(pid: int) -> bool:
  try:
    with open(f"/proc/{pid}/stat") as file:
      return file.read().rpartition(")")[2].split()[0] not in "ZX"
  except (FileNotFoundError, ProcessLookupError):
    return False


class ProcessTest(absltest.TestCase):
  def start(self):
    worker = process.Process("rstar_jax.sandbox.zygote", _OPTIONS, ("-P",), {})
    self.addCleanup(worker.kill)
    return worker

  def test_messages(self):
    worker = self.start()
    self.assertEqual(worker.greeting, {})
    worker.send(["run", 0, [["print(5)"], ["print(6)"]]])
    for line in ("5\n", "6\n"):
      self.assertEqual(worker.receive(100), "step")
      self.assertEqual(worker.receive(100)[:2], ["ok", line])
    # It leads a session, so that signals of a terminal do not reach it.
    self.assertEqual(os.getsid(worker.pid), worker.pid)

  def test_deadline(self):
    worker = self.start()
    with self.assertRaises(TimeoutError):
      worker.receive(0.01)

  def test_end_is_noticed(self):
    worker = self.start()
    os.kill(worker.pid, signal.SIGKILL)
    with self.assertRaises(process.Gone):
      worker.receive(100)
    worker.kill()
    worker.kill_tree()  # Its pid may be reused.

  def test_kill_reaches_what_left_the_session(self):
    worker = self.start()
    steps = ["import os, time; os.setsid(); time.sleep(300)"]
    worker.send(["run", 0, [steps]])
    self.assertEqual(worker.receive(100), "step")
    children = []
    while not children:
      children = process._descendants(worker.pid)
    worker.kill()
    for pid in children:
      while _alive(pid):  # A kill takes effect when its target is scheduled.
        time.sleep(0.01)

  def test_path_of(self):
    """Only folders that hold a package named, and no other of `sys.path`."""
    folder = self.create_tempdir()
    folder.create_file("deps/some_package/__init__.py", "raise SystemExit")
    folder.create_file("deps/other_package/__init__.py")
    folder.create_file("project/module.py")
    deps, project = f"{folder.full_path}/deps", f"{folder.full_path}/project"
    with mock.patch.object(sys, "path", [project, deps, *sys.path]):
      found = process.path_of(("some_package", "other_package", "no_such"))
    self.assertEqual(found, [deps])

  def test_imports_from_the_path_last(self):
    folder = self.create_tempdir()
    folder.create_file("own_module.py", "x = 5")
    folder.create_file("colorsys.py", "raise SystemExit('not of the library')")
    options = {**_OPTIONS, "without": confinement.LAYERS}
    worker = process.Process(
      "rstar_jax.sandbox.zygote", options, ("-P",), {}, [folder.full_path]
    )
    self.addCleanup(worker.kill)
    step = "import colorsys, own_module; print(own_module.x)"
    worker.send(["run", 0, [[step]]])
    self.assertEqual(worker.receive(100), "step")
    self.assertEqual(worker.receive(100)[:2], ["ok", "5\n"])

  def test_failed_start_says_so(self):
    with self.assertRaisesRegex(RuntimeError, "no_such did not start"):
      process.Process("rstar_jax.no_such", {}, ("-P",))

  def test_ends_with_the_thread_that_started_it(self):
    workers = []
    thread = threading.Thread(target=lambda: workers.append(self.start()))
    thread.start()
    thread.join()
    with self.assertRaises(process.Gone):
      workers[0].receive(100)

  def test_a_frame_is_its_length_and_json(self):
    self.assertEqual(
      wire.frame([1, "\u00e9"]), b'\x00\x00\x00\x0d[1, "\\u00e9"]'
    )


if __name__ == "__main__":
  absltest.main()
