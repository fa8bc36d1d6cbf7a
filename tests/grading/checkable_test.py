r"""Tests of rstar_jax.grading.checkable."""

from absl.testing import absltest, parameterized

from rstar_jax.grading import answers, checkable


class WhyNotTest(parameterized.TestCase):
  @parameterized.parameters(
    "18",
    "-1,234.50",
    "0.5\\%",
    "\\frac{3}{4}",
    "\\left( -\\infty, -\\frac{6}{7} \\right) \\cup (2, \\infty)",
    "\\begin{pmatrix} 1 \\\\ 2 \\end{pmatrix}",
    "\\{1, 2\\}",
    "\\{1",  # An escaped brace is a character.
    "x^8 + x^7 + x^6 + x^5 + x + 1",
    "A, B, C, D, E, F, G",
    "(C)",
    "\\text{Tuesday}",
    "\\text{June 20}",
    "\\text{all real numbers}",
    "\\emptyset",
    "\\text{No}",
    "\\sin x \\cos y \\tan z \\sec u \\csc v \\cot w",
    "10 \\text{ cm}^2",
  )
  def test_answers(self, answer):
    self.assertEqual(checkable.why_not(answer), "")
    # And the grader does say of such a one that it is itself.
    self.assertTrue(answers.decide(answer, f"${answer}$"))

  @parameterized.parameters(
    ("", "no final answer"),
    ("  ", "no final answer"),
    ("?", "no final answer"),
    ("\\text{}", "no final answer"),
    ("$$", "no final answer"),
    ("...", "no final answer"),
    ("see above", "no final answer"),
    ("\\text{See solution.}", "no final answer"),
    ("Proof", "no final answer"),
    ("notfound", "no final answer"),
    ("Q.E.D.", "no final answer"),
    ("\\frac{1}{2", "braces that do not match"),
    ("1}{2", "braces that do not match"),
    ("x = 1\n\nor x = 2", "several paragraphs"),
    ("x = 1\n \t\nor x = 2", "several paragraphs"),
    ("1+" * 600 + "1", "too long an answer"),
    ("\\text{No such triangle exists in the plane}", "prose"),
    ("the sum of all of the odd numbers", "prose"),
  )
  def test_others(self, answer, reason):
    self.assertEqual(checkable.why_not(answer), reason)


if __name__ == "__main__":
  absltest.main()
