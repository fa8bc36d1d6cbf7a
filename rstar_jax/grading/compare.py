"""Decides whether two answers that `parsing.py` has parsed are equal.

Lists, points, intervals, matrices, units and names are compared here, part by
part; the caller provides the comparison of two expressions. The result is True,
False, or None if the caller's comparison returns None.
"""

import dataclasses
import itertools
import re
from collections.abc import Callable, Sequence

from rstar_jax.grading import (
  answer_types,
  conditions,
  notation,
  parsing,
  units,
  verbal,
)

Answer = answer_types.Answer
# Whether two expressions are equal; None if that needs algebra.
Same = Callable[[str, str], bool | None]


def same_number(one: str, two: str) -> bool | None:
  """Compares plain numbers by value, and equal texts; else None."""
  if one == two:
    return True
  values = notation.rational(one), notation.rational(two)
  if None not in values:
    return values[0] == values[1]
  if any(re.search(r"\d\s+\d|[{(]$|^$", each) for each in (one, two)):
    return False  # Several numbers, which the parser would multiply.
  if r"\emptyset" in (one, two) or "undefined" in (one, two):
    return False
  towers = _tower(one), _tower(two)
  for tower, value in (towers, values[::-1]), (towers[::-1], values):
    if tower[0] and value[0] is not None:
      return False  # More digits than a plain number may have.
  if all(towers) and towers[0][:-1] == towers[1][:-1]:
    return towers[0] == towers[1]
  return None


def _tower(text: str) -> tuple[int, ...]:
  """Parses a power tower larger than any plain number; () for other texts."""
  levels = re.sub(r"[{}]", "", text).split("^")
  if not all(re.fullmatch(r"[1-9]\d{0,29}", level) for level in levels):
    return ()
  numbers = tuple(map(int, levels))
  if len(numbers) < 2 or 1 in numbers:
    return ()
  exponent = numbers[-1]
  for number in numbers[-2:0:-1]:
    exponent = number ** min(exponent, 64)
  # A plain number is below 10^DIGITS, which is below 2^(4 DIGITS).
  return numbers if exponent > 4 * notation.DIGITS else ()


_SIGN = re.compile(r"\\(?:le|ge|ne)(?![a-z])|[=<>]")


