r"""Pairs of answers labelled by hand, and boxes."""

from absl.testing import absltest, parameterized

from rstar_jax.verify import answers

# (gold, predicted, whether a fair human would accept it)
PAIRS = (
  ("7", "7", True),
  ("7", "8", False),
  ("7", "7.0", True),
  ("7", "14/2", True),
  ("-3", "\u22123", True),
  ("-3", "3", False),
  ("0", "-0", True),
  ("1/3", "0.33", False),
  ("1/3", "0.3333333333333", False),
  ("1/3", r"0.\overline{3}", True),
  (r"\frac{1}{2}", "0.5", True),
  (r"\frac12", "2/4", True),
  (r"1\frac{1}{2}", "3/2", True),
  ("1,234", "1234", True),
  ("1.5e3", r"1.5 \times 10^{3}", True),
  ("12", "1 2", False),
  ("50%", "50", True),
  ("50%", "0.5", False),
  (r"50\%", "50 percent", True),
  ("0.5", "50%", False),
  ("$5", "5", True),
  (r"\$5.00", "5 dollars", True),
  ("$5", "\u20ac5", False),
  ("5 cm", "5", True),
  ("5 cm", r"5\text{ centimeters}", True),
  ("5 cm", "5 m", False),
  ("6 cm^2", "6 cm", False),
  ("12 apples", "12 pears", False),
  (r"90^\circ", "90 degrees", True),
  ("x=5", "5", True),
  ("x=5", "y=5", False),
  ("101_2", "101_3", False),
  ("Monday", r"\text{monday}", True),
  ("Monday", "Tuesday", False),
  (r"\text{(B)}", "B", True),
  (r"\text{(B)}", "C", False),
  ("5", "print(5)", False),
  ("5", "", False),
  # From here on it takes mathematics.
  (r"\sqrt{8}", r"2\sqrt{2}", True),
  (r"\sqrt{2}", "1.414", False),
  (r"\sqrt{2}", "1.41421356237", False),
  (r"\pi", "3.14159265358979", False),
  (r"2\pi", "2*pi", True),
  (r"\frac{\sqrt{3}}{2}", r"\sqrt{3}/2", True),
  ("x^2+2x+1", "(x+1)^2", True),
  ("x^2", "x^3", False),
  ("ab", "ba", True),
  ("(1,2)", "(2,1)", False),
  (r"\{1,2\}", r"\{2,1\}", True),
  ("1,2", "2, 1", True),
  ("1,2,3", "1,2", False),
  ("[1,2)", "[1,2]", False),
  ("1<x<2", "(1,2)", True),
  (r"(-\infty,2)\cup(3,\infty)", r"(3,\infty)\cup(-\infty,2)", True),
  ("3+2i", "2i+3", True),
  ("5", "5 or 6", False),
  ("5", "x", False),
  ("2^{10}", "1024", True),
)
_EASY = 38


class AnswersTest(parameterized.TestCase):
  @parameterized.parameters(*PAIRS)
  def test_equal(self, gold, predicted, expected):
    self.assertEqual(answers.equal(gold, predicted), expected)

  @parameterized.parameters(*PAIRS[:_EASY])
  def test_decided_at_once(self, gold, predicted, expected):
    self.assertEqual(answers.decide(gold, predicted), expected)

  @parameterized.parameters(*PAIRS[_EASY:])
  def test_left_to_the_library(self, gold, predicted, _):
    self.assertIsNone(answers.decide(gold, predicted))

  def test_long_answers_are_different_unless_the_same(self):
    self.assertTrue(answers.decide("1" * 2003, "1" * 2003))
    self.assertFalse(answers.decide("5", "(" * 2003))

  @parameterized.parameters(
    (r"The answer is \boxed{14}.", "14"),
    (r"\boxed{1} or \boxed{\frac{1}{2}}", r"\frac{1}{2}"),
    (r"\boxed{\boxed{3}}", "3"),
    (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
    (r"\boxed{\left\{ x \right.}", r"\left\{ x \right."),
    (r"\boxed {5}", "5"),
    (r"\boxed{ a b }", "a b"),
    (r"\boxed{}", ""),
    (r"\boxed{1} then \boxed{2", None),
    (r"\boxed 5", None),
    (r"\fbox{5}", None),
    ("", None),
  )
  def test_final_answer(self, text, answer):
    self.assertEqual(answers.final_answer(text), answer)


if __name__ == "__main__":
  absltest.main()
