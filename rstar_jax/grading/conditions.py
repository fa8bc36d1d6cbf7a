r"""Splits conditions off answers: "x^2 for all x", "2n if n is odd, n if even".

A condition may be left out like a unit, but two written ones must not conflict.
If answers hold under different conditions, the conditions are a part of them.

Standard library only: it runs in grader workers too.
"""

import re

from rstar_jax.grading import brackets, notation

_START = re.compile(
  r",?\s*(?<![a-z])(?:for (?:all|any|every|each|some)|where|if|otherwise)"
  r"(?![a-z])"
)
_SEPARATOR = (
  r"[,;]|\\quad(?![a-z])|(?<![A-Za-z\\])(?:or|and|OR|AND)(?![A-Za-z])"
)
# The parts of conditions that must agree; a set such as \mathbb{R} is mostly
# implied.
_TOKEN = re.compile(
  r"(?:(?<![\w)}])-)?\d+(?:\.\d+)?|"
  r"\\(?:le|ge|ne|notin|equiv|mid|nmid)(?![a-z])|[<>=]|"
  r"odd|even|prime|composite|positive|negative|otherwise"
)
_LEFT = re.compile(r"\s*([^=<>]*?)\s*(?:=|\\in(?![a-z]))")
_WORDS = re.compile(r"(?:for(?:all|any|every|each|some)?|where|if)")


def split(text: str) -> list[tuple[str, str]]:
  """Splits a text into answers and their conditions.

  Args:
    text: LaTeX from `notation.tidy`.

  Returns:
    (answers, condition) pairs, the condition without spaces; the text and "" if
    there is no condition.
  """
  groups = []
  plain = notation.plain_text(text)
  if _start(plain):
    text = plain
  while match := _start(text):
    head, tail = text[: match.start()].strip(" ,"), text[match.start() :]
    pieces = brackets.split(tail, _SEPARATOR)
    pieces = [each for each in pieces or [tail] if each]
    left = _LEFT.match(head)
    at = next(
      (
        index
        for index, each in enumerate(pieces[1:], 1)
        if _is_answer(each, notation.compact(left[1]) if left else "")
      ),
      len(pieces),
    )
    groups.append((head, _compact(", ".join(pieces[:at]))))
    text = ", ".join(pieces[at:])
  if text or not groups:
    groups.append((text, ""))
  return groups


def _start(text: str) -> re.Match | None:
  """Returns the match of the first condition that follows mathematics."""
  match = _START.search(text)
  if match and re.search(r"[\d\\=^]|^\s*-?\w\s*$", text[: match.start()]):
    return match
  return None


def _is_answer(text: str, name: str) -> bool:
  """Returns whether the text after a condition is another answer."""
  start = _start(text)
  left = _LEFT.match(text[: start.start()] if start else text)
  if name and left:
    return notation.compact(left[1]) == name
  return bool(start)


def _compact(text: str) -> str:
  return re.sub(r"[\s,.]", "", notation.plain_text(text))


def is_case(condition: str) -> bool:
  """Returns whether an answer is wrong without this condition."""
  return condition.startswith(("if", "otherwise"))


def tokens(condition: str) -> tuple[str, ...]:
  """Returns the parts of a condition that must agree, sorted."""
  return tuple(sorted(_TOKEN.findall(relation(condition))))


def relation(condition: str) -> str:
  """Returns a condition without its first words: "x>0" for "for all x>0"."""
  return _WORDS.sub("", condition, count=1)
