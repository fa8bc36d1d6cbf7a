"""The controls' values: by identity, uniform, and by the number of steps."""

import numpy as np
from absl.testing import absltest

import rstar_jax as rj
from benchmarks import controls

_END = "print(a)<end_of_code>\n<output>1<end_of_output>"


class ChanceTest(absltest.TestCase):
  def test_a_step_has_one_value_wherever_it_is_met(self):
    score = controls.chance(rj.Config(seed=3))
    first, second = score(["q", "r"], [("a",), ()], [["b", "c"], ["b"]])
    (again,) = score(["q"], [("a",)], [["c", "b"]])
    np.testing.assert_array_equal(first, again[::-1])
    (other,) = controls.chance(rj.Config(seed=4))(["q"], [("a",)], [["b"]])
    # Another path, another question, another seed.
    values = [*first, *second, *other, *score(["r"], [("a",)], [["b"]])[0]]
    self.assertLen(set(values), 5)

  def test_values_are_uniform(self):
    steps = [str(i) for i in range(4000)]
    (values,) = controls.chance(rj.Config())(["q"], [()], [steps])
    self.assertEqual(values.dtype, np.float32)
    # Within five standard errors of a uniform draw's quartiles.
    for edge, share in ((-0.5, 0.25), (0, 0.5), (0.5, 0.75)):
      error = 5 * np.sqrt(share * (1 - share) / 4000)
      self.assertBetween(np.mean(values < edge), share - error, share + error)
    self.assertBetween(np.abs(values).max(), 0.99, 1)


class BrevityTest(absltest.TestCase):
  def test_fewer_steps_are_better(self):
    score = controls.brevity(rj.Config())
    prefixes = [(), ("a",), ("a", "b"), ("a", "b", _END), ("x",) * 20]
    steps = [[_END, "a", "c"], [_END, "b"], [_END], ["<answer>"], ["y"]]
    rows = score(["q"] * 5, prefixes, steps)
    (one, *two), (two_ended, three), (three_ended,), (answered,), (many,) = rows
    # One step, then two, then three, whatever is drawn: sixteenths of [-1, 1].
    self.assertBetween(one, 1 - 1 / 8, 1)
    for value in (*two, two_ended):
      self.assertBetween(value, 1 - 2 / 8, 1 - 1 / 8)
    for value in (three, three_ended, answered):
      self.assertBetween(value, 1 - 3 / 8, 1 - 2 / 8)
    self.assertEqual(many, -1)
    self.assertLen({*two, two_ended}, 3)


if __name__ == "__main__":
  absltest.main()
