"""Tests of when a step ends, by hand."""

import math

from absl.testing import absltest, parameterized

from rstar_jax.inference.generated import (
  LOST,
  Generated,
  Stop,
  check_request,
)


class GeneratedTest(parameterized.TestCase):
  def test_logprob_is_that_of_the_whole_step(self):
    self.assertEqual(Generated((4, 7), (-0.5, -1.25), 7).logprob, -1.75)
    self.assertEqual(Generated((), (), LOST).logprob, 0)

  @parameterized.parameters(
    # Stop ids end a step wherever they are, those before it do not.
    ([7, 1, 2], False),
    ([0, 1, 7], True),
    ([0, 7], True),
    # The third token is the last.
    ([0, 1, 2, 3], True),
    # A word ends a step with the token after it, and lies within the step.
    ([0, 5, 6], False),
    ([0, 5, 6, 3], True),
    ([5, 6, 3], False),
  )
  def test_a_step_ends(self, ids, ends):
    stop = Stop(3, frozenset([7]), ((5, 6),))
    self.assertEqual(stop.ends(ids, start=1), ends)

  def test_a_word_ends_a_step_before_its_limit(self):
    stop = Stop(9, words=((5, 6), (8,)))
    self.assertTrue(stop.ends([0, 1, 5, 6, 3], 1))
    self.assertFalse(stop.ends([0, 5, 6, 3], 2))
    self.assertTrue(stop.ends([0, 8, 3], 1))

  @parameterized.parameters(
    ([], 3, 0.5, "the prefix is empty"),
    ([1], 0, 0.5, "limit=0 is not in 1..3"),
    ([1], 4, 0.5, "limit=4 is not in 1..3"),
    ([1], 3, -0.1, "temperature=-0.1 is not 0 or above"),
    ([1], 3, math.inf, "temperature=inf"),
    ([1], 3, math.nan, "temperature=nan"),
  )
  def test_what_cannot_be_sampled(self, prefix, limit, temperature, words):
    with self.assertRaisesRegex(ValueError, words):
      check_request(prefix, Stop(limit), 3, temperature)
    check_request([1], Stop(3), 3, 0.0)


if __name__ == "__main__":
  absltest.main()
