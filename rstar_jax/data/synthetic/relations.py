"""The meaning of quantities and questions, and the errors to inject.

A large language model has read right and wrong solutions and writes both;
self-evolution finds out which are right from final answers alone. The small
model that stands in for it (`tools/bootstrap.py`) therefore trains on solutions
with injected errors. Each relation has a typical error (adding for "times as
many", a part compared with the other part instead of the whole, a percentage
subtracted as a number) and the rate at which it is injected. Only the splits
for the bootstrap have injected errors; their problems and answers are right.
"""

import dataclasses
from collections.abc import Callable, Sequence
from fractions import Fraction

# (quantities, numbers) -> quantity. The quantities are (y, z) of a relation, or
# those that a question names, in order; the numbers are (n, m).
Value = Callable[[Sequence[Fraction], Sequence[int]], Fraction]


@dataclasses.dataclass(frozen=True)
class Relation:
  """Defines one quantity by others.

  Comments have the same wording in all families, so that the model must learn
  to read. In the templates `{x}` is the quantity that is defined, `{y}` and
  `{z}` those that it refers to, `{n}` and `{m}` numbers.

  Attributes:
    comment: template of the comment that states the relation.
    code: template of the code that computes the quantity.
    value: the value of `code`.
    wrong_code: template of the code with the error; "" if there is none.
    wrong_value: the value of `wrong_code`.
    error_rate: probability of the error at the first step, in [0, 1].
  """

  comment: str
  code: str
  value: Value
  wrong_code: str = ""
  wrong_value: Value | None = None
  error_rate: float = 0.0


# Added to the error rate for each step before: people grow careless.
ERROR_RATE_GROWTH = 0.04

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

# Questions that need one more step; "one" asks for a quantity itself.
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
