r"""Turns GSM8K's written solutions into solutions made of code steps.

A solution of GSM8K is sentences with calculator notes:

  She sold 48/2 = <<48/2=24>>24 clips in May.
  She sold 48+24 = <<48+24=72>>72 clips altogether in April and May.
  #### 72

Each note becomes a step. The code computes it from the question's numbers and
from earlier steps, so that no step needs a result that a model cannot know
before the code runs; the comment is the sentence without its calculation:

  <code>
  # She sold clips in May
  clips_in_may = 48 / 2
  <end_of_step>

  # She sold clips altogether in April and May
  clips_altogether_in = 48 + clips_in_may
  <end_of_step>

A small policy learns from such solutions first; the paper has a large model's
instead.
"""

import builtins
import keyword
import re
from collections.abc import Mapping
from fractions import Fraction

from rstar_jax.data.synthetic import arithmetic, solutions
from rstar_jax.steps import grammar
from rstar_jax.steps.prompts import LAST_STEP
from rstar_jax.types import Prefix

_NOTE = re.compile(r"<<([^<>=]+)=([^<>=]+)>>")
_NUMBER = r"(?:\d+(?:,\d{3})+|\d+)(?:\.\d+)?|\.\d+"
# A calculation that ends where its note begins, with its equals sign; its
# numbers may have units, of two words at most. A unit matches in one way
# alone: with several, a long sum would take exponential time.
_UNIT = r"(?:\s?/?[A-Za-z]+(?:(?:\s/?|/)[A-Za-z]+)?)?"
_TERM = rf"[$€£(\s]*(?:{_NUMBER})%?{_UNIT}[)\s]*"
_EQUALS = r"=\s*(?:[$€£]\s*)?$"
_CALCULATION = re.compile(rf"{_TERM}(?:[-+*/x×÷]{_TERM})*{_EQUALS}")
_ENDS_IN_ONE = re.compile(_EQUALS)
# Most characters of a calculation: the time grows with their square.
_LONGEST = 1000
_RESULT = re.compile(r"^\s*[$€£]?\s*-?(?:" + _NUMBER + r")%?")
_TOKEN = re.compile(r"(" + _NUMBER + r")(%?)|([-+*/()])|\s+")
# Numbers that a step may use though the question does not have them: of days,
# hours, minutes, degrees, per cent and the like; and those up to `_COUNTED`.
_COUNTED = 12
_KNOWN = frozenset(
  map(
    int,
    "16 20 24 25 30 31 36 50 52 60 90 100 144 180 360 365 500 1000 1760 3600 "
    "5280 10000 1000000".split(),
  )
)
_WORD = re.compile(r"[A-Za-z][a-z]*")
# Words without meaning for a quantity, left out of names.
_EMPTY = frozenset(
  "a an the of is are was were be been to and or so that this then there "
  "has have had it its he she they his her their in on at for with from by "
  "will would can could more if because since as but thus therefore "
  "means which who all total each".split()
)
# Names with a meaning in Python.
_TAKEN = frozenset((*keyword.kwlist, *dir(builtins)))


class Unreadable(ValueError):
  """A solution that cannot be turned into steps; the message says why."""


def steps_of(question: str, solution: str) -> tuple[list[str], Fraction]:
  """Returns the bodies of a solution's steps, and the value of its code.

  Args:
    question: the text of the problem.
    solution: the field "answer" of GSM8K's training rows.

  Returns:
    A comment and an assignment for each calculator note, in order, and the
    value of the last.

  Raises:
    Unreadable: there is no note, a note is wrong or not arithmetic, or the last
      result differs from the answer after "####".
  """
  text, marker, gold = solution.rpartition("####")
  if not marker:
    raise Unreadable("no answer after ####")
  in_question = {_fraction(n) for n in re.findall(_NUMBER, question)}
  names: arithmetic.Values = {}
  bodies = []
  for line in text.strip().splitlines():
    at = 0
    for note in _NOTE.finditer(line):
      before, after = line[at : note.start()], line[note.end() :]
      if at:
        before = _RESULT.sub("", before)
      at = note.end()
      earlier, code = names, _code(note.group(1), names, in_question)
      comment = _comment(before, _NOTE.split(after)[0])
      name = _name(comment, names)
      try:
        names, _ = arithmetic.execute(f"{name} = {code}", names)
      except (arithmetic.Unclear, ZeroDivisionError):
        raise Unreadable("a note is no arithmetic") from None
      value = names[name]
      try:
        stated = _fraction(note.group(2).strip().lstrip("$").rstrip("%"))
      except ValueError:
        raise Unreadable("a note's result is no number") from None
      if abs(value - stated) > Fraction(1, 100) * max(1, abs(stated)) / 2:
        raise Unreadable("a note is wrong")
      comment = _without_results(comment, earlier, in_question, value) or name
      bodies.append(f"# {comment}\n{name} = {code}\n")
  if not names:
    raise Unreadable("no calculator note")
  last = list(names.values())[-1]
  try:
    wanted = _fraction(gold.strip().lstrip("$").replace(" ", ""))
  except ValueError:
    raise Unreadable("the answer is no number") from None
  if last != wanted:
    raise Unreadable("the last result is not the answer")
  bodies.append(f"{LAST_STEP}\nprint({list(names)[-1]})\n")
  return bodies, last


