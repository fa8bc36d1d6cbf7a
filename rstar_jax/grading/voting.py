"""Says which answers vote together."""

import io
import tokenize
from collections.abc import Hashable

from rstar_jax.grading import notation, parsing


def vote_key(answer: str) -> Hashable:
  """Returns what answers that vote together share; asks no gold answer.

  That is what an answer is, with plain numbers by value. Units and the name in
  "x=5" are left out, as a grader lets them be, so that "18" and "18 dollars"
  are one answer. A long answer is compared as it is, since reading it could
  take long. One of several lines is a program, as of a problem with tests, and
  is compared without its comments and layout.
  """
  code = _code(answer) if "\n" in answer else None
  if code is not None:
    return code
  return (
    answer if len(answer) > notation.AT_ONCE else _key(parsing.read(answer))
  )


def _code(program: str) -> Hashable | None:
  """Returns the tokens of a program, None if it is none."""
  try:
    found = [*tokenize.generate_tokens(io.StringIO(program).readline)]
  except (SyntaxError, ValueError, tokenize.TokenError):
    return None
  # What is no Python is an error, or before Python 3.12 such a token.
  if any(each.type == tokenize.ERRORTOKEN for each in found):
    return None
  return "program", tuple(
    # How far a line is indented, and how it ends, is layout.
    each.string if each.string.strip() else each.type
    for each in found
    if each.type not in (tokenize.COMMENT, tokenize.NL)
  )


def _key(form: parsing.Answer) -> Hashable:
  parts = [_key(each) for each in form.parts]
  if form.kind in ("value", "choice"):
    value = notation.rational(form.body)
    return form.body if value is None else value
  if form.kind == "words":
    return form.body
  if form.kind in ("list", "set"):
    if len(parts) == 1:
      return parts[0]
    return "list", tuple(sorted(parts, key=repr))
  return form.kind, form.body, tuple(parts)
