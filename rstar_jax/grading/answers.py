"""Extracts final answers and decides whether two of them are equal.

An answer is equal if a fair human would accept it for the gold answer:

- a rounded decimal does not equal an exact fraction or irrational number;
- a unit, currency, percent sign or `x=` may be left out, but two that are
  written must not conflict, and a factor (100 for percent) counts;
- sets and lists are unordered, tuples are ordered, ends of intervals matter.

`parsing.py` parses an answer, `compare.py` compares two. Plain numbers are
compared exactly and at once (`decide`). What needs algebra goes to `algebra.py`
(`equal`), which may hang: call it in a process that can be killed, as
`grader.py` does.
"""

import re

from rstar_jax.grading import algebra, brackets, compare, notation, parsing

_CODE = re.compile(
  r"==|(?<!\\)\b(?:print|import|lambda|return|def|for|while|eval|exec|len|sum|range)\b"
  r"(?!\w)\s*[(\[]|(?<!\\)\b(?:import|lambda|return|def)\s|\w+Error\b|\bif\b.*\belse\b|"
  r"\bfor\b.*\bin\b"
)


def final_answer(text: str) -> str | None:
  r"""Returns the content of the last `\boxed{...}`.

  Args:
    text: a solution.

  Returns:
    The text between the braces without outer spaces; None if there is no box or
    its braces do not match.
  """
  boxes = list(re.finditer(r"\\boxed\s*\{", text))
  if not boxes:
    return None
  start = boxes[-1].end()
  end = brackets.closing_brace(text, start)
  return None if end is None else text[start:end].strip()


def decide(gold: str, predicted: str) -> bool | None:
  """Decides equality exactly and at once, where that is possible.

  Args:
    gold: the right answer.
    predicted: the answer to judge.

  Returns:
    Whether they are equal; None if that needs algebra.
  """
  return _answers(gold, predicted, compare.same_number, _unknown)


def equal(gold: str, predicted: str) -> bool:
  """Decides whether an answer is equal to the gold one; may hang.

  Args:
    gold: the right answer, LaTeX or plain.
    predicted: the answer to judge.

  Returns:
    Whether a fair human would accept it.
  """
  return bool(_answers(gold, predicted, _same, algebra.same_relation))


def _unknown(one: str, two: str) -> None:
  return None


def _answers(
  gold: str, predicted: str, same: compare.Same, same_relation: compare.Same
) -> bool | None:
  if not predicted.strip() or not gold.strip():
    return False
  if gold.strip() == predicted.strip():
    return True
  if max(len(gold), len(predicted)) > notation.LONGEST:
    return False
  one, two = parsing.read(gold), parsing.read(predicted)
  if one == two:
    return True
  if _CODE.search(gold) or _CODE.search(predicted):
    return False
  return compare.Comparison(same, same_relation).equal(one, two)


def _same(one: str, two: str) -> bool:
  decided = compare.same_number(one, two)
  return algebra.same(one, two) if decided is None else decided
