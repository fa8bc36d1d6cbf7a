r"""Writes answers in one notation, LaTeX without ornaments; evaluates nothing.

"$\boxed{\dfrac12}$", "½" and "Fraction(1, 2)" are ways of writing that differ
in what a reader skips: `tidy` makes "\frac{1}{2}" of each. A plain number is
read exactly by `rational`. Standard library only: it runs in grader workers.
"""

import re
import unicodedata
from fractions import Fraction

# Longer answers are no answers; and Fraction(10**big) must not take long.
LONGEST = 1000
_SUPERSCRIPTS = "⁰¹²³⁴⁵⁶⁷⁸⁹"
_GREEK = dict(
  zip(
    "αβγδεζηθικλμνξπρστυφχψωΓΔΘΛΞΠΣΦΨΩ",
    "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi "
    "pi rho sigma tau upsilon phi chi psi omega Gamma Delta Theta Lambda Xi Pi "
    "Sigma Phi Psi Omega".split(),
    strict=True,
  )
)
_CHARACTERS = str.maketrans(
  {
    **dict.fromkeys("\u2212\u2013\u2014\u2010\u2011", "-"),
    **dict.fromkeys("\u2018\u2019\u2032", "'"),
    **dict.fromkeys("\u00a0\u2009\u202f\t\n\r", " "),
    **dict.fromkeys("\u200b\u2060\ufeff", ""),
    **{chr(0x660 + i): str(i) for i in range(10)},
    **{character: f"\\{name} " for character, name in _GREEK.items()},
    **{
      character: f" \\frac{{{value[0]}}}{{{value[1]}}}"
      for character, value in zip(
        "½⅓⅔¼¾⅕⅖⅗⅘⅙⅚⅛⅜⅝⅞",
        "12 13 23 14 34 15 25 35 45 16 56 18 38 58 78".split(),
        strict=True,
      )
    },
    "×": "\\times ",
    "·": "\\cdot ",
    "⋅": "\\cdot ",
    "÷": "/",
    "⁄": "/",
    "∞": "\\infty ",
    "°": "^\\circ ",
    "≤": "\\le ",
    "⩽": "\\le ",
    "≥": "\\ge ",
    "⩾": "\\ge ",
    "≠": "\\ne ",
    "≈": "\\approx ",
    "±": "\\pm ",
    "∓": "\\mp ",
    "∪": "\\cup ",
    "∩": "\\cap ",
    "∈": "\\in ",
    "∠": "\\angle ",
    "∅": "\\emptyset ",
    "ℝ": "\\mathbb{R}",
    "ℤ": "\\mathbb{Z}",
    "ℕ": "\\mathbb{N}",
    "ℚ": "\\mathbb{Q}",
    "£": "\\pounds ",
    "€": "\\euro ",
    "√": "\\sqrt ",
    "∛": "\\sqrt[3]",
    "∜": "\\sqrt[4]",
    "…": "\\ldots ",
    "⟨": "\\langle ",
    "⟩": "\\rangle ",
    "⌊": "\\lfloor ",
    "⌋": "\\rfloor ",
    "⌈": "\\lceil ",
    "⌉": "\\rceil ",
  }
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
  rf"(?:(?P<m>[+-]?{_DECIMAL})(?:[eE]|(?:\\times|\\cdot|\*)10\^)|10\^)"
  r"\{?(?P<x>[+-]?\d{1,3})\}?"
)
_REPEATING = re.compile(
  r"(?P<sign>[+-]?)(?P<whole>\d*)\.(?P<fixed>\d*)"
  r"(?:\\(?:overline|bar|dot)\{?|\()(?P<period>\d+)[)}]?"
)
_ELLIPSIS = re.compile(
  r"([+-]?\d*)\.(\d*?)(\d{1,6}?)\3{1,}\s*(?:\\[lc]?dots|\.\.\.)"
)
# Commands that only change how the rest looks: with an argument, and without.
_STYLED = re.compile(
  r"\\(?:text(?:bf|it|rm|sf|tt|normal|up)?|mathrm|mathbf|mathit|mathsf|mathtt|"
  r"mathnormal|mbox|hbox|boldsymbol|bm|operatorname\*?|emph|underline|"
  r"(?:text)?color\s*\{\w+\}|mathop)\s*\{"
)
_STYLE = re.compile(
  r"(?<!\\)\\(?:left|right|[bB]igg?[lrm]?|displaystyle|textstyle|scriptstyle|limits|"
  r"tiny|small|normalsize|large|Large|LARGE|huge|Huge|bf|rm|it|[,!;:>])"
  r"(?![a-zA-Z])"
)
# What interpreters print, by name and number of arguments.
_CALLS = {
  ("sqrt", 1): r"\sqrt{%s}",
  ("cbrt", 1): r"\sqrt[3]{%s}",
  ("Fraction", 2): r"\frac{%s}{%s}",
  ("Rational", 2): r"\frac{%s}{%s}",
  ("Fraction", 1): "%s",
  ("Integer", 1): "%s",
  ("Abs", 1): "|%s|",
  ("abs", 1): "|%s|",
  ("exp", 1): "e^{%s}",
  ("Eq", 2): "%s=%s",
  ("floor", 1): r"\lfloor %s\rfloor ",
  ("ceiling", 1): r"\lceil %s\rceil ",
  ("ceil", 1): r"\lceil %s\rceil ",
  ("factorial", 1): "(%s)!",
  ("binomial", 2): r"\binom{%s}{%s}",
  ("Matrix", 1): "%s",
  ("array", 1): "%s",
  ("Interval", 2): "[%s,%s]",
  ("set", 0): r"\emptyset ",
  ("FiniteSet", 1): r"\{%s\}",
  ("FiniteSet", 2): r"\{%s,%s\}",
  ("FiniteSet", 3): r"\{%s,%s,%s\}",
}
_CALL = re.compile(
  r"(?<![a-zA-Z\\_])(?:math\.|np\.|sp\.|sympy\.|Interval\.)?"
  rf"({'|'.join({name for name, _ in _CALLS})})\s*\("
)
_OPEN = re.compile(r"\\[{]|\\l(?:angle|floor|ceil)(?![a-z])|\\begin\b|[({\[]")
_CLOSE = re.compile(r"\\[}]|\\r(?:angle|floor|ceil)(?![a-z])|\\end\b|[)}\]]")


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


