"""Judges the steps of a solution, from the problem's own quantities.

A path is *right so far* if a correct continuation gives the right answer: one
that computes each missing quantity as the problem defines it, from the path's
values, and prints the answer. So a step that computes a quantity wrongly is
wrong if the answer needs it, and so are all later steps until the quantity is
computed anew; a wrong value that the answer does not need, or no longer needs,
is harmless. Names that the problem does not define are ignored, except
`answer`, which is printed if the path has it.

From the end of the code on the text alone decides: its output, or its boxed
answer, is right or not.

Values are exact; see `arithmetic.py`. From a step that is not straight-line
arithmetic, a path is UNKNOWN until its code ends. Verdicts are those of answers
(`search/tree.py`): RIGHT, WRONG and UNKNOWN.
"""

import re
from fractions import Fraction

import numpy as np

from rstar_jax.data.synthetic import arithmetic, generator, solutions
from rstar_jax.data.synthetic.arithmetic import Values
from rstar_jax.data.synthetic.solutions import SolvedProblem
from rstar_jax.grading import answers
from rstar_jax.grading.voting import vote_key
from rstar_jax.search.tree import RIGHT, ROOT_INDEX, UNKNOWN, WRONG, Tree
from rstar_jax.steps import grammar
from rstar_jax.types import Prefix

# Quantities after a path; None where a step was unclear.
State = Values | None
START: State = {}
# Plain answers, which need no slow parsing; the denominator is not 0.
_RATIONAL = re.compile(r"-?\d{1,99}(/[1-9]\d{0,98})?", re.ASCII)


def verdicts(solved: SolvedProblem, steps: Prefix) -> list[int]:
  """Returns whether a path is right so far, at each of its steps.

  Args:
    solved: the problem.
    steps: node texts of the path, whose code ran without error.
  """
  verdicts_, state = [], START
  for text in steps:
    state, verdict = judge(solved, state, text)
    verdicts_.append(verdict)
  return verdicts_


def labels(tree: Tree) -> np.ndarray:
  """Returns whether the path to each node is right so far, int8 [N].

  Raises:
    ValueError: the tree's problem is not one of the generator's.
  """
  solved = generator.again(tree.problem)
  labels_ = np.full(len(tree), UNKNOWN, np.int8)
  labels_[ROOT_INDEX] = RIGHT
  states: list[State] = [START]
  for node in range(1, len(tree)):
    before = states[int(tree.parent[node])]
    state, labels_[node] = judge(solved, before, tree.texts[node])
    states.append(state)
  return labels_


def judge(solved: SolvedProblem, state: State, text: str) -> tuple[State, int]:
  """Judges the next node of a path.

  Args:
    solved: the problem.
    state: the quantities before it; `START` for the first node.
    text: the node's text.

  Returns:
    The quantities after it, and whether the path is right so far.
  """
  gold = solved.problem.answer
  if grammar.ANSWER in text:
    boxed = answers.final_answer(text)
    return state, RIGHT if _equal(boxed, gold) else WRONG
  if shown := grammar.output_spans(text):
    output = grammar.MARKER.sub("", text[slice(*shown[-1])])
    # The answer repeats the last line of the output.
    last = output.strip().rpartition("\n")[2]
    return state, RIGHT if _equal(last, gold) else WRONG
  if state is None:
    return None, UNKNOWN
  try:
    state, _ = arithmetic.execute(grammar.code_of(text), state)
  except (arithmetic.Unclear, KeyError):
    return None, UNKNOWN
  except ZeroDivisionError:
    return state, WRONG
  right = result(solved, state) == Fraction(gold)
  return state, RIGHT if right else WRONG


def result(solved: SolvedProblem, values: Values) -> Fraction | None:
  """Returns the answer of a correct continuation; None if it has none.

  Args:
    solved: the problem.
    values: quantities computed so far, rightly or not.
  """
  known = dict(values)
  try:
    for each in solved.plan:
      if each.x not in known:
        needed = [known[name] for name in each.needs]
        numbers = solutions.numbers(each.values)
        known[each.x] = each.relation.value(needed, numbers)
  except ZeroDivisionError:
    return None
  return known.get("answer", known[solved.plan[-1].x])


def _equal(answer: str | None, gold: str) -> bool:
  if answer is None or answer == gold:
    return answer == gold
  if _RATIONAL.fullmatch(answer):
    return Fraction(answer) == Fraction(gold)
  return vote_key(answer) == vote_key(gold)
