"""Compiles and executes the steps of one program, inside its own process.

Steps that each compile alone are executed one after another in one `__main__`
namespace, which has the effect of their concatenation; only the last step's
output is kept. If a step does not compile alone (an `else:`, an open bracket),
the concatenation is compiled instead, and `compile_whole` returns the number of
steps whose output has to be removed from the front.

Runs inside a worker: standard library only.
"""

import errno
import io
import os
import re
import sys
import types
from typing import NamedTuple

FUTURE = 0x1FF0000  # CO_FUTURE_* of compiled code.
# File names that code is compiled with: of one step, of the concatenation.
STEP, WHOLE = "<step>", "<steps>"
# Exit status of a program that catches `OutputLimit` and goes on printing, and
# the number of writes past the limit that it may make.
TOO_MUCH, _PATIENCE = 199, 1000
# Exit status of a process that lacks the memory to report that it has none.
NO_MEMORY = 198
OVER = "more output than the limit"
# Freed when a program runs out of memory, so that it can still be reported.
_BALLAST = 8 << 20
_ballast: list[bytes] = []
# An object's address, in CPython's own forms. It depends on the machine, and on
# what the process did before.
_ADDRESS = re.compile(r" at 0x[0-9a-f]{6,}(?=[>,;:]| \()")
_CUT_ADDRESS = re.compile(r" at 0x[0-9a-f]+\Z")
# Errors by which the kernel refuses a system call.
_REFUSALS = (errno.EPERM, errno.EACCES)


class Report(NamedTuple):
  """What happened to a step; fields as in `types.ExecResult`."""

  status: str
  stdout: str = ""
  error: str = ""
  line: int = 0
  seconds: float = 0.0


class OutputLimit(BaseException):
  """Ends a program that printed too much."""


class Capture(io.BytesIO):
  """Keeps the bytes written, up to a limit; then raises OutputLimit."""

  def __init__(self, limit: int):
    super().__init__()
    self.limit = limit
    self.full = False
    self._refused = 0

  def write(self, data) -> int:
    if self.full:
      self._refused += 1
      if self._refused > _PATIENCE:  # The program catches OutputLimit.
        os._exit(TOO_MUCH)
    if self.full or self.tell() + len(data) > self.limit:
      super().write(data[: max(0, self.limit - self.tell())])
      self.full = True
      raise OutputLimit
    return super().write(data)

  def close(self) -> None:
    """Does nothing: the output is read even if a program closes stdout."""


def error_line(error: BaseException) -> str:
  """Returns the last line of a traceback, `TypeName: message`."""
  name = type(error).__qualname__[:200]
  try:
    message = error.msg if isinstance(error, SyntaxError) else str(error)
    message = " ".join(str(message).split("\n"))
    message = without_addresses(message)[:1000]
  except BaseException:  # A program's own __str__ may do anything.
    message = ""
  line = f"{name}: {message}" if message else name
  return line.encode(errors="replace").decode()


def without_addresses(text: str, cut: bool = False) -> str:
  """Returns a text with 0 in place of objects' addresses.

  Args:
    text: what a program has printed, or an error's message.
    cut: whether the text may end in the middle of one.
  """
  if " at 0x" not in text:
    return text
  text = _ADDRESS.sub(" at 0x0", text)
  return _CUT_ADDRESS.sub(" at 0x0", text) if cut else text


def compile_alone(steps: list[str]) -> list[types.CodeType] | None:
  """Compiles each step by itself; returns None if one does not compile so.

  A step that imports from `__future__` does not: that holds for later steps.
  """
  try:
    codes = [compile(step, STEP, "exec", 0, True) for step in steps]
  except (SyntaxError, ValueError, RecursionError):
    return None
  return None if any(code.co_flags & FUTURE for code in codes) else codes


