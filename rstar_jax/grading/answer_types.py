"""Kinds of answers, and arithmetic with intervals.

Standard library only: it runs in grader workers too.
"""

import dataclasses
import itertools
import re

from rstar_jax.grading import notation, units


@dataclasses.dataclass(frozen=True)
class Form:
  """What an answer is.

  Attributes:
    kind: "value"; "words"; "choice", its letter in `body` and perhaps its text
      in `parts`; "list" and "set", unordered; "tuple", ordered; "bracket",
      between square ones; "record", named values; "interval", its `body` the
      two brackets; "union" of intervals; "matrix", of "tuple"s, its rows;
      "relation", an equation or inequality; "ratio".
    body: LaTeX without spaces, or words in lower case.
    unit: what a value counts.
    name: what stands on the left, "x" of "x=5"; "" if nothing does.
    parts: what it is made of.
  """

  kind: str
  body: str = ""
  unit: units.Unit = units.NONE
  name: str = ""
  parts: tuple["Form", ...] = ()


NEGATIVE = Form("value", r"-\infty")
POSITIVE = Form("value", r"\infty")


def interval(opening: str, low: Form, high: Form, closing: str) -> Form:
  """Returns an interval; it is open where it ends in infinity."""
  opening = "(" if low == NEGATIVE else opening
  closing = ")" if high == POSITIVE else closing
  return Form("interval", opening + closing, parts=(low, high))


def as_interval(form: Form) -> Form:
  """Reads a pair as an interval, if it is one: "(1,2)" may be either."""
  vector = form.body == "vector"
  if form.kind in ("tuple", "bracket") and len(form.parts) == 2 and not vector:
    ends = "()" if form.kind == "tuple" else "[]"
    return dataclasses.replace(
      interval(ends[0], *form.parts, ends[1]), name=form.name
    )
  return form


def intersection(parts: list[Form]) -> Form | None:
  r"""Reads inequalities that hold together, None for what is a union.

  That is "x > 2, x < 5", which have something in common, and "x \ne 1,
  x \ne 2"; "x < 2, x > 5" is a union.
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
    return Form("union", name=parts[0].name, parts=pieces)
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


def flat(parts: list[Form]) -> tuple[Form, ...]:
  """Returns the intervals of intervals and unions."""
  return tuple(
    piece
    for each in parts
    for piece in (each.parts if each.kind == "union" else (each,))
  )


def merged(parts: list[Form]) -> list[Form]:
  """Joins intervals that meet, if all their ends are plain numbers."""
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
      joined[-1] = Form(
        "interval", body, name=last.name, parts=(last.parts[0], each.parts[1])
      )
  return joined


def _end(form: Form):
  if form.body.endswith(r"\infty"):
    return -float("inf") if form.body[0] == "-" else float("inf")
  value = notation.rational(form.body)
  if value is None:
    raise TypeError
  return value


def clocks(form: Form) -> set[int]:
  """Returns the minutes after midnight that a form may mean as a time."""
  if form.body.startswith("clock "):
    return {int(form.body.split()[1])}
  if form.kind == "ratio" and len(form.parts) == 2:
    hour, minute = (each.body for each in form.parts)
    if hour.isdigit() and re.fullmatch(r"[0-5]\d", minute) and int(hour) < 25:
      early = int(hour) * 60 + int(minute)
      return {early or 1440} | (
        {early % 720 + 720, early % 720 or 1440} if int(hour) < 13 else set()
      )
  return set()
