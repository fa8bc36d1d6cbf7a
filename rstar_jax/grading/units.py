r"""Splits units and currencies off numbers, and compares and converts them.

A unit may be left out, but two written ones must have the same dimension: "5
cm" equals "5" and "0.05 m", but neither "5 m" nor "5 cm^2". Unknown units are
compared as words: "12 apples" equals "12 red apples", but not "12 pears".

Standard library only: it runs in grader workers too.
"""

import dataclasses
import re
from fractions import Fraction

from rstar_jax.grading import brackets, notation

# dimension: {names: size}; names are singular and in lower case.
_TABLE: dict[str, dict[str, Fraction | int]] = {
  "length": {
    "m meter metre": 1,
    "cm centimeter centimetre": Fraction(1, 100),
    "mm millimeter millimetre": Fraction(1, 1000),
    "km kilometer kilometre": 1000,
    "inch inche in": Fraction(254, 10000),
    "foot feet ft": Fraction(3048, 10000),
    "yard yd": Fraction(9144, 10000),
    "mile mi": Fraction(1609344, 1000),
  },
  "mass": {
    "g gram": 1,
    "kg kilogram": 1000,
    "mg milligram": Fraction(1, 1000),
    "ton tonne": 1000000,
  },
  "volume": {"l liter litre": 1, "ml milliliter millilitre": Fraction(1, 1000)},
  "time": {
    "s sec second": 1,
    "min minute": 60,
    "h hr hour": 3600,
    "day": 86400,
    "week": 604800,
  },
  "dollar": {"dollar usd buck": 1, "cent": Fraction(1, 100)},
  "pound": {"pound gbp lb": 1},
  "euro": {"euro eur": 1},
  "yen": {"yen": 1},
  "rupee": {"rupee": 1},
  "ounce": {"ounce oz": 1},
  "percent": {"percent percentage %": 1},
  # In half turns; a radian is a half turn divided by pi.
  "angle": {"degree deg": Fraction(1, 180), "arcminute": Fraction(1, 10800)},
  "radian": {"radian rad": 1},
  "celsius": {"celsius": 1},
  "fahrenheit": {"fahrenheit": 1},
  "clock": {"am": 1, "pm": 2},
  "newton": {"n newton": 1},
}
_KNOWN = {
  name: (dimension, Fraction(size))
  for dimension, sizes in _TABLE.items()
  for names, size in sizes.items()
  for name in names.split()
}
# Words without meaning in a unit.
_EMPTY = frozenset(
  "unit the a per about approximately base old exactly".split()
)
# Mathematical words, which are not units.
_MATHEMATICS = frozenset(
  "pi sqrt sin cos tan cot sec csc log ln exp or and if to infinity mod e i "
  "none undefined inf oo for where when is times plus minus u".split()
)
# Words that change a number's value; "third graders" are counted.
_CHANGES = re.compile(
  r"(?:squared|cubed)\b|.*\b(?:factorial|off|below)\b|"
  r"(?:third|(?:four|fif|six|seven|eigh|nin|ten|hundred|thousand|million)th)"
  r"(?:s\b|$| of\b)"
)
# Units of one letter; others are variables.
_LETTERS = frozenset("mglLshN")
_POWERS = {"square": 2, "squared": 2, "sq": 2, "cubic": 3, "cubed": 3, "cu": 3}
_BASES = {
  word: number
  for number, word in enumerate(
    "two three four five six seven eight nine ten eleven twelve".split(), 2
  )
}
_DEGREE = r"\^\s*\{?\s*\\circ\s*\}?|\\degree|\\deg(?![a-z])"
_UNIT = re.compile(
  r"(?P<body>.*?[\d})|a-z])\s*(?P<unit>%|percent|"
  rf"(?:{_DEGREE})\s*(?:[CF]|\\(?:text|mathrm)\s*\{{\s*[CF]\s*\}})?|''?|"
  r"\\(?:text|mathrm|mbox|textrm|textbf|mathbf)\s*\{\D.*|"
  r"(?<=[\s\d})])[A-Za-z][A-Za-z ./^{}\d-]*)",
  re.DOTALL,
)


