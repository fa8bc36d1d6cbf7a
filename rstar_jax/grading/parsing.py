r"""Parses an answer: a number, a list, a point, an interval, a choice, ...

Nothing is evaluated; `compare.py` decides whether two answers are equal.

Standard library only: it runs in grader workers too.
"""

import dataclasses
import re

from rstar_jax.grading import (
  answer_types,
  brackets,
  conditions,
  items,
  notation,
  units,
  verbal,
)

_INTRODUCTION = re.compile(
  r"(?:(?:so|thus|hence|therefore),?\s*)?(?:(?:the|my|our|final|correct)\s+)*"
  r"(?:answer|result|solution|value)s?\s*(?:is|are|:|=)\s*:?\s*(?=\S)",
  re.IGNORECASE,
)
_CHOICE = re.compile(
  r"(?:(?:[Oo]ption|[Cc]hoice|[Aa]nswer)\s*)?"
  r"(?:\(\s*([A-Ja-e])\s*\)|([A-J])\s*[).:](?=\s|$)|([A-Ja-d])(?=$))\s*(.*)",
  re.DOTALL,
)
# Text after a letter that is not a choice.
_GOES_ON = r"[-+*/^=_<>!,;]|and |or |\\(?:c[au]p|in|cdot)"
_MAX_DEPTH = 24  # Of nested brackets.
Answer = answer_types.Answer
_SYMBOL = items.SYMBOL
# A left side: a variable, a function's value, a length or angle, or words.
_NAME = re.compile(
  r"\\(?:sin|cos|tan|cot|sec|csc|log|ln|max|min|lim|int|sum|det)(?![a-z]).*|"
  r"\\frac\{d\w*\}\{d\w\}|\\(?:vec|hat|bar|overline)\s*\{?\w+\}?|"
  r"[a-z](?:\s*:\s*[a-z])+|[a-z]\^\{-1\}\([a-z]\)|"
  rf"(?:m?\\angle\s*)?(?:{_SYMBOL}(?:_(?:\{{[^{{}}]*\}}|\w))?'*"
  r"(?:\s*(?:\\left)?\([^()=]*\))?|[A-Z]{2,}|\|[A-Z]{2}\||"
  r"(?!.*\b(?:or|and)\b)[A-Za-z]{3,}(?: [A-Za-z]+){0,4})"
)
# A unit that may as well be a product of variables.
_LETTERS = re.compile(r"(?:\s*[A-Za-z](?:\^\{?-?\d+\}?)?){1,3}\s*")
_RELATION = r"\\(?:le|ge|ne)(?![a-z])\s*|[<>]"
_ENVIRONMENT = re.compile(
  r"\\begin\s*\{(p|b|B|V|small)?(?:matrix|array)\*?\}\s*(?:\{[lcr|\s]*\})?(.*)"
  r"\\end\s*\{\w+\*?\}",
  re.DOTALL,
)
_FLIP = {"<": ">", ">": "<", "\\le": "\\ge", "\\ge": "\\le", "\\ne": "\\ne"}


def read(answer: str) -> Answer:
  """Parses an answer: any text that is not `notation.too_long`."""
  text = notation.tidy(answer)
  if brackets.depth(text) > _MAX_DEPTH:
    return Answer("value", text)
  text = notation.unwrap(_INTRODUCTION.sub("", notation.unwrap(text)))
  return _read(text)


def _read(text: str) -> Answer:
  plain = notation.unwrap(notation.plain_text(text).strip())
  whole = re.match(r"\\(?:text\w*|mathrm|mathbf|mbox|boldsymbol)\s*\{", text)
  if whole and brackets.closing_brace(text, whole.end()) == len(text) - 1:
    text = text[whole.end() : -1].strip()
  if meaning := verbal.phrase_to_latex(plain):
    return _item(meaning)
  if choice := _choice(plain):
    return choice
  return _conditional(text)


def _choice(text: str) -> Answer | None:
  """Parses "B", "(B)" and "B) 12"; None for others such as "(b) + 1"."""
  match = _CHOICE.fullmatch(text)
  if not match or re.match(_GOES_ON, match[4]):
    return None
  if match[1] and match[1].islower() and match[4]:
    return None
  parts = (_read(match[4]),) if match[4].strip() else ()
  return Answer("choice", match[1] or match[2] or match[3], parts=parts)


