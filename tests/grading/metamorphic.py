r"""Pairs of answers whose label follows from how they are made.

`of_gold` rewrites one gold answer: in notation only, or exactly ("equal"), or
so that it is another answer ("different"). `sympy_prints.py` beside it makes
pairs of what sympy prints. No grader is asked for a label: numbers and
expressions are evaluated here, by Python.
"""

import cmath
import itertools
import math
import random
import re
from collections.abc import Callable, Iterator
from fractions import Fraction

from rstar_jax.grading.labelled import Pair

_PLAIN = r"-?\d+(?:\.\d+)?|-?\d+/\d+|-?\\[dt]?frac\{-?\d+\}\{\d+\}"
_NUMBER = re.compile(r"(?<![\d.,_{\\a-zA-Z])\d+(?![\d.,]*\d)")
_THOUSANDS = r"\d,\s*(?:\\!)?\s*\d{3}"
_NAMED = re.compile(r"\s*[a-zA-Z]\s*=")
# Values of the letters of an expression.
_POINT = {
  letter: 0.31 + 0.17 * index
  for index, letter in enumerate("abcdfghjklmnopqrstuvwxyz")
}


def of_gold(gold: str, seed: int) -> list[Pair]:
  """Returns all pairs that can be made of a gold answer.

  Args:
    gold: LaTeX without dollars or a box around it.
    seed: of the choice of what is changed.
  """
  found = []
  for label, rules in ((True, EQUAL), (False, DIFFERENT)):
    for name, rule in rules.items():
      choose = random.Random(f"{seed} {name} {gold}")
      for text in rule(gold, choose):
        if text is not None and text != gold:
          found.append(Pair(gold, text, label, name))
  return found


def usable(gold: str) -> bool:
  """Whether a text is one answer in mathematics: no prose, matched braces."""
  return (
    bool(gold.strip())
    and len(gold) <= 150
    and not re.search(r"\$|\\\(|\\\[|\\boxed|\n|&|[.,;:]\s*$|'|\"", gold)
    and not re.search(r"[a-zA-Z]{4,}", re.sub(r"\\[a-zA-Z]+", " ", gold))
    and _closed(gold)
  )


def value(text: str) -> complex | None:
  """Evaluates an expression of numbers, letters, fractions and roots.

  Args:
    text: LaTeX.

  Returns:
    Its value where the letters are `_POINT`; None for any other text.
  """
  text = re.sub(r"\\left(?![a-z])|\\right(?![a-z])|\\[,;! ]", "", text)
  text = re.sub(r"\\[dt]frac", r"\\frac", text)
  text = re.sub(r"\\frac\s*(\d)\s*(\d)", r"\\frac{\1}{\2}", text)
  text = re.sub(r"\\sqrt\s*(\d)", r"\\sqrt{\1}", text)
  before = None
  while before != text:
    before = text
    inside = r"\{([^{}]*)\}"
    text = re.sub(rf"\\frac{inside}{inside}", r"((\1)/(\2))", text)
    text = re.sub(rf"\\sqrt{inside}", r"((\1)**(1/2))", text)
    text = re.sub(rf"\^{inside}", r"**(\1)", text)
  text = re.sub(r"\^(\d|[a-z])", r"**(\1)", text)
  text = text.replace("\\pi", " p ").replace("\\cdot", "*")
  text = text.replace("\\times", "*").replace("\\infty", "?")
  if not re.fullmatch(r"[\d.a-z+\-*/() ]+", text) or re.search(
    r"[a-z]{2}|\d\s+\d|[eio]|\.\D|\d\(\d+/\d|\d \(", text.replace(" p ", "p")
  ):
    return None
  text = re.sub(r"\s*([+\-*/()])\s*", r"\1", text.strip())
  text = re.sub(r"(?<=[\da-z)])\s*(?=[a-z(])|(?<=[a-z)])\s*(?=\d)", "*", text)
  try:
    found = eval(text, {"__builtins__": {}}, {**_POINT, "p": math.pi})
    return complex(found) if cmath.isfinite(found) else None
  except (SyntaxError, ArithmeticError, TypeError, ValueError):
    return None


