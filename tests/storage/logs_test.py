"""What is logged goes to a file, and to people if it is grave."""

import contextlib
import io
import logging as std_logging
import os
import pathlib
import subprocess
import sys
from unittest import mock

from absl import logging
from absl.testing import absltest

from rstar_jax.storage import logs
from tests import full_disk

_PROGRAM = """
import pathlib, sys
from absl import app, logging
from rstar_jax.storage import logs

def main(argv):
  with logs.to_file(pathlib.Path(argv[1]), quiet=argv[2] == "quiet"):
    logging.info("of %d rows", 7)
    logging.info("a text \\x1b[2J")
    logging.warning("no verdict")
  logging.warning("later")

app.run(main)
"""


class LogsTest(absltest.TestCase):
  def run_program(self, word: str) -> tuple[str, list[str]]:
    path = pathlib.Path(self.create_tempdir().full_path) / "a" / "log.txt"
    said = subprocess.run(
      [sys.executable, "-c", _PROGRAM, str(path), word],
      capture_output=True,
      text=True,
      check=True,
    )
    return said.stderr, path.read_text().splitlines()

  def test_quiet(self):
    said, lines = self.run_program("quiet")
    self.assertLen(lines, 3)
    self.assertRegex(lines[0], r"^\d{4}-\d\d-\d\d .* INFO <?\w+.*of 7 rows$")
    self.assertEndsWith(lines[1], r"] a text \x1b[2J")
    self.assertRegex(lines[2], r" WARNING .*\] no verdict$")
    first, last = said.splitlines()
    self.assertEqual(first, "WARNING: no verdict")
    # Afterwards all is as it was.
    self.assertRegex(last, r"^W\d{4} .*\] later$")

  def test_not_quiet(self):
    said, _ = self.run_program("loud")
    self.assertRegex(said, r"(?m)^W\d{4} .*\] no verdict$")

  def test_a_full_disk_is_not_said_of_each_line(self):
    path = pathlib.Path(self.create_tempdir().full_path) / "log.txt"
    with (
      contextlib.redirect_stderr(io.StringIO()) as said,
      # Those of absl may write to a file too.
      mock.patch.object(std_logging.getLogger(), "handlers", []),
      logs.to_file(path),
      full_disk.full(0),
    ):
      logging.info("a line")
    self.assertEqual(said.getvalue(), "")

  def test_a_terminal_obeys_no_text(self):
    program = (
      "from absl import app, logging\n"
      "from rstar_jax.storage import logs\n"
      "def main(argv):\n"
      "  logs.to_terminal()\n"
      "  logging.warning('row %s', '\\x1b[2J')\n"
      "app.run(main)\n"
    )
    command = [sys.executable, "-c", program]
    said = subprocess.run(command, capture_output=True, text=True, check=True)
    self.assertRegex(said.stderr, r"^W\d{4} .*\] row \\x1b\[2J\n$")

  def test_a_terminal_hears_of_no_missing_tpu(self):
    program = (
      "from absl import app\n"
      "from rstar_jax.storage import logs\n"
      "def main(argv):\n"
      "  logs.to_terminal()\n"
      "  import jax\n"
      "  jax.devices('cpu')\n"
      "app.run(main)\n"
    )
    # Unset, so that jax looks for each kind of device.
    environment = {k: v for k, v in os.environ.items() if k != "JAX_PLATFORMS"}
    said = subprocess.run(
      [sys.executable, "-c", program],
      capture_output=True,
      text=True,
      check=True,
      env=environment,
    )
    self.assertNotIn("xla_bridge", said.stderr)


if __name__ == "__main__":
  absltest.main()