def _conditional(text: str) -> Answer:
  """Parses answers with their conditions, such as "for all x"."""
  groups = conditions.split(text)
  if len(groups) == 1 and not conditions.is_case(groups[0][1]):
    return dataclasses.replace(_items(groups[0][0]), condition=groups[0][1])
  # Different conditions are cases, under which the answers hold.
  cases = len({conditions.tokens(each) for _, each in groups}) > 1 or any(
    conditions.is_case(each) for _, each in groups
  )
  parts = []
  for body, condition in groups:
    answer = _items(body)
    several = answer.parts if answer.kind == "list" else (answer,)
    for each in several:
      name = each.name or answer.name
      if cases and condition:
        each = Answer("case", name=name, parts=(each,), condition=condition)
      parts.append(dataclasses.replace(each, name=name, condition=condition))
  return _list(parts) if len(parts) > 1 else parts[0]


def _items(text: str) -> Answer:
  pieces = items.split(text)
  if len(pieces) > 1:
    return _list([_item(each) for each in pieces])
  return _item(pieces[0])


def _exact_side(text: str) -> str:
  r"""Removes the approximation from "\sqrt{2} \approx 1.41"."""
  left, *rest = re.split(r"\\(?:approx|simeq|sim)(?![a-z])", text)
  if not rest or not rest[0].strip():
    return text
  if re.search(r"\d|\\(?:pi|frac|sqrt)", left):
    return left
  return f"{left}={rest[0]}" if left.strip() else rest[0]


def _mathless(text: str) -> str:
  """Removes the names of constants and functions."""
  return re.sub(r"\\[a-zA-Z]+", "", notation.plain_text(text))


def _list(parts: list[Answer]) -> Answer:
  names = [each.name for each in parts]
  if all(names) and len(set(names)) > 1:
    # "x=1, y=2" is one point, "x=1, y=2, x=3, y=4" are two.
    size = names.index(names[0], 1) if names.count(names[0]) > 1 else len(names)
    records = [
      Answer("record", parts=tuple(parts[i : i + size]))
      for i in range(0, len(parts), size)
    ]
    return (
      records[0] if len(records) == 1 else Answer("list", parts=(*records,))
    )
  if found := answer_types.intersection(parts):
    return found
  if all(each.kind == "interval" for each in parts):
    return Answer("union", parts=answer_types.flat(parts), name=names[0])
  if len({name for name in names if name}) == 1:
    bare = tuple(dataclasses.replace(each, name="") for each in parts)
    return Answer("list", parts=bare, name=next(filter(None, names)))
  return Answer("list", parts=tuple(parts))


def _item(text: str) -> Answer:
  """Parses an answer that is not a list."""
  text = _exact_side(text)
  drawn = r"\\(?:overline|overleftrightarrow|overrightarrow|triangle|angle)"
  text = re.sub(
    rf"^{drawn}\s*\{{?\s*([A-Z]{{1,3}})\s*\}}?$", r"\1", text.strip()
  )
  plain = notation.plain_text(text).strip()
  if (meaning := verbal.phrase_to_latex(plain)) and meaning != text:
    return _item(meaning)
  if minutes := verbal.clock(plain):
    return Answer("words", f"clock {minutes}")
  if based := units.base(text):
    return Answer(
      "value", based[0], units.Unit(words=frozenset({f"base {based[1]}"}))
    )
  if text == r"\mathbb{R}":
    return answer_types.interval(
      "(", answer_types.NEGATIVE, answer_types.POSITIVE, ")"
    )
  if matrix := _ENVIRONMENT.fullmatch(_inside_array(text)):
    if matrix[1] not in ("V",):
      return _matrix(matrix[2])
  if found := _named(text) or _related(text) or _bracketed(text):
    return found
  if pieces := _split_union(text):
    return pieces
  ratio = re.sub(r"(?<=\d)\s+to\s+(?=\d)", ":", plain)
  if pieces := re.fullmatch(r"[^:=]*[^:=\s]\s*(?::\s*[^:=\s][^:=]*)+", ratio):
    parts = tuple(_item(each) for each in ratio.split(":"))
    if all(each.kind == "value" for each in parts):
      return Answer("ratio", parts=parts)
  if brackets.split(text, "=") != [text.strip()]:
    return Answer("relation", notation.compact(plain))
  words = verbal.words(plain)
  if words is not None:
    if words.isdigit():
      return Answer("value", words)
    # "abc" may be a product of variables.
    parts = (_value(text),) if len(words) < 4 else ()
    return Answer("words", words, parts=parts)
  return _value(text)


def _value(text: str) -> Answer:
  body, unit = units.split(re.sub(r"(?<=\d)(?:st|nd|rd|th)$", "", text))
  product = ""
  if unit and text.startswith(body) and _LETTERS.fullmatch(text[len(body) :]):
    product = notation.compact(text)
  body = notation.plain_text(body).strip()
  body = re.sub(r"^(\\frac\{\d+\}\{\d+\}|[\d.]+)\s*\(?unit\)?s?$", r"\1", body)
  if re.fullmatch(r"[+-]?\d{1,3}(?:,\d{3})+(?:\.\d+)?", body):
    body = body.replace(",", "")
  while (inside := re.fullmatch(r"[{(]([^{}()]*)[)}]", body)) and inside[1]:
    body = inside[1]
  body = notation.compact(re.sub(r"^\s*\+\s*", "", body))
  return Answer("value", body, unit, product)


