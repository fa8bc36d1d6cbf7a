"""Tests of structures."""

import jax
import numpy as np
from absl.testing import absltest

from rstar_jax.inference.weights import Weights
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


if __name__ == "__main__":
  absltest.main()
