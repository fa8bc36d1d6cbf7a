r"""Decides whether two LaTeX expressions are the same mathematics; may hang.

The parser is math-verify's (latex2sympy), which reads the whole text or raises.
Two expressions are the same if they agree at several points, to 50 digits plus
as many as their own numbers have. Exact expressions that agree so far are
equal; rounded ones do not agree, and neither do sqrt(2) + 10^{-99} and sqrt(2).
If they cannot be evaluated, math-verify's own comparison decides.

Call it in a process that can be killed, as `grader.py` does: "9^{9^{9^9}}"
never ends. It imports sympy at first use.
"""

import functools
import itertools
import re
from fractions import Fraction

_DIGITS = 60  # Evaluated digits; more if an expression has long numbers.
_ROUNDED = 10  # Last digits, which need not agree.
_ZERO = 30  # Further digits that are all zero in a zero.
_LEADING = 5  # Digits before the point that _DIGITS includes.
_MAX_DIGITS = 20000
# Values of the variables: positive and mixed ones, integers, and (0, 1).
_POINTS = (
  "0.37283 1.71933 2.64921 0.61327 3.29817 1.13791",
  "-1.28371 0.73219 -0.42817 2.19283 -3.17283 1.39127",
  "2.37281 -1.93281 0.81723 -0.29173 1.47291 -2.71931",
  "5 3 2 7 4 6",
  "12 9 8 11 10 13",
  "3 4 9 5 8 2",
  "0.81927 0.27391 0.53917 0.92713 0.17239 0.64391",
)
# Further points, for expressions that round all small values to one number.
_FAR_POINTS = (
  "101 211 307 401 503 601",
  "-1009.3 733.7 -911.3 1201.7 -1409.3 1601.7",
  "20011 30011 40009 50021 60013 70001",
)
# Least number of points at which both sides must have a value, and agree.
_MIN_POINTS = 3
# Words, which the parser would read as products of variables.
_PROSE = re.compile(
  r"(?<![\\a-zA-Z])(?:and|or|for|if|is|the|with|where|otherwise|not|are)"
  r"(?![a-zA-Z])"
)
_DECIMAL = re.compile(r"(?<![\d._])(?:\d+\.\d+|\.\d+)(?![\d._])")
# The parser adds a positive number to an integer before it, as in "1\frac12":
# mixed numbers get brackets, and what stands beside a number is multiplied.
_MIXED = re.compile(r"(?<![_^])(\d+)(\\frac\{\d+\}\{\d+\})")
_QUOTIENT = r"\\(?:frac|binom)\{\d+\}\{\d+\}"
_IN_BRACKETS = rf"\((?:-?\d+(?:/\d+)?|{_QUOTIENT})\)"
_FACTOR = re.compile(
  rf"(?:{_IN_BRACKETS}|{_QUOTIENT})(?=[\d(]|\\frac|\\binom)"
  rf"|\d(?={_IN_BRACKETS}|\\binom)"
)
_RELATIONS = re.compile(r"\\(?:le|ge|ne)(?![a-z])|[=<>]")


@functools.cache
def _library():
  import logging

  import math_verify

  # It warns that its own timeouts are off; this package has others.
  logging.getLogger("math_verify").setLevel(logging.ERROR)
  return math_verify


def same(one: str, two: str) -> bool:
  """Returns whether two expressions are equal wherever both are defined.

  Args:
    one: LaTeX without spaces.
    two: another one.

  Returns:
    Whether they are equal; False if one of them cannot be parsed.
  """
  if one == two or _exact(one) == _exact(two):
    return True
  if any(
    re.search(r"\\(?:gcd|lcm|mod|pmod|bmod).*[a-z]", each)
    for each in (one, two)
  ):
    return False  # The parser would read their letters as variables.
  if _agree(one, two):
    return True
  # "log" has base 10 in some texts and e in others.
  if r"\log" in one + two:
    natural = [
      re.sub(r"\\log(?![a-z_])\s*", r"\\ln ", each) for each in (one, two)
    ]
    if natural != [one, two] and _agree(*natural):
      return True
  # E, I and 2j are constants in Python's output, and variables elsewhere.
  python = _constants(one, two), _constants(two, one)
  return python != (one, two) and _agree(*python)


def _exact(text: str) -> str:
  """Writes decimals as fractions, for texts that cannot be parsed."""
  return _DECIMAL.sub(_fraction, text)