@dataclasses.dataclass(frozen=True)
class Unit:
  """The unit of a number.

  Attributes:
    powers: (dimension, exponent) of known units, sorted.
    size: size in the first unit of each dimension.
    words: all other words of the unit, singular.
  """

  powers: tuple[tuple[str, int], ...] = ()
  size: Fraction = Fraction(1)
  words: frozenset[str] = frozenset()

  def __bool__(self) -> bool:
    return bool(self.powers or self.words)


NONE = Unit()


def parse(words: str) -> Unit:
  """Parses a unit, such as "cm^2", "miles per hour" or "red apples"."""
  powers: dict[str, int] = {}
  size, rest, sign, power = Fraction(1), set(), 1, 1
  words = re.sub(r"\bmph\b", "mile/hour", words)
  words = re.sub(r"\bkm?ph\b", "km/hour", words).replace("\\$", " dollar ")
  words = re.sub(r"\bin (?:total|all)\b", "", words)
  words = re.sub(r"(?<![a-z])([ap])\.\s?m\b", r"\1m", words.lower())
  words = re.sub(rf"(?:{_DEGREE})\s*c(?![a-z])", " celsius ", words)
  words = re.sub(rf"(?:{_DEGREE})\s*f(?![a-z])", " fahrenheit ", words)
  words = re.sub(_DEGREE, " degree ", words)
  tokens = re.findall(r"%|''|'|/|[a-z]+|\^\s*\{?-?\d\}?|\d", words)
  for index, token in enumerate(tokens):
    after = tokens[index + 1] if index + 1 < len(tokens) else ""
    if token in ("/", "per"):
      sign = -1
    elif token in _POWERS:
      power = _POWERS[token]
      if index and token.endswith("d"):
        power = 1
    elif token[0] == "^" or token.isdigit():
      continue
    else:
      name = {"'": "arcminute"}.get(token, token)
      if name not in _KNOWN and len(name) > 2 and name.endswith("s"):
        name = name[:-1]
      if after[:1] == "^":
        power = int(re.sub(r"[^\d-]", "", after))
      elif after in ("squared", "cubed"):
        power = _POWERS[after]
      if name in _KNOWN:
        dimension, each = _KNOWN[name]
        powers[dimension] = powers.get(dimension, 0) + sign * power
        size *= each ** (sign * power)
      elif name == "unit" and power > 1:
        rest.add(f"unit^{power}")
      elif name not in _EMPTY:
        rest.add(name)
      power = 1
  if powers.keys() & {"celsius", "fahrenheit"}:
    powers.pop("angle", None)
    size = Fraction(1)
  return Unit(tuple(sorted(powers.items())), size, frozenset(rest))


PERCENT = parse("%")


def split(text: str) -> tuple[str, Unit]:
  """Splits a unit, currency or percent sign off a number.

  Args:
    text: LaTeX from `notation.tidy`.

  Returns:
    The rest and the unit; the text and NONE if there is no unit.
  """
  money = re.match(
    r"(-?)\s*(?:(\\?\$)|\\(pounds|euro|yen|rupee))\s*(?=[-.\d\\])", text
  )
  if money:
    unit = "dollar" if money[2] else money[3]
    rest, written = split(text[money.end() :])
    currency = parse(unit)
    if not written or written == currency:
      return money[1] + rest, currency
    # "\$18 each", "\$2 per hour"; not "\$5 euros".
    if all(power < 0 for _, power in written.powers) and not (
      dict(written.powers).keys() & dict(currency.powers)
    ):
      powers = tuple(sorted(currency.powers + written.powers))
      unit = dataclasses.replace(written, powers=powers)
      return money[1] + rest, unit
  for end, word in (("\\$", "dollar"), ("$", "dollar"), ("\\euro", "euro")):
    if text.endswith(end) and len(text) > len(end):
      return text.removesuffix(end).strip(), parse(word)
  match = _UNIT.fullmatch(text)
  if not match or not _is_unit(match["body"], match["unit"], text):
    return text, NONE
  return match["body"].strip(), parse(notation.plain_text(match["unit"]))


