"""Pools of scripts, which run as programs of their own and may be killed."""

import fcntl
import os
import pathlib
import signal
import subprocess
import sys
import time

from absl.testing import absltest

ROOT = pathlib.Path(__file__).resolve().parents[2]
# Without `if __name__ == "__main__"`.
SCRIPT = """
import sys
import held
from rstar_jax.pipeline import processes

print("once", __file__, flush=True)
with processes.pool(2) as pool:
  found = list(pool.map(abs, [-3, 5]))
  modules = pool.submit(held.modules).result()
  print(found, modules, __spec__, __file__, flush=True)
  list(pool.map(held.hold, sys.argv[1:]))
"""
HELD = """
import fcntl, os, sys, time

def modules():
  return [name for name in ("jax", "script") if name in sys.modules]

def hold(path):
  with open(path, "w") as file:
    fcntl.flock(file, fcntl.LOCK_EX)
    print(os.getpid(), file=file, flush=True)
    time.sleep(600)
"""


class PoolTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    self.folder = pathlib.Path(self.create_tempdir().full_path)
    self.script = self.folder / "script.py"
    self.script.write_text(SCRIPT)
    (self.folder / "held.py").write_text(HELD)

  def start(self, *arguments) -> subprocess.Popen:
    with (self.folder / "out").open("w") as out:
      started = subprocess.Popen(
        [sys.executable, self.script, *arguments],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=out,
        stderr=subprocess.STDOUT,
      )
    self.addCleanup(started.wait)
    self.addCleanup(started.kill)
    return started

  def wait_until(self, done) -> bool:
    """Returns whether it was done within two minutes."""
    end = time.monotonic() + 120
    while not done():
      if time.monotonic() > end:
        return False
      time.sleep(0.01)
    return True

  def test_a_script_runs_once(self):
    self.assertEqual(self.start().wait(300), 0)
    self.assertEqual(
      (self.folder / "out").read_text(),
      f"once {self.script}\n[3, 5] [] None {self.script}\n",
    )

  def test_no_process_outlives_the_one_that_is_killed(self):
    paths = [self.folder / name for name in ("first", "second")]
    started = self.start(*paths)
    for path in paths:
      self.assertTrue(
        self.wait_until(lambda p=path: p.exists() and p.read_text())
      )
    started.kill()
    started.wait()

    def has_ended(path) -> bool:
      with path.open() as file:
        try:
          fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
          return False
        return True

    all_ended = self.wait_until(lambda: all(map(has_ended, paths)))
    for path in paths:
      if not has_ended(path):
        os.kill(int(path.read_text()), signal.SIGKILL)
    self.assertTrue(all_ended)


if __name__ == "__main__":
  absltest.main()
