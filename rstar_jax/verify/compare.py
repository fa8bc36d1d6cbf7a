"""Decides whether two answers, read by `forms.py`, are equal.

This is the half of grading that asks "are they equal". Two expressions are
compared by whoever calls; lists, points, intervals, matrices, units and names
are compared here, part by part. Answers are True, False, and None where the
caller's way to compare expressions said that it does not know.
"""

import dataclasses
import itertools
import re
from collections.abc import Callable, Sequence

if __package__:
  from rstar_jax.verify import forms, notation, units, wording
else:  # In a grader worker, where there is no package around.
  import forms
  import notation
  import units
  import wording

Form = forms.Form
# Whether two expressions are equal; None where that takes mathematics.
Same = Callable[[str, str], bool | None]


def same_number(one: str, two: str) -> bool | None:
  """Compares what is written: plain numbers by value, else only text."""
  if one == two:
    return True
  values = notation.rational(one), notation.rational(two)
  if None not in values:
    return values[0] == values[1]
  if any(re.search(r"\d\s+\d|[{(]$|^$", each) for each in (one, two)):
    return False  # Several numbers; a library would take their product.
  if r"\emptyset" in (one, two) or "undefined" in (one, two):
    return False
  towers = _tower(one), _tower(two)
  for tower, value in (towers, values[::-1]), (towers[::-1], values):
    if tower[0] and value[0] is not None:
      return False  # It has more digits than the other has characters.
  if all(towers) and towers[0][:-1] == towers[1][:-1]:
    return towers[0] == towers[1]
  return None


def _tower(text: str) -> tuple[int, ...]:
  """Reads a power of powers beyond all plain numbers, () for anything else."""
  levels = re.sub(r"[{}]", "", text).split("^")
  if not all(re.fullmatch(r"[1-9]\d{0,29}", level) for level in levels):
    return ()
  numbers = tuple(map(int, levels))
  if len(numbers) < 2 or 1 in numbers:
    return ()
  exponent = numbers[-1]
  for number in numbers[-2:0:-1]:
    exponent = number ** min(exponent, 64)
  # A plain number is below 10^(2 LONGEST): so many digits, and an exponent.
  return numbers if exponent > 7 * notation.LONGEST else ()


