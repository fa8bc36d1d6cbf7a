r"""Normalises the notation of answers to plain LaTeX; evaluates nothing.

`tidy` turns "$\boxed{\dfrac12}$", "½" and "Fraction(1, 2)", which differ in
notation only, into "\frac{1}{2}". `rational` parses plain numbers exactly.

Standard library only: it runs in grader workers too.
"""

import re
import unicodedata
from fractions import Fraction

from rstar_jax.grading import brackets, printed

# Most characters of an answer; a number of up to DIGITS counts as 30.
LONGEST = 1000
DIGITS = 4300  # Most digits that Python converts to an int.
# Most characters of an answer that the host parses itself: the time of some
# rules grows with the square or cube of the length.
AT_ONCE = 100
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
    "∕": "/",
    "∶": ":",
    "¢": " cents",
    "¥": "\\yen ",
    "₹": "\\rupee ",
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
# Commands that change the appearance alone: with an argument, and without.
_STYLED = re.compile(
  r"\\(?:text(?:bf|it|rm|sf|tt|normal|up)?|mathrm|mathbf|mathit|mathsf|mathtt|"
  r"mathnormal|mbox|hbox|boldsymbol|bm|operatorname\*?|emph|underline|"
  r"(?:text)?color\s*\{\w+\}|mathop)\s*\{"
)
_STYLE = re.compile(
  r"(?<!\\)\\(?:left|right|[bB]igg?[lrm]?|displaystyle|textstyle|scriptstyle|limits|"
  r"tiny|small|normalsize|large|Large|LARGE|huge|Huge|bf|rm|it)(?![a-zA-Z])"
  r"|(?<!\\)\\[,!;:>]"
)
# Braces around a sign, which only change the space around it: "10{:}30".
_BRACED_SIGN = re.compile(r"(?<![\^_\\])\{\s*([-+:=<>])\s*\}")
# Braces around a number or symbol that is not an argument: "2 {\pi}".
_BRACED_SYMBOL = re.compile(
  r"(?:(?<=[-+*/=<>(,.{\s])|^)(?<!\\)\{(\\[a-zA-Z]+|[a-zA-Z]|\d+)\}"
  r"|(?<=\d)\{(\\[a-zA-Z]+)\}"
)
# Commands of two arguments and of one, and what needs no braces as one.
_PAIR = re.compile(r"(?<!\\)\\(?:frac|binom)(?![a-zA-Z])")
_ONE = r"sqrt\[\d+\]|(?:sqrt|pmod|bar|overline|hat|vec|mathbb)(?![a-zA-Z])"
_TOKEN = re.compile(
  rf"\d|[a-zA-Z]|\\(?:{'|'.join(_GREEK.values())})(?![a-zA-Z])"
)
# Other names of brackets.
_BRACKETS = {
  "lbrace": r"\{",
  "rbrace": r"\}",
  "lbrack": "[",
  "rbrack": "]",
  "lparen": "(",
  "rparen": ")",
}
# The lines of a system of equations.
_LINES = (
  r"\\begin\{(?:cases|aligned|align\*?|gathered)\}(.*?)"
  r"\\end\{(?:cases|aligned|align\*?|gathered)\}"
)
# What goes on with an equation, and the words before the condition of a case.
_EQUATION = re.compile(r"\s*(?:[+=<>]|-[^<>\\]*=|\\(?:[lg]eq?|neq?)(?![a-z]))")
_IF = re.compile(
  r"(?:\s|\\quad)*(?:\\(?:text|mathrm)\{\s*(?:if|for|when)\s*\})?\s*"
)
# A function whose argument has brackets and braces.
_ARGUMENT = re.compile(
  r"\\(?:ln|log|exp|(?:arc)?(?:sin|cos|tan|cot|sec|csc)h?)"
  r"(?:[_^](?:\{[^{}]*\}|\w))*\s*\{(?=\()"
)
_MULTIPLES = {
  "dozen": 12,
  "dozens": 12,
  "hundred": 100,
  "thousand": 10**3,
  "million": 10**6,
  "billion": 10**9,
  "trillion": 10**12,
}
_MULTIPLE = re.compile(
  r"(?<![\d.,])(\d[\d,]{0,20}(?:\.\d{1,20})?)\s*(\\text\s*\{)?\s*"
  rf"({'|'.join(_MULTIPLES)})\b(\s*\}})?",
  re.IGNORECASE,
)


