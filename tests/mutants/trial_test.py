"""Mutants of a tree of two files, tried by its tests."""

import contextlib
import dataclasses
import json
import pathlib
from unittest import mock

from absl.testing import absltest

from tests.mutants import changes, trial, watch

CODE = """
def larger(a, b):
  if a > b:
    return a
  return b

def halves(n):
  count = 0
  while n > 1:
    n //= 2
    count += 1
  return count

def unseen(a):
  return a + 1
"""
TESTS = """
import time
from absl.testing import absltest
import sums
class SlowTest(absltest.TestCase):
  def test_slow(self):
    time.sleep(0.2)
    self.assertEqual(sums.larger(2, 1), 2)
class QuickTest(absltest.TestCase):
  def test_larger(self):
    self.assertEqual(sums.larger(1, 2), 2)
    self.assertEqual(sums.larger(3, 2), 3)
  def test_halves(self):
    self.assertEqual(sums.halves(9), 3)
if __name__ == "__main__":
  absltest.main()
"""
PATH = "tests/sums_test.py"


class TrialTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    self.tree = pathlib.Path(self.create_tempdir().full_path)
    (self.tree / "tests").mkdir()
    (self.tree / "tests" / "__init__.py").touch()
    (self.tree / "sums.py").write_text(watch.with_probes("sums.py", CODE))
    (self.tree / PATH).write_text(TESTS)
    out = self.tree / "notes.json"
    job = {"out": str(out)}
    status, output = trial.run_file(self.tree, PATH, job, 60)
    self.assertEqual(status, 0, output)
    trial.write(self.tree / "sums.py", CODE.encode())
    self.notes = {PATH: json.loads(out.read_text()) | {"wall": 0.5}}

  def outcomes(self, *names):
    """Returns (outcome, by) of each mutant with one of these names."""
    found = {
      each.name.partition(" ")[2]: each for each in changes.of("sums.py", CODE)
    }
    mutants = [found[name] for name in names]
    steps = {e.name: trial.plan(e, self.notes, False) for e in mutants}
    texts = {"sums.py": CODE.encode()}
    results = dict(trial.run(texts, [self.tree], mutants, steps))
    self.assertEqual((self.tree / "sums.py").read_text(), CODE)
    return [(results[e].outcome, results[e].by) for e in mutants]

  def test_lines_are_noted_by_case(self):
    lines = {
      case.rpartition(".")[2]: found.get("sums.py", [])
      for case, found in self.notes[PATH]["lines"].items()
    }
    self.assertEqual(lines["test_slow"], [3, 4])
    self.assertEqual(lines["test_larger"], [3, 4, 5])
    self.assertEqual(lines["test_halves"], [8, 9, 10, 11, 12])
    self.assertEqual(lines[watch.OUTSIDE], [2, 7, 14])
    self.assertGreater(
      self.notes[PATH]["seconds"]["__main__.SlowTest.test_slow"], 0.2
    )

  def test_outcomes(self):
    with mock.patch.object(trial, "_SECONDS", 2.0):
      found = self.outcomes(
        "larger comparison: a > b -> a <= b",
        "larger boundary: a > b -> a >= b",
        "unseen operator: a + 1 -> a - 1",
        "halves operator: n //= 2 -> n *= 2",
      )
    self.assertEqual(
      found,
      [
        ("killed", f"{PATH} test_larger"),
        ("survived", ""),
        ("survived", ""),
        ("late", f"{PATH} status None"),
      ],
    )

  def test_the_quickest_case_that_runs_the_line_is_first(self):
    (mutant,) = [
      each for each in changes.of("sums.py", CODE) if "a <= b" in each.after
    ]
    (step,) = trial.plan(mutant, self.notes, False)
    cases = {each.rpartition(".")[2] for each in step.job["first"]}
    self.assertEqual(cases, {"test_slow", "test_larger"})

  def test_processes_are_its_own_and_end_with_it(self):
    if not trial.isolates():
      self.skipTest("no namespaces here")
    code = """
import os, pathlib, subprocess, time
left = subprocess.Popen(["sleep", "98765"], start_new_session=1)
seen = [each for each in os.listdir("/proc") if each.isdigit()]
pathlib.Path("seen").write_text(" ".join(seen))
raise SystemExit(3)
"""
    mutant = changes.Mutant(
      *("sums.py", "", "call", "a", "b", 0, 1), (0, 0), code, (2, 2)
    )
    steps = {mutant.name: trial.plan(mutant, self.notes, False)}
    ((_, result),) = trial.run({"sums.py": b""}, [self.tree], [mutant], steps)
    self.assertEqual(result.outcome, "killed")
    # The first of the namespace, the test, and what it started.
    self.assertLen((self.tree / "seen").read_text().split(), 3)
    for path in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
      with contextlib.suppress(OSError):
        self.assertNotIn(b"98765", path.read_bytes())


class PlanTest(absltest.TestCase):
  def test_files_that_run_the_line_come_first(self):
    lines = {"a.py": [5]}
    outside = {"lines": {"": lines}, "seconds": {"x": 0.0}, "wall": 0.1}
    within = {"lines": {"": {}, "y": lines}, "seconds": {"y": 2.0}, "wall": 3.0}
    quick = {"lines": {"z": lines}, "seconds": {"z": 1.0}, "wall": 1.5}
    other = {"lines": {"": {}}, "seconds": {"u": 0.0}, "wall": 0.0}
    notes = {"1": outside, "2": within, "3": quick, "4": other}
    mutant = changes.Mutant(
      *("a.py", "", "name", "a", "b", 0, 4), (0, 0), "b", (4, 6)
    )
    found = trial.plan(mutant, notes, False)
    self.assertEqual([each.path for each in found], ["3", "2", "1"])
    found = trial.plan(dataclasses.replace(mutant, lines=(7, 9)), notes, False)
    self.assertCountEqual([each.path for each in found], "1234")
    found = trial.plan(mutant, notes, True)
    self.assertEqual([each.path for each in found], ["3", "2", "1", "4"])
    self.assertEqual(found[1].job["first"], ["y"])


if __name__ == "__main__":
  absltest.main()