def _closed(text: str) -> bool:
  """Whether braces match."""
  depth = 0
  for brace in re.findall(r"(?<!\\)[{}]", text):
    depth += 1 if brace == "{" else -1
    if depth < 0:
      return False
  return depth == 0


def _pieces(text: str, separator: str) -> list[str]:
  """Splits at separators outside of all brackets."""
  found, depth, start = [], 0, 0
  for match in re.finditer(rf"\\[{{}}]|[({{\[]|[)}}\]]|{separator}", text):
    if match[0] in ("\\{", "(", "{", "["):
      depth += 1
    elif match[0] in ("\\}", ")", "}", "]"):
      depth -= 1
    elif depth == 0:
      found.append(text[start : match.start()])
      start = match.end()
  return [*found, text[start:]]


def _fraction(text: str) -> Fraction | None:
  """Returns the value of a plain number."""
  if not re.fullmatch(_PLAIN, text):
    return None
  parts = re.fullmatch(r"(-?)\\[dt]?frac\{(-?\d+)\}\{(\d+)\}", text)
  text = f"{parts[1]}{parts[2]}/{parts[3]}" if parts else text
  try:
    return Fraction(text.replace("--", ""))
  except ZeroDivisionError:
    return None


def _decimal(number: Fraction) -> str | None:
  """Writes a number as a decimal, if that is exact and short."""
  for digits in range(1, 6):
    scaled = number * 10**digits
    if scaled.denominator == 1:
      sign, size = "-" if scaled < 0 else "", abs(scaled.numerator)
      text = str(size).zfill(digits + 1)
      return f"{sign}{text[:-digits]}.{text[-digits:]}"
  return None


def _list(gold: str) -> tuple[str, list[str], str] | None:
  r"""Splits "1, 2", "x=1, 2" or "\{1, 2\}", distinct values in any order."""
  parts = re.fullmatch(
    r"(\\(?:left)?\s*\\?\{|[a-zA-Z]\s*=)?(.*?)(\\(?:right\s*\\)?\})?", gold
  )
  opening, inside, closing = (each or "" for each in parts.groups())
  if ("{" in opening) != bool(closing):
    return None
  items = [each.strip() for each in _pieces(inside, ",")]
  values = [value(each) for each in items]
  if len(items) < 2 or None in values or len(set(values)) < len(values):
    return None
  if re.search(_THOUSANDS, inside):
    return None  # May be one number.
  return opening, items, closing


def _interval(gold: str) -> tuple[str, str, str, str] | None:
  """Splits an interval with at least one bracket or infinite end."""
  parts = re.fullmatch(r"([(\[])([^()\[\]]*),([^()\[\]]*)([)\]])", gold)
  if not parts or (parts[1], parts[4]) == ("[", "]"):
    return None
  if parts[1] + parts[4] == "()" and "\\infty" not in gold:
    return None
  return parts.groups()


# Equal: notation.


def _around(gold: str, choose: random.Random) -> Iterator[str]:
  yield choose.choice(
    (f"${gold}$", rf"\({gold}\)", rf"\[{gold}\]", f"$${gold}$$", f" {gold} ")
  )
  yield choose.choice(
    (rf"\boxed{{{gold}}}", rf"$\boxed{{{gold}}}$", rf"\fbox{{{gold}}}")
  )


def _trailing(gold: str, choose: random.Random) -> Iterator[str]:
  for endings in ((".", ",", ";", " .", r"\\"), (r"\;", r"\,", r"\!", "~")):
    yield gold + choose.choice(endings)
  yield gold + choose.choice((r"\ ", r"\:", r"\quad", r"\,.", r".\;", r"\;\;"))


def _leading(gold: str, choose: random.Random) -> Iterator[str]:
  yield choose.choice((r"\;", r"\,", r"\!", r"\ ", "~", r"\quad ")) + gold