def tidy(answer: str) -> str:
  """Returns an answer in normalised notation, with the same meaning."""
  text = re.sub(r"[\t\n\r]", " ", answer)
  if not text.isascii():
    text = _in_ascii(text)
  text = unwrap(text)
  if "\\" in text:
    text = _spaces(text)
  text = re.sub(r"(?:(?<!\\)\\ |~|(?<!\\)\s)+", " ", text)
  if "\\" in text:
    text = _arguments(text)
  if "{" in text:
    text = _BRACED_SYMBOL.sub(r"\1\2 ", _BRACED_SIGN.sub(r"\1", text))
  if "\\" in text:
    text = _commands(text)
  text = text.replace("<=", "\\le ").replace(">=", "\\ge ")
  text = re.sub(r"(?<=[,\s])\.\.\.", r"\\ldots ", text)
  text = re.sub(r"(?<![\d)])!=", r"\\ne ", text).replace("\\%", "%")
  text = re.sub(r"(?<=\d)\{,\}(?=\d{3})", ",", text)
  if "_" in text:
    text = re.sub(
      r"(?<![A-Za-z])C_\{?(\w+)\}?\^\{?(\w+)\}?", r"\\binom{\1}{\2}", text
    )
  text = printed.to_latex(text)
  if "\\" in text:
    text = re.sub(rf"\\({_ONE})\s*(\d+|{_TOKEN.pattern})", r"\\\1{\2}", text)
  text = _MULTIPLE.sub(_multiplied, text)
  if "^" in text:
    text = re.sub(r"\^\s*\{\s*\\circ\s*\}", r"^\\circ ", text)
    text = re.sub(r"\^ ?(-?\d+|[a-zA-Z])", r"^{\1}", text)
    text = re.sub(r"(\d+!)\^", r"{(\1)}^", text)
  text = re.sub(r"_(\d+|[a-zA-Z])", r"_{\1}", text)
  return unwrap(text)


def _in_ascii(text: str) -> str:
  """Converts mathematical characters to LaTeX."""
  text = re.sub(
    f"[⁺⁻]?[{_SUPERSCRIPTS}]+",
    lambda match: f"^{{{unicodedata.normalize('NFKC', match[0])}}}",
    re.sub(r"((?:\d\u0305)+)", _overlined, text),
  ).translate(_CHARACTERS)
  text = re.sub("([₀₁₂₃₄₅₆₇₈₉]+)", r"_{\1}", text)
  return unicodedata.normalize("NFKC", text).replace("\u2212", "-")


def _spaces(text: str) -> str:
  """Removes commands for spaces, sizes and line breaks."""
  text = text.replace("\\\\circ", "\\circ")
  text = re.sub(
    r"(?:\\(?:q?quad(?![a-zA-Z])|hspace\{[^{}]*\})\s*)+", "\\\\quad ", text
  )
  text = re.sub(r"(?<=[\w.)}])\\[,;:](?=\s*\\?[a-zA-Z])", " ", text)
  text = re.sub(_LINES, _in_one_line, text, flags=re.DOTALL)
  text = _STYLE.sub("", text)
  return re.sub(
    rf"\\({'|'.join(_BRACKETS)})(?![a-z])\s*",
    lambda match: _BRACKETS[match[1]],
    text,
  )


def _arguments(text: str) -> str:
  r"""Converts "\dfrac 1x" to "\frac{1}{x}", and "2^\frac12" to braces, too."""
  text = re.sub(r"\\[dtc]frac", r"\\frac", text)
  text = re.sub(r"\\[dt]binom", r"\\binom", text)
  # Those within an argument come first.
  for command in reversed(list(_PAIR.finditer(text))):
    at = command.end()
    for _ in range(2):
      rest = text[at:].lstrip()
      if token := _TOKEN.match(rest):
        rest = f"{{{token[0]}}}{rest[token.end() :]}"
      end = brackets.closing_brace(rest, 1) if rest[:1] == "{" else None
      if end is None:
        break
      text = text[:at] + rest
      at += end + 1
    else:
      before, pair = text[: command.start()], text[command.start() : at]
      if before.endswith("^"):
        text = f"{before}{{{pair}}}{text[at:]}"
  return text


def _commands(text: str) -> str:
  """Replaces commands of equal meaning by one of them."""
  text = re.sub(r"^(?:\\quad )+|(?:\\quad ?)+$", "", text.strip())
  text = re.sub(r"\\[lr]vert(?![a-z])|\\mid(?![a-z])", "|", text)
  text = re.sub(r"\\([RZNQC])(?![a-zA-Z])", r"\\mathbb{\1}", text)
  text = re.sub(r"\\lg(?![a-zA-Z])", r"\\log_{10}", text)
  text = re.sub(r"\\(le|ge|ne)q?(?:slant)?(?![a-z])", r"\\\1 ", text)
  text = re.sub(r"\\lt(?![a-z])", "<", re.sub(r"\\gt(?![a-z])", ">", text))
  text = re.sub(r"\\[cd]?dots(?![a-z])", r"\\ldots", text)
  text = text.replace("\\varnothing", "\\emptyset")
  text = re.sub(r"\\(?:times|ast)(?![a-z])", r"\\cdot", text)
  text = re.sub(r"\\deg(?:ree)?(?![a-z])", r"^\\circ ", text)
  text = re.sub(r"(?<=\d),\s*(?:\\!)+(?=\d{3})", ",", text)
  text = re.sub(r"\{([^{}]*)\\over(?![a-z])([^{}]*)\}", r"\\frac{\1}{\2}", text)
  if "\\choose" in text:
    text = re.sub(r"\{?([^{}]*)\\choose([^{}]*)\}?", r"\\binom{\1}{\2}", text)
  return _functions(text)