def split(text: str, separator: str) -> list[str] | None:
  r"""Splits at a separator that stands in no bracket of any kind.

  Args:
    text: LaTeX. Brackets of a half-open interval match one another.
    separator: a regular expression.

  Returns:
    The pieces, spaces around them removed; None if brackets do not match.
  """
  pieces, depth, start, index = [], 0, 0, 0
  found = re.compile(separator)
  while index < len(text):
    if match := _OPEN.match(text, index):
      depth += 1
    elif match := _CLOSE.match(text, index):
      depth -= 1
      if depth < 0:
        return None
    elif depth == 0 and (match := found.match(text, index)) and match[0]:
      pieces.append(text[start:index].strip())
      start = match.end()
    else:
      match = re.compile(r"\\?.", re.DOTALL).match(text, index)
    index = match.end()
  return None if depth else [*pieces, text[start:].strip()]


def depth(text: str) -> int:
  """Returns how deep brackets are nested, those that never close included."""
  deepest = level = 0
  for bracket in re.findall(r"\\begin\b|[({\[]|\\end\b|[)}\]]", text):
    level += -1 if bracket in (")", "}", "]", "\\end") else 1
    deepest = max(deepest, level, -level)
  return deepest


def enclosed(text: str) -> tuple[str, str, str] | None:
  """Splits off the brackets around a whole text: opening, inside, closing."""
  first = _OPEN.match(text)
  last = next(reversed(list(_CLOSE.finditer(text))), None)
  if not first or not last or last.end() != len(text) or first[0] == "\\begin":
    return None
  inside = text[first.end() : last.start()]
  # "(1)(2)" begins and ends so too.
  if last.start() < first.end() or split(inside, "(?!)") is None:
    return None
  return first[0], inside.strip(), last[0]


