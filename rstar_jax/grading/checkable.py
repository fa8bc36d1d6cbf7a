"""Decides by simple rules whether a gold answer can be graded against.

math-verify does not help here: it reads "see above" as a product of letters.
Rules cannot hang: they take microseconds for most answers, and some hundredths
of a second for the longest ones that are made to be slow.
"""

import re

from rstar_jax.grading import brackets, notation

# Plain numbers, the most frequent answers, pass at once.
_NUMBER = re.compile(r"[+-]?\d{1,3}(?:,\d{3})*(?:\.\d+)?|[+-]?\d+(?:\.\d+)?")
# Words that stand for a missing answer.
_NO_ANSWER = re.compile(
  r"(?:see|as|shown) (?:above|below|the |solution|proof|figure|explanation).*"
  r"|(?:the |a )?proof.*|proved|proven|not ?found|omitted|q\.?e\.?d",
  re.IGNORECASE,
)
# Six words in a row are prose, which a model would not repeat word for word.
_PROSE = re.compile(r"(?<![\\A-Za-z])[A-Za-z]{2,}(?:[\s,;]+[A-Za-z]{2,}){5,}")


def why_not(answer: str) -> str:
  r"""Returns why a gold answer cannot be graded against.

  Args:
    answer: a final answer, LaTeX or plain, e.g. the content of a box.

  Returns:
    A reason, which does not quote the answer, so that reasons can be counted;
    "" if the answer can be graded against.
  """
  if _NUMBER.fullmatch(answer):
    return ""
  if notation.too_long(answer):
    return "too long an answer"
  if re.search(r"\n\s*\n", answer.strip()):
    return "several paragraphs"
  # With one more, which closes a brace opened before the answer.
  if brackets.closing_brace(f"{answer} }}", 0) != len(answer) + 1:
    return "braces that do not match"
  body = notation.plain_text(notation.tidy(answer)).strip(" .")
  if not re.search(r"\w", body):
    return "no final answer"
  if _NO_ANSWER.fullmatch(body):
    return "no final answer"
  if _PROSE.search(body):
    return "prose"
  return ""