def _in_one_line(match: re.Match) -> str:
  lines = [each.strip() for each in match[1].split(r"\\")]
  if match[0].startswith(r"\begin{cases}"):
    lines = [_case(each) for each in lines]
  lines = [each.replace("&", "").strip() for each in lines]
  return ", ".join(filter(None, lines))


def _case(line: str) -> str:
  """Writes "1, & x > 0" as "1 if x > 0"; leaves equations as they are."""
  value, mark, condition = line.partition("&")
  if not mark or "&" in condition or _EQUATION.match(condition):
    return line
  condition = _IF.sub("", condition, count=1)
  word = "" if re.match(r"\\(?:text|mathrm)|[a-z]{2}", condition) else "if "
  return f"{value.rstrip(' ,')} {word}{condition}"


def _functions(text: str) -> str:
  r"""Converts sympy's "\operatorname{asin}{(x)}" to "\arcsin (x)"."""
  named = r"\\(?:operatorname\*?|text|mathrm)\s*"
  text = re.sub(
    rf"{named}\{{(?:a|ar|arc)(sin|cos|tan|cot|sec|csc)(h?)\}}",
    r"\\arc\1\2 ",
    text,
  )
  # Not \text{sec}, which are seconds.
  text = re.sub(rf"{named}\{{(sin|cos|tan|ln|log)\}}", r"\\\1 ", text)
  start = 0
  while match := _ARGUMENT.search(text, start):
    start = match.end()
    end = brackets.closing_brace(text, start)
    if end is not None and text[end - 1] == ")":
      text = text[: start - 1] + text[start:end] + text[end + 1 :]
  return text


def _multiplied(match: re.Match) -> str:
  """Converts "1.5 million" or "2 dozen" to a number."""
  number = Fraction(match[1].replace(",", "")) * _MULTIPLES[match[3].lower()]
  if number.denominator != 1:
    return match[0]
  # "\\text{ million dollars}" keeps its braces around the rest.
  opening, closing = match[2] or "", (match[4] or "").strip()
  around = "" if opening and closing else opening + closing
  return f"{number.numerator}{around}"


def _overlined(match: re.Match) -> str:
  return rf"\overline{{{match[0].replace(chr(0x305), '')}}}"


def unwrap(text: str) -> str:
  """Removes delimiters around the text, and punctuation at its end."""
  while True:
    before = text
    text = re.sub(
      r"(?:(?<![.\\])[.,;]|(?<=[A-Za-z]{3})!|\\\\"
      r"|(?<!\\)\\(?:[,;:!>]|q?quad)?|~)\s*$",
      "",
      text.strip(),
    )
    text = re.sub(
      r"^\s*(?:\\(?:[,;:!>\s]|q?quad(?![a-z]))|~)", "", text
    ).strip()
    for opening, closing in (
      ("$$", "$$"),
      ("$", "$"),
      ("\\(", "\\)"),
      ("\\[", "\\]"),
      ("**", "**"),
      ("`", "`"),
      ('"', '"'),
      ("'", "'"),
    ):
      if (
        len(text) > len(opening) + len(closing)
        and text.startswith(opening)
        and text.endswith(closing)
      ):
        inner = text[len(opening) : -len(closing)]
        if not re.search(r"(?<!\\)" + re.escape(opening), inner):
          text = inner.strip()
    box = re.match(r"\\(?:boxed|fbox)\s*\{", text)
    if box and brackets.closing_brace(text, box.end()) == len(text) - 1:
      text = text[box.end() : -1].strip()
    if text == before:
      return text


def plain_text(text: str) -> str:
  r"""Replaces `\text{...}` and other font commands by their content."""
  while match := _STYLED.search(text):
    end = brackets.closing_brace(text, match.end())
    inner = text[match.end() : end if end is not None else len(text)]
    rest = "" if end is None else text[end + 1 :]
    text = text[: match.start()] + inner + rest
  return text


def compact(text: str) -> str:
  r"""Removes spaces without meaning; keeps those of "1 2" and "\pi x"."""
  if _FRACTION.fullmatch(text):
    return text
  text = re.sub(r"\s+(?![a-zA-Z\d])|(?<![a-zA-Z\d])\s+", "", text)
  return re.sub(r"(?<=\d)\s+(?=[a-zA-Z])|(?<=[a-zA-Z])\s+(?=\d)", "", text)


def too_long(answer: str) -> bool:
  """Returns whether an answer exceeds LONGEST, or a number DIGITS."""
  if len(answer) <= LONGEST or len(answer) > 4 * DIGITS:
    return len(answer) > LONGEST
  short = re.sub(r"\d{31,}", lambda match: match[0][:30], answer)
  return len(short) > LONGEST or bool(re.search(rf"\d{{{DIGITS + 1}}}", answer))


def rational(body: str) -> Fraction | None:
  r"""Returns the value of a plain number, None for anything else.

  Args:
    body: an integer, decimal, fraction (`3/4` or LaTeX), mixed number
      (`1 3/4`), repeating decimal (`0.\overline{3}`), or a number in scientific
      notation.
  """
  if too_long(body):
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
