"""Extracts final answers and decides whether two of them are equal.

Answers are equal if a fair human would accept one for the other:

- a rounded decimal does not equal an exact fraction or irrational number;
- a unit, currency, percent sign, `x=` or "for all x" may be left out, but two
  that are written must not conflict, and a factor (100 for percent, unless
  `percent_is_ratio`) counts;
- claims within an answer must be true: "5=6" is not 6;
- sets and lists are unordered, tuples are ordered, ends of intervals matter.

`parsing.py` parses an answer, `compare.py` compares two. Plain numbers are
compared exactly and immediately (`decide`). Comparisons that need algebra go to
`algebra.py` (`equal`), which may hang: call it in a process that can be killed,
as `grader.py` does.
"""

import re

from rstar_jax.grading import algebra, brackets, compare, notation, parsing

_CODE = re.compile(
  r"==|(?<!\\)\b(?:print|import|return|def|for|while|eval|exec|len|sum|range)\b"
  r"(?!\w)\s*[(\[]|(?<!\\)\b(?:import|return|def)\s|"
  r"(?<!\\)\blambda\b[^:]*:|\w+Error\b|\bif\b.*\belse\b|"
  r"\bfor\s+\w+(?:\s*,\s*\w+)*\s+in\b"
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


def decide(
  gold: str, predicted: str, percent_is_ratio: bool = False
) -> bool | None:
  """Decides equality exactly and quickly, where that is possible.

  Args:
    gold: the right answer.
    predicted: the answer to judge.
    percent_is_ratio: whether 25% also equals 1/4, and not only 25.

  Returns:
    Whether they are equal; None if that needs algebra, or an answer has more
    than notation.AT_ONCE characters.
  """
  if gold.strip() == predicted.strip():
    return bool(gold.strip())
  if notation.too_long(gold) or notation.too_long(predicted):
    return False
  if max(len(gold), len(predicted)) > notation.AT_ONCE:
    return None
  by = compare.Comparison(compare.same_number, _unknown, percent_is_ratio)
  return _answers(gold, predicted, by)


def equal(gold: str, predicted: str, percent_is_ratio: bool = False) -> bool:
  """Decides whether an answer is equal to the gold one; may hang.

  Args:
    gold: the right answer, LaTeX or plain.
    predicted: the answer to judge.
    percent_is_ratio: whether 25% also equals 1/4, and not only 25.

  Returns:
    Whether a fair human would accept it.
  """
  by = compare.Comparison(_same, algebra.same_relation, percent_is_ratio)
  return bool(_answers(gold, predicted, by))


def _unknown(one: str, two: str) -> None:
  return None


def _answers(gold: str, predicted: str, by: compare.Comparison) -> bool | None:
  if not predicted.strip() or not gold.strip():
    return False
  if _without_spaces(gold) == _without_spaces(predicted):
    return True
  if notation.too_long(gold) or notation.too_long(predicted):
    return False
  one, two = parsing.read(gold), parsing.read(predicted)
  if one == two:
    return True
  if _CODE.search(gold) or _CODE.search(predicted):
    return False
  return by.equal(one, two)


def _without_spaces(answer: str) -> str:
  """Removes spaces after commas: "100,200" alone may be a number or a list."""
  return re.sub(r",\s+", ",", answer.strip())


def _same(one: str, two: str) -> bool:
  decided = compare.same_number(one, two)
  return algebra.same(one, two) if decided is None else decided
