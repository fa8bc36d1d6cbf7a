"""Answers a synthetic problem from its text, as an independent check.

The generator (`generator.py`) goes from relations to sentences and a solution;
this module goes back. It parses each sentence by the templates of the problem's
family (`templates.py`) and solves the linear equations. The two share the
templates but no code that computes.
"""

import dataclasses
import functools
import re
import string
from collections.abc import Mapping
from fractions import Fraction

from rstar_jax.data.synthetic import templates

_NAME = "[A-Z][a-z]+"
_FIELDS = {
  "x": _NAME,
  "y": _NAME,
  "z": _NAME,
  "names": f"{_NAME}(?:, {_NAME})* and {_NAME}",
  "n": "[0-9]+",
  "m": "[0-9]+",
  "part": "half|(?:a|two|three) (?:third|quarter|fifth)s?",
}
_COUNTS = {"a": 1, "two": 2, "three": 3}
_PARTS = {"third": 3, "quarter": 4, "fifth": 5}
# Nouns and verbs state no relation and may be any word, also made-up ones.
_WORD = re.compile("(?<![A-Za-z])[a-z]{3,}")
_ANY_WORD = rf"(?!(?:{'|'.join(sorted(templates.FUNCTION_WORDS))})\b)[a-z]+"


@dataclasses.dataclass(frozen=True)
class _Equation:
  """A quantity as a sum: `constant` + the `terms`, name -> coefficient."""

  sentence: str
  terms: Mapping[str, Fraction]
  constant: Fraction


def solve(question: str, source: str) -> Fraction:
  """Answers a problem.

  Args:
    question: text of the problem.
    source: "synthetic/FAMILY"; names the family of its templates.

  Returns:
    The exact answer.

  Raises:
    ValueError: if the family is unknown, a sentence cannot be parsed, or it
      needs a quantity that no sentence gives.
  """
  family = _family(source)
  sentences = re.split(r"(?<=[.?])\s+", question.strip())
  kind, asked, last = _question(sentences, family)
  equations: dict[str, _Equation] = {}
  previous = None
  for sentence in sentences[:-last]:
    name, equation = _equation(sentence, family, previous)
    if name in equations:
      raise ValueError(f"{sentence!r} gives {name} a second time")
    equations[name] = equation
    previous = name
  values = _values(equations)
  missing = sorted(set(_names(asked)) - values.keys())
  if missing:
    raise ValueError(
      f"{sentences[-1]!r} asks for {missing}, which is not given"
    )
  try:
    return _answer(kind, asked, values)
  except ZeroDivisionError:
    raise ValueError(f"{sentences[-1]!r} asks for a share of zero") from None


def _family(source: str) -> templates.Family:
  """Returns the family that a source names."""
  room, _, name = source.partition("/")
  found = [f for f in templates.FAMILIES if f.name == name]
  if room != "synthetic" or not found:
    raise ValueError(
      f"source {source!r} must be 'synthetic/FAMILY' with one of "
      f"{', '.join(f.name for f in templates.FAMILIES)}"
    )
  return found[0]


@functools.cache
def _pattern(template: str) -> re.Pattern:
  """Returns a pattern that matches the sentences of a template."""
  pattern, seen = "", set()
  for literal, field, _, _ in string.Formatter().parse(template):
    pattern += _WORD.sub(
      lambda word: (
        word[0] if word[0] in templates.FUNCTION_WORDS else _ANY_WORD
      ),
      re.escape(literal),
    )
    if field in seen:
      pattern += f"(?P={field})"
    elif field:
      seen.add(field)
      pattern += f"(?P<{field}>{_FIELDS[field]})"
  return re.compile(pattern)


