"""Compiles and executes steps in the test's own process."""

import contextlib
import re
import sys
import types
import weakref

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
  codes = program.compile_alone(list(steps))
  if codes is None:
    codes = [program.compile_whole(list(steps))[0]]
  with _own_streams():
    interpreter = program.Interpreter(program.Capture(limit), _Refusal)
    return list(program.run_all(codes, interpreter)[:4])


class ProgramTest(parameterized.TestCase):
  def test_steps_that_compile_alone_stay_apart(self):
    self.assertLen(program.compile_alone(["x = 1", "", "print(x)"]), 3)

  @parameterized.parameters(
    (["if 1:\n  x = 2", "else:\n  x = 3"], 1),
    (["a = 1", "x = (", "1)"], 1),
    (["a = 1", "b = 2", "if a:", "  b = 3"], 2),
    (["x = (", "1)"], 0),
    (["from __future__ import annotations", "a = 1", "b = 2"], 2),
  )
  def test_others_are_compiled_as_one(self, steps, count):
    self.assertIsNone(program.compile_alone(steps))
    self.assertEqual(program.compile_whole(steps)[1], count)

  def test_syntax_error(self):
    with self.assertRaises(SyntaxError):
      program.compile_whole(["x = 1", "x ="])

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
    codes = program.compile_alone([source, "f(refusal)"])
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

  @parameterized.parameters(
    object(),
    (lambda: 0).__code__,
    sys._getframe(),
    [types.CellType(_own_streams)],
    weakref.ref(_Refusal),
  )
  def test_no_address_is_shown(self, value):
    text = repr(value)
    self.assertIn(" at 0x", text)
    fixed = re.sub(" at 0x[0-9a-f]+", " at 0x0", text)
    self.assertEqual(program.without_addresses(f"1 {text}\n"), f"1 {fixed}\n")
    self.assertIn(fixed, program.error_line(ValueError(text)))

  @parameterized.parameters(
    " at 0x1f>", "at 0x7f0011223344\n", "0x7f0011223344>"
  )
  def test_other_numbers_are_shown(self, text):
    self.assertEqual(program.without_addresses(text), text)

  def test_a_cut_address_is_not_shown(self):
    whole = "<object at 0x7f0011223344>"
    for end in range(len(whole)):
      found = program.without_addresses(whole[:end], cut=True)
      # No longer than the limit of output.
      self.assertEqual(found, "<object at 0x0"[:end])

  def test_an_address_in_an_output(self):
    steps = ["x = object()\nprint(x)", "print(x)\nraise ValueError(x)"]
    shown = "<object object at 0x0>"
    self.assertEqual(_run(*steps)[1:3], [f"{shown}\n", f"ValueError: {shown}"])
    cut = _run("print(object())", limit=24)
    self.assertEqual(cut[:2], ["output_limit", "<object object at 0x0"])

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
