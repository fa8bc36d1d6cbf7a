"""Tests of the clock of a device."""

import time

from absl.testing import absltest

from rstar_jax.inference.busy import Busy


class BusyTest(absltest.TestCase):
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


if __name__ == "__main__":
  absltest.main()
