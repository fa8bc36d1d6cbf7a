r"""Splits a list without brackets into its items: "1, 2", "1 or 2", "\pm 2".

Standard library only: it runs in grader workers too.
"""

import itertools
import re

from rstar_jax.grading import brackets, notation, verbal

# A variable: a letter, or a Greek one's name.
SYMBOL = r"\\?[a-zA-Z](?:(?<=\\[a-z])[a-z]+)?"
_MOST = 64  # Items that a plus-minus sign may become.


def split(text: str) -> list[str]:
  """Splits what is a list without brackets; plus-minus signs make two."""
  if verbal.clock(notation.plain_text(text)):
    return [text]
  sign = r"(-?\s*(?:\\?\$|\\pounds|\\euro)?\s*)"
  number = re.match(
    rf"(?:{SYMBOL}\s*=)?\s*{sign}(\d{{1,3}}(?:,\d{{3}})+)(?![\d,])", text
  )
  if number:
    bare = number[2].replace(",", "")
    text = text[: number.start(2)] + bare + text[number.end(2) :]
  elif re.fullmatch(r"-?\d{1,3}(?: \d{3})+", text):
    text = text.replace(" ", "")
  words = r"\\(?:text|mathrm|mbox)\s*\{\s*,?\s*(?:or|and|OR|AND)\s*\}"
  commas = r",\s*(?:and|or)(?![a-z])|[,;]|\\quad(?![a-z])"
  pieces = brackets.split(
    text,
    rf"{words}|{commas}|\s(?:or|and|OR)\s|"
    rf"(?<=[\d)}}\]])(?:or|and)(?=[-\d(\\\[]|{SYMBOL}\s*=)|\\lor",
  )
  if (
    pieces is None
    or verbal.says_yes(notation.plain_text(text))
    or (
      len(pieces) > 1
      and any(re.fullmatch(r"[A-Za-z ]{3,}.*", each) for each in pieces)
      and verbal.is_words(notation.plain_text(text))
      and not re.search(r"[,;]", text)
    )
  ):
    return [text]  # Words with an "and" in them.
  domain = rf"{SYMBOL}\s*\\in\s*\\mathbb\s*\{{?\w\}}?.*"
  bare = [each for each in pieces if each and not re.fullmatch(domain, each)]
  pieces = bare or [text]
  return [each for piece in pieces for each in signs(piece)]


def signs(text: str) -> list[str]:
  """Writes plus-minus out; minus-plus goes with it, two of one kind do not."""
  count = len(re.findall(r"\\pm(?![a-z])", text))
  if not count or 2**count > _MOST:
    return [text]
  found = []
  for chosen in itertools.product("+-", repeat=count):
    each = text
    for sign in chosen:
      each = re.sub(r"\\pm(?![a-z])", sign, each, count=1)
    each = re.sub(r"\\mp(?![a-z])", "-" if chosen[0] == "+" else "+", each)
    found.append(re.sub(r"(^|[=({,])\s*\+", r"\1", each))
  return found
