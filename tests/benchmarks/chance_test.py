"""The control's values: by identity, and uniform."""

import numpy as np
from absl.testing import absltest

import rstar_jax as rj
from benchmarks import chance


class ChanceTest(absltest.TestCase):
  def test_a_step_has_one_value_wherever_it_is_met(self):
    score = chance.make(rj.Config(seed=3))
    first, second = score(["q", "r"], [("a",), ()], [["b", "c"], ["b"]])
    (again,) = score(["q"], [("a",)], [["c", "b"]])
    np.testing.assert_array_equal(first, again[::-1])
    (other,) = chance.make(rj.Config(seed=4))(["q"], [("a",)], [["b"]])
    # Another path, another question, another seed.
    values = [*first, *second, *other, *score(["r"], [("a",)], [["b"]])[0]]
    self.assertLen(set(values), 5)

  def test_values_are_uniform(self):
    steps = [str(i) for i in range(4000)]
    (values,) = chance.make(rj.Config())(["q"], [()], [steps])
    self.assertEqual(values.dtype, np.float32)
    # Within five standard errors of a uniform draw's quartiles.
    error = 5 * np.sqrt(0.25 * 0.75 / 4000)
    for edge, share in ((-0.5, 0.25), (0, 0.5), (0.5, 0.75)):
      self.assertBetween(
        np.mean(values < edge), share - error * 1.2, share + error * 1.2
      )
    self.assertBetween(np.abs(values).max(), 0.99, 1)


if __name__ == "__main__":
  absltest.main()
