"""Decides which answers vote together."""

import functools
import io
import re
import tokenize
from collections.abc import Hashable, Iterable

from rstar_jax.grading import answer_types, conditions, notation, parsing

# The end of a line, not after a comma.
_LINE_END = re.compile(r"[^,\s]\s*\n")


# The tables of a study ask for a problem's few answers again and again.
@functools.lru_cache(maxsize=4096)
def vote_key(answer: str) -> Hashable:
  """Returns a key: answers with equal keys vote together.

  The key is the parsed answer, with plain numbers by value; no gold answer is
  needed. Units and the name in "x=5" are left out, as a grader allows, so that
  "18" and "18 dollars" are one answer; a base is not, since it changes the
  number. A long answer is its own key, since parsing it could take long. An
  answer of several lines is a program, e.g. of a problem with tests, and its
  key leaves out comments and layout; but a line break after a comma only
  divides a list.
  """
  code = _code(answer) if _LINE_END.search(answer) else None
  if code is not None:
    return code
  return (
    answer if len(answer) > notation.AT_ONCE else _key(parsing.read(answer))
  )


def _code(program: str) -> Hashable | None:
  """Returns the tokens of a program, None if it is none."""
  try:
    tokens = [*tokenize.generate_tokens(io.StringIO(program).readline)]
  except (SyntaxError, ValueError, tokenize.TokenError):
    return None
  # Invalid Python raises or, before Python 3.12, gives an error token.
  if any(each.type == tokenize.ERRORTOKEN for each in tokens):
    return None
  return "program", tuple(
    # The width of indentation, and line breaks, are layout.
    each.string if each.string.strip() else each.type
    for each in tokens
    if each.type not in (tokenize.COMMENT, tokenize.NL)
  )


def _key(form: parsing.Answer) -> Hashable:
  parts = [_key(each) for each in form.parts]
  if form.kind == "value":
    value = notation.rational(form.body)
    body = form.body if value is None else value
    base = [each for each in form.unit.words if each.startswith("base ")]
    return ("value", body, *base) if base else body
  if form.kind == "choice":
    return form.body.upper()
  if form.kind == "words":
    return form.body
  if form.kind in ("list", "set"):
    if len(parts) == 1:
      return parts[0]
    return "list", _unordered(parts)
  if form.kind == "union":
    spans = answer_types.merged(list(form.parts))
    parts = [_key(each) for each in spans]
    return parts[0] if len(parts) == 1 else ("union", _unordered(parts))
  if form.kind == "record":
    names = [each.name for each in form.parts]
    return "record", _unordered(zip(names, parts, strict=True))
  if form.kind == "case":
    condition = conditions.tokens(form.condition) or form.condition
    return "case", condition, parts[0]
  return form.kind, form.body, tuple(parts)


def _unordered(keys: Iterable[Hashable]) -> tuple[Hashable, ...]:
  return tuple(sorted(keys, key=repr))