def _read(
  sentence: str, by_kind: Mapping[str, tuple[str, ...]]
) -> tuple[str, dict[str, str]] | None:
  """Parses a sentence into kind and fields; None if no template matches.

  Raises:
    ValueError: if the sentence is ambiguous.
  """
  readings: list[tuple[str, dict[str, str]]] = []
  for kind, options in by_kind.items():
    for template in options:
      match = _pattern(template).fullmatch(sentence)
      if match and (kind, match.groupdict()) not in readings:
        readings.append((kind, match.groupdict()))
  if len(readings) > 1:
    raise ValueError(f"{sentence!r} can be read in two ways: {readings}")
  return readings[0] if readings else None


def _question(
  sentences: list[str], family: templates.Family
) -> tuple[str, dict[str, str], int]:
  """Parses the question: kind, fields, and its number of sentences."""
  for count in (1, 2):
    found = _read(" ".join(sentences[-count:]), family.asks)
    if found:
      return *found, count
  raise ValueError(
    f"{sentences[-1]!r} is not a question of family {family.name!r}"
  )


def _equation(
  sentence: str, family: templates.Family, previous: str | None
) -> tuple[str, _Equation]:
  """Parses a sentence into the name of a quantity and its equation.

  Args:
    sentence: the sentence.
    family: its family.
    previous: the quantity of the sentence before, to which a chain refers.
  """
  found = _read(sentence, family.says)
  if found is None:
    raise ValueError(
      f"{sentence!r} is not a sentence of family {family.name!r}"
    )
  kind, said = found
  n, m = (Fraction(said.get(field, "0")) for field in ("n", "m"))
  y = previous if family.chain else said.get("y")
  if kind == "given":
    terms, constant = {}, n
  elif kind == "product":
    terms, constant = {}, n * m
  elif y is None:
    raise ValueError(
      f"{sentence!r} refers to an earlier sentence, but is the first"
    )
  elif kind == "both":
    if y == said["z"]:
      raise ValueError(f"{sentence!r} names {y} twice")
    terms, constant = {y: Fraction(1), said["z"]: Fraction(1)}, Fraction(0)
  else:
    factor, constant = {
      "more": lambda: (Fraction(1), n),
      "fewer": lambda: (Fraction(1), -n),
      "times": lambda: (n, Fraction(0)),
      "part": lambda: (_part(said["part"]), Fraction(0)),
      "percent": lambda: (n / 100, Fraction(0)),
    }[kind]()
    terms = {y: factor}
  return said["x"], _Equation(sentence, terms, constant)


def _part(words: str) -> Fraction:
  """Returns the value of "half", "a third", "three quarters"."""
  if words == "half":
    return Fraction(1, 2)
  count, part = words.split()
  return Fraction(_COUNTS[count], _PARTS[part.removesuffix("s")])


def _values(equations: Mapping[str, _Equation]) -> dict[str, Fraction]:
  """Solves the equations by substitution, whatever their order."""
  values: dict[str, Fraction] = {}
  while len(values) < len(equations):
    ready = {
      name: equation
      for name, equation in equations.items()
      if name not in values and equation.terms.keys() <= values.keys()
    }
    if not ready:
      name = next(name for name in equations if name not in values)
      raise ValueError(
        f"{equations[name].sentence!r} needs a quantity that no sentence gives"
      )
    for name, equation in ready.items():
      values[name] = equation.constant + sum(
        factor * values[term] for term, factor in equation.terms.items()
      )
  return values


def _names(asked: Mapping[str, str]) -> list[str]:
  """Returns the quantities that a question names."""
  fields = (asked.get(field, "") for field in ("x", "y", "names"))
  return [name for field in fields for name in re.findall(_NAME, field)]


def _answer(
  kind: str, asked: Mapping[str, str], values: Mapping[str, Fraction]
) -> Fraction:
  """Computes the answer from the quantities."""
  said = [values[name] for name in _names(asked)]
  if kind == "total":
    return sum(said, Fraction(0))
  if kind == "difference":
    return said[0] - said[1]
  if kind == "fraction":
    return said[0] / (said[0] + said[1])
  if kind == "percentage":
    return 100 * said[0] / said[1]
  if kind == "rate":
    return said[0] / int(asked["n"])
  return said[0]
