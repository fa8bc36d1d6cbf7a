r"""Reduces a written answer to a body, a unit and a name; evaluates nothing.

"\$1,234.50", "x = 5 \text{ cm}" and "1\frac{1}{2}" are ways of writing that
differ in what a reader skips. Here that is taken off, and a plain number is
read exactly. Standard library only: it runs in grader workers too.
"""

import dataclasses
import re
from collections.abc import Hashable
from fractions import Fraction

# Longer answers are no answers; and Fraction(10**big) must not take long.
LONGEST = 1000
_CHARACTERS = str.maketrans(
  {
    **{c: "-" for c in "\u2212\u2013\u2014\u2010\u2011"},
    **{chr(0xFF10 + i): str(i) for i in range(10)},
    **{chr(0x660 + i): str(i) for i in range(10)},
    "\u00d7": "\\times ",
    "\u00b7": "\\cdot ",
    "\u00f7": "/",
    "\u2044": "/",
    "\u03c0": "\\pi ",
    "\u221e": "\\infty ",
    "\u00b0": "^\\circ ",
    "\u2264": "\\le ",
    "\u2265": "\\ge ",
    "\u222a": "\\cup ",
    "\u2208": "\\in ",
    "\u00b2": "^2",
    "\u00b3": "^3",
    "\u00bd": " \\frac{1}{2}",
    "\u00bc": " \\frac{1}{4}",
    "\u00be": " \\frac{3}{4}",
    "\u00a3": "\\pounds ",
    "\u20ac": "\\euro ",
    "\u00a0": " ",
  }
)
_UNITS = {
  "%": "percent",
  "percentage": "percent",
  "degree": "degree",
  "deg": "degree",
  "dollar": "dollar",
  "usd": "dollar",
  "buck": "dollar",
  "pound": "pound",
  "euro": "euro",
  "cent": "cent",
  **dict.fromkeys(("m", "meter", "metre"), "m"),
  **dict.fromkeys(("cm", "centimeter", "centimetre"), "cm"),
  **dict.fromkeys(("mm", "millimeter", "millimetre"), "mm"),
  **dict.fromkeys(("km", "kilometer", "kilometre"), "km"),
  **dict.fromkeys(("in", "inch", "inche"), "inch"),
  **dict.fromkeys(("ft", "foot", "feet"), "foot"),
  **dict.fromkeys(("g", "gram"), "g"),
  **dict.fromkeys(("kg", "kilogram"), "kg"),
  **dict.fromkeys(("l", "liter", "litre"), "l"),
  **dict.fromkeys(("s", "sec", "second"), "s"),
  **dict.fromkeys(("min", "minute"), "minute"),
  **dict.fromkeys(("h", "hr", "hour"), "hour"),
  "mph": "mph",
}
_KNOWN = frozenset({*_UNITS.values(), "square", "cubic"})
# Words that are mathematics and so no units.
_MATHEMATICS = frozenset(
  "pi sqrt sin cos tan cot sec csc log ln exp or and if to infinity mod e i "
  "none undefined inf".split()
)
_INTEGER = r"\d+"
_DECIMAL = r"(?:\d+\.\d*|\.\d+|\d+)"
_FRACTION = re.compile(
  rf"(?P<sign>[+-]?)(?:(?P<whole>{_INTEGER})\s+|(?P<whole2>{_INTEGER})(?=\\))?"
  rf"(?:(?P<a>{_DECIMAL})/(?P<b>{_DECIMAL})"
  rf"|\\frac\{{(?P<c>-?{_DECIMAL})\}}\{{(?P<d>-?{_DECIMAL})\}}"
  r"|\\frac(?P<e>\d)(?P<f>\d))"
)
_SCIENTIFIC = re.compile(
  rf"(?P<m>[+-]?{_DECIMAL})(?:[eE]|(?:\\times|\\cdot|\*)10\^)"
  r"\{?(?P<x>[+-]?\d{1,3})\}?"
)
_REPEATING = re.compile(
  r"(?P<sign>[+-]?)(?P<whole>\d*)\.(?P<fixed>\d*)"
  r"\\(?:overline|bar)\{?(?P<period>\d+)\}?"
)
_THOUSANDS = re.compile(r"[+-]?\d{1,3}(?:,\d{3})+(?:\.\d+)?")
_TEXT = re.compile(r"\\(?:text|mathrm|textbf|textit|mbox|textrm|mathbf)\s*\{")


