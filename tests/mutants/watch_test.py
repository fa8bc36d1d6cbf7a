"""Probes in a file, and the order of test cases."""

import unittest

from absl.testing import absltest

from tests.mutants import watch

CODE = '''"""What it does."""
from __future__ import annotations
LIMIT = 3

def f(a):
  """Doubles."""
  if a > LIMIT:
    return a
  elif a:
    for _ in range(2): a += 1
    return a
  try:
    raise ValueError
  except ValueError:
    return 0
'''


class ProbesTest(absltest.TestCase):
  def run_code(self, a):
    """Returns the result of f and the lines that ran in it."""
    seen = []
    code = watch.with_probes("x.py", CODE)
    watch.builtins._probe_of = lambda file: lambda line: seen.append(line)
    self.addCleanup(delattr, watch.builtins, "_probe_of")
    scope = {}
    exec(code, scope)
    self.assertEqual(seen, [3, 5])
    self.assertEqual(scope["f"].__doc__, "Doubles.")
    self.assertEqual(scope["__doc__"], "What it does.")
    seen.clear()
    result = scope["f"](a)
    self.doCleanups()
    return result, seen

  def test_lines_that_run(self):
    self.assertEqual(self.run_code(5), (5, [7, 8]))
    self.assertEqual(self.run_code(1), (3, [7, 9, 10, 10, 10, 11]))
    self.assertEqual(self.run_code(0), (0, [7, 9, 12, 13, 15]))

  def test_without_a_listener_it_does_what_it_did(self):
    scope = {}
    exec(watch.with_probes("x.py", CODE), scope)
    self.assertEqual([scope["f"](a) for a in (0, 1, 5)], [0, 3, 5])


class OrderTest(absltest.TestCase):
  def test_cases_that_run_the_line_then_the_quickest(self):
    class A(unittest.TestCase):
      def test_a(self): ...
      def test_b(self): ...

    class B(unittest.TestCase):
      def test_c(self): ...
      def test_d(self): ...

    cases = [A("test_a"), B("test_c"), A("test_b"), B("test_d")]
    ids = {case.id()[-1]: case.id() for case in cases}
    suite = unittest.TestSuite([unittest.TestSuite(cases[:2]), *cases[2:]])
    seconds = {ids[c]: s for c, s in (("a", 1), ("b", 9), ("c", 3), ("d", 2))}

    def order(first):
      found = watch.ordered(suite, {ids[c] for c in first}, seconds)
      return "".join(case.id()[-1] for case in found)

    # Cases of a class stay together.
    self.assertEqual(order(""), "abdc")
    self.assertEqual(order("c"), "cdab")
    self.assertEqual(order("bcd"), "dcba")
    self.assertEqual(order("abcd"), "abdc")


if __name__ == "__main__":
  absltest.main()
