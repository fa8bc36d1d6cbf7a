"""Extracts final answers and decides whether two of them are equal.

Equal means what a fair human would accept for this gold answer:

- a rounded decimal is not an exact fraction or irrational;
- a unit, currency, percent sign or `x=` may be left out, but two that are
  written must not conflict, and a factor (100 for percent) is never free;
- sets and lists are unordered, tuples are ordered, ends of intervals matter.

Equal bodies (see `notation.py`), and bodies that are plain rationals, are
decided here and exactly (`decide`). All else goes to math-verify (`equal`),
which may take forever: call it in a process that can be killed, as `grader.py`
does. It is imported at first use.
"""

import functools
import re
from fractions import Fraction

if __package__:
  from rstar_jax.verify import notation
else:  # In a grader worker, where there is no package around.
  import notation

_CODE = re.compile(r"==|\bprint\b|\bimport\b|\blambda\b|\breturn\b|`|\bdef\b")

# One letter (a choice, a variable), or words in lower case.
_WORDS = r"[A-Za-z]|[a-z][a-z' -]+"

normalise = notation.normalise


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
  end = notation.closing_brace(text, start)
  return None if end is None else text[start:end].strip()


def decide(gold: str, predicted: str) -> bool | None:
  """Decides what can be decided exactly and at once.

  Args:
    gold: the right answer.
    predicted: the answer to judge.

  Returns:
    Whether they are equal; None where that takes mathematics.
  """
  if not predicted.strip() or not gold.strip():
    return False
  if gold.strip() == predicted.strip():
    return True
  if max(len(gold), len(predicted)) > notation.LONGEST:
    return False
  one, two = notation.normalise(gold), notation.normalise(predicted)
  if notation.conflict(one.tag, two.tag):
    return False
  if one.name and two.name and one.name != two.name:
    return False
  if one.body == two.body:
    return True
  values = notation.rational(one.body), notation.rational(two.body)
  if None not in values:
    return values[0] == values[1]
  if _CODE.search(gold) or _CODE.search(predicted):
    return False
  if all(re.fullmatch(_WORDS, each.body) for each in (one, two)) and (
    sorted(one.body) != sorted(two.body)  # "ab" may be a product, and "ba".
  ):
    return False
  if any(re.search(r"\d\s+\d", each.body) for each in (one, two)):
    return False  # Several numbers; a library would take the last one.
  return None


def equal(gold: str, predicted: str) -> bool:
  """Decides whether an answer is equal to the gold one; may take forever.

  Args:
    gold: the right answer, LaTeX or plain.
    predicted: the answer to judge.

  Returns:
    Whether a fair human would accept it.
  """
  decision = decide(gold, predicted)
  if decision is not None:
    return decision
  return by_library(
    notation.normalise(gold).body, notation.normalise(predicted).body
  )


def by_library(gold: str, predicted: str) -> bool:
  """Decides by math-verify alone; may take forever.

  Args:
    gold: body of the right answer. No percent sign is left in it, so that the
      library cannot make 0.5 of 50.
    predicted: body of the answer to judge.

  Returns:
    Whether they are equal either way around.
  """
  one, two = _parse(_exact(gold)), _parse(_exact(predicted))
  return bool(one and two) and (_verify(one, two) or _verify(two, one))


def _exact(body: str) -> str:
  """Writes decimals as fractions, so that nothing is compared rounded."""

  def fraction(match: re.Match) -> str:
    value = Fraction(match[0])
    return rf"\frac{{{value.numerator}}}{{{value.denominator}}}"

  return re.sub(r"(?<![\w.])(?:\d+\.\d+|\.\d+)(?![\w.])", fraction, body)


@functools.cache
def _library():
  import logging

  import math_verify

  # It warns, once a process, that its own timeouts are off: they are ours.
  logging.getLogger("math_verify").setLevel(logging.ERROR)
  return math_verify


def _parse(body: str) -> list:
  library = _library()
  return library.parse(
    f"${body}$",
    [library.LatexExtractionConfig(), library.ExprExtractionConfig()],
    parsing_timeout=None,
  )


def _verify(gold: list, predicted: list) -> bool:
  return _library().verify(
    gold, predicted, timeout_seconds=None, allow_set_relation_comp=True
  )
