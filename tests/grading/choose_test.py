"""The choice of an answer, by hand and against counting."""

import collections
import itertools

import hypothesis
import numpy as np
from absl.testing import absltest, parameterized
from hypothesis import strategies as st

from rstar_jax.grading import choose

NAN = float("nan")


def same(text):
  return text


class ChooseTest(parameterized.TestCase):
  @parameterized.parameters(
    ([0.1, 0.9, -0.2], 1),
    ([-0.9, -0.3], 1),
    ([0.5, 0.7, 0.7], 1),
    ([None, NAN, -1.0], 2),
    ([None, NAN], None),
    ([], None),
  )
  def test_best(self, values, index):
    self.assertEqual(choose.best(values), index)

  @parameterized.parameters(
    (["3", "5", "5"], 1),
    # A tie goes to the group that came first; None never votes.
    (["3", "5", "5", "3"], 0),
    ([None, None, "7"], 2),
    ([None], None),
    ([], None),
  )
  def test_majority(self, answers, index):
    self.assertEqual(choose.majority(answers, same), index)

  def test_equal_answers_are_grouped_by_key(self):
    answers = ["3", "0.50", "1/2", "3"]
    value = {"3": 3.0, "0.50": 0.5, "1/2": 0.5}
    self.assertEqual(choose.majority(answers, value.__getitem__), 0)
    self.assertEqual(choose.majority(answers[1:], value.__getitem__), 0)

  def test_the_default_key_is_a_value_or_a_normal_form(self):
    self.assertEqual(choose.majority(["7", " 5", "5.0", "9"]), 1)
    self.assertEqual(choose.majority(["7", "\\frac{1}{2}", "1/2"]), 1)
    self.assertEqual(choose.majority(["7", "x=5", "5"]), 1)
    self.assertEqual(choose.majority(["7", "2\\sqrt{3}", "2 \\sqrt{3}"]), 1)
    self.assertEqual(choose.majority(["7", "7.01", "7.1"]), 0)

  def test_weighted_by_hand(self):
    answers = ["3", "5", "5", None]
    # Weights .95 against .25 + .25, and then against .5 + .5.
    self.assertEqual(choose.weighted(answers, [0.9, -0.5, -0.5, 1.0], same), 0)
    self.assertEqual(choose.weighted(answers, [0.9, 0.0, 0.0, None], same), 1)
    # Of the winning answers the one of highest value, of equals the first.
    answers, values = ["5", "3", "5", "5"], [0.1, 0.9, 0.3, 0.3]
    self.assertEqual(choose.weighted(answers, values, same), 2)
    self.assertEqual(choose.weighted(["3", "5"], [None, -1.0], same), 1)
    self.assertIsNone(choose.weighted(["3"], [NAN], same))

  def test_one_more_vote_never_hurts(self):
    answers = ["3", "5"]
    self.assertEqual(choose.weighted(answers, [-0.1, -0.2], same), 0)
    self.assertEqual(
      choose.weighted([*answers, "3"], [-0.1, -0.2, -0.9], same), 0
    )

  def test_the_majority_of_the_highest(self):
    answers, values = ["5", "3", None, "3", "7"], [0.9, 0.2, 1.0, 0.5, NAN]
    # Of 1 the best; of 2 a tie, where the higher came first; of 3 two say 3, of
    # which the higher is shown.
    for k, chosen in ((1, 0), (2, 0), (3, 3), (9, 3)):
      self.assertEqual(choose.top_k(answers, values, k, same), chosen)
    self.assertIsNone(choose.top_k([None, "7"], [0.3, NAN], 2, same))

  @hypothesis.settings(max_examples=31, deadline=None)
  @hypothesis.given(
    st.lists(st.sampled_from(["a", "b", None]), max_size=4),
    st.integers(0, 3),
  )
  def test_settled_is_when_no_rest_can_matter(self, answers, left):
    def of(rest):
      found = [*answers, *rest]
      chosen = choose.majority(found, same)
      return None if chosen is None else found[chosen]

    outcomes = {
      of(rest) for rest in itertools.product(["a", "b", "c", None], repeat=left)
    }
    self.assertEqual(choose.settled(answers, left, same), len(outcomes) == 1)

  def test_how_far_the_first_is_ahead(self):
    # P(p > 1/2) of Beta(a + 1, b + 1), by hand: the integral of p^a (1 - p)^b.
    for votes, expected in (
      ((), 0.5),
      ((1,), 0.75),
      ((3,), 0.9375),
      ((2, 2), 0.5),
      # 12 p^2 (1 - p) from 1/2 to 1.
      ((1, 2), 0.6875),
      ((1, 2, 1), 0.6875),
    ):
      self.assertAlmostEqual(choose.ahead(votes), expected)
    p = (np.arange(10**5) + 0.5) / 10**5
    for a, b in ((5, 1), (7, 4)):
      density = p**a * (1 - p) ** b
      expected = density[p > 0.5].sum() / density.sum()
      self.assertAlmostEqual(choose.ahead((b, a)), expected, places=4)

  def test_certainty_wants_no_probability(self):
    votes = {"a": 60.0}
    self.assertEqual(choose.ahead(votes.values()), 1.0)
    self.assertFalse(choose.sure(votes, 100, 1.0))
    self.assertTrue(choose.sure(votes, 100, 0.9999))

  @hypothesis.settings(max_examples=31, deadline=None)
  @hypothesis.given(
    st.lists(st.sampled_from(["a", "b", None]), max_size=5),
    st.integers(1, 5),
    st.sampled_from([0.7, 0.9, 1.0]),
  )
  def test_the_fewest_that_may_settle_it(self, answers, left, confidence):
    def settles(count):
      return any(
        choose.settled([*answers, *rest], left - count, same, confidence)
        for rest in itertools.product(["a", "b", "c", None], repeat=count)
      )

    found = choose.fewest(answers, left, same, confidence)
    # What is settled already may be lost again.
    if not choose.settled(answers, left, same, confidence):
      self.assertEqual(
        [settles(n) for n in range(1, found)], [False] * (found - 1)
      )
      self.assertTrue(settles(found))

  def test_dispatch(self):
    answers, values = [None, "3", "5", "5"], [1.0, 0.9, 0.1, 0.2]
    self.assertEqual(choose.choose("best", answers, values, same), 1)
    self.assertEqual(choose.choose("majority", answers, values, same), 2)
    self.assertEqual(choose.choose("weighted", answers, values, same), 3)
    self.assertEqual(choose.choose("top_k", answers, values, same, k=3), 3)
    with self.assertRaisesRegex(ValueError, "answer_select='mean'"):
      choose.choose("mean", answers, values, same)

  @hypothesis.settings(max_examples=29, deadline=None)
  @hypothesis.given(st.lists(st.sampled_from("abc"), min_size=1, max_size=9))
  def test_majority_counts(self, answers):
    chosen = choose.majority(answers, same)
    counts = collections.Counter(answers)
    top = [a for a in answers if counts[a] == max(counts.values())]
    self.assertEqual(chosen, answers.index(top[0]))
    # Equal values make the weighted vote plain.
    even = choose.weighted(answers, [0.5] * len(answers), same)
    self.assertEqual(even, chosen)


if __name__ == "__main__":
  absltest.main()