def _constants(text: str, other: str) -> str:
  """Reads E, I and 2j as constants, unless the other text has them too."""
  for name, constant in (("E", "e"), ("I", "i"), ("j", "i")):
    alone = rf"(?<![a-zA-Z\\_]){name}(?![a-zA-Z_'])"
    if not re.search(alone, other):
      text = re.sub(alone, constant, text)
  return text


def same_relation(one: str, two: str) -> bool:
  """Returns whether two equations or inequalities hold at the same points.

  They do if one is the other times a constant, positive for inequalities.

  Args:
    one: LaTeX without spaces, with one relation sign.
    two: another one.
  """
  first, second = _difference(one), _difference(two)
  if first is None or second is None or first[0] != second[0]:
    return False
  digits = _digits(first[1], second[1])
  pairs = _at_points(first[1], second[1], digits)
  ratios = [a / b for a, b in pairs if a and b]
  if len(ratios) < _MIN_POINTS or not all(
    _close(each, ratios[0], digits) for each in ratios
  ):
    return False
  return first[0] in ("=", "\\ne") or bool(ratios[0] > 0)


def _difference(text: str):
  """Parses a relation into an operator and the left minus the right side."""
  signs = _RELATIONS.findall(text)
  sides = _RELATIONS.split(text)
  if len(signs) != 1 or not all(sides):
    return None
  left, right = (_parse(each) for each in sides)
  if left is None or right is None:
    return None
  if signs[0] in ("\\ge", ">"):
    return {"\\ge": "\\le", ">": "<"}[signs[0]], right - left
  return signs[0], left - right


def _agree(one: str, two: str) -> bool:
  first, second = _parse(one), _parse(two)
  if first is None or second is None:
    return False
  if first == second:
    return True
  import sympy

  if all(isinstance(each, sympy.Expr) for each in (first, second)):
    if first.is_infinite or second.is_infinite:
      return False
    digits = _digits(first, second)
    values = _at_points(first, second, digits)
    if not all(_close(*pair, digits) for pair in values):
      return False
    if values and _differ_exactly(first, second):
      return False
    if len(values) >= (_MIN_POINTS if first.free_symbols else 1):
      return True
  return bool(_library().verify([first], [second], timeout_seconds=None))


def _at_points(first, second, digits: int) -> list[tuple]:
  """Returns pairs of values at the points where both expressions have one."""
  import sympy

  symbols = sorted(first.free_symbols | second.free_symbols, key=str)
  has_i = first.has(sympy.I) or second.has(sympy.I)
  pairs = []
  lines = _POINTS if symbols else _POINTS[:1]
  if _is_discrete(first) or _is_discrete(second):
    lines = [line for line in _POINTS if "." not in line]
  if symbols and any(
    each.has(sympy.floor, sympy.ceiling) for each in (first, second)
  ):
    lines = (*lines, *_FAR_POINTS)
  for line in lines:
    point = _point(symbols, line)
    pair = tuple(_value(each.subs(point), digits) for each in (first, second))
    # Complex values count only if i occurs: roots and logarithms of negative
    # numbers are seldom intended.
    if None not in pair and (has_i or not symbols or all(map(_is_real, pair))):
      pairs.append(pair)
  return pairs


def _is_discrete(expression) -> bool:
  """Returns whether an expression needs integers, such as a sum up to n."""
  import sympy

  return expression.has(sympy.Sum, sympy.Product)


def _point(symbols, line: str) -> dict:
  import sympy

  numbers = itertools.cycle(map(sympy.Rational, line.split()))
  return dict(zip(symbols, numbers, strict=False))


def _differ_exactly(first, second) -> bool:
  """Returns whether both have rational values at a point, which differ."""
  if _is_discrete(first) or _is_discrete(second):
    return False
  symbols = sorted(first.free_symbols | second.free_symbols, key=str)
  point = _point(symbols, _POINTS[0])
  one, two = (each.subs(point).doit() for each in (first, second))
  return bool(one.is_Rational and two.is_Rational and one != two)


def _digits(first, second) -> int:
  """Returns the digits that tell two expressions apart, by their numbers."""
  import sympy

  lengths = []
  for expression in first, second:
    length = 0
    for each in sympy.preorder_traversal(expression):
      if each.is_Rational:
        length += (abs(each.p).bit_length() + each.q.bit_length()) * 3 // 10
      elif each.is_number and (each.is_Pow or isinstance(each, sympy.exp)):
        size = abs(sympy.N(each, 5))
        if size.is_Float and size:
          length += int(abs(sympy.log(size, 10).evalf(5)))
    lengths.append(length)
  if max(lengths) > _MAX_DIGITS:
    raise OverflowError(f"{max(lengths)} digits")
  return _DIGITS + max(lengths)