class Comparison:
  """Compares parsed answers.

  Args:
    same: compares two expressions.
    same_relation: compares two equations or inequalities.
    percent_is_ratio: whether 25% also equals 1/4, and not only 25.
  """

  def __init__(
    self, same: Same, same_relation: Same, percent_is_ratio: bool = False
  ):
    self._same, self._same_relation = same, same_relation
    self._percent_is_ratio = percent_is_ratio

  def equal(self, one: Answer, two: Answer) -> bool | None:
    """Compares a gold answer and another; None if `same` returns None."""
    verdicts = [self._agree(one, two)]
    if two.claims and verdicts[0] is not False:
      # "5=6" is not 6. A claim beside an answer may be a percentage.
      stated = Comparison(self._same, self._same_relation, True)
      bare = dataclasses.replace(two, name="", claims=())
      new = [each for each in two.claims if each not in one.claims]
      verdicts += [stated.equal(bare, each) for each in new]
    if one.condition and two.condition and verdicts[0] is not False:
      verdicts.append(self._conditions(one.condition, two.condition))
    return _all(verdicts)

  def _conditions(self, one: str, two: str) -> bool | None:
    """Whether two conditions may mean the same."""
    if one == two or conditions.tokens(one) == conditions.tokens(two):
      return True
    if not (conditions.tokens(one) and conditions.tokens(two)):
      return True
    forms = [parsing.read(conditions.relation(each)) for each in (one, two)]
    return self._agree(*forms)

  def _cases(self, one: Answer, two: Answer) -> bool | None:
    """Compares answers that hold under their conditions alone."""
    if one.kind != two.kind:
      return False
    tokens = [conditions.tokens(each.condition) for each in (one, two)]
    if one.condition != two.condition and () in tokens:
      return False
    return self.equal(one.parts[0], two.parts[0])

  def _agree(self, one: Answer, two: Answer) -> bool | None:
    """Compares two answers by their kinds."""
    if one.kind == "set" and two.kind != "set":
      one = _unpacked(one)
    elif two.kind == "set" and one.kind != "set":
      two = _unpacked(two)
    both = {one.kind, two.kind}
    if one.name != two.name and sorted(one.name) == sorted(two.name):
      if re.search("[(:]", one.name):
        return False  # (a,b) and (b,a), P(A|B) and P(B|A)
    if "case" in both:
      return self._cases(one, two)
    if both == {"value"}:
      return self._values(one, two)
    if "choice" in both:
      return self._choices(one, two)
    if both == {"words"}:
      if verbal.same(one.body, two.body):
        return True
      if not (one.parts and two.parts):
        return False
      if not _reordered(one.parts[0].body, two.parts[0].body):
        return False
      return self._values(one.parts[0], two.parts[0])
    if both == {"words", "value"}:
      words = one if one.kind == "words" else two
      if not words.parts:
        return False
      one, two = (
        _unpacked(each) if each is words else each for each in (one, two)
      )
      return self._values(one, two)
    if both == {"words", "ratio"}:
      return bool(answer_types.clocks(one) & answer_types.clocks(two))
    if "relation" in both:
      return self._relations(one, two)
    if "ratio" in both:
      return self._ratios(one, two)
    if one.name and two.name and one.name != two.name and "record" not in both:
      if len(one.name) == len(two.name) == 1:
        return False
    if "record" in both:
      return self._records(one, two)
    if both & {"interval", "union"}:
      return self._intervals(one, two)
    if "matrix" in both:
      return self._matrices(one, two)
    if both == {"tuple", "list"} and (one.name or two.name):
      return False  # "x = 1, 2" is not a point.
    if both == {"list", "value"}:
      return self._alternatives(one, two)
    if both == {"bracket"} or "tuple" in both:
      if both == {"tuple", "bracket"} and len(one.parts) == 2:
        return False  # May be an open and a closed interval.
      return "set" not in both and self._ordered(one.parts, two.parts)
    if both == {"set", "bracket"} and len(one.parts) == len(two.parts) == 2:
      return False  # The bracket may be an interval.
    if both <= {"list", "set", "bracket"}:
      return self._unordered(one.parts, two.parts, as_sets="set" in both)
    return False

  def _values(self, one: Answer, two: Answer) -> bool | None:
    verdict = self._quantities(one, two)
    units_written = bool(one.unit) + bool(two.unit)
    if verdict or units_written != 1 or not (one.product or two.product):
      return verdict
    # "5 m" against "5m": these are variables.
    one, two = (
      dataclasses.replace(
        each, body=each.product or each.body, unit=units.NONE, product=""
      )
      for each in (one, two)
    )
    return _any([verdict, self._quantities(one, two)])

  def _quantities(self, one: Answer, two: Answer) -> bool | None:
    one, two = _with_unit(one, two.unit), _with_unit(two, one.unit)
    factor = units.factor(one.unit, two.unit)
    if factor is None:
      return False
    if one.name and two.name and not _same_name(one.name, two.name):
      if any(notation.rational(each.body) is not None for each in (one, two)):
        return False
      return self._same_relation(_relation(one), _relation(two))
    bodies = [one.body, two.body]
    degree = units.parse("degree")
    for at, (each, other) in enumerate(((one, two), (two, one))):
      if each.unit == degree and not other.unit and r"\pi" in other.body:
        bodies[at] = rf"\frac{{{each.body}\pi}}{{180}}"
    if factor:
      bodies[0] = _scaled(bodies[0], factor)
    constants = [re.search(r"\+[cCkK]$", each) for each in bodies]
    if all(constants):  # Constants of integration may have any name.
      bodies = [f"{each[:-1]}C" for each in bodies]
    verdict = self._same(*bodies)
    written = [each.unit == units.PERCENT for each in (one, two)]
    if self._percent_is_ratio and not verdict and any(written):
      if not (one.unit and two.unit):
        at = written.index(True)
        bodies[at] = _scaled(bodies[at], r"\frac{1}{100}")
        verdict = _any([verdict, self._same(*bodies)])
    return verdict

  def _choices(self, one: Answer, two: Answer) -> bool | None:
    if one.kind == two.kind:
      if one.body.upper() != two.body.upper():
        return False
      if one.parts and two.parts:
        return self.equal(one.parts[0], two.parts[0])
      return True
    choice, other = (one, two) if one.kind == "choice" else (two, one)
    if choice.parts:
      return self.equal(choice.parts[0], other)
    if other.kind != "value":
      return False
    return self._values(
      *(dataclasses.replace(each, kind="value") for each in (one, two))
    )

  def _relations(self, one: Answer, two: Answer) -> bool | None:
    if one.kind == two.kind and one.body == two.body:
      return True
    if one.kind == "value" and not one.name:
      sum_of_names = re.fullmatch(
        r"([a-zA-Z](?:[+-]?[a-zA-Z])+)=([^=<>]+)", two.body
      )
      # "m + n = 25" answers "what is m + n?".
      if sum_of_names and notation.rational(sum_of_names[2]) is not None:
        return self._same(one.body, sum_of_names[2])
    texts = [
      each.body if each.kind == "relation" else _relation(each)
      for each in (one, two)
    ]
    if not all(texts):
      return False
    verdict = self._same_relation(*texts)
    return verdict or _any([verdict, self._sides(*texts)])

  def _sides(self, one: str, two: str) -> bool | None:
    """Compares relations side by side: identities, and chains of several."""
    signs = [_SIGN.findall(each) for each in (one, two)]
    if signs[0] != signs[1]:
      return False
    sides = zip(_SIGN.split(one), _SIGN.split(two), strict=True)
    return _all(self._same(*each) for each in sides)

  def _ratios(self, one: Answer, two: Answer) -> bool | None:
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

  def _records(self, one: Answer, two: Answer) -> bool | None:
    if one.kind == two.kind:
      names = [
        sorted(each.name for each in answer.parts) for answer in (one, two)
      ]
      if names[0] != names[1]:
        return False
      order = [
        sorted(answer.parts, key=lambda each: each.name)
        for answer in (one, two)
      ]
      return self._ordered(*order)
    record, other = (one, two) if one.kind == "record" else (two, one)
    if other.kind not in ("tuple", "list", "bracket"):
      return False
    sides = [one.parts, two.parts]
    letters = {each.name[:1] for side in sides for each in side if each.name}
    if other.kind == "list" and len(letters) == 1:
      # "x_1=2, x_2=3", against "2, 3" or "x=2, x=3"
      return other.name in ("", *letters) and self._unordered(*sides)
    if other.name:  # "(x,y)=(1,2)" against "x=1, y=2"
      names = other.name.strip("()").split(",")
      if sorted(names) != sorted(each.name for each in record.parts):
        return False
      parts = sorted(record.parts, key=lambda each: names.index(each.name))
      sides[one is not record] = parts
    return self._ordered(*sides)

  def _intervals(self, one: Answer, two: Answer) -> bool | None:
    pieces = []
    for each in (one, two):
      parts = each.parts if each.kind in ("union", "list") else (each,)
      parts = [answer_types.as_interval(part) for part in parts]
      if any(part.kind not in ("interval", "set") for part in parts):
        return False
      pieces.append(answer_types.merged(parts))
    return self._unordered(*pieces, self._interval)

  def _interval(self, one: Answer, two: Answer) -> bool | None:
    if one.body != two.body or one.kind != two.kind:
      return False
    return self._ordered(one.parts, two.parts)

  def _alternatives(self, one: Answer, two: Answer) -> bool | None:
    r"""Compares a list of one value in several notations with a value."""
    several, value = (one, two) if one.kind == "list" else (two, one)
    if len({each.body for each in several.parts}) < len(several.parts):
      return False  # "1, 1" is a real list.
    return _all(self.equal(each, value) for each in several.parts)

  def _matrices(self, one: Answer, two: Answer) -> bool | None:
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

  def _ordered(
    self, one: Sequence[Answer], two: Sequence[Answer]
  ) -> bool | None:
    if len(one) != len(two):
      return False
    return _all(map(self.equal, one, two))

  def _unordered(
    self, one: Sequence[Answer], two: Sequence[Answer], by=None, as_sets=False
  ) -> bool | None:
    """Matches parts in any order; a part of a set may be repeated."""
    by = by or self.equal
    if not as_sets and len(one) != len(two):
      return False
    table = [[by(a, b) for b in two] for a in one]
    if as_sets:
      found = [_any(row) for row in table]
      return _all(
        [*found, *(_any(column) for column in zip(*table, strict=True))]
      )
    for unknown in (False, True):
      # Equality is transitive, so that any match will do.
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