def _named(text: str) -> Answer | None:
  """Parses "x = 5", "5 = x", "(x, y) = (1, 2)", "3 + 4 = 7", "x in (1, 2)"."""
  sides = brackets.split(text, r"(?<![<>])=(?!=)|\\in(?![a-z])")
  if not sides or len(sides) < 2 or not all(sides):
    return None
  if any(brackets.split(each, _RELATION) != [each] for each in sides):
    return None
  first, last = sides[0], sides[-1]
  plain = notation.plain_text(first).strip()
  is_name = _NAME.fullmatch(plain) or re.fullmatch(
    r"\([a-z](, ?[a-z])+\)", plain
  )
  if len(sides) == 2 and not is_name and re.fullmatch(_SYMBOL, last):
    return dataclasses.replace(_item(first), name=last)
  numeric = r"\\(?:frac|sqrt|pi|cdot|binom|circ|sin|cos|tan|cot|sec|csc|log|ln)"
  if not re.search(r"[a-zA-Z]", re.sub(rf"{numeric}(?![a-z])", "", plain)):
    is_name = None  # "\\log 100 = 2"
  if is_name and (len(sides) == 2 or not re.fullmatch(_SYMBOL, sides[-1])):
    answer = _read(last)
    if re.search(r"\\in(?![a-z])", text):
      answer = answer_types.as_interval(answer)
    name = notation.compact(plain)
    return dataclasses.replace(answer, name=name, claims=_claims(sides[1:-1]))
  if not any(re.search(r"[a-zA-Z]", _mathless(each)) for each in sides):
    # "3 + 4 = 7"
    return dataclasses.replace(_item(last), claims=_claims(sides[:-1]))
  return None


def _claims(sides: list[str]) -> tuple[Answer, ...]:
  r"""Parses the numbers that an answer is stated to equal; not "1+\dots+9"."""
  return tuple(
    _value(each)
    for each in sides
    if not re.search(r"[a-zA-Z]|\.\.", _mathless(each)) and "dots" not in each
  )


def _related(text: str) -> Answer | None:
  """Parses inequalities in one variable as intervals."""
  sides = brackets.split(text, _RELATION)
  if sides is None or not 2 <= len(sides) <= 3 or not all(sides):
    return None
  signs = [each.strip() for each in re.findall(_RELATION, text)]
  if len(signs) != len(sides) - 1:
    return None
  at = 1 if len(sides) == 3 else 0
  if at == 0 and not re.fullmatch(rf"\|?{_SYMBOL}\|?", sides[0]):
    sides, signs = sides[::-1], [_FLIP[signs[0]]]
  if size := re.fullmatch(rf"\|({_SYMBOL})\|", sides[at]):
    if at == 0 and signs[0] in ("<", "\\le", ">", "\\ge"):
      return _around_zero(size[1], signs[0], sides[1])
  variable = sides[at]
  others = [each for i, each in enumerate(sides) if i != at]
  if not re.fullmatch(_SYMBOL, variable) or any("=" in each for each in others):
    return Answer("relation", notation.compact(notation.plain_text(text)))
  low, high = answer_types.NEGATIVE, answer_types.POSITIVE
  if at:
    if signs[0][-1] in ">e" and "g" in signs[0] or signs[0] == ">":
      others, signs = others[::-1], [_FLIP[each] for each in signs[::-1]]
    if signs[0] not in ("<", "\\le") or signs[1] not in ("<", "\\le"):
      return Answer("relation", notation.compact(notation.plain_text(text)))
    found = answer_types.interval(
      "(" if signs[0] == "<" else "[",
      _item(others[0]),
      _item(others[1]),
      ")" if signs[1] == "<" else "]",
    )
  else:
    bound = _item(others[0])
    if signs[0] in (">", "\\ge"):
      found = answer_types.interval(
        "(" if signs[0] == ">" else "[", bound, high, ")"
      )
    elif signs[0] in ("<", "\\le"):
      found = answer_types.interval(
        "(", low, bound, ")" if signs[0] == "<" else "]"
      )
    else:
      halves = (
        answer_types.interval("(", low, bound, ")"),
        answer_types.interval("(", bound, high, ")"),
      )
      found = Answer("union", parts=halves)
  return dataclasses.replace(found, name=variable)


