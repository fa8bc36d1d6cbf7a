r"""Matches the brackets of LaTeX, and splits texts outside of them.

Standard library only: it runs in grader workers too.
"""

import functools
import re

_OPEN = re.compile(r"\\[{]|\\l(?:angle|floor|ceil)(?![a-z])|\\begin\b|[({\[]")
_CLOSE = re.compile(r"\\[}]|\\r(?:angle|floor|ceil)(?![a-z])|\\end\b|[)}\]]")


def closing_brace(text: str, start: int, pair: str = "{}") -> int | None:
  """Returns the index of the brace that closes one opened before `start`.

  Args:
    text: LaTeX.
    start: where to begin.
    pair: the opening and the closing character.
  """
  depth, index = 1, start
  while index < len(text):
    if text[index] == "\\":
      index += 1  # An escaped brace is a character.
    elif text[index] == pair[0]:
      depth += 1
    elif text[index] == pair[1]:
      depth -= 1
      if depth == 0:
        return index
    index += 1
  return None


def split(text: str, separator: str) -> list[str] | None:
  r"""Splits at separators outside of all brackets.

  Args:
    text: LaTeX. The two brackets of a half-open interval match.
    separator: a regular expression.

  Returns:
    The pieces without outer spaces; None if brackets do not match.
  """
  pieces, level, start = [], 0, 0
  for match in _scanner(separator).finditer(text):
    if match.lastgroup == "opening":
      level += 1
    elif match.lastgroup == "closing":
      level -= 1
      if level < 0:
        return None
    elif match.lastgroup is None and level == 0 and match[0]:
      pieces.append(text[start : match.start()].strip())
      start = match.end()
  return None if level else [*pieces, text[start:].strip()]


@functools.lru_cache(64)
def _scanner(separator: str) -> re.Pattern:
  """Returns a pattern of brackets, separators and, last, escapes."""
  return re.compile(
    rf"(?P<opening>{_OPEN.pattern})|(?P<closing>{_CLOSE.pattern})|"
    rf"(?:{separator})|(?P<escape>\\(?s:.))"
  )


def depth(text: str) -> int:
  """Returns the nesting depth of brackets, unclosed ones included."""
  deepest = level = 0
  for bracket in re.findall(r"\\begin\b|[({\[]|\\end\b|[)}\]]", text):
    level += -1 if bracket in (")", "}", "]", "\\end") else 1
    deepest = max(deepest, level, -level)
  return deepest


def enclosed(text: str) -> tuple[str, str, str] | None:
  """Splits a bracketed text into opening, inside and closing, else None."""
  first = _OPEN.match(text)
  last = next(reversed(list(_CLOSE.finditer(text))), None)
  if not first or not last or last.end() != len(text) or first[0] == "\\begin":
    return None
  inside = text[first.end() : last.start()]
  # "(1)(2)" also begins and ends with brackets.
  if last.start() < first.end() or split(inside, "(?!)") is None:
    return None
  return first[0], inside.strip(), last[0]
