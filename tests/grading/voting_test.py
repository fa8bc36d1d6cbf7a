"""Which answers vote together."""

from absl.testing import absltest, parameterized

from rstar_jax.grading import voting


class VotingTest(parameterized.TestCase):
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
    ("1, 2", "\\{2, 1\\}", True),
    ("(1, 2)", "(2, 1)", False),
    ("(1, 0.5)", "(1, 1/2)", True),
    ("x > 1", "(1, \\infty)", True),
    ("x=1, y=2", "y=2, x=1", True),
    ("x=1, y=2", "y=1, x=2", False),
    ("2n if n is odd, n if n is even", "n if n even, 2n if n odd", True),
    ("2n if n is odd, n if n is even", "2n if n even, n if n odd", False),
    ("n if P holds", "n if Q holds", False),
    (r"(1,2) \cup (3,4)", r"(3,4)\cup(1,2)", True),
    (r"(1,2) \cup (3,4)", r"(1,2) \cup (3,5)", False),
    (r"(a,b) \cup (c,d)", r"(c,d) \cup (a,b)", True),
    (r"(1,2] \cup (2,4]", "(1,4]", True),
    ("(b)", "B", True),
    ("(b)", "(c)", False),
    ("101_2", r"(101)_{\text{two}}", True),
    ("101_2", "101_3", False),
    ("101_2", "5", False),
    ("x" * 2000, " " + "x" * 2000, False),
    # Programs.
    ("# a\nx = 1\nif x:\n  y = 2", "x = 1  # b\n\nif x:\n    y=2\n", True),
    ("x = 1\nif x:\n  y = 2\nz = 3", "x = 1\nif x:\n  y = 2\n  z = 3", False),
    ("def f():\n  return 1, 2", "def f():\n  return 2, 1", False),
    ("# a\nx = 5", "# a\ny = 5", False),
    ("x = '# a'\ny = 1", "x = '# b'\ny = 1", False),
    ("x = 1 \ny = 2", "x = 1\ny = 2", True),
    ("def f(a,\n      b):\n  return 1", "def f(a,\n  b):\n    return 1", True),
    # Lists.
    ("1,\n2", "1, 2", True),
    ("1, \n\n 2,\n3", "3,2,1", True),
    ("(1,\n 2)", "(1, 2)", True),
    ("x=1,\ny=2", "x = 1, y = 2", True),
    # As tasks with a reward have them, in which lines count.
    ("1,2\n3,4", "1\n2,3,4", False),
    # Of several lines, and no program.
    ("\\frac{1}\n{2}", "0.5", True),
    ("a\\\nb", "a\\\nc", False),
  )
  def test_vote_keys(self, first, second, same):
    keys = voting.vote_key(first), voting.vote_key(second)
    self.assertEqual(keys[0] == keys[1], same)
    self.assertEqual(len({keys[0], keys[1]}) == 1, same)


if __name__ == "__main__":
  absltest.main()
