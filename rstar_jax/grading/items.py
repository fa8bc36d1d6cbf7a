r"""Splits a list without brackets into its items: "1, 2", "1 or 2", "\pm 2".

Standard library only: it runs in grader workers too.
"""

import itertools
import re

from rstar_jax.grading import brackets, notation, verbal

# A variable: a letter, or a Greek one's name.
SYMBOL = r"\\?[a-zA-Z](?:(?<=\\[a-z])[a-z]+)?"
_MAX_ITEMS = 64  # Most items that plus-minus signs expand to.


def split(text: str) -> list[str]:
  """Splits a list without brackets; a plus-minus sign gives two items."""
  if verbal.clock(notation.plain_text(text)):
    return [text]
  domain = rf"{SYMBOL}\s*\\in\s*\\mathbb\s*\{{?\w\}}?.*"
  text = re.sub(rf"\s*\(\s*({domain})\)\s*$", r", \1", text)
  sign = r"(-?\s*(?:\\?\$|\\pounds|\\euro)?\s*)"
  number = re.match(
    rf"(?:{SYMBOL}\s*=)?\s*{sign}(\d{{1,3}}(?:,\d{{3}})+)(?![\d,])", text
  )
  if number:
    bare = number[2].replace(",", "")
    text = text[: number.start(2)] + bare + text[number.end(2) :]
  elif re.fullmatch(r"-?\d{1,3}(?: \d{3})+", text):
    text = text.replace(" ", "")
  if re.fullmatch(r"(?:\([^()]*,[^()]*\)\s*){2,}", text):
    return re.findall(r"\([^()]*\)", text)
  words = r"\\(?:text|mathrm|mbox)\s*\{\s*,?\s*(?:or|and|OR|AND)\s*\}"
  commas = r",\s*(?:and|or)(?![a-z])|[,;]|\\quad(?![a-z])"
  pieces = brackets.split(
    text,
    rf"{words}|{commas}|\s(?:or|and|OR)\s|"
    rf"(?<=[\d)}}\]])(?:or|and)(?=[-\d(\\\[]|{SYMBOL}\s*=)|"
    r"\\l(?:or|and)(?![a-z])",
  )
  if (
    pieces is None
    or verbal.is_yes_or_no(notation.plain_text(text))
    or (
      len(pieces) > 1
      and any(re.fullmatch(r"[A-Za-z ]{3,}.*", each) for each in pieces)
      and verbal.is_words(notation.plain_text(text))
      and not re.search(r"[,;]", text)
    )
  ):
    return [text]  # A phrase that contains "and".
  bare = [each for each in pieces if each and not re.fullmatch(domain, each)]
  pieces = bare or [text]
  return expand(pieces)


def expand(texts: list[str]) -> list[str]:
  """Expands plus-minus signs in texts, unless that gives too many items."""
  expanded = [each for text in texts for each in signs(text)]
  return expanded if len(expanded) <= max(_MAX_ITEMS, len(texts)) else texts


def signs(text: str) -> list[str]:
  r"""Expands plus-minus signs, independent of each other; \mp opposes \pm."""
  count = len(re.findall(r"\\pm(?![a-z])", text))
  if not count or 2**count > _MAX_ITEMS:
    return [text]
  found = []
  for chosen in itertools.product("+-", repeat=count):
    each = text
    for sign in chosen:
      each = re.sub(r"\\pm(?![a-z])", sign, each, count=1)
    each = re.sub(r"\\mp(?![a-z])", "-" if chosen[0] == "+" else "+", each)
    found.append(re.sub(r"(^|[=({,])\s*\+", r"\1", each))
  return found