def _commands(gold: str, choose: random.Random) -> Iterator[str]:
  """Replaces commands by others that look the same or nearly so."""
  for one, several in (
    (r"\\[dt]?frac(?![a-z])", (r"\frac", r"\dfrac", r"\tfrac", r"\cfrac")),
    (r"\\leq?(?![a-z])", (r"\le ", r"\leq ", r"\leqslant ", " ≤ ")),
    (r"\\geq?(?![a-z])", (r"\ge ", r"\geq ", r"\geqslant ", " ≥ ")),
    (r"\\neq?(?![a-z])", (r"\ne ", r"\neq ", " ≠ ")),
    (r"(?<!\\)\\pi(?![a-z])", (r"\pi ", "π", r"{\pi}")),
    (r"\\cdot(?![a-z])", (r"\cdot ", r"\times ", " × ", "·")),
    (r"\\infty(?![a-z])", (r"\infty ", "∞")),
    (r"\\cup(?![a-z])", (r"\cup ", " ∪ ", r"\,\cup\,")),
    (
      r"\^\s*(?:\{\s*\\circ\s*\}|\\circ(?!\w))",
      (r"^\circ", r"^{\circ}", "°", r"\degree"),
    ),
    (r"\\sqrt(?=\{\d+\})", (r"\sqrt", "√", r"\sqrt ")),
    (r"(?<![a-zA-Z}])-", ("-", "−", "{-}")),
    (r"\\mid(?![a-z])", (r"\mid ", "|")),
    (r"\{,\}|(?<=\d),(?=\d{3}(?!\d))", (",", "{,}")),
    (r"(?<=\d)\s*:\s*(?=\d)", (":", "{:}", " : ")),
    (r"\\begin\{.matrix\}(.*)\\end\{.matrix\}", None),
  ):
    if re.search(one, gold, re.DOTALL):
      if several is None:
        kind = choose.choice("pbB")
        text = re.sub(r"(?<=\{).(?=matrix\})", kind, gold)
      else:
        other = choose.choice(several)
        text = re.sub(one, lambda _, other=other: other, gold)
      yield text


def _sized(gold: str, choose: random.Random) -> Iterator[str]:
  if "\\left" in gold:
    yield re.sub(r"\\(?:left|right)(?![a-z])\s*", "", gold)
  elif re.fullmatch(r"[^()\[\]]*[(\[][^()\[\]]*[)\]][^()\[\]]*", gold):
    one, two = choose.choice(
      ((r"\left", r"\right"), (r"\bigl", r"\bigr"), (r"\Big", r"\Big"))
    )
    text = re.sub(r"[)\]]", lambda match: two + match[0], gold)
    yield re.sub(r"(?<!\\sqrt)[(\[]", lambda match: one + match[0], text)


def _spaced(gold: str, choose: random.Random) -> Iterator[str]:
  if "\\text" in gold or re.search(r"[a-z]{3} ", gold):
    return
  space = choose.choice((" ", "  ", r"\,", r"\;", r"\ ", "~", r"\!"))
  signs = r"(?<![{(\[^_=,a-z])\s*([+=<>])\s*(?=[^\s}])"
  yield re.sub(signs, lambda match: space + match[1] + space, gold)
  if not re.search(rf"{_THOUSANDS}|\\ ,", gold):
    yield re.sub(r",\s*", lambda _: "," + space, gold)
  if not re.search(rf"{_THOUSANDS}|\\ ,|_\w ", gold):
    yield re.sub(r"(?<![a-zA-Z\\])\s+|\s+(?![a-zA-Z\d])", "", gold)
  yield re.sub(r"\^(\d|[a-z])(?![\d'])", r"^{\1}", gold)
  yield re.sub(r"\^\{(\d|[a-z])\}", r"^\1 ", gold)
  yield re.sub(r"frac\{(\d)\}\{(\d)\}", r"frac\1\2", gold)


