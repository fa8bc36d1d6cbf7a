"""Converts Python's output to LaTeX: "sqrt(2)/2", "Fraction(1, 2)".

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
  ("log", 2): r"\frac{\ln(%s)}{\ln(%s)}",
  ("Eq", 2): "%s=%s",
  ("Ne", 2): r"%s\ne %s",
  ("floor", 1): r"\lfloor %s\rfloor ",
  ("ceiling", 1): r"\lceil %s\rceil ",
  ("ceil", 1): r"\lceil %s\rceil ",
  ("factorial", 1): "(%s)!",
  ("binomial", 2): r"\binom{%s}{%s}",
  ("Matrix", 1): "%s",
  ("array", 1): "%s",
  ("Point", 2): "(%s,%s)",
  ("Point2D", 2): "(%s,%s)",
  ("Point3D", 3): "(%s,%s,%s)",
  ("Interval", 2): "[%s,%s]",
  ("Interval.open", 2): "(%s,%s)",
  ("Interval.Lopen", 2): "(%s,%s]",
  ("Interval.Ropen", 2): "[%s,%s)",
  ("Complement", 2): r"%s\setminus %s",
  ("set", 0): r"\emptyset ",
  ("EmptySet", 0): r"\emptyset ",
  **{
    (name, 1): rf"\{latex}(%s)"
    for name, latex in [
      *((each, each) for each in "sinh cosh tanh coth sec csc cot".split()),
      *(
        (f"{prefix}{each}", f"arc{each}")
        for prefix in ("a", "arc")
        for each in "sin cos tan cot sec csc sinh cosh tanh".split()
      ),
    ]
  },
}
# Calls of any number of arguments: text before, between and after them.
_ANY_NUMBER = {"FiniteSet": (r"\{", ",", r"\}"), "Union": ("", r"\cup ", "")}
_NAMES = sorted({*_ANY_NUMBER, *(name for name, _ in _CALLS)})
_CALL = re.compile(
  r"(?<![a-zA-Z\\_])(?:math\.|np\.|sp\.|sympy\.)?"
  rf"({'|'.join(map(re.escape, _NAMES))})\s*\("
)
_SETS = {
  "Reals": r"\mathbb{R}",
  "Integers": r"\mathbb{Z}",
  "Naturals": r"\mathbb{N}",
  "Rationals": r"\mathbb{Q}",
  "Complexes": r"\mathbb{C}",
  "EmptySet": r"\emptyset ",
}
# Greek letters between operators: not the words of "30 psi".
_GREEK = re.compile(
  r"(?:^|(?<=[-+*/^(,=<>\s]))(?<![\w.]\s)(alpha|beta|gamma|delta|epsilon|zeta|"
  r"eta|theta|iota|kappa|lamb?da|mu|nu|xi|rho|sigma|tau|upsilon|phi|chi|psi|"
  r"omega)(?=\s*(?:$|[-+*/^),=<>]))"
)


def to_latex(text: str) -> str:
  """Converts Python's calls, powers and constants in a text to LaTeX."""
  text = re.sub(r"(?<![a-zA-Z\\])sqrt\s*(\d+)", r"\\sqrt{\1}", text)
  text = _logic(_calls(re.sub(r"\\sqrt\s*\(", "sqrt(", text)))
  text = re.sub(r"(?<![a-zA-Z\\])pi(?![a-zA-Z])", r"\\pi ", text)
  text = re.sub(r"(?<![a-zA-Z\\])oo(?![a-zA-Z])", r"\\infty ", text)
  text = re.sub(
    r"(?<![a-zA-Z\\])(sin|cos|tan|log|ln)(?=\s*[(\d_])", r"\\\1 ", text
  )
  text = re.sub(
    rf"(?<![a-zA-Z\\])({'|'.join(_SETS)})(?![a-zA-Z])",
    lambda match: _SETS[match[1]],
    text,
  )
  text = _GREEK.sub(
    lambda match: rf"\{match[1].replace('lamda', 'lambda')} ", text
  )
  text = re.sub(
    r"(?<![a-zA-Z])([EI])(?=\s*\*)|(?<=\*)([EI])(?![a-zA-Z])",
    lambda match: match[0].lower(),
    text,
  )
  text = _exponents(text.replace("**", "^"))
  text = re.sub(r"\^(-[a-zA-Z])", r"^{\1}", text)
  text = re.sub(r"(?<=\d)\s*[xX]\s*(?=10\s*\^)", r"\\times ", text)
  return text


def _exponents(text: str) -> str:
  """Puts exponents that are in brackets into braces."""
  start = 0
  while match := re.compile(r"\^\s*\(").search(text, start):
    start = match.end()
    end = brackets.closing_brace(text, start, "()")
    if end is not None:
      inside = text[start:end]
      text = f"{text[: match.start()]}^{{{inside}}}{text[end + 1 :]}"
      start = match.start() + 2
  return text


def _logic(text: str) -> str:
  """Converts "(1 < x) & (x < 2)" to a chain, "(x < 1) | (x > 2)" to a list."""
  if not re.search(r"\)\s*[&|]\s*\(", text):
    return text
  if len(either := brackets.split(text, r"\|") or []) > 1:
    return r" \text{or} ".join(_logic(_bare(each)) for each in either)
  both = [_bare(each) for each in brackets.split(text, "&") or []]
  if len(both) == 2:
    first, second = (re.split(r"([<>]=?)", each) for each in both)
    if len(first) == len(second) == 3 and first[2].strip() == second[0].strip():
      return "".join([*first, *second[1:]])
  return text


def _bare(text: str) -> str:
  """Removes brackets around a text."""
  parts = brackets.enclosed(text)
  return parts[1] if parts and parts[0] == "(" else text


def _calls(text: str) -> str:
  """Converts calls of functions to LaTeX."""
  start = 0
  while match := _CALL.search(text, start):
    start = match.end()
    end = brackets.closing_brace(text, start, "()")
    if end is None:
      continue
    inside = text[start:end]
    parts = (brackets.split(inside, ",") or []) if inside.strip() else []
    if around := _ANY_NUMBER.get(match[1]):
      latex = around[0] + around[1].join(parts) + around[2]
    elif template := _CALLS.get((match[1], len(parts))):
      latex = template % tuple(parts)
    else:
      continue
    text = text[: match.start()] + latex + text[end + 1 :]
    start = match.start()  # The arguments may hold calls.
  return text