class Comparison:
  """Compares forms by a way to compare expressions, and one for relations.

  Answers are True, False, and None where a way said that it does not know.
  """

  def __init__(self, same: Same, same_relation: Same):
    self._same, self._same_relation = same, same_relation

  def forms(self, one: Form, two: Form) -> bool | None:
    """Compares two forms."""
    if one.kind == "set" and two.kind != "set":
      one = _alone(one)
    elif two.kind == "set" and one.kind != "set":
      two = _alone(two)
    kinds = {one.kind, two.kind}
    if kinds == {"value"}:
      return self._values(one, two)
    if "choice" in kinds:
      return self._choices(one, two)
    if kinds == {"words"}:
      if wording.same(one.body, two.body):
        return True
      letters = [sorted(each.body) for each in (one, two)]
      if not (one.parts and two.parts) or letters[0] != letters[1]:
        return False
      return self._values(one.parts[0], two.parts[0])
    if kinds == {"words", "value"}:
      words = one if one.kind == "words" else two
      if not words.parts:
        return False
      one, two = (
        _alone(each) if each is words else each for each in (one, two)
      )
      return self._values(one, two)
    if kinds == {"words", "ratio"}:
      return bool(forms.clocks(one) & forms.clocks(two))
    if "relation" in kinds:
      return self._relations(one, two)
    if "ratio" in kinds:
      return self._ratios(one, two)
    if one.name and two.name and one.name != two.name and "record" not in kinds:
      if len(one.name) == len(two.name) == 1:
        return False
    if "record" in kinds:
      return self._records(one, two)
    if kinds & {"interval", "union"}:
      return self._intervals(one, two)
    if "matrix" in kinds:
      return self._matrices(one, two)
    if kinds == {"bracket"} or "tuple" in kinds:
      if kinds == {"tuple", "bracket"} and len(one.parts) == 2:
        return False  # An open and a closed interval, maybe.
      return "set" not in kinds and self._ordered(one.parts, two.parts)
    if kinds == {"set", "bracket"} and len(one.parts) == len(two.parts) == 2:
      return False  # The bracket is an interval, maybe.
    if kinds <= {"list", "set", "bracket"}:
      return self._unordered(one.parts, two.parts, as_sets="set" in kinds)
    return False

  def _values(self, one: Form, two: Form) -> bool | None:
    one, two = _with_unit(one, two.unit), _with_unit(two, one.unit)
    factor = units.factor(one.unit, two.unit)
    if factor is None:
      return False
    if one.name and two.name and not _same_name(one.name, two.name):
      if notation.rational(one.body) is not None:
        return False
      return self._same_relation(_relation(one), _relation(two))
    bodies = [one.body, two.body]
    degree = units.parse("degree")
    for at, (each, other) in enumerate(((one, two), (two, one))):
      if each.unit == degree and not other.unit and r"\pi" in other.body:
        bodies[at] = rf"\frac{{{each.body}\pi}}{{180}}"
    if factor:
      bodies[0] = _scaled(bodies[0], factor)
    return self._same(*bodies)

  def _choices(self, one: Form, two: Form) -> bool | None:
    if one.kind == two.kind:
      if one.body.upper() != two.body.upper():
        return False
      if one.parts and two.parts:
        return self.forms(one.parts[0], two.parts[0])
      return True
    choice, other = (one, two) if one.kind == "choice" else (two, one)
    if choice.parts:
      return self.forms(choice.parts[0], other)
    if other.kind != "value":
      return False
    return self._values(
      *(dataclasses.replace(each, kind="value") for each in (one, two))
    )

  def _relations(self, one: Form, two: Form) -> bool | None:
    if one.kind == two.kind and one.body == two.body:
      return True
    texts = [
      each.body if each.kind == "relation" else _relation(each)
      for each in (one, two)
    ]
    return all(texts) and self._same_relation(*texts)

  def _ratios(self, one: Form, two: Form) -> bool | None:
    if one.kind == two.kind:
      if len(one.parts) != len(two.parts):
        return False
      return _all(
        self._same(_quotient(*pair), _quotient(*other))
        for pair, other in zip(
          itertools.pairwise(one.parts),
          itertools.pairwise(two.parts),
          strict=True,
        )
      )
    ratio, other = (one, two) if one.kind == "ratio" else (two, one)
    if len(ratio.parts) != 2 or not re.search(r"/|\\frac", other.body):
      return False
    return self._same(_quotient(*ratio.parts), other.body)

  def _records(self, one: Form, two: Form) -> bool | None:
    if one.kind == two.kind:
      names = [sorted(each.name for each in form.parts) for form in (one, two)]
      if names[0] != names[1]:
        return False
      order = [
        sorted(form.parts, key=lambda each: each.name) for form in (one, two)
      ]
      return self._ordered(*order)
    other = two if one.kind == "record" else one
    if other.kind not in ("tuple", "list", "bracket") or other.name:
      return False
    letters = {each.name[:1] for each in (*one.parts, *two.parts) if each.name}
    if other.kind == "list" and len(letters) == 1:
      return self._unordered(one.parts, two.parts)  # "x_1=2, x_2=3"
    return self._ordered(one.parts, two.parts)

  def _intervals(self, one: Form, two: Form) -> bool | None:
    pieces = []
    for each in (one, two):
      parts = each.parts if each.kind in ("union", "list") else (each,)
      parts = [forms.as_interval(part) for part in parts]
      if any(part.kind not in ("interval", "set") for part in parts):
        return False
      pieces.append(_merged(parts))
    return self._unordered(*pieces, self._interval)

  def _interval(self, one: Form, two: Form) -> bool | None:
    if one.body != two.body or one.kind != two.kind:
      return False
    return self._ordered(one.parts, two.parts)

  def _matrices(self, one: Form, two: Form) -> bool | None:
    if one.kind == two.kind:
      return self._ordered(one.parts, two.parts)
    matrix, other = (one, two) if one.kind == "matrix" else (two, one)
    if other.kind not in ("tuple", "bracket", "list"):
      return False
    if len(matrix.parts) == 1:
      return self._ordered(matrix.parts[0].parts, other.parts)
    if all(each.kind in ("bracket", "tuple", "set") for each in other.parts):
      if len(matrix.parts) != len(other.parts):
        return False
      return _all(
        self._ordered(a.parts, b.parts)
        for a, b in zip(matrix.parts, other.parts, strict=True)
      )
    if all(len(row.parts) == 1 for row in matrix.parts):
      return self._ordered([row.parts[0] for row in matrix.parts], other.parts)
    return False

  def _ordered(self, one: Sequence[Form], two: Sequence[Form]) -> bool | None:
    if len(one) != len(two):
      return False
    return _all(map(self.forms, one, two))

  def _unordered(
    self, one: Sequence[Form], two: Sequence[Form], by=None, as_sets=False
  ) -> bool | None:
    """Matches parts; those of a set may be written twice."""
    by = by or self.forms
    if not as_sets and len(one) != len(two):
      return False
    table = [[by(a, b) for b in two] for a in one]
    if as_sets:
      found = [_any(row) for row in table]
      return _all(
        [*found, *(_any(column) for column in zip(*table, strict=True))]
      )
    for unknown in (False, True):
      # Equality carries over, so that the first match is as good as any.
      free = set(range(len(two)))
      for row in table:
        matches = [i for i in free if row[i] or (row[i] is None and unknown)]
        if not matches:
          break
        free.remove(matches[0])
      else:
        return None if unknown else True
    return False