def _introduced(gold: str, choose: random.Random) -> Iterator[str]:
  single = value(gold) is not None or _interval(gold) is not None
  if single:
    yield choose.choice(("The answer is ", "Answer: ", "answer is ")) + gold
  if value(gold) is not None and not re.search(r"[a-zA-Z]", _bare(gold)):
    yield choose.choice(("x = ", "x=", "n=", r"\theta = ", "S = ")) + gold
  if _NAMED.match(gold) and value(gold.split("=", 1)[1]) is not None:
    yield gold.split("=", 1)[1].strip()


def _bare(text: str) -> str:
  return re.sub(r"\\[a-zA-Z]+", "", text)


def _text(gold: str, choose: random.Random) -> Iterator[str]:
  if re.fullmatch(r"-?\d+|[A-H]|[A-Za-z]{2,}", gold):
    command = choose.choice(("text", "mathrm", "textbf", "mathbf", "mbox"))
    yield rf"\{command}{{{gold}}}"
  if re.fullmatch(r"\\text\s*\{[^{}]*\}", gold):
    yield re.sub(r"\\text\s*\{([^{}]*)\}", r"\1", gold)
  if re.fullmatch(r"[A-H]", gold):
    yield choose.choice((f"({gold})", rf"\text{{({gold})}}", f"{gold}."))


# Equal: values.


def _number(gold: str, choose: random.Random) -> Iterator[str]:
  number = _fraction(gold)
  if number is None:
    return
  top, bottom = number.numerator, number.denominator
  sign, size = "-" if top < 0 else "", abs(number)
  if bottom == 1:
    yield choose.choice((f"{top}.0", f"{top}.00", f"{top}."))
    if size >= 1000:
      separator = choose.choice((",", "{,}", r",\!", r"\,", " ", "\u2009"))
      yield sign + f"{size.numerator:,}".replace(",", separator)
    return
  yield f"{top}/{bottom}"
  yield choose.choice(
    (
      rf"{sign}\frac{{{size.numerator}}}{{{bottom}}}",
      rf"\frac{{{top}}}{{{bottom}}}",
      rf"{sign}\frac{{{2 * size.numerator}}}{{{2 * bottom}}}",
      rf"{sign}{{{size.numerator} \over {bottom}}}",
    )
  )
  if decimal := _decimal(number):
    short = re.sub(r"^(-?)0\.", r"\1.", decimal)
    yield choose.choice((decimal, f"{decimal}0", short))
  if size > 1:
    whole, rest = divmod(size.numerator, bottom)
    yield choose.choice(
      (
        rf"{sign}{whole}\frac{{{rest}}}{{{bottom}}}",
        f"{sign}{whole} {rest}/{bottom}",
        rf"{sign}{whole}\,\tfrac{{{rest}}}{{{bottom}}}",
      )
    )


def _coefficient(gold: str, choose: random.Random) -> Iterator[str]:
  r"""Writes fractions within an expression as decimals: \frac12 x as 0.5x."""
  found = list(re.finditer(r"\\[dt]?frac\{(\d+)\}\{(\d+)\}(?!\^)", gold))
  for match in found:
    number = Fraction(int(match[1]), int(match[2]) or 1)
    decimal = _decimal(number)
    left, right = gold[: match.start()], gold[match.end() :]
    if not decimal or re.search(r"[\d)}\w]\s*$", left) or left + right == "":
      continue
    # Not before a digit or decimal, and not where it is an exponent.
    if re.match(r"\s*[\d.]", right) or left.endswith("^"):
      continue
    if re.search(r"\d|[a-zA-Z]", _bare(left + right)):
      yield left + decimal + right
  if decimals := list(re.finditer(r"(?<![\d.,^{])\d+\.\d+(?![\d.,]|\^)", gold)):
    match = choose.choice(decimals)
    number = Fraction(match[0])
    if match[0] != gold and not re.match(r"\s*\\frac", gold[match.end() :]):
      yield (
        rf"{gold[: match.start()]}\frac{{{number.numerator}}}"
        rf"{{{number.denominator}}}{gold[match.end() :]}"
      )


