"""Converts what Python prints to LaTeX: "sqrt(2)/2", "Fraction(1, 2)".

Standard library only: it runs in grader workers too.
"""

import re

from rstar_jax.grading import brackets

# LaTeX of a call, by function and number of arguments.
_CALLS = {
  ("sqrt", 1): r"\sqrt{%s}",
  ("cbrt", 1): r"\sqrt[3]{%s}",
  ("Fraction", 2): r"\frac{%s}{%s}",
  ("Rational", 2): r"\frac{%s}{%s}",
  ("Fraction", 1): "%s",
  ("Integer", 1): "%s",
  ("Float", 1): "%s",
  ("float64", 1): "%s",
  ("int64", 1): "%s",
  ("Decimal", 1): "%s",
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
  ("Interval.open", 2): "(%s,%s)",
  ("Interval.Lopen", 2): "(%s,%s]",
  ("Interval.Ropen", 2): "[%s,%s)",
  ("Union", 2): r"%s\cup %s",
  ("set", 0): r"\emptyset ",
  ("FiniteSet", 1): r"\{%s\}",
  ("FiniteSet", 2): r"\{%s,%s\}",
  ("FiniteSet", 3): r"\{%s,%s,%s\}",
}
_CALL = re.compile(
  r"(?<![a-zA-Z\\_])(?:math\.|np\.|sp\.|sympy\.)?"
  rf"({'|'.join(sorted({re.escape(name) for name, _ in _CALLS}))})\s*\("
)


def to_latex(text: str) -> str:
  """Converts Python's calls, powers and constants in a text to LaTeX."""
  text = re.sub(r"(?<![a-zA-Z\\])sqrt\s*(\d+)", r"\\sqrt{\1}", text)
  text = _calls(re.sub(r"\\sqrt\s*\(", "sqrt(", text))
  text = re.sub(r"(?<![a-zA-Z\\])pi(?![a-zA-Z])", r"\\pi ", text)
  text = re.sub(r"(?<![a-zA-Z\\])oo(?![a-zA-Z])", r"\\infty ", text)
  text = re.sub(
    r"(?<![a-zA-Z\\])(sin|cos|tan|log|ln)(?=\s*[(\d_])", r"\\\1 ", text
  )
  text = re.sub(r"(?<![a-zA-Z])E(?=\s*\*)|(?<=\*)E(?![a-zA-Z])", "e", text)
  text = text.replace("**", "^")
  text = re.sub(r"\^\s*\(((?:[^()]|\([^()]*\))*)\)", r"^{\1}", text)
  text = re.sub(r"\^(-[a-zA-Z])", r"^{\1}", text)
  text = re.sub(r"(?<=\d)\s*[xX]\s*(?=10\s*\^)", r"\\times ", text)
  return text


def _calls(text: str) -> str:
  """Converts calls of functions to LaTeX."""
  start = 0
  while match := _CALL.search(text, start):
    start = match.end()
    depth, end = 1, start
    while end < len(text) and depth:
      depth += {"(": 1, ")": -1}.get(text[end], 0)
      end += 1
    inside = text[start : end - 1]
    parts = (brackets.split(inside, ",") or []) if inside.strip() else []
    template = _CALLS.get((match[1], len(parts)))
    if depth == 0 and template is not None:
      text = text[: match.start()] + template % tuple(parts) + text[end:]
      start = match.start()  # The arguments may hold calls.
  return text
