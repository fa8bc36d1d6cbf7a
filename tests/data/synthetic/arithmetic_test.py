"""Straight-line arithmetic: against Python, and what it refuses."""

import random
from fractions import Fraction

from absl.testing import absltest, parameterized

from rstar_jax import testing
from rstar_jax.data.synthetic import arithmetic, generator
from rstar_jax.steps import grammar


class ExecuteTest(parameterized.TestCase):
  @parameterized.parameters(
    ("a = 7 - 2 * 3", {"a": 1}, ""),
    ("a = -x / 4\nprint(a)\nprint(x)", {"a": Fraction(-5, 4)}, "-5/4\n5"),
    ("from fractions import Fraction\nx = Fraction(x, 10)", {"x": 0.5}, ""),
    ("print(Fraction(3) - x)", {}, "-2"),
    ("a = 0.1 + 0.2", {"a": Fraction(3, 10)}, ""),
    ("# nothing\n", {}, ""),
  )
  def test_by_hand(self, step, new, printed):
    before = {"x": Fraction(5)}
    after, text = arithmetic.execute(step, before)
    self.assertEqual(after, {"x": 5, **new})
    self.assertEqual(text, printed)
    self.assertEqual(before, {"x": 5})

  @parameterized.parameters(
    "a = [1]",
    "a = b = 1",
    "a += 1",
    "a = 2 ** 9",
    "a = 1e999",
    "a = True",
    "a = int(3)",
    "a = x if x else 1",
    "print(1, 2)",
    "print(1, end='')",
    "for i in range(3):\n  print(i)",
    "import fractions",
    "from fractions import Fraction as F",
    "Fraction = 3",
    "a = Fraction('1/3')",
    "a.b = 3",
    "x",
    "a = (",
    "a = 1" + "\n" * 3000,
  )
  def test_anything_else_is_unclear(self, step):
    with self.assertRaises(arithmetic.Unclear):
      arithmetic.execute(step, {"x": Fraction(5)})

  def test_what_is_too_deep_or_too_long_is_unclear(self):
    signs, digits = "-" * 1900, "9" * 1900
    for step in (
      f"a = {signs}1",
      f"a = {signs}[1]",
      f"a = b = {signs}1",
      f"a = {digits}\nprint(a * a * a)",
      f"a = {digits}\na = Fraction(Fraction(1, a), a * a)",
      "a = 7\n" + "a = a * a\n" * 100,
    ):
      with self.assertRaises(arithmetic.Unclear):
        arithmetic.execute(step, {})
    after, text = arithmetic.execute(f"a = {digits}\nprint(1 / a)", {})
    self.assertEqual(after["a"], int(digits))
    self.assertEqual(text, f"1/{digits}")

  def test_errors(self):
    with self.assertRaises(KeyError):
      arithmetic.execute("a = b", {})
    with self.assertRaises(ZeroDivisionError):
      arithmetic.execute("a = Fraction(1, 2 - 2)", {})

  def test_solutions_print_what_python_prints(self):
    for split in ("stretch", "test_long"):
      for index in range(60):
        steps = grammar.program(generator.generate(split, index).steps)
        values = {}
        for step in steps:
          values, printed = arithmetic.execute(step, values)
        (ran,) = testing.run_trusted([steps])
        self.assertEqual((ran.status, ran.stdout), ("ok", printed))

  def test_random_expressions(self):
    random_ = random.Random(0)

    def expression(depth: int) -> str:
      if not depth:
        return random_.choice(("x", "y", "3", "Fraction(2, 7)"))
      operator = random_.choice("+-*")
      left, right = expression(depth - 1), expression(depth - 1)
      return f"({left} {operator} {right})"

    names = {"x": Fraction(5, 3), "y": Fraction(-2)}
    for _ in range(50):
      text = expression(3)
      after, _ = arithmetic.execute(f"z = {text}", names)
      expected = eval(text, {"Fraction": Fraction, **names})
      self.assertEqual(after["z"], expected)


if __name__ == "__main__":
  absltest.main()