def _is_unit(body: str, unit: str, text: str) -> bool:
  """Returns whether letters after a number are a unit, not a factor."""
  if brackets.split(body, "(?!)") is None:
    return False
  if re.search(r"\\(?:frac|sqrt|pi|cdot|times)(?![a-z])", unit):
    return False
  words = re.findall(r"[A-Za-z]+", notation.plain_text(unit).lower())
  if _CHANGES.match(" ".join(words)):
    return False
  number = notation.rational(_bare(body)) is not None
  if re.match(rf"%|percent|'|{_DEGREE}", unit):
    return number or (
      unit[0] != "'" and not re.search(r"\\(?:sin|cos|tan|cot|sec|csc)", body)
    )
  if not words or any(word in _MATHEMATICS for word in words):
    return False
  if re.search(r"(?<![\^{\d])\s*\d", re.sub(r"\^\s*\{?-?\d", "", unit)):
    return False  # "5 of 10"
  singular = [
    word if word in _KNOWN else word.removesuffix("s") for word in words
  ]
  known = all(
    word in _KNOWN or word in _POWERS or word in _EMPTY for word in singular
  )
  if unit.startswith("\\"):
    return bool(re.search(r"\d|\\pi|\\frac|\\sqrt", body)) and (
      len(max(words, key=len)) > 1 or known
    )
  # "5x" and "2 pi" are products, "5 m" and "5 apples" are quantities.
  if not number:
    return known and len(max(words, key=len)) > 1 and body[-1:] in "})"
  spaced = text[len(body) :][:1] == " " or body[-1:] == " "
  if not known and max(map(len, words)) < (3 if spaced else 4):
    return False
  letters = re.findall(r"(?<![A-Za-z])[A-Za-z](?![A-Za-z])", unit)
  if not set(letters) <= _LETTERS:
    return False
  if letters or "^" in unit:
    return known and (spaced or len(words[0]) > 1)
  return True


def base(text: str) -> tuple[str, int] | None:
  r"""Splits "101_2", "(101)_{2}" or "101 \text{ (base two)}"."""
  text = notation.plain_text(text)
  match = re.fullmatch(
    r"\(?\s*((?=[\dA-F ]*\d)[\dA-F][\dA-F ]*)\)?\s*"
    r"(?:_\s*\{?\s*\(?(\w+)\)?\s*\}?|\s\(?\s*(?:in )?base[\s-](\w+)\s*\)?)",
    text,
  )
  if not match:
    return None
  number = _BASES.get((match[2] or match[3]).lower(), match[2] or match[3])
  if not str(number).isdigit() or len(str(number)) > 2:
    return None
  return match[1].replace(" ", ""), int(number)


def _bare(text: str) -> str:
  return text.strip().replace(",", "")


def factor(one: Unit, two: Unit) -> str | None:
  r"""Returns the factor that converts a number from one unit to another.

  Returns:
    LaTeX of the factor, "" if it is 1 or a unit is left out; None if the units
    conflict.
  """
  if not one or not two:
    return ""
  if not (one.words <= two.words or two.words <= one.words):
    return None
  dimensions = [
    [
      ("angle" if name == "radian" else name, power)
      for name, power in unit.powers
    ]
    for unit in (one, two)
  ]
  if dimensions[0] != dimensions[1]:
    return None
  if ("clock", 1) in one.powers and one.size != two.size:
    return None
  ratio = one.size / two.size
  if one.powers == two.powers:
    return "" if ratio == 1 else _fraction(ratio)
  pi = r"\cdot\pi" if ("angle", 1) in one.powers else r"/\pi"
  return _fraction(ratio) + pi


def _fraction(value: Fraction) -> str:
  return rf"\frac{{{value.numerator}}}{{{value.denominator}}}"
