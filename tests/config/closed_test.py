"""Dataclasses that refuse what they do not declare."""

import copy
import dataclasses
import json
import pickle
from typing import Literal
from unittest import mock

from absl.testing import absltest, parameterized

from rstar_jax.config import closed


@dataclasses.dataclass(kw_only=True)
class Part(closed.Closed):
  size: int = closed.field(3, above=0)
  rate: float = 0.5
  kind: Literal["a", "b"] = "a"
  widths: tuple[int, ...] = (1, 2)


@dataclasses.dataclass(kw_only=True)
class Whole(closed.Closed):
  part: Part = closed.field(factory=Part)
  final: bool = True
  parts: tuple[Part, ...] = ()

  @property
  def twice(self) -> int:
    return 2 * self.part.size


class ClosedTest(parameterized.TestCase):
  def test_fields_are_mutable_and_compared_by_value(self):
    whole = Whole()
    whole.part.size = 7
    self.assertEqual(whole.twice, 14)
    self.assertEqual(whole, Whole(part=Part(size=7)))
    self.assertNotEqual(whole, Whole())
    replaced = dataclasses.replace(whole, final=False)
    self.assertEqual((whole.final, replaced.final), (True, False))

  def test_copies_are_configs_too(self):
    whole = Whole(parts=(Part(size=5),))
    for found in (copy.deepcopy(whole), pickle.loads(pickle.dumps(whole))):
      self.assertEqual(found, whole)
      with self.assertRaises(AttributeError):
        found.final_ = False

  @parameterized.named_parameters(
    ("assigned", lambda: setattr(Part(), "siz", 1)),
    ("given", lambda: Part(siz=1)),
    ("read", lambda: Part().siz),
    ("replaced", lambda: dataclasses.replace(Part(), siz=1)),
  )
  def test_a_misspelt_field(self, use):
    with self.assertRaises(AttributeError) as raised:
      use()
    self.assertEqual(
      str(raised.exception), "Part has no field 'siz'; did you mean size?"
    )

  def test_nothing_is_near(self):
    with self.assertRaisesRegex(AttributeError, "^Part has no field 'zzz'$"):
      Part().zzz = 1
    self.assertFalse(hasattr(Part(), "zzz"))

  def test_what_is_computed_is_no_field(self):
    with self.assertRaisesRegex(AttributeError, "no field 'twice'"):
      Whole().twice = 3

  @parameterized.parameters(
    (
      "Part.length",
      "size",
      "Part has no field 'length'; it is now called size",
    ),
    ("Part.length", "part.size", "it is now called part.size"),
    ("Part.length", "", "Part has no field 'length'; it is gone"),
  )
  def test_an_old_name(self, old, new, message):
    with mock.patch.dict(closed.RENAMED, {old: new}):
      with self.assertRaisesRegex(AttributeError, message):
        Part(length=3)

  @parameterized.parameters(
    (Part, "size", "3", "Part.size='3' must be of type int"),
    (Part, "size", 3.0, "Part.size=3.0 must be of type int"),
    (Part, "size", True, "Part.size=True must be of type int"),
    (Part, "rate", "high", "Part.rate='high' must be of type float"),
    (Part, "kind", "c", "Part.kind='c' must be one of 'a', 'b'"),
    (Part, "widths", [1, 2], "Part.widths=[1, 2] must be a tuple"),
    (Part, "widths", (1, "2"), "Part.widths[1]='2' must be of type int"),
    (Whole, "final", 1, "Whole.final=1 must be of type bool"),
    (Whole, "part", None, "Whole.part=None must be of type Part"),
    (Whole, "parts", (7,), "Whole.parts[0]=7 must be of type Part"),
  )
  def test_another_type(self, owner, name, value, message):
    before = owner()
    with self.assertRaises(ValueError) as raised:
      setattr(before, name, value)
    self.assertEqual(str(raised.exception), message)
    self.assertEqual(before, owner())
    with self.assertRaises(ValueError):
      owner(**{name: value})

  def test_an_int_becomes_the_float_that_it_equals(self):
    one = Part(rate=1)
    self.assertEqual(json.dumps(one.rate), "1.0")
    one.rate = 3
    self.assertEqual(json.dumps([one.rate, one.size]), "[3.0, 3]")

  def test_an_int_that_no_float_equals(self):
    with self.assertRaisesRegex(ValueError, "^Part.rate is too large for a fl"):
      Part(rate=10**400)

  def test_ranges_stand_beside_their_fields(self):
    fields = {each.name: each for each in dataclasses.fields(Part)}
    self.assertEqual(closed.range_of(fields["size"]), (0, None, None, None))
    self.assertEqual(closed.range_of(fields["rate"]), (None,) * 4)


if __name__ == "__main__":
  absltest.main()