@dataclasses.dataclass(frozen=True)
class Answer:
  """A normalised answer.

  Attributes:
    body: LaTeX without spaces, or words in lower case.
    tag: words of the unit, in canonical form; empty where none is written.
    name: what an equation's left side was, "x" of "x=5"; "" if none.
  """

  body: str
  tag: frozenset[str] = frozenset()
  name: str = ""


def closing_brace(text: str, start: int) -> int | None:
  """Returns where the brace that was opened before `start` is closed."""
  depth, index = 1, start
  while index < len(text):
    if text[index] == "\\":
      index += 1  # An escaped brace is a character.
    elif text[index] == "{":
      depth += 1
    elif text[index] == "}":
      depth -= 1
      if depth == 0:
        return index
    index += 1
  return None


def normalise(answer: str) -> Answer:
  """Reduces an answer to a body, a unit and a name; never evaluates it."""
  text = answer.translate(_CHARACTERS).strip()
  text = re.sub("\u221a\\s*(\\d+|[a-zA-Z])", r"\\sqrt{\1}", text)
  text = text.replace("\u221a", "\\sqrt").strip()
  text = _unwrap(text)
  text = re.sub(r"\\(?:left|right|displaystyle|,|!|;|:)(?![a-zA-Z])", "", text)
  text = text.replace("\\ ", " ").replace("~", " ")
  text = re.sub(r"\\[dtc]frac", r"\\frac", text)
  text = text.replace("{,}", ",").replace("\\%", "%")
  # As interpreters print it.
  text = re.sub(r"(?<![a-zA-Z\\])pi(?![a-zA-Z])", r"\\pi ", text)
  text = re.sub(r"(?<![a-zA-Z\\])sqrt\(([^()]*)\)", r"\\sqrt{\1}", text)
  text = re.sub(r"(?:\*\*|\^)(-?\d{2,}|-\d)", r"^{\1}", text)
  text = text.replace("**", "^")
  text = re.sub(r"\\leq(?![a-zA-Z])", r"\\le", text)
  text = re.sub(r"\\geq(?![a-zA-Z])", r"\\ge", text)
  text = re.sub(r"[.;,]\s*$", "", text).strip()
  text, name = _split_name(text)
  text, tag = _split_tag(text)
  text = _plain_text(text).strip()
  if _THOUSANDS.fullmatch(text):
    text = text.replace(",", "")
  if re.fullmatch(r"\(?[A-Za-z]\)?", text):
    text = text.strip("()")
  elif re.fullmatch(r"[A-Za-z][A-Za-z' -]{2,}", text):
    text = " ".join(text.lower().split())
  elif not _FRACTION.fullmatch(text):
    # "1 2" is not 12, and "\pi x" needs its space.
    text = re.sub(r"\s+(?![a-zA-Z\d])|(?<![a-zA-Z\d])\s+", "", text)
    text = re.sub(r"(?<=\d)\s+(?=[a-zA-Z])|(?<=[a-zA-Z])\s+(?=\d)", "", text)
  return Answer(text, tag, name)


def _unwrap(text: str) -> str:
  """Removes what only encloses: dollars, brackets of display, boxes."""
  while True:
    before = text
    for opening, closing in (
      ("$$", "$$"),
      ("$", "$"),
      ("\\(", "\\)"),
      ("\\[", "\\]"),
    ):
      if (
        len(text) > len(opening) + len(closing)
        and text.startswith(opening)
        and text.endswith(closing)
      ):
        inner = text[len(opening) : -len(closing)]
        if opening not in inner:
          text = inner.strip()
    if text.startswith("\\boxed{") and closing_brace(text, 7) == len(text) - 1:
      text = text[7:-1].strip()
    if text == before:
      return text


def _split_name(text: str) -> tuple[str, str]:
  """Splits "x = 5" into "5" and "x"."""
  match = re.fullmatch(
    r"(\\?[a-zA-Z]+(?:_\{?\w+\}?)?|[a-zA-Z]\([a-z]\))\s*=([^=]+)", text
  )
  if not match or re.search(r"[<>]|\\[lgn]e(?![a-z])", text):
    return text, ""
  return match[2].strip(), match[1]


