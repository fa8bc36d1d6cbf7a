"""Matching of brackets."""

from absl.testing import absltest, parameterized

from rstar_jax.grading import brackets


class BracketsTest(parameterized.TestCase):
  @parameterized.parameters(
    ("1, (2, 3), [4, 5)", ["1", "(2, 3)", "[4, 5)"]),
    (r"\{1, 2\}, \frac{1,2}{3}", [r"\{1, 2\}", r"\frac{1,2}{3}"]),
    ("(1", None),
    ("1)", None),
    ("", [""]),
  )
  def test_split(self, text, expected):
    self.assertEqual(brackets.split(text, ","), expected)

  @parameterized.parameters(
    ("(1, 2)", ("(", "1, 2", ")")),
    ("[1, 2)", ("[", "1, 2", ")")),
    (r"\{1\}", (r"\{", "1", r"\}")),
    ("(1)(2)", None),
    ("(1)+2", None),
    ("1", None),
    ("()", ("(", "", ")")),
    ("(", None),
    (")", None),
  )
  def test_enclosed(self, text, expected):
    self.assertEqual(brackets.enclosed(text), expected)

  def test_depth(self):
    self.assertEqual(brackets.depth("1"), 0)
    self.assertEqual(brackets.depth("((1)(2))"), 2)
    self.assertEqual(brackets.depth("((("), 3)

  def test_closing_brace(self):
    self.assertEqual(brackets.closing_brace(r"{a\}{b}}c", 1), 7)
    self.assertIsNone(brackets.closing_brace("{a", 1))
    self.assertEqual(brackets.closing_brace("({)(}))", 1, "()"), 2)
    self.assertEqual(brackets.closing_brace("(({)}))", 1, "()"), 5)


if __name__ == "__main__":
  absltest.main()
