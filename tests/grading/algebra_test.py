r"""Expressions and relations that are the same, and some that nearly are."""

from absl.testing import absltest, parameterized

from rstar_jax.grading import algebra


class AlgebraTest(parameterized.TestCase):
  @parameterized.parameters(
    (r"\sqrt{8}", r"2\sqrt{2}", True),
    (r"\sqrt{2}", "1.4142135623730951", False),
    (r"\pi", "3.14159265358979323846264338327950288", False),
    ("(x+1)^2", "x^2+2x+1", True),
    ("(x+1)^2", "x^2+1", False),
    (r"\sqrt{x^2}", "|x|", True),
    (r"\sqrt{x^2}", "x", False),
    (r"\ln 6", r"\ln 2+\ln 3", True),
    (r"\log_{3}\frac{x}{y}", r"\log_{3}x-\log_{3}y", True),
    (r"\log 100", "2", True),  # To base 10,
    (r"\log 2", r"\ln 2", True),  # and to base e.
    (r"\log_{2}3", r"\log_{3}2", False),
    (r"\cos58^\circ", r"\sin32^\circ", True),
    (r"e^{i\pi/3}", r"\frac{1+\sqrt{3}i}{2}", True),
    (r"\frac{1}{i}", "-i", True),
    (r"(1+\sqrt{2})(1-\sqrt{2})+1", "0", True),
    ("e^{-100}", "0", False),
    ("e^{-100}", "e^{-101}", False),
    ("2^{2013}", "2^{2013}-6036", False),
    (r"\frac{2}{3}", r"\frac{2}{3}+\frac{1}{3}(\frac{1}{4})^{2013}", False),
    (r"\frac{1}{2^{2012}}", r"\frac{1}{2^{4016}}", False),
    ("x", r"x+(\frac{1}{4})^{2013}", False),
    ("2^{2013}-6036", r"2\cdot2^{2012}-6036", True),
    (r"\sqrt{2}\cdot10^{60}", r"\sqrt{2}\cdot10^{60}+1", False),
    (r"\sqrt[3]{-8}", "-2", True),
    ("0and", "0", False),
    ("n!", "n(n-1)!", True),
    (r"\lfloor\frac{n}{2}\rfloor", r"\frac{n}{2}", False),
    (r"\ln|x|/4", r"\frac{1}{4}\ln|x|", True),
    ("AB", "ab", False),
    (r"\infty", r"-\infty", False),
    (r"\frac{5}{0}", "5", False),
    (r"\gcd(m,n)", "1", False),  # The parser says so.
    # A number beside a number multiplies it; only a mixed number adds.
    ("6", "(2)(3)", True),
    ("5", "(2)(3)", False),
    ("12", "3(4)", True),
    ("6", "(2)3", True),
    ("-24", "(-2)(3)(4)", True),
    ("-6", "(-2)3", True),
    ("6", "2((3))", True),
    ("2", "4(0.5)", True),
    ("1", r"2(\frac{1}{2})", True),
    ("1", r"(2)\frac{1}{2}", True),
    ("3", r"\frac{1}{2}(6)", True),
    (r"\frac{3}{2}", "3(1/2)", True),
    (r"\frac{2}{3}", r"\frac{4}{2}\frac{1}{3}", True),
    (r"\frac{6}{7}", r"\frac{2(3)}{7}", True),
    ("2^{6}", "2^{2(3)}", True),
    ("12", r"2\binom{4}{2}", True),
    ("18", r"\binom{4}{2}3", True),
    ("36", r"\binom{4}{2}\binom{4}{2}", True),
    ("36", r"(6)\binom{4}{2}", True),
    ("6", r"3\gcd(4,6)", True),
    ("18", "2(3)^{2}", True),
    (r"\frac{5}{2}", r"2\frac{1}{2}", True),
    (r"\frac{3x}{2}", r"1\frac{1}{2}x", True),
    (r"\frac{x}{2}", r"1\frac{1}{2}x", False),
    ("3", r"1\frac{1}{2}(2)", True),
    (r"2^{\frac{3}{2}}", r"2^{1\frac{1}{2}}", True),
    # What a function is applied to is no factor.
    (r"\log_{2}(8)", "3", True),
    (r"\log_2\frac{1}{4}", "-2", True),
    (r"3\sin2", r"\sin(2)(3)", True),
    ("f(2)", "2f", False),
    ("5+", "5", False),
    ("5", r"\nonsense{", False),
  )
  def test_same(self, one, two, expected):
    self.assertEqual(algebra.same(one, two), expected)
    self.assertEqual(algebra.same(two, one), expected)

  @parameterized.parameters(
    ("y=2x+1", "2x-y+1=0", True),
    ("y=2x+1", "y=2x-1", False),
    ("2x+3y=6", "4x+6y=12", True),
    (r"\frac{x^2}{4}+\frac{y^2}{9}=1", "9x^2+4y^2=36", True),
    ("x+y>1", "1<x+y", True),
    ("x+y>1", "x+y<1", False),
    ("x+y>1", r"x+y\ge1", False),
    ("x+y>1", "x+y=1", False),
    ("x=", "x=1", False),
    ("x<y<z", "x<y<z", False),  # More than one sign: not here.
  )
  def test_same_relation(self, one, two, expected):
    self.assertEqual(algebra.same_relation(one, two), expected)


if __name__ == "__main__":
  absltest.main()
