"""Two processes in one folder."""

import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
from unittest import mock

from absl.testing import absltest

from rstar_jax.storage import alone, layout
from tests import full_disk

_WORKS = """
import pathlib, sys, time
from rstar_jax.storage import alone
with alone.alone(pathlib.Path(sys.argv[1])):
  print("works", flush=True)
  time.sleep(60)
"""


class AloneTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    self.folder = pathlib.Path(self.create_tempdir().full_path) / "run"
    self.file = self.folder / layout.AT_WORK

  def works(self, **options) -> bool:
    with alone.alone(self.folder, **options):
      found = json.loads(self.file.read_text())
      self.assertEqual(found["pid"], os.getpid())
    self.assertFalse(self.file.exists())
    return True

  def test_a_full_disk_is_said_with_the_file(self):
    with (
      self.assertRaisesRegex(OSError, f"^{self.file} cannot be written"),
      full_disk.full(0),
      alone.alone(self.folder),
    ):
      self.fail("nothing says who is at work")
    self.assertTrue(self.works())

  def test_a_folder_that_cannot_be_made_is_said_with_what_to_do(self):
    self.folder.touch()
    for folder, why in (
      (self.folder / "run", "Not a directory"),
      (self.folder, "File exists"),
    ):
      said = rf"^{folder} cannot be written \({why}\): give a --workdir"
      with self.assertRaisesRegex(OSError, said), alone.alone(folder):
        self.fail("nothing can be written there")

  def other(self) -> subprocess.Popen:
    """Starts a process that works in the folder."""
    process = subprocess.Popen(
      [sys.executable, "-c", _WORKS, str(self.folder)],
      cwd=pathlib.Path(alone.__file__).parents[2],
      stdout=subprocess.PIPE,
    )
    self.addCleanup(process.wait)
    self.addCleanup(process.kill)
    self.assertEqual(process.stdout.readline(), b"works\n")
    self.addCleanup(process.stdout.close)
    return process

  def test_a_second_process_is_told_who_works(self):
    self.assertTrue(self.works())
    process = self.other()
    wanted = f"^PID {process.pid} on {socket.gethostname()} works in "
    with self.assertRaisesRegex(ValueError, wanted + f"{self.folder} since .*"):
      self.works()
    # What is killed leaves its file, and is no obstacle.
    process.send_signal(signal.SIGKILL)
    process.wait()
    self.assertTrue(self.file.exists())
    self.assertTrue(self.works())

  def test_another_machine_may_be_gone(self):
    self.other()
    with mock.patch.object(socket, "gethostname", return_value="elsewhere"):
      with self.assertRaisesRegex(ValueError, f"remove {self.file} if that"):
        self.works(seconds=0.0)
      self.file.unlink()
      self.assertTrue(self.works())

  def test_a_file_of_rubbish(self):
    self.folder.mkdir()
    self.file.write_text("[")
    self.assertTrue(self.works())

  def test_no_locks(self):
    with mock.patch.object(alone.fcntl, "lockf", side_effect=OSError(38, "")):
      self.assertTrue(self.works())


if __name__ == "__main__":
  absltest.main()