def solution_of(row: Mapping[str, str], stdout: str) -> Prefix:
  """Returns the node texts of a row's solution.

  Args:
    row: GSM8K's "question" and "answer".
    stdout: the output of the code, from the sandbox.
  """
  bodies, value = steps_of(row["question"], row["answer"])
  *steps, final = bodies
  shown = str(value) if value.denominator == 1 else str(float(value))
  return (
    *(solutions.step(each, not index) for index, each in enumerate(steps)),
    grammar.with_output(f"\n\n{final}{grammar.END_OF_CODE}", stdout),
    solutions.boxing(shown),
  )


def _fraction(text: str) -> Fraction:
  return Fraction(text.replace(",", ""))


def _code(
  expression: str, names: Mapping[str, Fraction], given: set[Fraction]
) -> str:
  """Returns a note's calculation as Python, with names for earlier results.

  A number of the question, or one that no step computed, stays a number.
  """
  expression = expression.replace("$", "").replace("x", "*").replace("×", "*")
  expression = expression.replace("÷", "/")
  pieces, at = [], 0
  while at < len(expression):
    match = _TOKEN.match(expression, at)
    if match is None:
      raise Unreadable("a note is no arithmetic")
    at = match.end()
    number, percent, sign = match.groups()
    if number:
      value = _fraction(number)
      known = [n for n, v in names.items() if v == value]
      # A number that equals both one of the question's and an earlier result is
      # ambiguous; if the result is the last one, it is meant more often.
      last = bool(known) and known[-1] == list(names)[-1]
      if known and not percent and (value not in given or last):
        pieces.append(known[-1])
      else:
        if value > _COUNTED and value not in given and value not in _KNOWN:
          raise Unreadable("a number comes from nowhere")
        plain = number.replace(",", "")
        plain = plain.lstrip("0") or "0"
        if plain.startswith("."):
          plain = "0" + plain
        pieces.append(f"({plain} / 100)" if percent else plain)
    elif sign:
      pieces.append(f" {sign} " if sign not in "()" else sign)
  code = "".join(pieces)
  code = re.sub(r"(^|\() ([-+]) ", r"\1\2", code)
  return code


def _comment(before: str, after: str) -> str:
  """Returns a sentence without its calculation."""
  before = _without_calculation(before)
  # The line's next calculation belongs to another step.
  after = _without_calculation(_RESULT.sub("", after))
  comment = re.sub(r"\s+", " ", f"{before} {after}").strip(" .,;:=$")
  comment = re.sub(r"\s+([,.;:])", r"\1", comment)
  return grammar.MARKER.sub("", comment)


def _without_calculation(text: str) -> str:
  """Returns a text without the calculation at its end."""
  # Else the pattern would try each number of a long sum.
  if not _ENDS_IN_ONE.search(text):
    return text
  at = max(0, len(text) - _LONGEST)
  return text[:at] + _CALCULATION.sub("", text[at:])


def _name(comment: str, taken: Mapping[str, Fraction]) -> str:
  """Makes a new name of at most three words from a comment."""
  words = [word.lower() for word in _WORD.findall(comment)]
  words = [w for w in words if w not in _EMPTY and len(w) > 1]
  name = "_".join(list(dict.fromkeys(words))[-3:]) or "result"
  if name in _TAKEN:
    name += "_"
  number, unique = 2, name
  while unique in taken:
    unique, number = f"{name}_{number}", number + 1
  return unique


def _without_results(
  comment: str,
  names: Mapping[str, Fraction],
  given: set[Fraction],
  result: Fraction,
) -> str:
  """Replaces earlier steps' results by their names, and drops this result."""

  def replace(match: re.Match) -> str:
    value = _fraction(match.group(1))
    known = [n for n, v in names.items() if v == value]
    if value in given:
      return match.group()
    if known:
      return known[-1]
    return "" if value == result else match.group()

  comment = re.sub(rf"[$€£]?({_NUMBER})", replace, comment)
  return re.sub(r"\s+", " ", comment).strip()
