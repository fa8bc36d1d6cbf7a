"""Compiles and executes steps in the test's own process."""

import contextlib
import sys

from absl.testing import absltest, parameterized

from rstar_jax.sandbox import program


class _Refusal(Exception):
  pass


@contextlib.contextmanager
def _own_streams():
  saved = sys.stdout, sys.__stdout__, sys.modules["__main__"]
  try:
    yield
  finally:
    sys.stdout, sys.__stdout__, sys.modules["__main__"] = saved


def _run(*steps, limit=101):
  codes, _ = program.compile_steps(list(steps))
  with _own_streams():
    interpreter = program.Interpreter(program.Capture(limit), _Refusal)
    return list(program.run_all(codes, interpreter)[:4])


class ProgramTest(parameterized.TestCase):
  def test_steps_that_compile_alone_stay_apart(self):
    codes, prefix = program.compile_steps(["x = 1", "", "print(x)"])
    self.assertLen(codes, 3)
    self.assertIsNone(prefix)

  @parameterized.parameters(
    (["if 1:\n  x = 2", "else:\n  x = 3"], 1),
    (["a = 1", "x = (", "1)"], 1),
    (["a = 1", "b = 2", "if a:", "  b = 3"], 2),
    (["x = (", "1)"], None),
  )
  def test_others_are_compiled_as_one(self, steps, count):
    codes, prefix = program.compile_steps(steps)
    self.assertLen(codes, 1)
    self.assertEqual(prefix, None if count is None else steps[:count])

  def test_syntax_error(self):
    with self.assertRaises(SyntaxError):
      program.compile_steps(["x = 1", "x ="])

  def test_future_import_holds_for_later_steps(self):
    steps = ["from __future__ import annotations", "def f(x: no_such): pass"]
    self.assertEqual(_run(*steps)[0], "ok")
    self.assertEqual(_run(steps[1])[0], "error")

  def test_output_is_of_the_last_step(self):
    self.assertEqual(_run("print(1)", "print(2)"), ["ok", "2\n", "", 0])

  def test_output_before_an_error_is_kept(self):
    self.assertEqual(
      _run("print(1)\nraise ValueError('no')"),
      ["error", "1\n", "ValueError: no", 2],
    )

  @parameterized.parameters(
    (["def f():\n  1 / 0", "\n\nf()"], 3),
    (["x = 1\nx.y"], 2),
    (["exec('\\n\\nx =')"], 1),
    (["x = 1", "def f(): f()\n\nf()"], 3),
  )
  def test_the_line_is_that_of_the_step_itself(self, steps, line):
    self.assertEqual(_run(*steps)[3], line)

  def test_refusals_are_found_behind_other_exceptions(self):
    source = (
      "def f(refusal):\n  try:\n    raise refusal('no')\n"
      "  except Exception:\n    raise ValueError('yes')"
    )
    codes, _ = program.compile_steps([source, "f(refusal)"])
    names = {"refusal": _Refusal}
    exec(codes[0], names)
    with self.assertRaises(ValueError) as caught:
      exec(codes[1], names)
    self.assertIsInstance(
      program._refusal_of(caught.exception, _Refusal), _Refusal
    )
    self.assertIsNone(program._refusal_of(ValueError(), _Refusal))

  @parameterized.parameters(
    (ValueError("a\nb"), "ValueError: a b"),
    (ValueError(), "ValueError"),
    (KeyError("k"), "KeyError: 'k'"),
    (OSError(2, "gone"), "OSError: [Errno 2] gone"),
  )
  def test_error_line(self, error, line):
    self.assertEqual(
      program.error_line(error).replace("FileNotFoundError", "OSError"), line
    )

  def test_error_line_of_a_hostile_exception(self):
    class Bad(Exception):
      def __str__(self):
        raise SystemExit

    self.assertRegex(program.error_line(Bad()), r"Bad$")
    self.assertEqual(program.error_line(ValueError("\ud800")), "ValueError: ?")

  def test_capture_keeps_what_fits(self):
    status, stdout, *_ = _run("print('x' * 202)", limit=11)
    self.assertEqual((status, stdout), ("output_limit", "x" * 11))


if __name__ == "__main__":
  absltest.main()
