"""Fields of a row, within others too, and what they may be."""

from absl.testing import absltest, parameterized

from rstar_jax.data import fields
from rstar_jax.data.rows import Number, ProblemError

ROW = {"a": {"b": {"c": " x "}, "n": Number("3.10")}, "a.b": "own", "t": True}


class FieldsTest(parameterized.TestCase):
  @parameterized.parameters(("a.b", "own"), ("a.b.c", "x"), ("a.n", "3.10"))
  def test_a_field_within_another(self, name, expected):
    self.assertEqual(fields.text_of(ROW, name), expected)

  @parameterized.parameters(
    ("b", "has no field 'b', only a, a.b, t; question_field"),
    ("a.c", "has no field 'a.c', only"),
    ("t.x", "has no field 't.x'"),
    ("a", "'a' is an object, want text or a number"),
    ("t", "'t' is a truth value"),
  )
  def test_what_is_not_there_or_no_text(self, name, reason):
    with self.assertRaisesRegex(ProblemError, reason):
      fields.text_of(ROW, name)

  def test_a_number_where_text_is_wanted(self):
    with self.assertRaisesRegex(ProblemError, "the number 3.10, want text$"):
      fields.text_of(ROW, "a.n", numbers=False)


if __name__ == "__main__":
  absltest.main()
