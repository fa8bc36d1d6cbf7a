"""Whether anything can be compared with a gold answer; plain rules, no parser.

math-verify is no help here: it reads "see above" as a product of letters. What
it does refuse, braces that do not match, a rule finds too, and a rule takes
microseconds and cannot hang.
"""

import re

from rstar_jax.grading import notation

# Plain numbers, most answers of most sets: nothing else need be looked at.
_NUMBER = re.compile(r"[+-]?\d{1,3}(?:,\d{3})*(?:\.\d+)?|[+-]?\d+(?:\.\d+)?")
# Words that stand where an answer should be.
_NO_ANSWER = re.compile(
  r"(?:see|as|shown) (?:above|below|the |solution|proof|figure|explanation).*"
  r"|(?:the |a )?proof.*|proved|proven|not ?found|omitted|q\.?e\.?d",
  re.IGNORECASE,
)
# So many words in a row are prose; none of them is found again word for word.
_PROSE = re.compile(r"(?<![\\A-Za-z])[A-Za-z]{2,}(?:[\s,;]+[A-Za-z]{2,}){5,}")


def why_not(answer: str) -> str:
  r"""Says why nothing can be compared with a gold answer.

  Args:
    answer: a final answer, LaTeX or plain; what stood in a box, say.

  Returns:
    A reason that names no answer, so that reasons can be counted; "" where the
    grader can do its work.
  """
  if _NUMBER.fullmatch(answer):
    return ""
  if len(answer) > notation.LONGEST:
    return "too long an answer"
  if re.search(r"\n\s*\n", answer.strip()):
    return "several paragraphs"
  if not _braces_match(answer):
    return "braces that do not match"
  body = notation.plain_text(notation.tidy(answer)).strip(" .")
  if not re.search(r"\w", body):
    return "no final answer"
  if _NO_ANSWER.fullmatch(body):
    return "no final answer"
  if _PROSE.search(body):
    return "prose"
  return ""


def _braces_match(text: str) -> bool:
  r"""Whether braces match, but for escaped ones, which are characters."""
  depth = 0
  for brace in re.findall(r"\\.|[{}]", text, re.DOTALL):
    depth += (brace == "{") - (brace == "}")
    if depth < 0:
      return False
  return depth == 0