def _reordered(gold: str, choose: random.Random) -> Iterator[str]:
  """Permutes a sum, a product or a list."""
  name = _NAMED.match(gold)
  head, body = (name[0], gold[name.end() :]) if name else ("", gold)
  if value(body) is not None:
    terms = re.findall(
      r"\s*[+-]?(?:\{[^{}]*(?:\{[^{}]*(?:\{[^{}]*\}[^{}]*)*\}[^{}]*)*\}|"
      r"\([^()]*(?:\([^()]*\)[^()]*)*\)|[^+\-(){}])+",
      body,
    )
    if len(terms) > 1 and "".join(terms) == body:
      terms = [each.strip() for each in terms]
      terms[0] = terms[0] if terms[0][0] in "+-" else f"+{terms[0]}"
      choose.shuffle(terms)
      yield head + "".join(terms).removeprefix("+")
    if factors := re.fullmatch(r"(\([^()]*\))(\([^()]*\))", body):
      yield head + factors[2] + factors[1]
  if found := _list(gold):
    opening, items, closing = found
    items = choose.sample(items, len(items))
    yield opening + ", ".join(items) + closing
    if not opening:
      yield (
        ", ".join(items[:-1])
        + choose.choice((" and ", " or ", r" \text{ and } ", r"\text{ or }"))
        + items[-1]
      )
      yield rf"\{{{', '.join(items)}\}}"


# Different.


def _differs(one: str, two: str) -> bool:
  """Whether both have values, and these are apart."""
  values = value(one), value(two)
  if None in values:
    return False
  return abs(values[0] - values[1]) > 1e-9 * max(1, *map(abs, values))


def _changed(text: str, choose: random.Random) -> str | None:
  """Adds one to a number within an expression, so that its value differs."""
  found = list(_NUMBER.finditer(text))
  if not found:
    return None
  match = choose.choice(found)
  number = str(int(match[0]) + choose.choice((-1, 1)))
  other = text[: match.start()] + number + text[match.end() :]
  return other if _differs(text, other) else None


def _number_changed(gold: str, choose: random.Random) -> Iterator[str | None]:
  yield _changed(gold, choose)
  name = _NAMED.match(gold)
  if name and (other := _changed(gold[name.end() :], choose)):
    yield name[0] + other
  if found := _list(gold):
    opening, items, closing = found
    at = choose.randrange(len(items))
    other = _changed(items[at], choose)
    if other and all(_differs(other, each) for each in items):
      yield (
        opening + ", ".join([*items[:at], other, *items[at + 1 :]]) + closing
      )
  if parts := _interval(gold):
    at = choose.choice((1, 2))
    if other := _changed(parts[at], choose):
      parts = [*parts[:at], other, *parts[at + 1 :]]
      yield f"{parts[0]}{parts[1]},{parts[2]}{parts[3]}"


def _sign_changed(gold: str, choose: random.Random) -> Iterator[str]:
  name = _NAMED.match(gold)
  head, body = (name[0], gold[name.end() :]) if name else ("", gold)
  for other in (
    f"-({body})",
    body.strip().removeprefix("-") if body.strip()[:1] == "-" else f"-{body}",
    body.replace("+", "-", 1),
    "-".join(body.rsplit("+", 1)),
  ):
    if _differs(body, other):
      yield head + other


def _list_changed(gold: str, choose: random.Random) -> Iterator[str]:
  if found := _list(gold):
    opening, items, closing = found
    at = choose.randrange(len(items))
    left = [*items[:at], *items[at + 1 :]]
    yield opening + ", ".join(left) + closing
    more = "1009" if opening else str(choose.choice((1009, -1013)))
    yield opening + ", ".join([*items, more]) + closing