def _unpacked(answer: Answer) -> Answer:
  r"""Unpacks a set of one item; "\{\emptyset\}" is not "\emptyset"."""
  if len(answer.parts) != 1 or answer.parts[0].body == r"\emptyset":
    return answer
  return answer.parts[0]


def _with_unit(answer: Answer, other: units.Unit) -> Answer:
  """Reads "2s" as seconds if the other answer has a unit; else a product."""
  match = re.fullmatch(r"([\d./]+)([a-z])", answer.body)
  if answer.unit or not other or not match:
    return answer
  return dataclasses.replace(answer, body=match[1], unit=units.parse(match[2]))


def _quotient(top: Answer, bottom: Answer) -> str:
  return rf"\frac{{{top.body}}}{{{bottom.body}}}"


def _scaled(body: str, factor: str) -> str:
  """Multiplies a body by a factor; evaluates the product of plain numbers."""
  value, times = notation.rational(body), notation.rational(factor)
  if None not in (value, times):
    product = value * times
    return f"{product.numerator}/{product.denominator}"
  return rf"({body})\cdot{factor}"


def _reordered(one: str, two: str) -> bool:
  """Returns whether short words may mean the same in another order.

  "xy" and "yx" are products; what has other vowels may be a word, such as
  "saw". The segment AB is BA, and the angle ABC is CBA; other capital letters
  are an order, such as HTT.
  """
  if len(set(one)) < len(one) or set(one) != set(two):
    return False
  product = re.fullmatch(r"[b-df-hj-np-tv-z]+|[abcdxyz]+", one)
  return bool(product) or (one.isupper() and one == two[::-1])


def _same_name(one: str, two: str) -> bool:
  """Returns whether two left sides may name the same quantity."""
  matches = [re.fullmatch(r"[a-z]\([a-z]\)|y", each) for each in (one, two)]
  words = [re.fullmatch(r"[A-Za-z ]{4,}", each) for each in (one, two)]
  return one == two or (all(matches) and "y" in (one, two)) or all(words)


def _relation(answer: Answer) -> str:
  """Converts a named value or half-line to a relation; "" for others."""
  if answer.name and answer.kind == "value":
    return f"{answer.name}={answer.body}"
  if answer.name and answer.kind == "interval":
    low, high = answer.parts
    closed = r"\le ", r"\ge "
    if low == answer_types.NEGATIVE:
      sign = "<" if answer.body[1] == ")" else closed[0]
      return f"{answer.name}{sign}{high.body}"
    if high == answer_types.POSITIVE:
      sign = ">" if answer.body[0] == "(" else closed[1]
      return f"{answer.name}{sign}{low.body}"
  return ""
