r"""Normalising by hand-written pairs; plain numbers against Fraction."""

import random
from fractions import Fraction

from absl.testing import absltest, parameterized

from rstar_jax.verify import notation


def _parts(text):
  answer = notation.normalise(text)
  return answer.body, set(answer.tag), answer.name


class NotationTest(parameterized.TestCase):
  @parameterized.parameters(
    ("42", "42"),
    ("  42. ", "42"),
    ("$42$", "42"),
    (r"\(42\)", "42"),
    (r"\[42\]", "42"),
    (r"\boxed{42}", "42"),
    ("1,234,567", "1234567"),
    ("1{,}234", "1234"),
    (r"1\,234", "1234"),
    ("\u2212\uff13", "-3"),
    (r"\left( 1, 2 \right)", "(1,2)"),
    (r"\dfrac{1}{2}", r"\frac{1}{2}"),
    (r"x \leq 3", r"x\le3"),
    (r"2\pi r", r"2\pi r"),
    (r"2 \pi", r"2\pi"),
    ("2*pi", r"2*\pi"),
    ("\u221a2", r"\sqrt{2}"),
    ("sqrt(2)", r"\sqrt{2}"),
    ("x**10", "x^{10}"),
    (r"\text{Monday}", "monday"),
    ("(A)", "A"),
    ("1 2", "1 2"),
    ("12, 13", "12,13"),
  )
  def test_body(self, text, body):
    self.assertEqual(_parts(text), (body, set(), ""))

  @parameterized.parameters(
    ("50%", "50", {"percent"}),
    (r"50\%", "50", {"percent"}),
    ("$5", "5", {"dollar"}),
    (r"\$1,234.50", "1234.50", {"dollar"}),
    ("5 dollars", "5", {"dollar"}),
    ("\u20ac5", "5", {"euro"}),
    (r"5\text{ cm}", "5", {"cm"}),
    ("5 centimetres", "5", {"cm"}),
    (r"5\ \mathrm{cm}^2", "5", {"cm", "square"}),
    ("5 square cm", "5", {"cm", "square"}),
    ("5 red apples", "5", {"red", "apple"}),
    (r"90^\circ", "90", {"degree"}),
    ("90\u00b0", "90", {"degree"}),
    ("101_2", "101", {"base 2"}),
    (r"\frac{1}{2} hours", r"\frac{1}{2}", {"hour"}),
    ("6 square units", "6", {"square"}),
    # Products, not quantities.
    ("5x", "5x", set()),
    ("5 x", "5x", set()),
    ("2 pi", r"2\pi", set()),
  )
  def test_tag(self, text, body, tag):
    self.assertEqual(_parts(text), (body, tag, ""))

  @parameterized.parameters(
    ("x=5", "5", "x"),
    ("x = 5 cm", "5", "x"),
    ("f(x) = 2x", "2x", "f(x)"),
    ("x=y=5", "x=y=5", ""),
    ("x <= 5", "x<=5", ""),
  )
  def test_name(self, text, body, name):
    answer = notation.normalise(text)
    self.assertEqual((answer.body, answer.name), (body, name))

  @parameterized.parameters(
    ("7", Fraction(7)),
    ("-7.50", Fraction(-15, 2)),
    (".5", Fraction(1, 2)),
    ("14/4", Fraction(7, 2)),
    ("-14/4", Fraction(-7, 2)),
    (r"\frac{-1}{3}", Fraction(-1, 3)),
    (r"\frac12", Fraction(1, 2)),
    ("1 3/4", Fraction(7, 4)),
    (r"-1\frac{3}{4}", Fraction(-7, 4)),
    ("1.5e3", Fraction(1500)),
    (r"1.5\times10^{-3}", Fraction(3, 2000)),
    (r"0.\overline{3}", Fraction(1, 3)),
    (r"-2.1\overline{36}", -(2 + Fraction(1, 10) + Fraction(36, 990))),
    ("1/0", None),
    ("x", None),
    ("1+1", None),
    ("", None),
    ("9" * 1001, None),
    ("1e9999", None),
  )
  def test_rational(self, body, value):
    self.assertEqual(notation.rational(body), value)

  def test_rational_reads_what_is_written(self):
    numbers = random.Random(3)
    for _ in range(211):
      top, bottom = numbers.randint(-999, 999), numbers.randint(1, 99)
      value, places = Fraction(top, bottom), numbers.randint(1, 4)
      sign, rest = "-" if top < 0 else "", abs(top) % bottom
      for text, expected in (
        (f"{top}/{bottom}", value),
        (rf"\frac{{{top}}}{{{bottom}}}", value),
        (f"{sign}{abs(top) // bottom} {rest}/{bottom}", value),
        (f"{top / 10**places:.{places}f}", Fraction(top, 10**places)),
        (f"{top}e{places}", Fraction(top * 10**places)),
      ):
        self.assertEqual(notation.rational(text), expected, text)

  def test_normalising_random_text_ends(self):
    numbers = random.Random(5)
    alphabet = r"0123 \{}$%^_.,()[]=/abcx-+" + "\u221a\u00b2"
    for _ in range(500):
      text = "".join(numbers.choices(alphabet, k=numbers.randint(0, 300)))
      answer = notation.normalise(text)
      notation.rational(answer.body)

  @parameterized.parameters(
    ("1", " 1 ", True),
    ("0.5", "\\frac{1}{2}", True),
    ("1,000", "1000.0", True),
    ("18", "\\$18", True),
    ("18 apples", "18", True),
    ("\\text{Yes}", "yes", True),
    ("1", "2", False),
    ("\\pi", "3.14", False),
    ("x=5", "5", True),
    ("x" * 2000, " " + "x" * 2000, False),
  )
  def test_vote_keys(self, first, second, same):
    keys = notation.vote_key(first), notation.vote_key(second)
    self.assertEqual(keys[0] == keys[1], same)
    self.assertEqual(len({keys[0], keys[1]}) == 1, same)

  def test_conflicts(self):
    def conflict(one, two):
      return notation.conflict(frozenset(one.split()), frozenset(two.split()))

    self.assertFalse(conflict("cm", ""))
    self.assertFalse(conflict("apple", "red apple"))
    self.assertTrue(conflict("apple", "pear"))
    self.assertTrue(conflict("cm", "cm square"))
    self.assertTrue(conflict("dollar", "euro"))


if __name__ == "__main__":
  absltest.main()
