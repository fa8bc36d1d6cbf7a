"""Executes straight-line arithmetic exactly, without running any code.

It covers what the generator's solutions consist of, and so what models trained
on them write: assignments of sums, differences, products, quotients and
Fractions, and prints. The sandbox runs any code; this evaluates such steps
alone, in some microseconds each.
"""

import ast
import functools
import math
from collections.abc import Mapping
from fractions import Fraction

Values = Mapping[str, Fraction]
# Statements of a step: (assigned name, or None for a print; expression).
_Statements = tuple[tuple[str | None, ast.expr], ...]

_OPERATORS = {
  ast.Add: Fraction.__add__,
  ast.Sub: Fraction.__sub__,
  ast.Mult: Fraction.__mul__,
  ast.Div: Fraction.__truediv__,
}
# Most characters of a step, and bits of a value's numerator and denominator.
_LENGTH = 2000
_BITS = 10_000


class Unclear(ValueError):
  """A step is not straight-line arithmetic."""


def execute(step: str, values: Values) -> tuple[Values, str]:
  """Executes a step.

  Args:
    step: Python code. Fraction counts as imported.
    values: quantities by name; not changed.

  Returns:
    The quantities after it, and its output: exact values, one per line.

  Raises:
    Unclear: the step is not straight-line arithmetic, or has huge values.
    KeyError: it names an unknown quantity.
    ZeroDivisionError: it divides by zero.
  """
  after = dict(values)
  printed = []
  try:
    for name, expression in _statements(step):
      value = _value(expression, after)
      if name is None:
        printed.append(str(value))
      else:
        after[name] = value
  except RecursionError:
    raise Unclear("nested too deeply") from None
  return after, "\n".join(printed)


@functools.lru_cache(maxsize=1 << 16)
def _statements(step: str) -> _Statements:
  """Parses a step, cached."""
  if len(step) > _LENGTH:
    raise Unclear("a long step")
  try:
    body = ast.parse(step).body
  except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
    raise Unclear(str(error)) from None
  statements = []
  for each in body:
    match each:
      case ast.ImportFrom("fractions", [ast.alias("Fraction", None)], 0):
        pass
      case ast.Assign([ast.Name(name)], value) if name != "Fraction":
        statements.append((name, value))
      case ast.Expr(ast.Call(ast.Name("print"), [value], [])):
        statements.append((None, value))
      case _:
        raise Unclear(ast.unparse(each))
  return tuple(statements)


def _value(node: ast.expr, values: Values) -> Fraction:
  match node:
    case ast.Name(name):
      return values[name]
    case ast.Constant(int(number)) if not isinstance(number, bool):
      return Fraction(number)
    case ast.Constant(float(number)) if math.isfinite(number):
      return Fraction(str(number))  # As it is written, not as it is rounded.
    case ast.BinOp(left, operator, right) if type(operator) in _OPERATORS:
      operate = _OPERATORS[type(operator)]
      value = operate(_value(left, values), _value(right, values))
      # Values of two lines can have more digits than fit into memory.
      if max(map(int.bit_length, value.as_integer_ratio())) > _BITS:
        raise Unclear("a value of thousands of digits")
      return value
    case ast.UnaryOp(ast.USub(), operand):
      return -_value(operand, values)
    case ast.Call(ast.Name("Fraction"), [numerator], []):
      return _value(numerator, values)
    case ast.Call(ast.Name("Fraction"), [numerator, denominator], []):
      return _value(ast.BinOp(numerator, ast.Div(), denominator), values)
  raise Unclear(ast.unparse(node))
