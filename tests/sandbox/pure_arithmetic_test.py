"""Which code is pure arithmetic, and above all which is not."""

import ast
import marshal

from absl.testing import absltest, parameterized

from rstar_jax.sandbox import pure_arithmetic
from rstar_jax.sandbox.pool import Sandbox


class PureArithmeticTest(parameterized.TestCase):
  @parameterized.parameters(
    "# a comment\ntotal = 3 * 4\nprint(total)",
    "x, y = 1, 2\nx += y / 3\nprint(x, y, sep=', ', end='')",
    "print(f'{3 / 4:.2f} of {[1, 2][0]}')",
    "for i in range(3):\n  if i % 2 == 0:\n    continue\n  print(i)",
    "while True:\n  break",
    "s = sum([x * x for x in range(5) if x > 2])\nprint(round(s), max(1, s))",
    "a = [1, 2, 3]\nprint(a[1:], len(a), a[-1] if a else None)",
    "print(not 1 < 2 <= 3 or 'a' in 'abc')",
    "",
  )
  def test_pure_arithmetic(self, code):
    self.assertTrue(pure_arithmetic.is_pure_arithmetic(ast.parse(code)))

  @parameterized.parameters(
    "import math",
    "from math import pi",
    "x = [].append",
    "x = (1).real",
    "print.x = 3",
    "def f(): pass",
    "class A: pass",
    "f = lambda: 0",
    "exec('x = 1')",
    "x = exec\nx('1')",
    "print = exec\nprint('1')",
    "for print in [exec]:\n  print('1')",
    "[print('1') for print in [exec]]",
    "(print := exec)('1')",
    "print, x = exec, 1",
    "sum += 1",
    "[exec][0]('1')",
    "(exec if 1 else print)('1')",
    "sorted([1], key=exec)",
    "print(1, file=x)",
    "print(*x)",
    "print(**x)",
    "__builtins__",
    "x = __builtins__['print']",
    "x[0] = 1",
    "del x",
    "global x",
    "try:\n  x = 1\nexcept Exception:\n  pass",
    "with x: pass",
    "raise ValueError",
    "assert x",
    "exit()",
    "open('x')",
    "input()",
    "getattr(1, 'real')",
    "print(f'{exec(1)}')",
    "print(f'{x.y}')",
    "async def f(): await x",
    "match x:\n  case 1: pass",
  )
  def test_not_pure_arithmetic(self, code):
    self.assertFalse(pure_arithmetic.is_pure_arithmetic(ast.parse(code)))

  def test_programs_that_share_a_process_share_nothing_else(self):
    programs = [
      ["x = 1", "print(x)"],
      ["print(x)"],
      ["y = [1]", "print(y + y)"],
    ]
    programs += [["sum = 3", "print(sum)"], ["print(sum([1, 2]))"]]
    programs += [["1 / 0"], ["print('a' * 70000)"], ["print(7)"]]
    with Sandbox(workers=1) as sandbox:
      results = sandbox.run(programs)
    self.assertEqual(
      [(r.status, r.stdout[:9]) for r in results],
      [
        ("ok", "1\n"),
        ("error", ""),
        ("ok", "[1, 1]\n"),
        ("ok", "3\n"),
        ("ok", "3\n"),
        ("error", ""),
        ("output_limit", "a" * 9),
        ("ok", "7\n"),
      ],
    )

  def test_what_may_be_costly_is_not_compiled_here(self):
    def compiled(step):
      return pure_arithmetic.compiled(step, "<step>")

    names: dict = {}
    exec(marshal.loads(compiled("x = 2\ny = x * 21")), names)
    self.assertEqual(names["y"], 42)
    self.assertIsNotNone(compiled("from fractions import Fraction\nx = 1"))
    for step in (
      "import math",
      "x = (",
      "try:\n  x = 1\nfinally:\n  x = 2",
      "x = 1 #" + "x" * 2000,
      "x = ['a' * 4000, 'b' * 4000, 'c' * 4000]",
      "-" * 1900 + "1",
      "x = '\ud800'",
      "x = 1\0",
    ):
      self.assertIsNone(compiled(step), step[:40])


if __name__ == "__main__":
  absltest.main()
