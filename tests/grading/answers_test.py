r"""Hand-labelled pairs of answers, and boxed answers."""

import pathlib

from absl.testing import absltest, parameterized

from rstar_jax.grading import answers, labelled

# Written along with the rules: each rule has pairs on both sides.
_TUNED = pathlib.Path(__file__).with_name("tuned_pairs.jsonl")
# (gold, predicted, whether a fair human would accept it)
AT_ONCE = (
  ("7", "7", True),
  ("7", "8", False),
  ("7", "7.0", True),
  ("7", "14/2", True),
  ("-3", "\u22123", True),
  ("0", "-0", True),
  ("1/3", "0.33", False),
  ("1/3", "0.3333333333333", False),
  ("1/3", r"0.\overline{3}", True),
  (r"\frac12", "2/4", True),
  (r"\frac {1} {12}", "1/12", True),
  ("2", r"\frac {1} {12}", False),
  (r"1\frac{1}{2}", "3/2", True),
  ("1,234", "1234", True),
  ("1.5e3", r"1.5 \times 10^{3}", True),
  ("12", "1 2", False),
  ("50%", "50", True),
  ("50%", "0.5", False),
  ("0.5", "50%", False),
  (r"\$5.00", "5 dollars", True),
  ("$5", "\u20ac5", False),
  ("5 cm", r"5\text{ centimeters}", True),
  ("5 cm", "5 m", False),
  ("12 apples", "12 pears", False),
  ("18", r"\$18 each", True),
  ("18 dollars", r"\$18 in total", True),
  ("2000 dollars per month", r"\$2,000 per month", True),
  (r"\$5 per hour", r"\$5 per day", False),
  (r"\$5 each", "5 euros each", False),
  ("24", "2 dozen", True),
  ("24 eggs", "2 dozens of eggs", True),
  ("2", "2 dozen", False),
  ("x=5", "5", True),
  ("x=5", "y=5", False),
  ("101_2", "101_3", False),
  ("Monday", r"\text{monday}", True),
  (r"\text{(B)}", "B", True),
  (r"\text{(B)}", "C", False),
  ("5", "print(5)", False),
  ("2", "2 for all x in R", True),
  ("5", "i^2 for i in R", False),
  ("x^2", "f(i^2 for i, j in z)", False),
  ("5", "", False),
  ("(1,2)", "(2,1)", False),
  ("100, 200, 300", "100,200,300", True),
  ("100, 200, 300", "100,300,200", False),
  ("100200300", "100, 200, 300", False),
  (r"\{1,2\}", r"\{2,1\}", True),
  ("1,2,3", "1,2", False),
  ("[1,2)", "[1,2]", False),
  ("1<x<2", "(1,2)", True),
  ("5", "5 or 6", False),
  ("5", "10^{10^{9}}", False),
  ("5", "9**9**9**9", False),
  ("10^{10^{10}}", "10^{10^{11}}", False),
)
LATER = (
  (r"\sqrt{8}", r"2\sqrt{2}", True),
  (r"\sqrt{2}", "1.41421356237", False),
  (r"\pi", "3.14159265358979", False),
  (r"2\pi", "2*pi", True),
  ("x^2+2x+1", "(x+1)^2", True),
  ("x^2", "x^3", False),
  ("ab", "ba", True),
  (r"(\sqrt{8},1)", r"(2\sqrt{2},1)", True),
  ("3+2i", "2i+3", True),
  ("5", "x", False),
  ("2^{10}", "1024", True),
  ("y=2x+1", "2x-y+1=0", True),
  ("a>0, b<0", "a<0, b>0", False),
  ("x if x>0, -x if x<0", "x if x>0, x if x<0", False),
  (r"x \ne 1, y \ne 2", r"x \ne 2, y \ne 1", False),
)


class AnswersTest(parameterized.TestCase):
  @parameterized.parameters(*AT_ONCE, *LATER)
  def test_equal(self, gold, predicted, expected):
    self.assertEqual(answers.equal(gold, predicted), expected)
    self.assertEqual(answers.equal(predicted, gold), expected)

  @parameterized.parameters(*AT_ONCE)
  def test_decided_at_once(self, gold, predicted, expected):
    self.assertEqual(answers.decide(gold, predicted), expected)

  @parameterized.parameters(*LATER)
  def test_left_to_mathematics(self, gold, predicted, _):
    self.assertIsNone(answers.decide(gold, predicted))

  def test_rules(self):
    for pair in labelled.read(_TUNED):
      with self.subTest(f"{pair.gold!r} and {pair.predicted!r}"):
        self.assertEqual(answers.equal(pair.gold, pair.predicted), pair.equal)

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
