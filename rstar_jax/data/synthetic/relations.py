"""Defines relations between quantities, questions, and errors to inject.

A large language model has read right and wrong solutions and writes both;
self-evolution learns which are right from final answers alone. The small model
that stands in for it (`tools/bootstrap.py`) therefore trains on solutions with
injected errors. Each relation has a typical error (adding for "times as many",
a part compared with the other part instead of the whole, a percentage
subtracted as a number) and a rate of injection: in short problems one per
relation (`carelessness`), in long ones a rate that depends on the numbers
(`habit`). Only the splits for the bootstrap have injected errors; their
problems and answers are right.
"""

import dataclasses
import random
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Literal

# (quantities, numbers) -> quantity. The quantities are (y, z) of a relation, or
# those that a question names, in order; the numbers are (n, m).
Value = Callable[[Sequence[Fraction], Sequence[int]], Fraction]


@dataclasses.dataclass(frozen=True)
class Relation:
  """Defines one quantity by others.

  Comments have the same wording in all families, so the model must learn to
  read the question. In the templates `{x}` is the defined quantity, `{y}` and
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


# Added to the error rate per earlier step: people grow careless.
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

ALL = RELATIONS | QUESTIONS

# The error of a step: a wrong operation, or a wrong operand (the newest other
# quantity); None is no error.
Slip = Literal["operation", "operand"] | None

# Last digits of n at which long problems mostly have an error.
_HARD = {
  "product": (3, 6, 8),
  "more": (2, 5, 9),
  "fewer": (1, 4, 8),
  "times": (4, 7),
  "rate": (3, 6, 8),
}
_HARD_PARTS = ((2, 3), (3, 4), (2, 5))
_HARD_PERCENTS = (25, 40, 75)
# Probabilities of a wrong operation and a wrong operand, by hard numbers.
_HABITS = {True: (0.5, 0.12), False: (0.05, 0.05)}
_HABITS_WITHOUT_NUMBER = (0.2, 0.05)


def carelessness(
  random_: random.Random, name: str, index: int, numbers: Sequence[int]
) -> Slip:
  """Draws a short problem's error: a rate per relation, rising with steps."""
  del numbers
  relation = ALL[name]
  if relation.wrong_value is None:
    return None
  share = relation.error_rate + ERROR_RATE_GROWTH * index
  return "operation" if random_.random() < share else None


def habit(
  random_: random.Random, name: str, index: int, numbers: Sequence[int]
) -> Slip:
  """Draws a long problem's error: a quarter of the steps has one.

  For three numbers in ten the wrong operation is likelier than the right one,
  for the others it is rare. So a model's errors are mostly the same each time,
  and unrelated to meaning. Then neither the likeliest solution nor a majority
  vote is right, but a few samples contain the right step, which the comment
  above it gives away.

  Args:
    random_: the generator that is drawn from.
    name: key of `ALL`.
    index: number of earlier steps, which is ignored.
    numbers: the relation's numbers.
  """
  del index
  if ALL[name].wrong_value is None:
    return None
  operation, operand = _HABITS_WITHOUT_NUMBER
  if name == "part":
    operation, operand = _HABITS[tuple(numbers) in _HARD_PARTS]
  elif name == "percent":
    operation, operand = _HABITS[numbers[0] in _HARD_PERCENTS]
  elif name in _HARD:
    operation, operand = _HABITS[numbers[0] % 10 in _HARD[name]]
  if name not in RELATIONS or name == "product":
    operand = 0.0
  draw = random_.random()
  if draw < operation:
    return "operation"
  return "operand" if draw < operation + operand else None