def _tuple_changed(gold: str, choose: random.Random) -> Iterator[str]:
  parts = re.fullmatch(r"(\\left)?\(([^()\[\]]*,[^()\[\]]*?)(\\right)?\)", gold)
  if not parts or "\\infty" in gold:
    return
  items = [each.strip() for each in _pieces(parts[2], ",")]
  for one, two in itertools.combinations(range(len(items)), 2):
    if _differs(items[one], items[two]):
      swapped = list(items)
      swapped[one], swapped[two] = items[two], items[one]
      yield f"({', '.join(swapped)})"
      break
  at = choose.randrange(len(items))
  if other := _changed(items[at], choose):
    yield f"({', '.join([*items[:at], other, *items[at + 1 :]])})"
  if len(items) > 2:
    yield f"({', '.join([*items[:at], *items[at + 1 :]])})"


def _end_flipped(gold: str, choose: random.Random) -> Iterator[str]:
  flip = {"(": "[", "[": "(", ")": "]", "]": ")"}
  if parts := _interval(gold):
    opening, low, high, closing = parts
    if "\\infty" not in low:
      yield f"{flip[opening]}{low},{high}{closing}"
    if "\\infty" not in high:
      yield f"{opening}{low},{high}{flip[closing]}"
  pieces = [each.strip() for each in gold.split(r"\cup")]
  if len(pieces) > 1 and all(map(_interval, pieces)):
    at = choose.randrange(len(pieces))
    yield r"\cup ".join([*pieces[:at], *pieces[at + 1 :]])
  relation = r"\\(?:le|ge)q?(?![a-z])|(?<!\\left)[<>](?!=)"
  if len(found := re.findall(relation, gold)) == 1:
    strict = {"<": r"\le ", ">": r"\ge "}
    other = strict.get(found[0]) or ("<" if "l" in found[0] else ">")
    yield re.sub(relation, lambda _: other, gold)
    turned = {"<": ">", ">": "<"}.get(found[0]) or (
      r"\ge " if "l" in found[0] else r"\le "
    )
    yield re.sub(relation, lambda _: turned, gold)


def _nearby(gold: str, choose: random.Random) -> Iterator[str]:
  """Differs by less than any float would show."""
  if value(gold) is not None:
    yield gold + choose.choice(
      ("+10^{-60}", "-10^{-80}", r"+\frac{1}{10^{70}}", "+2^{-300}")
    )


def _scaled(gold: str, choose: random.Random) -> Iterator[str]:
  number = _fraction(gold)
  if number:
    factor = choose.choice((100, Fraction(1, 100), 10, 1000))
    found = number * factor
    decimal = _decimal(found)
    yield decimal or f"{found.numerator}/{found.denominator}"
  elif value(gold):
    yield rf"100\cdot ({gold})"
    yield rf"\frac{{{gold}}}{{100}}"


def _false_equation(gold: str, choose: random.Random) -> Iterator[str]:
  """Says that another number equals the gold one."""
  if (number := _fraction(gold)) is not None:
    yield f"{math.floor(number) - choose.randint(1, 9)}={gold}"
    other = math.floor(number) + choose.randint(2, 9)
    yield choose.choice((f"{other}={gold}", f"2+{other}={gold}"))


def _cut(gold: str, choose: random.Random) -> Iterator[str]:
  """Leaves out one of several solutions, or one of several cases."""
  pieces = re.split(r"\\text\s*\{\s*,?\s*(?:or|and)\s*\}", gold)
  if len(pieces) > 1 and all("=" in each for each in pieces):
    yield choose.choice(pieces).strip(" ,")
    yield re.split(r"\\text\s*\{\s*(?:for|where|if)", pieces[0])[0].strip(" ,")
  cases = re.findall(r"(?:^|,)\s*([^,{}]*?)\s*,?\s*\\text\s*\{\s*if", gold)
  if len(cases) > 1 and cases[0]:
    yield cases[0]


def _rules(*functions) -> dict[str, Callable]:
  return {each.__name__.strip("_"): each for each in functions}


EQUAL = _rules(
  _around, _trailing, _leading, _commands, _sized, _spaced, _introduced, _text,
  _number, _coefficient, _reordered,
)  # fmt: skip
DIFFERENT = _rules(
  _number_changed, _sign_changed, _list_changed, _tuple_changed, _end_flipped,
  _nearby, _scaled, _false_equation, _cut,
)  # fmt: skip