def compile_whole(steps: list[str]) -> tuple[types.CodeType, int]:
  """Compiles the concatenation of a program's steps.

  Args:
    steps: code of each step, oldest first.

  Returns:
    The code object, and the number of steps, before the last, whose output to
    remove from the front: the most that compile together.

  Raises:
    SyntaxError, ValueError, MemoryError, RecursionError: from `compile`.
  """
  whole = compile("\n".join(steps), WHOLE, "exec", 0, True)
  for count in range(len(steps) - 1, 0, -1):
    try:
      compile("\n".join(steps[:count]), WHOLE, "exec", 0, True)
      return whole, count
    except SyntaxError:
      continue
  return whole, 0


class Interpreter:
  """Executes the steps of one program in a new `__main__` namespace.

  Args:
    capture: receives the output; emptied before each step.
    refusal: the exception that the audit hook raises.
  """

  def __init__(self, capture: Capture, refusal: type[BaseException]):
    self._capture = capture
    self._refusal = refusal
    if not _ballast:
      # `bytes` zeroes lazily: the pages take no memory until they are touched.
      _ballast.append(bytes(_BALLAST))
    self._module = types.ModuleType("__main__")
    sys.modules["__main__"] = self._module
    self._stdout = io.TextIOWrapper(capture, encoding="utf-8", newline="\n")
    sys.stdout = sys.__stdout__ = self._stdout

  def anew(self) -> "Interpreter":
    """Returns another one with the same limit of output."""
    return Interpreter(Capture(self._capture.limit), self._refusal)

  def run(self, code: types.CodeType) -> Report:
    """Executes the next step; the time is not measured.

    Args:
      code: the compiled step.
    """
    capture = self._capture
    capture.seek(0)
    capture.truncate()
    status, error, line = "ok", "", 0
    try:
      exec(code, self._module.__dict__)
      _flush(self._stdout)
    except MemoryError as failure:
      _ballast.clear()
      status, error = "memory", error_line(failure)
      line = line_of(failure, code.co_filename)
    except BaseException as failure:
      blocked = _refusal_of(failure, self._refusal)
      status = "blocked" if blocked else "error"
      if isinstance(failure, OSError) and failure.errno == errno.ENOMEM:
        status = "memory"
      error = error_line(blocked or failure)
      line = line_of(failure, code.co_filename)
    try:
      _flush(self._stdout)
    except OutputLimit:
      pass
    if capture.full:  # Also if the program caught OutputLimit.
      status, error, line = "output_limit", OVER, 0
    stdout = capture.getvalue().decode(errors="ignore")
    stdout = without_addresses(stdout, cut=capture.full)
    return Report(status, stdout, error, line)


def run_all(codes: list, interpreter: Interpreter) -> Report:
  """Executes steps until one fails; returns the report of the last executed."""
  report = Report("ok")
  for code in codes:
    report = interpreter.run(code)
    if report.status != "ok":
      break
  return report


def line_of(error: BaseException, filename: str) -> int:
  """Returns the line of a step's own code that raised, 0 if unknown.

  Args:
    error: the exception.
    filename: the file name that the step was compiled with.
  """
  if isinstance(error, SyntaxError) and error.filename == filename:
    return error.lineno or 0
  trace = error.__traceback__
  while trace is not None:
    if trace.tb_frame.f_code.co_filename == filename:
      return trace.tb_lineno
    trace = trace.tb_next
  return 0


def _refusal_of(
  failure: BaseException | None, refusal: type[BaseException]
) -> BaseException | None:
  """Returns the refusal that caused an exception, None if there is none.

  The audit hook or the kernel refuses. Libraries wrap the refusal: urllib, for
  one, raises a URLError from the socket's error.
  """
  seen = 0
  while failure is not None and seen < 100:
    if isinstance(failure, refusal):
      return failure
    if isinstance(failure, PermissionError) and failure.errno in _REFUSALS:
      return failure
    failure, seen = failure.__cause__ or failure.__context__, seen + 1
  return None


def _flush(stdout: io.TextIOWrapper) -> None:
  try:
    stdout.flush()
  except ValueError:  # The program closed or detached it.
    pass