def tidy(answer: str) -> str:
  """Returns an answer in one notation; what is no ornament stays."""
  text = re.sub(
    f"[⁺⁻]?[{_SUPERSCRIPTS}]+",
    lambda match: f"^{{{unicodedata.normalize('NFKC', match[0])}}}",
    re.sub(r"((?:\d\u0305)+)", _overlined, answer),
  ).translate(_CHARACTERS)
  text = unicodedata.normalize("NFKC", text).replace("\u2212", "-")
  text = unwrap(text)
  text = text.replace("\\\\circ", "\\circ")
  text = re.sub(
    r"(?:\\(?:q?quad(?![a-zA-Z])|hspace\{[^{}]*\})\s*)+", "\\\\quad ", text
  )
  text = re.sub(r"(?<!\\)\\ |~|(?<!\\)\s+", " ", _STYLE.sub("", text))
  text = re.sub(r"^(?:\\quad )+|(?:\\quad ?)+$", "", text.strip())
  text = re.sub(r"\\[lr]vert(?![a-z])|\\mid(?![a-z])", "|", text)
  text = re.sub(r"\\[dtc]frac", r"\\frac", text)
  text = re.sub(r"\\[dt]binom", r"\\binom", text)
  text = re.sub(r"\\(le|ge|ne)q?(?:slant)?(?![a-z])", r"\\\1 ", text)
  text = text.replace("<=", "\\le ").replace(">=", "\\ge ")
  text = text.replace("!=", "\\ne ").replace("\\%", "%")
  text = text.replace("\\varnothing", "\\emptyset")
  text = re.sub(r"(?<=\d)\{,\}(?=\d{3})", ",", text)
  text = re.sub(r"(?<=\d),\s*(?:\\!)+(?=\d{3})", ",", text)
  # Fractions and roots without their braces.
  text = re.sub(r"\\frac\s*(\d)\s*(\d)", r"\\frac{\1}{\2}", text)
  text = re.sub(r"\\frac\s*(\d)\s*\{", r"\\frac{\1}{", text)
  text = re.sub(r"(\\frac\{[^{}]*\})\s*(\d)", r"\1{\2}", text)
  text = re.sub(r"\{([^{}]*)\\over(?![a-z])([^{}]*)\}", r"\\frac{\1}{\2}", text)
  if "\\choose" in text:
    text = re.sub(r"\{?([^{}]*)\\choose([^{}]*)\}?", r"\\binom{\1}{\2}", text)
  text = re.sub(
    r"(?<![A-Za-z])C_\{?(\w+)\}?\^\{?(\w+)\}?", r"\\binom{\1}{\2}", text
  )
  text = _calls(re.sub(r"\\sqrt\s*\(", "sqrt(", text))
  text = re.sub(r"\\sqrt(\[\d+\])?\s*(\d+|[a-zA-Z])", r"\\sqrt\1{\2}", text)
  # As interpreters print it.
  text = re.sub(r"(?<![a-zA-Z\\])pi(?![a-zA-Z])", r"\\pi ", text)
  text = re.sub(r"(?<![a-zA-Z\\])oo(?![a-zA-Z])", r"\\infty ", text)
  text = re.sub(
    r"(?<![a-zA-Z\\])(sin|cos|tan|log|ln)(?=\s*[(\d])", r"\\\1 ", text
  )
  text = re.sub(r"(?<![a-zA-Z])E(?=\s*\*)|(?<=\*)E(?![a-zA-Z])", "e", text)
  text = text.replace("**", "^")
  text = re.sub(r"\^\s*\(([^()]*)\)", r"^{\1}", text)
  text = re.sub(r"\^(-?\d{2,}|-\d)", r"^{\1}", text)
  text = re.sub(r"(\d+!)\^", r"{(\1)}^", text)
  text = re.sub(r"_(\d+|[a-zA-Z])", r"_{\1}", text)
  return unwrap(text)


def _overlined(match: re.Match) -> str:
  return rf"\overline{{{match[0].replace(chr(0x305), '')}}}"


def unwrap(text: str) -> str:
  """Removes what only encloses or ends: dollars, boxes, stars, full stops."""
  while True:
    before = text
    text = re.sub(
      r"(?:(?<!\.)[.,;]|(?<=[A-Za-z]{3})!|\\\\)\s*$", "", text.strip()
    ).strip()
    for opening, closing in (
      ("$$", "$$"),
      ("$", "$"),
      ("\\(", "\\)"),
      ("\\[", "\\]"),
      ("**", "**"),
      ("`", "`"),
    ):
      if (
        len(text) > len(opening) + len(closing)
        and text.startswith(opening)
        and text.endswith(closing)
      ):
        inner = text[len(opening) : -len(closing)]
        if opening not in inner:
          text = inner.strip()
    box = re.match(r"\\(?:boxed|fbox)\s*\{", text)
    if box and closing_brace(text, box.end()) == len(text) - 1:
      text = text[box.end() : -1].strip()
    if text == before:
      return text


def _calls(text: str) -> str:
  """Writes calls of functions, as interpreters print them, in LaTeX."""
  start = 0
  while match := _CALL.search(text, start):
    start = match.end()
    depth, end = 1, start
    while end < len(text) and depth:
      depth += {"(": 1, ")": -1}.get(text[end], 0)
      end += 1
    inside = text[start : end - 1]
    parts = (split(inside, ",") or []) if inside.strip() else []
    form = _CALLS.get((match[1], len(parts)))
    if depth == 0 and form is not None:
      text = text[: match.start()] + form % tuple(parts) + text[end:]
      start = match.start()  # What is inside may be a call as well.
  return text


def plain_text(text: str) -> str:
  r"""Replaces `\text{...}` and what else sets a type by its content."""
  while match := _STYLED.search(text):
    end = closing_brace(text, match.end())
    inner = text[match.end() : end if end is not None else len(text)]
    rest = "" if end is None else text[end + 1 :]
    text = text[: match.start()] + inner + rest
  return text


def compact(text: str) -> str:
  r"""Removes spaces that mean nothing: "1 2" is not 12, "\pi x" needs its."""
  if _FRACTION.fullmatch(text):
    return text
  text = re.sub(r"\s+(?![a-zA-Z\d])|(?<![a-zA-Z\d])\s+", "", text)
  return re.sub(r"(?<=\d)\s+(?=[a-zA-Z])|(?<=[a-zA-Z])\s+(?=\d)", "", text)


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
  if match := _ELLIPSIS.fullmatch(body):
    head, fixed, period = match[1], match[2], match[3]
    if len(match[0].rstrip("\\cldots. ")) - len(head) - len(fixed) > 3:
      return rational(rf"{head}.{fixed}\overline{{{period}}}")
  if match := _SCIENTIFIC.fullmatch(body.replace(" ", "")):
    return Fraction(match["m"] or 1) * Fraction(10) ** int(match["x"])
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
