"""What is logged goes to a file, and to people if it is grave."""

import pathlib
import subprocess
import sys

from absl.testing import absltest

_PROGRAM = """
import pathlib, sys
from absl import app, logging
from rstar_jax.storage import logs

def main(argv):
  with logs.to_file(pathlib.Path(argv[1]), quiet=argv[2] == "quiet"):
    logging.info("of %d rows", 7)
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
    self.assertLen(lines, 2)
    self.assertRegex(lines[0], r"^\d{4}-\d\d-\d\d .* INFO <?\w+.*of 7 rows$")
    self.assertRegex(lines[1], r" WARNING .*\] no verdict$")
    first, last = said.splitlines()
    self.assertEqual(first, "WARNING: no verdict")
    # Afterwards all is as it was.
    self.assertRegex(last, r"^W\d{4} .*\] later$")

  def test_not_quiet(self):
    said, _ = self.run_program("loud")
    self.assertRegex(said, r"(?m)^W\d{4} .*\] no verdict$")


if __name__ == "__main__":
  absltest.main()
