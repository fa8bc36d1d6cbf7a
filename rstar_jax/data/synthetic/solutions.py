"""Writes solutions of synthetic problems as steps of code.

A solution computes the quantities that the answer needs, one a step, each from
earlier ones, and then the answer.
"""

import dataclasses
import random
from collections.abc import Mapping
from fractions import Fraction

from rstar_jax.data.synthetic import relations
from rstar_jax.steps import grammar
from rstar_jax.types import Prefix, Problem


@dataclasses.dataclass(frozen=True)
class Fact:
  """One quantity.

  Attributes:
    relation: key of `relations.RELATIONS`.
    x: name of the quantity.
    values: fields of the relation's templates.
    value: the quantity.
  """

  relation: str
  x: str
  values: Mapping[str, object]
  value: Fraction

  @property
  def needs(self) -> tuple[str, ...]:
    return tuple(
      str(self.values[key]) for key in ("y", "z") if key in self.values
    )


@dataclasses.dataclass(frozen=True)
class Question:
  """A question.

  Attributes:
    kind: "one", or a key of `relations.QUESTIONS`.
    values: fields of the question's templates.
    names: the quantities that it names.
  """

  kind: str
  values: Mapping[str, object]
  names: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class SolvedProblem:
  """A problem and its solution, as node texts (`steps/grammar.py`).

  The problem's answer is right; the solution may be wrong in the splits that
  the bootstrap model trains on.

  Attributes:
    problem: the problem.
    steps: the solution.
    facts: all quantities, each after those that it refers to.
    question: what is asked of them.
  """

  problem: Problem
  steps: Prefix
  facts: tuple[Fact, ...]
  question: Question


def numbers(values: Mapping[str, object]) -> list[int]:
  """Returns the numbers n and m, as far as they are given."""
  return [int(values[key]) for key in ("n", "m") if key in values]


def solve(
  facts: list[Fact], question: Question, random_: random.Random | None
) -> tuple[list[str], Fraction]:
  """Writes the bodies of the steps and computes their result.

  Args:
    facts: the facts that the answer needs, in order.
    question: the question.
    random_: draws the injected errors; None injects none.

  Returns:
    The bodies, and the answer that the code prints.

  Raises:
    ZeroDivisionError: if an injected error leads to a division by zero.
  """
  todo = [
    (relations.RELATIONS[fact.relation], fact.x, fact.needs, fact.values)
    for fact in facts
  ]
  asked = question.names[0]
  if question.kind != "one":
    asked = "answer"
    relation = relations.QUESTIONS[question.kind]
    todo.append((relation, asked, question.names, question.values))
  known: dict[str, Fraction] = {}
  bodies = []
  for index, (relation, x, names, values) in enumerate(todo):
    code, value = relation.code, relation.value
    if random_ is not None and relation.wrong_value is not None:
      share = relation.error_rate + relations.ERROR_RATE_GROWTH * index
      if random_.random() < share:
        code, value = relation.wrong_code, relation.wrong_value
    known[x] = value([known[name] for name in names], numbers(values))
    bodies.append(_step(relation.comment, code, {"x": x, **values}))
  return bodies, known[asked]


def _step(comment: str, code: str, values: Mapping[str, object]) -> str:
  """Returns the body of one node: a comment, its import if any, the code."""
  lines = [f"# {comment.format(**values)}"]
  if "Fraction" in code:
    lines.append("from fractions import Fraction")
  return "\n".join([*lines, code.format(**values), ""])


def solution(bodies: list[str], printed: str, answer: str) -> Prefix:
  """Assembles node texts from the bodies of the steps."""
  opened = [f"{grammar.CODE}\n{bodies[0]}"]
  opened += [f"\n\n{body}" for body in bodies[1:]]
  final = f"\n\n# Now print the final answer\nprint({printed})\n"
  boxed = f"The answer is \\boxed{{{answer}}}."
  return (
    *(text + grammar.END_OF_STEP for text in opened),
    grammar.with_output(final + grammar.END_OF_CODE, answer),
    f"{grammar.ANSWER}{boxed}{grammar.END_OF_ANSWER}",
  )
