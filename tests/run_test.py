"""The runner: what it counts, and that it cannot pass by mistake."""

import contextlib
import io
import os
import pathlib
import signal
import subprocess
import sys
import time
import unittest
from unittest import mock

from absl.testing import absltest, parameterized

from tests import run
from tests.report import browser

HEAD = """
import sys, time
from absl.testing import absltest as unittest
class Case(unittest.TestCase):
"""
TAIL = """
if __name__ == "__main__":
  unittest.main()
"""
PASS = "  def test_good_{}(self): pass\n"
FAIL = "  def test_bad(self): self.assertEqual(2 + 2, 5, 'a sum')\n"
ERROR = "  def test_worse(self): raise OSError('gone')\n"
SKIP = "  def test_later(self): self.skipTest('not here')\n"
SUBTESTS = """
  def test_parts(self):
    for i in range(3):
      with self.subTest(i): self.assertEqual(i, -1)
"""


class RunTest(parameterized.TestCase):
  def run_files(
    self, skips: int | None = None, leave_out=(), **files: str
  ) -> tuple[int, list[str]]:
    """Runs files of the given texts; returns status and lines printed."""
    root = pathlib.Path(self.create_tempdir().full_path)
    for name, text in files.items():
      path = root / "tests" / "part" / f"{name}_test.py"
      path.parent.mkdir(parents=True, exist_ok=True)
      path.write_text(text)
      # A package, or another `tests` on the path would come first.
      for folder in (path.parent, path.parent.parent):
        (folder / "__init__.py").touch()
    with contextlib.redirect_stdout(io.StringIO()) as out:
      status = run.run(root, [], 2, skips, leave_out)
    return status, out.getvalue().splitlines()

  @parameterized.named_parameters(
    ("pass", [PASS.format(1), PASS.format(2)], 0, "2 passed, 0 failed"),
    ("fail", [PASS.format(1), FAIL], 1, "1 passed, 1 failed"),
    ("both", [PASS.format(1), FAIL, ERROR], 1, "1 passed, 2 failed"),
    ("skip", [PASS.format(1), SKIP], 0, "1 passed, 0 failed, 1 skipped"),
    ("only skip", [SKIP], 1, "0 passed, 0 failed, 1 skipped"),
    ("subtests", [SUBTESTS], 1, "0 passed, 3 failed"),
    ("no test", ["  pass\n"], 1, "0 passed, 1 failed"),
  )
  def test_counts(self, bodies, status, last):
    text = HEAD + "".join(bodies) + TAIL
    got, lines = self.run_files(one=text)
    self.assertEqual((got, lines[-1]), (status, last))

  @parameterized.named_parameters(
    ("import", "import no_such_module_here\n", "before its tests"),
    ("no main", HEAD + PASS.format(1), "before its tests"),
    ("exit", "import os; os._exit(0)\n", "before its tests"),
    (
      "crash after",
      HEAD + PASS.format(1) + "import atexit, os\n"
      "atexit.register(os._exit, 3)\n" + TAIL,
      "status 3 after its tests",
    ),
  )
  def test_a_file_that_does_not_finish_fails(self, text, note):
    status, lines = self.run_files(one=text)
    self.assertEqual(status, 1)
    self.assertIn(note, lines[0])
    self.assertIn("1 failed", lines[-1])

  def test_adds_files_and_shows_only_failures(self):
    good = HEAD + "  def test_a(self): print('quiet please')\n" + TAIL
    bad = HEAD + FAIL + TAIL
    status, lines = self.run_files(good=good, bad=bad)
    self.assertEqual(status, 1)
    self.assertEqual(lines[-1], "1 passed, 1 failed")
    output = "\n".join(lines)
    self.assertIn("a sum", output)
    self.assertNotIn("quiet please", output)
    self.assertRegex(
      output, r"ok +[\d.]+ s +[\d.]+ s cpu +1 tests  tests/part/good_test.py"
    )

  def test_skips_are_counted_by_reason_and_limited(self):
    text = HEAD + PASS.format(1) + SKIP + SKIP.replace("later", "never") + TAIL
    for skips, wanted in ((None, 0), (2, 0), (1, 1)):
      status, lines = self.run_files(skips, one=text)
      self.assertEqual(status, wanted)
      self.assertIn("skipped 2: not here", lines)

  def test_skips_for_want_of_a_browser_are_allowed(self):
    with (
      mock.patch.object(browser.shutil, "which", return_value=None),
      self.assertRaises(unittest.SkipTest) as told,
    ):
      browser.start(pathlib.Path("profile"))
    wanting = SKIP.replace("not here", str(told.exception))
    text = HEAD + PASS.format(1) + wanting
    for more, wanted in (("", 0), (SKIP.replace("later", "never"), 1)):
      status, lines = self.run_files(0, one=text + more + TAIL)
      self.assertEqual(status, wanted)
      self.assertIn(f"skipped 1: {told.exception}", lines)
    script = (run.ROOT / ".ci" / "run").read_text()
    self.assertIn("ARGS=--skips=0\n", script)

  def test_what_is_left_out_is_named(self):
    text = HEAD + PASS.format(1) + TAIL
    _, lines = self.run_files(leave_out=("part/b",), a=text, b=text)
    self.assertEqual(lines[-1], "1 passed, 0 failed; left out: part/b")

  def test_a_file_that_is_alone_shares_nothing(self):
    text = "import sys\n" + HEAD
    text += "  def test_a(self): self.assertNotIn('tests.run', sys.modules)\n"
    with mock.patch.object(run, "ALONE", ("part/one",)):
      self.assertEqual(self.run_files(one=text + TAIL)[0], 0)

  def test_no_file_is_a_failure(self):
    self.assertEqual(self.run_files(), (1, ["0 passed, 0 failed"]))

  def test_a_file_that_hangs_is_killed(self):
    text = HEAD + "  def test_a(self): time.sleep(600)\n" + TAIL
    with mock.patch.object(run, "TIMEOUT", 0.5):
      status, lines = self.run_files(one=text)
    self.assertEqual((status, lines[-1]), (1, "0 passed, 1 failed"))
    self.assertIn("no end after", lines[0])

  def test_a_process_left_behind_does_not_hold_the_run(self):
    leave = "import subprocess; subprocess.Popen(['sleep', '600'])"
    text = HEAD + f"  def test_a(self): {leave}\n" + TAIL
    with mock.patch.object(run, "TIMEOUT", 60.0):
      self.assertEqual(self.run_files(one=text)[1][-1], "1 passed, 0 failed")

  def test_ending_it_ends_the_tests(self):
    root = pathlib.Path(self.create_tempdir().full_path)
    mark = root / "mark"
    (root / "tests").mkdir()
    (root / "tests" / "__init__.py").touch()
    text = f"import os; open({str(mark)!r}, 'w').write(str(os.getpid()))\n"
    text += "import time; time.sleep(600)\n"
    (root / "tests" / "a_test.py").write_text(text)
    program = (
      "import pathlib, sys; from tests import run\n"
      f"run.ROOT = pathlib.Path({str(root)!r}); sys.exit(run.main())\n"
    )
    runner = subprocess.Popen([sys.executable, "-c", program], cwd=run.ROOT)
    while not (mark.exists() and mark.read_text()):
      self.assertIsNone(runner.poll())
      time.sleep(0.01)
    runner.terminate()
    self.assertEqual(runner.wait(), 128 + signal.SIGTERM)
    # Killed, it stays a process until its parent has waited for it.
    with contextlib.suppress(ProcessLookupError):
      for _ in range(1000):
        os.kill(int(mark.read_text()), 0)
        time.sleep(0.01)
      self.fail("the test's process is still there")

  def test_words_choose_files(self):
    root = pathlib.Path(self.create_tempdir().full_path)
    for name in ("tests/a/x_test.py", "tests/b/y_test.py", "tests/b/y.py"):
      path = root / name
      path.parent.mkdir(parents=True, exist_ok=True)
      path.touch()
    names = [each.name for each in run.discover(root, [])]
    self.assertEqual(names, ["x_test.py", "y_test.py"])
    names = [each.name for each in run.discover(root, ["b/"])]
    self.assertEqual(names, ["y_test.py"])


if __name__ == "__main__":
  absltest.main()
