"""Extracts final answers and decides whether two of them are equal.

Equal means what a fair human would accept for this gold answer:

- a rounded decimal is not an exact fraction or irrational;
- a unit, currency, percent sign or `x=` may be left out, but two that are
  written must not conflict, and a factor (100 for percent) is never free;
- sets and lists are unordered, tuples are ordered, ends of intervals matter.

`parsing.py` reads what an answer is, `compare.py` compares. Plain numbers are
compared exactly and at once (`decide`); what takes mathematics goes to
`algebra.py` (`equal`), which may take forever: call it in a process that can be
killed, as `grader.py` does.
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
    What stands between the braces, outer spaces removed; None where there is no
    box or its braces do not match.
  """
  boxes = list(re.finditer(r"\\boxed\s*\{", text))
  if not boxes:
    return None
  start = boxes[-1].end()
  end = brackets.closing_brace(text, start)
  return None if end is None else text[start:end].strip()


def decide(gold: str, predicted: str) -> bool | None:
  """Decides what can be decided exactly and at once.

  Args:
    gold: the right answer.
    predicted: the answer to judge.

  Returns:
    Whether they are equal; None where that takes mathematics.
  """
  return _answers(gold, predicted, compare.same_number, _unknown)


def equal(gold: str, predicted: str) -> bool:
  """Decides whether an answer is equal to the gold one; may take forever.

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
  return compare.Comparison(same, same_relation).forms(one, two)


def _same(one: str, two: str) -> bool:
  decided = compare.same_number(one, two)
  return algebra.same(one, two) if decided is None else decided
