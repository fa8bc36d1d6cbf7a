"""Operations on intervals, and times of day."""

from absl.testing import absltest, parameterized

from rstar_jax.grading import answer_types, parsing


def _brief(parts):
  return " ".join(
    f"{each.body[0]}{each.parts[0].body},{each.parts[1].body}{each.body[1]}"
    for each in parts
  )


class KindsTest(parameterized.TestCase):
  @parameterized.parameters(
    (("[0,1)", "[1,2]"), "[0,2]"),
    (("[1,2]", "[0,1)"), "[0,2]"),
    (("(0,1)", "(1,2)"), "(0,1) (1,2)"),
    (("(0,5)", "[1,2]"), "(0,5)"),
    (("(0,2)", "[1,2]"), "(0,2]"),
    (("(-\\infty,1)", "[0,\\infty)"), "(-\\infty,\\infty)"),
    (("(0,1)", "(2,3)", "[1,2]"), "(0,3)"),
    (("(0,x)", "(x,1)"), "(0,x) (x,1)"),  # Not in order: left alone.
  )
  def test_merged(self, texts, expected):
    parts = [answer_types.as_interval(parsing.read(text)) for text in texts]
    self.assertEqual(_brief(answer_types.merged(parts)), expected)

  @parameterized.parameters(
    ("x>2", "x<5", "(2,5)"),
    ("x\\le 5", "x>2", "(2,5]"),
    ("x<2", "x>5", None),  # A union.
    ("x>2", "x>5", None),
    ("x>a", "x<5", None),
  )
  def test_intersection(self, one, two, expected):
    found = answer_types.intersection([parsing.read(one), parsing.read(two)])
    self.assertEqual(found and _brief([found]), expected)

  def test_infinity_is_open(self):
    self.assertEqual(parsing.read("[0,\\infty]").body, "[)")
    self.assertEqual(parsing.read("[-\\infty,0]").body, "(]")

  def test_as_interval(self):
    for text, kind in (
      ("(1,2)", "interval"),
      ("[1,2]", "interval"),
      ("(1,2,3)", "tuple"),
      ("\\langle 1,2\\rangle", "tuple"),
      ("\\{1,2\\}", "set"),
    ):
      self.assertEqual(answer_types.as_interval(parsing.read(text)).kind, kind)

  def test_clocks(self):
    self.assertEqual(answer_types.clocks(parsing.read("2:05 pm")), {845})
    self.assertEqual(answer_types.clocks(parsing.read("2:05")), {125, 845})
    self.assertEqual(answer_types.clocks(parsing.read("14:05")), {845})
    self.assertEmpty(answer_types.clocks(parsing.read("14:5")))


if __name__ == "__main__":
  absltest.main()
