"""Types of answers, and operations on intervals.

Standard library only: it runs in grader workers too.
"""

import dataclasses
import itertools
import re

from rstar_jax.grading import notation, units


@dataclasses.dataclass(frozen=True)
class Answer:
  """A parsed answer.

  Attributes:
    kind: "value"; "words"; "choice", with its letter in `body` and its text, if
      any, in `parts`; "list" and "set", unordered; "tuple", ordered; "bracket",
      a list in square brackets; "record", named values; "interval", with its
      two brackets in `body`; "union" of intervals; "matrix", with a "tuple" for
      each row; "relation", an equation or inequality; "ratio"; "case", with
      its only part an answer that holds under its condition alone.
    body: LaTeX without spaces, or words in lower case.
    unit: unit of a value.
    product: the value with its unit read as variables, if that may be meant:
      "5m" for "5 m".
    name: the left side, "x" in "x=5"; "" if there is none.
    parts: the answers that it consists of.
    condition: words after it that may be left out, e.g. "for all x".
    claims: expressions that it is stated to equal: 3+4 in "3+4=7".
  """

  kind: str
  body: str = ""
  unit: units.Unit = units.NONE
  product: str = ""
  name: str = ""
  parts: tuple["Answer", ...] = ()
  condition: str = ""
  claims: tuple["Answer", ...] = ()


NEGATIVE = Answer("value", r"-\infty")
POSITIVE = Answer("value", r"\infty")


def interval(opening: str, low: Answer, high: Answer, closing: str) -> Answer:
  """Returns an interval; an infinite end is open."""
  opening = "(" if low == NEGATIVE else opening
  closing = ")" if high == POSITIVE else closing
  return Answer("interval", opening + closing, parts=(low, high))


def as_interval(answer: Answer) -> Answer:
  """Converts a pair to an interval, since "(1,2)" may be either."""
  vector = answer.body == "vector"
  if (
    answer.kind in ("tuple", "bracket")
    and len(answer.parts) == 2
    and not vector
  ):
    ends = "()" if answer.kind == "tuple" else "[]"
    return dataclasses.replace(
      interval(ends[0], *answer.parts, ends[1]), name=answer.name
    )
  return answer


def intersection(parts: list[Answer]) -> Answer | None:
  r"""Returns the intersection of inequalities, None if they mean a union.

  "x > 2, x < 5", which overlap, and "x \ne 1, x \ne 2" are intersections;
  "x < 2, x > 5" is a union.
  """
  if all(each.kind == "union" and len(each.parts) == 2 for each in parts):
    points = {each.parts[0].parts[1] for each in parts}
    values = {notation.rational(each.body): each for each in points}
    if None in values or any(
      each.parts[1].parts[1] != POSITIVE for each in parts
    ):
      return None
    ends = [NEGATIVE, *(values[key] for key in sorted(values)), POSITIVE]
    pieces = tuple(
      interval("(", *pair, ")") for pair in itertools.pairwise(ends)
    )
    return Answer("union", name=parts[0].name, parts=pieces)
  if len(parts) != 2 or any(each.kind != "interval" for each in parts):
    return None
  low, high = sorted(parts, key=lambda each: each.parts[0] == NEGATIVE)
  if (low.parts[1], high.parts[0]) != (POSITIVE, NEGATIVE):
    return None
  values = [
    notation.rational(each.body) for each in (low.parts[0], high.parts[1])
  ]
  if None in values or values[0] >= values[1]:
    return None
  found = interval(low.body[0], low.parts[0], high.parts[1], high.body[1])
  return dataclasses.replace(found, name=low.name)


def flat(parts: list[Answer]) -> tuple[Answer, ...]:
  """Returns the intervals that intervals and unions consist of."""
  return tuple(
    piece
    for each in parts
    for piece in (each.parts if each.kind == "union" else (each,))
  )


def merged(parts: list[Answer]) -> list[Answer]:
  """Joins intervals that touch or overlap, if all ends are plain numbers."""
  try:
    spans = sorted(
      (_end(each.parts[0]), each.body[0] == "(", _end(each.parts[1]), each)
      for each in parts
    )
  except (TypeError, IndexError):
    return parts
  joined = [spans[0][3]]
  for low, is_open, high, each in spans[1:]:
    last = joined[-1]
    end = _end(last.parts[1])
    if low > end or (low == end and is_open and last.body[1] == ")"):
      joined.append(each)
    elif high > end or (high == end and each.body[1] == "]"):
      body = last.body[0] + each.body[1]
      joined[-1] = Answer(
        "interval", body, name=last.name, parts=(last.parts[0], each.parts[1])
      )
  return joined


def _end(answer: Answer):
  if answer.body.endswith(r"\infty"):
    return -float("inf") if answer.body[0] == "-" else float("inf")
  value = notation.rational(answer.body)
  if value is None:
    raise TypeError
  return value


def clocks(answer: Answer) -> set[int]:
  """Returns the times of day that an answer may mean, in minutes."""
  if answer.body.startswith("clock "):
    return {int(answer.body.split()[1])}
  if answer.kind == "ratio" and len(answer.parts) == 2:
    hour, minute = (each.body for each in answer.parts)
    if hour.isdigit() and re.fullmatch(r"[0-5]\d", minute) and int(hour) < 25:
      early = int(hour) * 60 + int(minute)
      return {early or 1440} | (
        {early % 720 + 720, early % 720 or 1440} if int(hour) < 13 else set()
      )
  return set()
