"""Verbal answers."""

from absl.testing import absltest, parameterized

from rstar_jax.grading import verbal


class WordingTest(parameterized.TestCase):
  @parameterized.parameters(
    ("No solutions", r"\emptyset"),
    ("There are no real solutions.", r"\emptyset"),
    ("does not exist", "undefined"),
    ("DNE", "undefined"),
    ("All real numbers", r"\mathbb{R}"),
    ("Infinity", r"\infty"),
    ("infinitely many solutions", None),
    ("5", None),
  )
  def test_said(self, text, expected):
    self.assertEqual(verbal.phrase_to_latex(text), expected)

  @parameterized.parameters(
    ("Ellipse", "ellipse"),
    ("an ellipse.", "ellipse"),
    ("seven", "7"),
    ("Seven dwarfs", "seven dwarfs"),
    ("5x", None),
    (r"\pi", None),
    ("x", None),
    ("x+yes", None),
  )
  def test_words(self, text, expected):
    self.assertEqual(verbal.words(text), expected)

  def test_dates(self):
    self.assertEqual(verbal.words("June 4th"), verbal.words("4 June"))
    self.assertEqual(verbal.words("Jan 5"), verbal.words("January 5"))
    self.assertNotEqual(verbal.words("June 4"), verbal.words("July 4"))

  @parameterized.parameters(
    ("yes", "yes it is", True),
    ("yes", "yes and no", False),
    ("yes", "no", False),
    ("no such numbers", "no such number", True),
    ("yes it is", "yes it can be", False),
    ("odd", "even", False),
    ("increasing", "not increasing", False),
  )
  def test_same(self, one, two, expected):
    self.assertEqual(verbal.same(one, two), expected)
    self.assertEqual(verbal.same(two, one), expected)

  @parameterized.parameters(
    ("1:58 am", 118),
    ("1:58 P.M.", 838),
    ("5am", 300),
    ("12:00 noon", 720),
    ("12 am", 1440),
    ("13:00 pm", None),
    ("1:58", None),
  )
  def test_clock(self, text, minutes):
    self.assertEqual(verbal.clock(text), minutes)

  def test_says_yes(self):
    self.assertTrue(verbal.is_yes_or_no("No, it is not."))
    self.assertFalse(verbal.is_yes_or_no("No"))
    self.assertFalse(verbal.is_yes_or_no("Nobody, really"))


if __name__ == "__main__":
  absltest.main()
