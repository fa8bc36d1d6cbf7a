"""Worked solutions of synthetic problems: from facts to steps of code.

A solution computes the quantities that the answer needs, in an order in which
all is known, one a step, and then what the question makes of them.
"""

import dataclasses
import random
from collections.abc import Mapping
from fractions import Fraction

from rstar_jax.data.synthetic import relations
from rstar_jax.steps import grammar
from rstar_jax.types import Prefix, Problem


@dataclasses.dataclass(frozen=True)
class Worked:
  """A problem and its worked solution, as node texts (`steps/grammar.py`).

  The problem's answer is right; the solution may not be in the splits that
  the bootstrap model learns from.
  """

  problem: Problem
  steps: Prefix


@dataclasses.dataclass(frozen=True)
class Fact:
  """One quantity: a relation, whose it is, and what it refers to."""

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
  """What is asked: its kind, the template's values, the quantities named."""

  kind: str
  values: Mapping[str, object]
  names: tuple[str, ...]


def numbers(values: Mapping[str, object]) -> list[int]:
  """Returns the numbers n and m, those that there are."""
  return [int(values[key]) for key in ("n", "m") if key in values]


def solve(
  facts: list[Fact], question: Question, random_: random.Random | None
) -> tuple[list[str], Fraction]:
  """Writes the bodies of the steps and computes where they lead.

  Args:
    facts: those that the answer needs, in order.
    question: what is asked.
    random_: draws slips; None makes none.

  Returns:
    The bodies, and the answer that the code prints.

  Raises:
    ZeroDivisionError: slips led there.
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
    if random_ is not None and relation.slip_value is not None:
      share = relation.slip_share + relations.SLIP_GROWTH * index
      if random_.random() < share:
        code, value = relation.slip, relation.slip_value
    known[x] = value([known[name] for name in names], numbers(values))
    bodies.append(_step(relation.comment, code, {"x": x, **values}))
  return bodies, known[asked]


def _step(comment: str, code: str, values: Mapping[str, object]) -> str:
  """Returns the body of one node: the import it needs, a comment, code."""
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
