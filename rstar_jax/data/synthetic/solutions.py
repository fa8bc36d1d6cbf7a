"""Writes solutions of synthetic problems as steps of code.

A solution computes the quantities that the answer needs, one per step, each
from earlier ones, and then the answer.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction

from rstar_jax.data.synthetic import relations
from rstar_jax.steps import grammar
from rstar_jax.steps.prompts import LAST_STEP
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
    names: names of the quantities that it refers to.
  """

  kind: str
  values: Mapping[str, object]
  names: tuple[str, ...]


def needed(facts: Sequence[Fact], names: Sequence[str]) -> list[Fact]:
  """Returns the facts of named quantities and all that they need, in order."""
  wanted = set(names)
  for fact in reversed(facts):
    if fact.x in wanted:
      wanted.update(fact.needs)
  return [fact for fact in facts if fact.x in wanted]


def numbers(values: Mapping[str, object]) -> list[int]:
  """Returns the numbers n and m, those that are given."""
  return [int(values[key]) for key in ("n", "m") if key in values]


@dataclasses.dataclass(frozen=True)
class Planned:
  """A quantity to compute, `answer` among them.

  Attributes:
    kind: key of `relations.ALL`.
    x: name of the quantity.
    needs: names of the quantities that it refers to.
    values: fields of the relation's templates.
  """

  kind: str
  x: str
  needs: tuple[str, ...]
  values: Mapping[str, object]

  @property
  def relation(self) -> relations.Relation:
    return relations.ALL[self.kind]

  def body(self, code: str, **wrong: str) -> str:
    """Returns the body of its node: a comment, an import if needed, the code.

    Args:
      code: template of the code.
      **wrong: values of the code's fields that differ from the comment's.
    """
    values = {"x": self.x, **self.values}
    lines = [f"# {self.relation.comment.format(**values)}"]
    if "Fraction" in code:
      lines.append("from fractions import Fraction")
    return "\n".join([*lines, code.format(**values | wrong), ""])


def plan(facts: Sequence[Fact], question: Question) -> list[Planned]:
  """Returns the quantities to compute, in order.

  Args:
    facts: the facts that the answer needs.
    question: if it asks for a single quantity, that is the last fact.
  """
  planned = [
    Planned(each.relation, each.x, each.needs, each.values) for each in facts
  ]
  if question.kind != "one":
    planned.append(
      Planned(question.kind, "answer", question.names, question.values)
    )
  return planned


@dataclasses.dataclass(frozen=True)
class SolvedProblem:
  """A problem and its solution, as node texts (`steps/grammar.py`).

  The problem's answer is right; the solution may be wrong in the splits that
  the bootstrap model trains on.

  Attributes:
    problem: the problem.
    steps: the solution.
    facts: all quantities, each after those that it refers to.
    question: the question about them.
  """

  problem: Problem
  steps: Prefix
  facts: tuple[Fact, ...]
  question: Question

  @functools.cached_property
  def plan(self) -> list[Planned]:
    """The quantities that the answer needs, in order."""
    return plan(needed(self.facts, self.question.names), self.question)


def solve(
  facts: list[Fact],
  question: Question,
  slips: Callable[[str, int, Sequence[int]], relations.Slip] | None,
) -> tuple[list[str], Fraction]:
  """Writes the bodies of the steps, and computes their result.

  Args:
    facts: the facts that the answer needs, in order.
    question: the question.
    slips: draws the error of a step, from its relation's key, the number of
      earlier steps and the relation's numbers; None injects no errors.

  Returns:
    The bodies, and the answer that the code prints.

  Raises:
    ZeroDivisionError: an injected error leads to a division by zero.
  """
  todo = plan(facts, question)
  target = todo[-1].x
  known: dict[str, Fraction] = {}
  bodies = []
  for index, planned in enumerate(todo):
    relation, needs = planned.relation, planned.needs
    code, value = relation.code, relation.value
    wrong: dict[str, str] = {}
    given = numbers(planned.values)
    slip = slips(planned.kind, index, given) if slips is not None else None
    others = [name for name in known if name not in needs]
    if slip == "operation":
      code, value = relation.wrong_code, relation.wrong_value
    elif slip == "operand" and others:
      wrong["y"] = others[-1]
      needs = (others[-1], *needs[1:])
    known[planned.x] = value([known[name] for name in needs], given)
    bodies.append(planned.body(code, **wrong))
  return bodies, known[target]


def solution(bodies: list[str], printed: str, answer: str) -> Prefix:
  """Assembles node texts from the bodies of the steps."""
  return (
    *(step(each, not index) for index, each in enumerate(bodies)),
    grammar.with_output(printing(printed), answer),
    boxing(answer),
  )


def step(body_: str, first: bool) -> str:
  """Returns the node of a body; the first one opens the code."""
  opening = f"{grammar.CODE}\n" if first else "\n\n"
  return opening + body_ + grammar.END_OF_STEP


def printing(name: str) -> str:
  """Returns the node that prints a quantity and closes the code."""
  return f"\n\n{LAST_STEP}\nprint({name})\n{grammar.END_OF_CODE}"


def boxing(answer: str) -> str:
  """Returns the node that boxes an answer."""
  text = f"The answer is \\boxed{{{answer}}}."
  return f"{grammar.ANSWER}{text}{grammar.END_OF_ANSWER}"