def _value(expression, digits: int):
  """Evaluates to that many digits; None if the value is not finite."""
  import sympy

  value = _evaluated(expression, digits)
  parts = value.as_real_imag() if value.is_number else (value,)
  if not all(_is_number(part) for part in parts):
    return None
  if abs(value) < 10**_LEADING:
    return value
  # Large numbers need all digits before the point, perhaps thousands.
  before = int(sympy.log(abs(value), 10).evalf(9)) if abs(value) else 0
  if before > _MAX_DIGITS:
    raise OverflowError(f"{before} digits")
  return _evaluated(expression, digits + before)


def _evaluated(expression, digits: int):
  import sympy

  # If terms cancel, more digits are tried, to tell the rest from zero.
  return sympy.N(expression, digits, maxn=digits + _ZERO + 10)


def _is_number(value) -> bool:
  return bool(value.is_Float or value.is_Rational)


def _is_real(value) -> bool:
  real, imaginary = value.as_real_imag()
  return bool(abs(imaginary) <= abs(real) * 1e-50)


def _close(one, two, digits: int) -> bool:
  """Returns whether values of that many digits agree up to rounding."""
  import sympy

  size = max(abs(one), abs(two))
  # A computed zero may be a tiny number. Large numbers are compared to the same
  # absolute precision.
  if size < sympy.Rational(1, 10 ** (digits + _ZERO)):
    return True
  size = min(size, 10**_LEADING)
  return bool(abs(one - two) * 10 ** (digits - _ROUNDED) <= size)


@functools.lru_cache(256)
def _parse(text: str):
  """Returns a sympy expression, None if the text cannot be parsed."""
  import sympy
  from latex2sympy2_extended.latex2sympy2 import ConversionConfig, latex2sympy
  from sympy.core.function import AppliedUndef

  _library()
  if _PROSE.search(text):
    return None
  options = ConversionConfig(lowercase_symbols=False)
  try:
    expression = latex2sympy(
      _readable(text), normalization_config=None, conversion_config=options
    )
  except MemoryError:
    raise
  except Exception:
    return None
  if isinstance(expression, sympy.Expr) and not expression.has(
    sympy.Derivative
  ):
    # f(x) of an unknown f is treated as a variable.
    expression = expression.replace(
      lambda each: isinstance(each, AppliedUndef),
      lambda each: sympy.Symbol(str(each)),
    )
  if isinstance(expression, sympy.Basic):
    swap = {
      symbol: sympy.I if str(symbol) == "i" else sympy.Symbol(str(symbol))
      for symbol in expression.free_symbols
    }
    if not expression.has(sympy.Sum, sympy.Product):
      expression = expression.subs(swap)
    if not expression.has(sympy.I):
      expression = expression.replace(_is_odd_root, _real_root)
  return expression


def _is_odd_root(each) -> bool:
  """Returns whether this is an odd root of a negative number, so real."""
  return bool(
    each.is_Pow
    and each.base.is_number
    and each.base.is_negative
    and each.exp.is_Rational
    and each.exp.q % 2
    and each.exp.q > 1
  )


def _real_root(each):
  return (-1) ** each.exp.p * (-each.base) ** each.exp


def _readable(text: str) -> str:
  """Rewrites parts that the parser would round (decimals) or misread."""
  text = re.sub(
    r"(\d+(?:\.\d+)?|[a-z])\^\{?\\circ\}?", r"(\\frac{\1\\pi}{180})", text
  )
  text = re.sub(r"\\(ln|log)\|([^|]*)\|", r"\\\1(|\2|)", text)
  text = _MIXED.sub(r"(\1+\2)", _DECIMAL.sub(_in_brackets, text))
  text = re.sub(rf"\(({_IN_BRACKETS})\)", r"\1", text)
  return _FACTOR.sub(r"\g<0>\\cdot ", text)


def _fraction(match: re.Match) -> str:
  value = Fraction(match[0])
  return rf"\frac{{{value.numerator}}}{{{value.denominator}}}"


def _in_brackets(match: re.Match) -> str:
  # After a function's name, brackets would end its argument: \sin0.5x.
  named = match.string[: match.start()][-1:].isalpha()
  return _fraction(match) if named else f"({_fraction(match)})"
