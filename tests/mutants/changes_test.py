"""Changes of code: which there are, where, and which are left out."""

from absl.testing import absltest, parameterized

from tests.mutants import changes

NOTHING = '''"""1 < 2"""
import logging
from typing import TYPE_CHECKING
if TYPE_CHECKING:
  x = 1 + 1
@cached(size=3)
def f(a: list[3]) -> 1 | 2:
  """Returns 4."""
  logging.info("%d", 1 + 2)
  assert a > 3
  zip(a, a, strict=True)
  if a:
    raise ValueError(f"{a + 1} is not {2}")
  return f"{a + 1}" + "é"
if __name__ == "__main__":
  main(1)
'''


def texts(code: str) -> list[str]:
  """Returns the code with each of its changes."""
  found = changes.of("a.py", code)
  return [each.apply(code.encode()).decode() for each in found]


class ChangesTest(parameterized.TestCase):
  @parameterized.parameters(
    ("a < b", ["(a <= b)", "(a >= b)"]),
    ("a == b", ["(a != b)"]),
    ("a in b", ["(a not in b)"]),
    ("a + b", ["(a - b)"]),
    ("a // b", ["(a * b)"]),
    ("a += b", ["a -= b"]),
    ("a and b", ["(a or b)"]),
    ("not a", ["(a)"]),
    ("-a", ["(a)"]),
    ("True", ["(False)"]),
    ("2.0", ["(2.2)"]),
    ("0.0", ["(1.0)"]),
    ("min", ["(max)"]),
    ("np.ceil", ["(np.floor)"]),
    ("jnp.float32", ["(jnp.bfloat16)"]),
    ("np.float32", ["(np.float16)"]),
    ("a = b(c=d, e=f)", ["a = (b(e=f))", "a = (b(c=d))"]),
    ("a(b)", ["(None)"]),
    ("a if b else c", ["a if (not b) else c"]),
    ("a if b == c else d", ["a if (b != c) else d"]),
    ("[a for a in b if c]", ["[a for a in b if (not c)]"]),
    ("def f():\n  return a", ["def f():\n  return (None)"]),
    ("def f():\n  return False", ["def f():\n  return (True)"]),
    ("def f():\n  return None", []),
  )
  def test_by_hand(self, code, wanted):
    self.assertCountEqual(texts(code), wanted)

  def test_an_integer_goes_up_or_down(self):
    (text,) = texts("a = 7")
    self.assertIn(text, ("a = (8)", "a = (6)"))

  def test_what_nobody_should_assert_stays(self):
    found = {each.name for each in changes.of("a.py", NOTHING)}
    self.assertEqual(
      found,
      {
        "a.py f call: zip(a, a, strict=True) -> None",
        "a.py f condition: a -> not a",
        "a.py f return: f'{a + 1}' + 'é' -> None",
      },
    )

  def test_places_are_those_of_bytes(self):
    code = 'a = "é", [\n  1.0,\n  b]'
    self.assertEqual(texts(code), ['a = "é", [\n  (1.1),\n  b]'])

  def test_a_default_belongs_to_the_body(self):
    code = "class A:\n  def f(self, a=1.0):\n    b\n    return\n"
    (found,) = changes.of("a.py", code)
    self.assertEqual((found.kind, found.within), ("default", "A.f"))
    self.assertEqual(found.lines, (3, 4))

  def test_lines_are_those_of_the_head_of_a_block(self):
    code = "if (a and\n    b):\n  c\n"
    self.assertEqual({e.lines for e in changes.of("a.py", code)}, {(1, 2)})

  def test_names_do_not_depend_on_lines(self):
    code = "def f():\n  return a + b, a + b"
    names = [each.name for each in changes.of("a.py", code)]
    self.assertLen(set(names), 3)
    moved = [each.name for each in changes.of("a.py", "\n\n" + code)]
    self.assertEqual(names, moved)


class SampleTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    self.all = changes.of("a.py", "\n".join(f"a{i} < b" for i in range(50)))

  def names(self, n, seed, mutants=None):
    return [each.name for each in changes.sample(mutants or self.all, n, seed)]

  def test_a_seed_is_a_sample(self):
    self.assertEqual(self.names(20, 1), self.names(20, 1, self.all[::-1]))
    self.assertNotEqual(self.names(20, 1), self.names(20, 2))
    self.assertEqual(self.names(20, 1), self.names(100, 1)[:20])
    self.assertLen(set(self.names(200, 1)), 100)

  def test_other_mutants_change_no_order(self):
    fewer = [each for each in self.all if "a7 " not in each.name]
    kept = [each for each in self.names(100, 1) if "a7 " not in each]
    self.assertEqual(self.names(100, 1, fewer), kept)


if __name__ == "__main__":
  absltest.main()
