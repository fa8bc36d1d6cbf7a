"""Tests of structures and of the clock."""

import time

import jax
import numpy as np
from absl.testing import absltest

from rstar_jax.inference.weights import Busy, Weights
from tests.inference import small


class WeightsTest(absltest.TestCase):
  def test_equal_models_share_one_structure(self):
    one, other = Weights(small.model()), Weights(small.model(seed=8))
    # So that programs of one are those of the other, without a comparison.
    self.assertIs(one.structure, other.structure)
    self.assertIsNot(one.structure, Weights(small.model("tanh")).structure)
    merged = Weights(one.structure.merge(other.params))
    self.assertIs(merged.structure, one.structure)
    jax.tree.map(np.testing.assert_array_equal, merged.params, other.params)

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
