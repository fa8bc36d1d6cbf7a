"""What quantities and questions mean, and how people get them wrong.

A large language model has read good solutions and bad ones, and writes both;
what self-evolution does is to find out which are which from final answers
alone. The model that stands in for it (`tools/bootstrap.py`) therefore reads
worked
solutions that contain slips: each relation has one, the mistake that people
make there (adding for "times as many", parts compared with the other part and
not the whole, a percentage taken off as if it were a number), and a share of
the times at which it happens. Only the worked solutions of the bootstrap
contain slips; problems, answers and everything after the bootstrap do not.
"""

import dataclasses
from collections.abc import Callable, Sequence
from fractions import Fraction

# (quantities, numbers) -> quantity. The quantities are those that the relation
# refers to (y, z) or those that the question names, in that order; the numbers
# are (n, m).
Value = Callable[[Sequence[Fraction], Sequence[int]], Fraction]


@dataclasses.dataclass(frozen=True)
class Relation:
  """How one quantity comes from others.

  Comments use one wording for all families: reading is what the model must
  learn. In the templates `{x}` is the quantity that is defined, `{y}` and `{z}`
  those that it refers to, `{n}` and `{m}` numbers.

  Attributes:
    comment: template of the comment that says it.
    code: template of the code that computes it.
    value: what the code computes.
    slip: template of the code that people write by mistake; "" is none.
    slip_value: what that computes.
    slip_share: how often it happens at the first step, in [0, 1].
  """

  comment: str
  code: str
  value: Value
  slip: str = ""
  slip_value: Value | None = None
  slip_share: float = 0.0


# Each step more makes a slip likelier: people grow careless.
SLIP_GROWTH = 0.04

RELATIONS = {
  "given": Relation(
    "{x}: {n}", "{x} = {n}", lambda _, number: Fraction(number[0])
  ),
  "product": Relation(
    "{x}: {n} times {m}",
    "{x} = {n} * {m}",
    lambda _, number: Fraction(number[0] * number[1]),
    "{x} = {n} + {m}",
    lambda _, number: Fraction(number[0] + number[1]),
    0.15,
  ),
  "more": Relation(
    "{x}: {n} more than {y}",
    "{x} = {y} + {n}",
    lambda q, number: q[0] + number[0],
    "{x} = {y} - {n}",
    lambda q, number: q[0] - number[0],
    0.25,
  ),
  "fewer": Relation(
    "{x}: {n} less than {y}",
    "{x} = {y} - {n}",
    lambda q, number: q[0] - number[0],
    "{x} = {y} + {n}",
    lambda q, number: q[0] + number[0],
    0.45,
  ),
  "times": Relation(
    "{x}: {n} times {y}",
    "{x} = {n} * {y}",
    lambda q, number: number[0] * q[0],
    "{x} = {n} + {y}",
    lambda q, number: number[0] + q[0],
    0.35,
  ),
  "part": Relation(
    "{x}: {n}/{m} of {y}",
    "{x} = {y} * Fraction({n}, {m})",
    lambda q, number: q[0] * Fraction(number[0], number[1]),
    "{x} = {y} - Fraction({n}, {m})",
    lambda q, number: q[0] - Fraction(number[0], number[1]),
    0.6,
  ),
  "percent": Relation(
    "{x}: {n}% of {y}",
    "{x} = {y} * Fraction({n}, 100)",
    lambda q, number: q[0] * Fraction(number[0], 100),
    "{x} = {y} - Fraction({n}, 100)",
    lambda q, number: q[0] - Fraction(number[0], 100),
    0.65,
  ),
  "both": Relation(
    "{x}: {y} and {z} together",
    "{x} = {y} + {z}",
    lambda q, _: q[0] + q[1],
    "{x} = {y} - {z}",
    lambda q, _: q[0] - q[1],
    0.25,
  ),
}

# The questions that need one more step; "one" asks for a quantity as it is.
QUESTIONS = {
  "total": Relation(
    "answer: {names} together",
    "answer = {sum}",
    lambda q, _: sum(q, Fraction(0)),
    "answer = {sum_but_last}",
    lambda q, _: sum(q[:-1], Fraction(0)),
    0.2,
  ),
  "difference": Relation(
    "answer: {x} minus {y}",
    "answer = {x} - {y}",
    lambda q, _: q[0] - q[1],
    "answer = {y} - {x}",
    lambda q, _: q[1] - q[0],
    0.35,
  ),
  "fraction": Relation(
    "answer: {x} as a part of {x} and {y}",
    "answer = Fraction({x}, {x} + {y})",
    lambda q, _: q[0] / (q[0] + q[1]),
    "answer = Fraction({x}, {y})",
    lambda q, _: q[0] / q[1],
    0.7,
  ),
  "percentage": Relation(
    "answer: {x} in percent of {y}",
    "answer = 100 * Fraction({x}, {y})",
    lambda q, _: 100 * q[0] / q[1],
    "answer = 100 * Fraction({y}, {x})",
    lambda q, _: 100 * q[1] / q[0],
    0.7,
  ),
  "rate": Relation(
    "answer: {x} divided by {n}",
    "answer = Fraction({x}, {n})",
    lambda q, number: q[0] / number[0],
    "answer = {x} * {n}",
    lambda q, number: q[0] * number[0],
    0.45,
  ),
}