def _around_zero(variable: str, sign: str, bound: str) -> Answer:
  """Parses an inequality of an absolute value."""
  low, high = (_item(notation.tidy(each)) for each in (f"-{bound}", bound))
  if sign in ("<", "\\le"):
    ends = ("(", ")") if sign == "<" else ("[", "]")
    found = answer_types.interval(ends[0], low, high, ends[1])
  else:
    ends = (")", "(") if sign == ">" else ("]", "[")
    left = answer_types.interval("(", answer_types.NEGATIVE, low, ends[0])
    right = answer_types.interval(ends[1], high, answer_types.POSITIVE, ")")
    found = Answer("union", parts=(left, right))
  return dataclasses.replace(found, name=variable)


def _inside_array(text: str) -> str:
  """Removes the brackets around an array, which has none of its own."""
  parts = brackets.enclosed(text)
  if parts and parts[0] in "([" and _ENVIRONMENT.fullmatch(parts[1]):
    return parts[1]
  return text


def _matrix(inside: str) -> Answer:
  rows = [each for each in re.split(r"\\\\|\\cr", inside) if each.strip()]
  return Answer(
    "matrix",
    parts=tuple(
      Answer("tuple", parts=tuple(_item(each) for each in row.split("&")))
      for row in rows
    ),
  )


def _bracketed(text: str) -> Answer | None:
  point = re.match(r"[A-Z](?=\s*\()", text)
  found = brackets.enclosed(text[point.end() :].strip() if point else text)
  if not found:
    return None
  opening, inside, closing = found
  pieces = brackets.split(inside, r"[,;]")
  if pieces and len(pieces) == 2 and not pieces[1] and opening == "(":
    return _item(pieces[0])  # Python's (1,)
  if pieces is None or not inside or (point and len(pieces) < 2):
    return Answer("set") if (opening, inside) == ("\\{", "") else None
  if opening in ("\\{", "{"):
    builder = brackets.split(inside, r"\||:")
    if (
      builder
      and len(builder) == 2
      and re.fullmatch(rf"{_SYMBOL}\s*(?:\\in.*)?", builder[0])
    ):
      found = _named(builder[1]) or _related(builder[1])
      if found:
        return found
    if (
      opening == "\\{"
      or len(pieces) > 1
      or re.match(r"['\"]?[a-zA-Z]\w*['\"]? ?: ", inside)
    ):
      if all(re.match(r"['\"]?[a-zA-Z]\w*['\"]? ?: ", each) for each in pieces):
        named = [
          _item(re.sub(r"['\"]", "", each).replace(":", "=", 1))
          for each in pieces
        ]
        return _list(named) if len(named) > 1 else named[0]
      parts = tuple(_item(each) for each in items.expand(pieces))
      return Answer("set", parts=parts)
    return _item(inside)
  parts = tuple(_item(each) for each in pieces)
  if len(parts) == 1:
    if opening == "[":
      return Answer("set", parts=parts)
    return parts[0] if opening == "(" and parts[0].kind != "value" else None
  if opening == "\\langle" or (opening, closing) == ("(", ")"):
    endless = any(each.body.endswith(r"\infty") for each in parts)
    if endless and len(parts) == 2:
      return answer_types.interval("(", *parts, ")")
    return Answer("tuple", "" if opening == "(" else "vector", parts=parts)
  if len(parts) == 2 and opening in "([" and closing in ")]":
    endless = any(each.body.endswith(r"\infty") for each in parts)
    if opening + closing != "[]" or endless:
      return answer_types.interval(opening, *parts, closing)
  return Answer("bracket", parts=parts) if opening == "[" else None


def _split_union(text: str) -> Answer | None:
  pieces = brackets.split(text, r"\\cup(?![a-z])|\s+U\s+|\bU\b(?=\s*[(\[])")
  if pieces and len(pieces) > 1 and all(pieces):
    parts = [answer_types.as_interval(_item(each)) for each in pieces]
    if all(each.kind in ("interval", "union") for each in parts):
      return Answer("union", parts=answer_types.flat(parts))
    return (
      Answer("list", parts=tuple(parts))
      if all(each.kind in ("interval", "union", "set") for each in parts)
      else None
    )
  pieces = brackets.split(text, r"\\(?:setminus|backslash)(?![a-z])|(?<=\})-")
  if pieces and len(pieces) == 2 and pieces[0] == r"\mathbb{R}":
    hole = _item(pieces[1])
    holes = hole.parts if hole.kind == "set" else (hole,)
    if all(each.kind == "value" for each in holes):
      found = [_related(f"x\\ne {each.body}") for each in holes]
      return found[0] if len(found) == 1 else answer_types.intersection(found)
  return None
