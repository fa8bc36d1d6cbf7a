"""What others use while a program is measured, from a /proc made by hand."""

import itertools
import os
import pathlib
from unittest import mock

from absl.testing import absltest, parameterized

from benchmarks import meter


class MeterTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.proc = pathlib.Path(self.create_tempdir().full_path)
    (self.proc / "self").mkdir()
    self.enter_context(mock.patch.object(meter, "_PROC", self.proc))
    self.enter_context(mock.patch.object(meter, "_HZ", 10))

  def machine(self, user, nice, system):
    """Writes seconds of all processes; 5 s of interrupts, 1000 s idle."""
    ticks = [10 * each for each in (user, nice, system, 1000, 40, 2, 3)]
    line = " ".join(map(str, ticks))
    (self.proc / "stat").write_text(f"cpu  {line} 0 0 0\ncpu0 {line} 0 0 0\n")

  def process(self, pid, parent, *seconds):
    """Writes a process's seconds: user, system, and of ended children."""
    (self.proc / str(pid)).mkdir(exist_ok=True)
    ticks = " ".join(str(10 * each) for each in seconds)
    (self.proc / str(pid) / "stat").write_text(
      f"{pid} (a ) 1 b) S {parent} 1 1 0 -1 4194304 9 9 9 9 {ticks} 20 0 1\n"
    )

  @parameterized.parameters(
    # In 10 s all normal programs compute 30 s and nice ones 50 s; the system
    # works 20 s. Of it the program, its child and its ended ones compute 14 s
    # and have the system work 6 s.
    (0, (20 + 30 - 14 - 6) / 10, 50 / 10),
    (5, (20 + 30 - 6) / 10, (50 - 14) / 10),
  )
  def test_what_others_use(self, nice, foreign, niced):
    self.machine(100, 200, 300)
    self.process(1, 0, 50, 50, 0, 0)
    self.process(7, 1, 10, 20, 30, 40)
    self.process(8, 7, 1, 1, 0, 0)
    self.process(9, 1, 0, 0, 0, 0)
    with (
      mock.patch.object(
        meter.time, "perf_counter", itertools.count(0, 10).__next__
      ),
      mock.patch.object(os, "getpriority", return_value=nice) as asked,
    ):
      with meter.measure(7) as load:
        self.machine(130, 250, 320)
        self.process(7, 1, 14, 21, 33, 42)
        self.process(8, 7, 8, 4, 0, 0)
        self.process(9, 1, 9, 9, 9, 9)
    asked.assert_called_with(os.PRIO_PROCESS, 7)
    self.assertEqual(load.seconds, 10.0)
    self.assertAlmostEqual(load.cores, 2.0)
    self.assertAlmostEqual(load.foreign, foreign)
    self.assertAlmostEqual(load.niced, niced)


if __name__ == "__main__":
  absltest.main()
