"""Tests of typed reading: what fits, and what an error says of the rest."""

import pathlib

from absl.testing import absltest, parameterized

from rstar_jax.hf.fields import Fields, read_json


def of(value):
  return Fields({"a": value, "b": {"c": value}}, "some/file")


class FieldsTest(parameterized.TestCase):
  def test_what_fits(self):
    self.assertEqual(of(3).whole("a"), 3)
    self.assertEqual(of(-3).whole("a", least=None), -3)
    self.assertEqual(of(3).whole("a", most=3), 3)
    self.assertIsInstance(of(3).number("a"), float)
    self.assertEqual(of(0.5).part("b").number("c"), 0.5)
    self.assertIs(of(False).flag("a", True), False)
    self.assertEqual(of([1, 2.5]).numbers("a", 2), (1.0, 2.5))
    self.assertIn("c", of({}).part("b"))
    self.assertNotIn("c", of(None).part("a"))

  def test_silence(self):
    fields = of(None)
    self.assertEqual(fields.whole("z", 5), 5)
    self.assertEqual(fields.number("z", 0.5), 0.5)
    self.assertIs(fields.flag("z", True), True)
    self.assertIsNone(fields.whole("z", None))
    for read in (fields.value, fields.whole, fields.number):
      with self.assertRaisesRegex(ValueError, "some/file lacks the field 'z'"):
        read("z")
    with self.assertRaisesRegex(ValueError, "lacks the field 'b.z'"):
      fields.part("b").numbers("z", 1)

  def test_null_is_no_silence(self):
    fields = of(None)
    self.assertIsNone(fields.whole("a", 5, null=True))
    self.assertIsNone(fields.number("a", None))
    for read in (fields.whole, fields.number):
      with self.assertRaisesRegex(ValueError, "some/file: a=None must be"):
        read("a", 5)

  @parameterized.parameters("3", True, 3.0, ([3],), ({},), 0, -1)
  def test_whole_numbers_that_are_none(self, value):
    with self.assertRaisesRegex(ValueError, "a whole number of at least 1"):
      of(value).whole("a")

  def test_a_whole_number_that_is_too_large(self):
    with self.assertRaisesRegex(ValueError, "some/file: a=4 must be at most 3"):
      of(4).whole("a", most=3)

  @parameterized.parameters(
    "3", True, ([3],), ({},), 0, -1.0, float("nan"), float("inf"), 10**400
  )
  def test_numbers_that_are_none(self, value):
    with self.assertRaisesRegex(ValueError, "b.c=.* must be a number above 0"):
      of(value).part("b").number("c")

  def test_a_default_must_fit_too(self):
    with self.assertRaisesRegex(ValueError, "z=1 must be .* of at least 2"):
      of(None).whole("z", 1, least=2)

  @parameterized.parameters(0, 1, "true", None, ([],))
  def test_flags_that_are_none(self, value):
    with self.assertRaisesRegex(ValueError, "a=.* must be true or false"):
      of(value).flag("a", True)

  @parameterized.parameters(
    ([1],), ([1, 2, 3],), ([1, "2"],), ([1, 0],), "12", 12
  )
  def test_lists_that_are_none(self, value):
    with self.assertRaisesRegex(ValueError, "a list of 2 numbers above 0"):
      of(value).numbers("a", 2)

  def test_objects_that_are_none(self):
    with self.assertRaisesRegex(ValueError, "a='x' must be an object"):
      of("x").part("a")

  def test_long_values_are_cut(self):
    with self.assertRaisesRegex(ValueError, r"a=\[0, 0, .*\.\.\.\] must"):
      of([0] * 1000).numbers("a", 48)


class ReadTest(parameterized.TestCase):
  @parameterized.parameters(
    (b'{"a": 1,\n "b": }', "is not JSON .Expecting value in line 2.: copy it"),
    (b"", "is not JSON .Expecting value.: copy it again"),
    (b'{"a": "\xff"}', "is not UTF-8 .*: copy it again"),
    (b'{"a": Infinity}', "is not JSON .Infinity is not a JSON number.: copy"),
    (b"[1]", "holds no JSON object: copy it again"),
  )
  def test_a_damaged_file_is_named(self, data, reason):
    file = pathlib.Path(self.create_tempdir().full_path) / "config.json"
    file.write_bytes(data)
    with self.assertRaisesRegex(ValueError, f"^{file} {reason}"):
      read_json(file)

  def test_what_it_holds(self):
    file = pathlib.Path(self.create_tempdir().full_path) / "config.json"
    file.write_text('{"a": Infinity}')
    self.assertEqual(read_json(file, constant=float), {"a": float("inf")})


if __name__ == "__main__":
  absltest.main()
