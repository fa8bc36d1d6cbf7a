"""Tests of the clock and the list of programs."""

import time

from absl.testing import absltest

from rstar_jax.inference.weights import Busy, Programs


class WeightsTest(absltest.TestCase):
  def test_busy_counts_overlap_once(self):
    times = iter([10.0, 17.0, 20.0, 23.0])
    clock, time.perf_counter = time.perf_counter, lambda: next(times)
    try:
      busy = Busy()
      with busy, busy:
        self.assertEqual(busy.seconds, 0)
      self.assertEqual(busy.seconds, 7)
      with busy:
        pass
    finally:
      time.perf_counter = clock
    self.assertEqual(busy.seconds, 10)

  def test_programs_are_logged_once(self):
    programs = Programs("expansion")
    with self.assertLogs("absl", "INFO") as logs:
      for path in (128, 256, 128):
        programs.call("prefill", rows=8, path=path)
    self.assertEqual(
      programs.shapes, [("prefill", 8, 128), ("prefill", 8, 256)]
    )
    self.assertEqual(programs.calls, 3)
    self.assertLen(logs.output, 2)
    self.assertIn(
      "expansion program 2: prefill of 8 rows, 256 path", logs.output[1]
    )


if __name__ == "__main__":
  absltest.main()
