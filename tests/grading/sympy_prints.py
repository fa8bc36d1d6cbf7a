r"""Pairs of a gold answer in LaTeX and what sympy prints, or nearly prints.

Expressions are built here, so that both texts are of one known object: the gold
answer by `sympy.latex`, the other by `str`. The different one has a number
changed. No parser takes part.
"""

import random

import sympy
from sympy import (
  E,
  FiniteSet,
  I,
  Interval,
  Matrix,
  Rational,
  Union,
  oo,
  pi,
  sqrt,
)

from rstar_jax.grading.labelled import Pair

x, y, t, n, theta, alpha = sympy.symbols("x y t n theta alpha")
_FORMS = {
  "rational": lambda a, b, c: Rational(a, b),
  "surd": lambda a, b, c: (a + sqrt(c)) / b,
  "surds": lambda a, b, c: a * sqrt(b) + sqrt(c),
  "root": lambda a, b, c: a * sympy.cbrt(c) / b,
  "pi": lambda a, b, c: pi * a / b + c,
  "complex": lambda a, b, c: a + b * I,
  "imaginary": lambda a, b, c: sqrt(c) * I / b,
  "polar": lambda a, b, c: a * sympy.exp(I * pi / b),
  "e": lambda a, b, c: E * a,
  "e_power": lambda a, b, c: sympy.exp(Rational(a, b)) + c,
  "logarithm": lambda a, b, c: sympy.log(c) / sympy.log(a + c),
  "natural": lambda a, b, c: a * sympy.log(c) - b,
  "asin": lambda a, b, c: sympy.asin(Rational(1, a + 2)) + b,
  "acos": lambda a, b, c: sympy.acos(Rational(1, b + 2)),
  "atan": lambda a, b, c: a * sympy.atan(c),
  "inverse": lambda a, b, c: sympy.asin(a * x),
  "angle": lambda a, b, c: theta * a / b,
  "greek": lambda a, b, c: a * sympy.sin(theta) + b * sympy.cos(alpha),
  "hyperbolic": lambda a, b, c: sympy.cosh(a * x) - c,
  "secant": lambda a, b, c: a * sympy.sec(x) ** 2 + b,
  "linear": lambda a, b, c: Rational(a, b) * x + c,
  "polynomial": lambda a, b, c: a * x**2 - b * x + c,
  "product": lambda a, b, c: (x - a) * (b * x + c),
  "quotient": lambda a, b, c: (x**2 + a) / (b * x - c),
  "power": lambda a, b, c: a * x ** Rational(b, b + 1) * y**c,
  "exponential": lambda a, b, c: a * sympy.exp(-b * t) + c,
  "decay": lambda a, b, c: c * 2 ** (-t / a),
  "absolute": lambda a, b, c: abs(a * x - c),
  "factorial": lambda a, b, c: sympy.factorial(n + a) / b,
  "binomial": lambda a, b, c: sympy.binomial(n, a) + c,
  "floor": lambda a, b, c: sympy.floor(n / (a + 1)) + b,
  "equation": lambda a, b, c: sympy.Eq(y, a * x + Rational(b, c)),
  "solution": lambda a, b, c: sympy.Eq(x, Rational(a, b)),
  "pair": lambda a, b, c: (sympy.Integer(a), Rational(b, c)),
  "triple": lambda a, b, c: (sympy.Integer(a), sqrt(b), sympy.Integer(-c)),
  "set": lambda a, b, c: FiniteSet(a, a + b, -c),
  "surd_set": lambda a, b, c: FiniteSet(-sqrt(a + 1), sqrt(a + 1)),
  "closed": lambda a, b, c: Interval(-a, b),
  "open": lambda a, b, c: Interval.open(-a, Rational(b, c)),
  "half_open": lambda a, b, c: Interval.Ropen(a, a + sqrt(b + 1)),
  "ray": lambda a, b, c: Interval(a, oo),
  "left_ray": lambda a, b, c: Interval.open(-oo, Rational(a, b)),
  "union": lambda a, b, c: Union(Interval.open(-oo, -a), Interval(b, oo)),
  "union_of_three": lambda a, b, c: Union(
    Interval.open(-oo, -a), Interval.open(-a, b), Interval.open(b, oo)
  ),
  "matrix": lambda a, b, c: Matrix([[a, -b], [Rational(c, 2), sqrt(a)]]),
  "vector": lambda a, b, c: Matrix([a, -b, c]),
  "less": lambda a, b, c: x <= Rational(a, b),
  "infinity": lambda a, b, c: a * oo if b % 2 else -oo,
  "one_tuple": lambda a, b, c: (sympy.Integer(a),),
}


def _latex(found, choose: random.Random) -> str:
  """Writes an object in one of the ways of a gold answer."""
  if isinstance(found, tuple) and len(found) == 1:
    found = found[0]
  options = {
    "ln_notation": choose.random() < 0.7,
    "fold_short_frac": choose.random() < 0.2,
    "inv_trig_style": choose.choice(("full", "abbreviated", "power")),
    "mul_symbol": choose.choice((None, "dot", "times")),
  }
  return sympy.latex(found, **options).replace("\\operatorname{log}", "\\log")


def pairs(seed: int, per_form: int = 2) -> list[Pair]:
  """Returns an equal and a different pair for each draw of each form.

  Args:
    seed: of the numbers.
    per_form: draws of each form.
  """
  found = {}
  for name, form in _FORMS.items():
    choose = random.Random(f"{seed} {name}")
    for _ in range(per_form):
      numbers = [choose.randint(1, 9) for _ in range(3)]
      right = form(*numbers)
      at = choose.randrange(3)
      numbers[at] += choose.choice((1, 2, 10))
      wrong = form(*numbers)
      gold = _latex(right, choose)
      found[gold, str(right)] = Pair(gold, str(right), True, f"sympy {name}")
      if not _equal(right, wrong):
        found[gold, str(wrong)] = Pair(gold, str(wrong), False, f"sympy {name}")
  return list(found.values())


def _equal(one, two) -> bool:
  if one == two:
    return True
  return isinstance(one, sympy.Expr) and sympy.simplify(one - two) == 0