def _all(verdicts) -> bool | None:
  verdicts = list(verdicts)
  if False in verdicts:
    return False
  return None if None in verdicts else True


def _any(verdicts) -> bool | None:
  verdicts = list(verdicts)
  if True in verdicts:
    return True
  return None if None in verdicts else False


def _alone(form: Form) -> Form:
  r"""Returns what is alone in a set; "\{\emptyset\}" is not "\emptyset"."""
  if len(form.parts) != 1 or form.parts[0].body == r"\emptyset":
    return form
  return form.parts[0]


def _with_unit(form: Form, other: units.Unit) -> Form:
  """Reads "2s" as seconds beside a unit; elsewhere it is a product."""
  match = re.fullmatch(r"([\d./]+)([a-z])", form.body)
  if form.unit or not other or not match:
    return form
  return dataclasses.replace(form, body=match[1], unit=units.parse(match[2]))


def _quotient(top: Form, bottom: Form) -> str:
  return rf"\frac{{{top.body}}}{{{bottom.body}}}"


def _scaled(body: str, factor: str) -> str:
  """Multiplies a body by LaTeX; plain numbers at once."""
  value, times = notation.rational(body), notation.rational(factor)
  if None not in (value, times):
    product = value * times
    return f"{product.numerator}/{product.denominator}"
  return rf"({body})\cdot{factor}"


def _same_name(one: str, two: str) -> bool:
  """Says whether two left sides may name one thing."""
  kinds = [re.fullmatch(r"[a-z]\([a-z]\)|y", each) for each in (one, two)]
  return (
    one == two
    or (all(kinds) and "y" in (one, two))
    or (
      len(one) > 3 and len(two) > 3 and "(" not in one + two and "\\" not in one
    )
  )


def _relation(form: Form) -> str:
  return (
    f"{form.name}={form.body}" if form.name and form.kind == "value" else ""
  )


def _merged(parts: list[Form]) -> list[Form]:
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