def _split_tag(text: str) -> tuple[str, frozenset[str]]:
  """Splits a unit or currency off a number."""
  words: list[str] = []
  for sign, word in (
    ("\\$", "dollar"),
    ("$", "dollar"),
    ("\\pounds", "pound"),
    ("\\euro", "euro"),
  ):
    for body in (text.removeprefix(sign), text.removesuffix(sign)):
      if body != text and rational(_bare(body)) is not None:
        return body.strip(), frozenset({word})
  match = re.fullmatch(
    r"(?P<body>.*?[\d})])\s*"
    r"(?P<unit>%|percent|\^\{?\\circ\}?\s*[CF]?|\\degree|"
    r"\\(?:text|mathrm|mbox|textrm)\s*\{.*|(?<=[\s\d])[A-Za-z][A-Za-z ./^\d]*)",
    text,
    re.DOTALL,
  )
  base = re.fullmatch(r"([0-9A-Fa-f]+)_\{?(\d+)\}?", text.replace(" ", ""))
  if base:
    return base[1], frozenset({f"base {base[2]}"})
  if not match or rational(_bare(match["body"])) is None:
    return text, frozenset()
  unit = match["unit"]
  if re.match(r"\^\{?\\circ|\\degree", unit):
    words = ["degree", *re.findall(r"[CF]$", unit.strip())]
  else:
    bare = unit == "%" or unit.startswith("\\")
    plain = _plain_text(unit)
    words = re.findall(r"%|[A-Za-z]+|\^\{?\d\}?", plain)
    # "5x" and "2 pi" are products, "5 m" and "5 apples" are quantities.
    spaced = match["body"] + " " in text
    if not bare and any(
      word.lower() in _MATHEMATICS
      or (len(word) == 1 and not (spaced and word.lower() in _UNITS))
      for word in words
    ):
      return text, frozenset()
  return match["body"].strip(), frozenset(_canonical(words))


def _canonical(words: list[str]) -> set[str]:
  """Returns unit words in one form: singular, spelt one way."""
  result = set()
  for word in words:
    if word.startswith("^"):
      word = {"2": "square", "3": "cubic"}.get(word.strip("^{}"), word)
    word = word.lower()
    if len(word) > 2 and word.endswith("s"):
      word = word[:-1]
    result.add(_UNITS.get(word, {"cubed": "cubic"}.get(word, word)))
  return result - {"unit", "of", "the", "a", "per"}


def _plain_text(text: str) -> str:
  r"""Replaces `\text{...}` by its content."""
  while match := _TEXT.search(text):
    end = closing_brace(text, match.end())
    inner = text[match.end() : end if end is not None else len(text)]
    rest = "" if end is None else text[end + 1 :]
    text = text[: match.start()] + inner + rest
  return text


def _bare(text: str) -> str:
  text = text.strip()
  return text.replace(",", "") if _THOUSANDS.fullmatch(text) else text


def rational(body: str) -> Fraction | None:
  r"""Returns the value of a plain number, None for anything else.

  Args:
    body: an integer, decimal, fraction (`3/4` or LaTeX), mixed number
      (`1 3/4`), repeating decimal (`0.\overline{3}`), or a number in scientific
      notation.
  """
  if len(body) > LONGEST:
    return None
  if re.fullmatch(rf"[+-]?{_DECIMAL}", body):
    return Fraction(body)
  if match := _REPEATING.fullmatch(body):
    whole, fixed, period = (
      match["whole"] or "0",
      match["fixed"],
      match["period"],
    )
    value = Fraction(int(period), 10 ** len(period) - 1) / 10 ** len(fixed)
    value += Fraction(f"{whole}.{fixed}" if fixed else whole)
    return -value if match["sign"] == "-" else value
  if match := _SCIENTIFIC.fullmatch(body.replace(" ", "")):
    return Fraction(match["m"]) * Fraction(10) ** int(match["x"])
  match = _FRACTION.fullmatch(body)
  if not match:
    return None
  top = Fraction(match["a"] or match["c"] or match["e"])
  bottom = Fraction(match["b"] or match["d"] or match["f"])
  if bottom == 0:
    return None
  whole = match["whole"] or match["whole2"]
  value = Fraction(whole or 0) + top / bottom
  return -value if match["sign"] == "-" else value


def vote_key(answer: str) -> Hashable:
  """Returns what answers that vote together share; asks no gold answer.

  That is the value of a plain number, else the normalised body. Units and the
  name in "x=5" are left out, as a grader lets them be, so that "18" and
  "18 dollars" are one answer. A very long answer is compared as it is, since
  normalising it could take long.
  """
  if len(answer) > LONGEST:
    return answer
  body = normalise(answer).body
  value = rational(body)
  return body if value is None else value


def conflict(one: frozenset[str], two: frozenset[str]) -> bool:
  """Says whether two units differ; a unit left out differs from none."""
  if not one or not two:
    return False
  # "12 apples" agrees with "12 red apples", but "cm" does not with "cm^2".
  known = [{word for word in tag if word in _KNOWN} for tag in (one, two)]
  return known[0] != known[1] or not (one <= two or two <= one)
