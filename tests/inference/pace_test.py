import numpy as np
from absl.testing import absltest

from rstar_jax.inference.pace import Pace


class PaceTest(absltest.TestCase):
  def test_begins_with_the_most(self):
    pace = Pace(6)
    self.assertEqual(pace.steps(40), 6)
    pace.add(1.0, 1000.0, 4)
    self.assertEqual(pace.steps(0), 6)
    self.assertEqual(pace.steps(40), 1)

  def test_loses_least(self):
    host, step, length = 0.003, 0.011, 30.0
    pace = Pace(64)
    pace.add(host, 5 * step, 5)
    steps = np.arange(1, 65)
    lost = host / (steps * step) + (steps - 1) / (2 * length)
    self.assertEqual(pace.steps(length), steps[np.argmin(lost)])
    self.assertEqual(Pace(3).steps(length), 3)

  def test_one_slow_call_changes_nothing(self):
    pace = Pace(64)
    for seconds in (90.0, 0.02, 0.02, 0.02, 70.0):
      pace.add(0.001, seconds, 2)
    # sqrt(2 * 45 * 0.001 / 0.01) = 3
    self.assertEqual(pace.steps(45), 3)
    # What is long ago is forgotten.
    for _ in range(9):
      pace.add(0.001, 0.2, 2)
    self.assertEqual(pace.steps(45), 1)


if __name__ == "__main__":
  absltest.main()
