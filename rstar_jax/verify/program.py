"""Compiles and executes the steps of one program, inside its own process.

Steps that each compile alone are executed one after another in one `__main__`
namespace, which equals running their concatenation; output is kept of the last
one only. If a step does not compile alone (an `else:`, an open bracket) the
concatenation is compiled instead, and `compile_steps` says which steps' output
is to be taken off the front.

Standard library only, like all that runs in a worker.
"""

import io
import sys
import types

FUTURE = 0x1FF0000  # CO_FUTURE_* of compiled code.
# Freed when a program runs out of memory, so that it can still be reported.
_BALLAST = 1 << 20


class OutputLimit(BaseException):
  """Ends a program that printed too much."""


class Capture(io.BytesIO):
  """Bytes written, up to a limit."""

  def __init__(self, limit: int):
    super().__init__()
    self._limit = limit
    self.full = False

  def write(self, data) -> int:
    if self.full or self.tell() + len(data) > self._limit:
      super().write(data[: max(0, self._limit - self.tell())])
      self.full = True
      raise OutputLimit
    return super().write(data)

  def close(self) -> None:
    """Stays open: what was printed is wanted though a program closes it."""


def error_line(error: BaseException) -> str:
  """Returns the last line of a traceback, `TypeName: message`."""
  name = type(error).__qualname__
  try:
    message = error.msg if isinstance(error, SyntaxError) else str(error)
    message = " ".join(str(message).split("\n"))[:1000]
    message = message.encode(errors="replace").decode()
  except BaseException:  # A program's own __str__ may do anything.
    message = ""
  return f"{name}: {message}" if message else name


def compile_steps(steps: list[str]) -> tuple[list, list[str] | None]:
  """Compiles a program.

  Args:
    steps: code of each step, oldest first.

  Returns:
    (codes, prefix): the code objects to execute in order, of which only the
    last one's output counts; and, where the program had to be compiled as one,
    the steps whose output is to be taken off the front (else None).

  Raises:
    SyntaxError, ValueError, MemoryError, RecursionError: what `compile` raises
      for the concatenation.
  """
  codes, flags = [], 0
  try:
    for step in steps:
      code = compile(step, "<step>", "exec", flags, True)
      future = code.co_flags & FUTURE
      if codes and future != flags:
        raise SyntaxError("a __future__ import must come first")
      flags = future
      codes.append(code)
    return codes, None
  except SyntaxError:
    if len(steps) == 1:
      raise
  whole = compile("\n".join(steps), "<steps>", "exec", 0, True)
  for count in range(len(steps) - 1, 0, -1):
    try:
      compile("\n".join(steps[:count]), "<steps>", "exec", 0, True)
      return [whole], steps[:count]
    except SyntaxError:
      continue
  return [whole], None


def execute(
  codes: list, capture: Capture, refusal: type[BaseException]
) -> tuple[str, str]:
  """Executes code objects, in order, in one new `__main__` namespace.

  Args:
    codes: what to execute.
    capture: takes what the last one prints; emptied before each.
    refusal: the exception by which the audit hook refuses.

  Returns:
    (status, error) as in `ExecResult`.
  """
  ballast = bytearray(_BALLAST)
  module = types.ModuleType("__main__")
  sys.modules["__main__"] = module
  stdout = io.TextIOWrapper(capture, encoding="utf-8", newline="\n")
  sys.stdout = sys.__stdout__ = stdout
  try:
    for code in codes:
      _flush(stdout)
      capture.seek(0)
      capture.truncate()
      exec(code, module.__dict__)
    _flush(stdout)
    status, error = "ok", ""
  except MemoryError as failure:
    del ballast
    status, error = "memory", error_line(failure)
  except BaseException as failure:
    blocked = _refusal_of(failure, refusal)
    status = "blocked" if blocked else "error"
    error = error_line(blocked or failure)
  try:
    _flush(stdout)
  except OutputLimit:
    pass
  if capture.full:  # Whatever the program made of the exception.
    status, error = "output_limit", "more output than the limit"
  return status, error


def _refusal_of(
  failure: BaseException | None, refusal: type[BaseException]
) -> BaseException | None:
  """Returns the refusal that an exception goes back to, None if there is none.

  Libraries wrap it: urllib makes a URLError of what the socket raised.
  """
  seen = 0
  while failure is not None and seen < 100:
    if isinstance(failure, refusal):
      return failure
    failure, seen = failure.__cause__ or failure.__context__, seen + 1
  return None


def _flush(stdout: io.TextIOWrapper) -> None:
  try:
    stdout.flush()
  except ValueError:  # The program closed or detached it.
    pass
