r"""Conversion of what Python prints to LaTeX."""

from absl.testing import absltest, parameterized

from rstar_jax.grading import printed


class PrintedTest(parameterized.TestCase):
  @parameterized.parameters(
    ("sqrt(2)/2", r"\sqrt{2}/2"),
    ("sqrt(1+sqrt(2))", r"\sqrt{1+\sqrt{2}}"),
    ("Fraction(1, 2)", r"\frac{1}{2}"),
    ("Abs(x)", "|x|"),
    ("exp(2)", "e^{2}"),
    ("Interval(0, 1)", "[0,1]"),
    ("sqrt3", r"\sqrt{3}"),
    ("Interval.open(0, 1)", "(0,1)"),
    ("Union(Interval(0, 1), Interval(2, oo))", r"[0,1]\cup [2,\infty ]"),
    ("np.float64(3.0)", "3.0"),
    ("Eq(x, 1)", "x=1"),
    ("sqrt(2", "sqrt(2"),  # Left alone.
    ("Fraction(1, 2, 3)", "Fraction(1, 2, 3)"),
    ("log_2(8)", r"\log _2(8)"),
    ("2*E**2", "2*e^2"),
    ("x**2", "x^2"),
    ("2**((n+1)/2)", "2^{(n+1)/2}"),
    ("e^-x", "e^{-x}"),
    ("6 x 10^3", r"6\times 10^3"),
    ("oo", r"\infty "),
    ("foo", "foo"),
  )
  def test_to_latex(self, text, expected):
    self.assertEqual(printed.to_latex(text), expected)


if __name__ == "__main__":
  absltest.main()
