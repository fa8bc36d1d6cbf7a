r"""Notation by hand-written pairs; plain numbers against Fraction."""

import random
from fractions import Fraction

from absl.testing import absltest, parameterized

from rstar_jax.grading import notation


class TooLongTest(parameterized.TestCase):
  @parameterized.parameters(
    ("x" * 1000, False),
    ("x" * 1001, True),
    ("1" * 4300, False),
    ("1" * 4301, True),
    ("1" * 2000 + "/" + "2" * 2000, False),
    ("1" * 2000 + "x" * 970, False),
    ("1" * 2000 + "x" * 971, True),
    ("1 " * 501, True),
    ("1 " * 100000, True),
  )
  def test_too_long(self, text, expected):
    self.assertEqual(notation.too_long(text), expected)


class TidyTest(parameterized.TestCase):
  @parameterized.parameters(
    ("42", "42"),
    ("  42. ", "42"),
    ("$42$.", "42"),
    (r"\(42\)", "42"),
    (r"\[42\]", "42"),
    (r"\boxed{42}", "42"),
    (r"\[\boxed{\fbox{42}}.\]", "42"),
    ("**42**", "42"),
    ("Yes!", "Yes"),
    ("5!", "5!"),
    ("0.333...", "0.333..."),
    ("1{,}234", "1,234"),
    (r"1,\!234", "1,234"),
    ("\u2212\uff13", "-3"),
    (r"\left( 1, 2 \right)", "( 1, 2 )"),
    (r"\bigl(1\bigr)", "(1)"),
    (r"\dfrac{1}{2}", r"\frac{1}{2}"),
    (r"\frac12", r"\frac{1}{2}"),
    (r"\frac 9{20}", r"\frac{9}{20}"),
    (r"\frac {1} {12}", r"\frac{1}{12}"),
    (r"\frac\pi4", r"\frac{\pi}{4}"),
    (r"\dfrac 1 x", r"\frac{1}{x}"),
    (r"\frac x2y", r"\frac{x}{2}y"),
    (r"\frac{\sqrt{x^{2}}}4", r"\frac{\sqrt{x^{2}}}{4}"),
    (r"\frac{\frac12}3", r"\frac{\frac{1}{2}}{3}"),
    (r"\frac\text{mi}\text{h}", r"\frac\text{mi}\text{h}"),
    (r"\dbinom n2", r"\binom{n}{2}"),
    (r"2^\frac12+1", r"2^{\frac{1}{2}}+1"),
    (r"\sqrt\pi", r"\sqrt{\pi}"),
    (r"\sqrt[3]x", r"\sqrt[3]{x}"),
    (r"\vec b+\bar z", r"\vec{b}+\bar{z}"),
    (r"\mathbb R", r"\mathbb{R}"),
    (r"x\in\Z", r"x\in\mathbb{Z}"),
    (r"\left\lbrace 1, 2\right\rbrace", r"\{1, 2\}"),
    (r"\lbrack 1, 2\rparen", "[1, 2)"),
    (r"\lg 2", r"\log_{10} 2"),
    (r"\text{sin}x", r"\sin x"),
    (r"\mathrm{arctan}(2)", r"\arctan (2)"),
    (r"5\text{sec}", r"5\text{sec}"),
    (r"{1 \over 2}", r"\frac{1 }{ 2}"),
    (r"{6 \choose 3}", r"\binom{6 }{ 3}"),
    ("C_5^2", r"\binom{5}{2}"),
    (r"x \leqslant 3", r"x \le  3"),
    ("x<=3", r"x\le 3"),
    (r"1\lt x", "1< x"),
    (r"x \gt 1", "x > 1"),
    (r"1,\dots,9", r"1,\ldots,9"),
    (r"1, ..., 9", r"1, \ldots , 9"),
    (r"3\pmod 12", r"3\pmod{12}"),
    (r"4 \quad 6\quad", r"4 \quad 6"),
    (
      r"\begin{cases}x, & x > 0\\ -x & \text{for } x<0\end{cases}",
      "x if x > 0, -x if x<0",
    ),
    (
      r"\begin{cases}1,& x=0\\ 2,&\text{otherwise}\end{cases}",
      r"1 if x=0, 2 \text{otherwise}",
    ),
    (r"\begin{cases}2x&+y=5\\x&=1\end{cases}", "2x+y=5, x=1"),
    # Line ends of a matrix are no spaces.
    (r"1 \\ 2", r"1 \\ 2"),
    ("\u221a2", r"\sqrt{2}"),
    ("\u221a(x+1)", r"\sqrt{x+1}"),
    ("\u221b2", r"\sqrt[3]{2}"),
    ("x\u00b2", "x^{2}"),
    ("2\u00b9\u2070", "2^{10}"),
    ("10\u207b\u2075", "10^{-5}"),
    ("\u2154", r"\frac{2}{3}"),
    ("0.3\u0305", r"0.\overline{3}"),
    ("\u03b8", r"\theta"),
    ("2*pi", r"2*\pi"),
    ("-oo", r"-\infty"),
    ("x**10", "x^{10}"),
    ("2**(1/3)", "2^{1/3}"),
    ("16!^2", "{(16!)}^{2}"),
  )
  def test_tidy(self, text, expected):
    found = notation.tidy(text)
    self.assertEqual(" ".join(found.split()), " ".join(expected.split()))

  def test_plain_text(self):
    text = r"5\text{ c\mathrm{m}}^2"
    self.assertEqual(notation.plain_text(text), "5 cm^2")
    self.assertEqual(notation.plain_text(r"\text{open"), "open")

  @parameterized.parameters(
    ("1 2", "1 2"),
    (r"\pi r", r"\pi r"),
    (r"2 \pi + 1", r"2\pi+1"),
    ("3 x", "3x"),
    ("1 3/4", "1 3/4"),
  )
  def test_compact(self, text, expected):
    self.assertEqual(notation.compact(text), expected)


class RationalTest(parameterized.TestCase):
  @parameterized.parameters(
    ("7", Fraction(7)),
    ("-7.50", Fraction(-15, 2)),
    (".5", Fraction(1, 2)),
    ("-14/4", Fraction(-7, 2)),
    (r"\frac{-1}{3}", Fraction(-1, 3)),
    (r"\frac12", Fraction(1, 2)),
    ("1 3/4", Fraction(7, 4)),
    (r"-1\frac{3}{4}", Fraction(-7, 4)),
    ("1.5e3", Fraction(1500)),
    (r"1.5\times10^{-3}", Fraction(3, 2000)),
    ("10^{-3}", Fraction(1, 1000)),
    (r"0.\overline{3}", Fraction(1, 3)),
    (r"-2.1\overline{36}", -(2 + Fraction(1, 10) + Fraction(36, 990))),
    ("0.(3)", Fraction(1, 3)),
    ("0.8333...", Fraction(5, 6)),
    (r"0.1212\ldots", Fraction(4, 33)),
    (r"1.41\ldots", None),
    ("1/0", None),
    ("x", None),
    ("1+1", None),
    ("", None),
    ("9" * 4301, None),
    ("1e9999", None),
  )
  def test_rational(self, body, value):
    self.assertEqual(notation.rational(body), value)

  def test_reads_what_is_written(self):
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


if __name__ == "__main__":
  absltest.main()
