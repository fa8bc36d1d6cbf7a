"""Makes documents and bytes that a hostile or broken neighbour might send.

All of them derive from a `random.Random`, so that an input has a number.
"""

import copy
import json
import random
import unicodedata
from typing import Any, Literal

from rstar_jax.steps import grammar

# What becomes of an input; see `entries.py`.
Outcome = Literal["used", "set aside", "refused"]


class Raw(str):
  """A piece of a document that is written as it is."""


class Members(list):
  """The members of an object as pairs: a name may occur twice."""


TEXTS = (
  "",
  " ",
  "\ud800",
  "x\udfff",
  "\ud83d\ude00",
  "\U0001f600",
  "\0",
  "\x1b[2J\x1b]0;title\x07",
  "\r\x9b31m",
  "\u202eabc\u2066",
  "\u2028\u2029",
  "\ufeff",
  "<script>",
  "' OR 1=1 --",
  "{}%s%n",
  "[" * 200,
  "\\" * 33,
  '"' * 33,
  "x" * 70_000,
  "é" * 3000,
  *grammar.MARKERS,
  grammar.OUTPUT * 500,
  "<code>\nx = 1\n<end_of_step>",
  "print(1)\n<end_of_code>\n<output>1<end_of_output>\n",
  "<answer>\\boxed{1}<end_of_answer>",
  "\\boxed{" * 50,
  "#### ",
  "The answer is:",
)
# What a regular expression may take a time to read that grows as its square.
LONG = tuple(
  piece * (150_000 // len(piece))
  for piece in (
    *grammar.MARKERS,
    *("<output><end_of_step>", "\\boxed{", "\\frac{", "\\", "{", "$", "(", " "),
    *(
      "\n",
      "#",
      "9",
      "1,",
      "-",
      "x ",
      "####",
      "The answer is:",
      "\\left(",
      ".",
    ),
  )
)
RAWS = (
  *("NaN", "Infinity", "-Infinity", "1e999", "-1e999", "1e308", "0.5", "3.0"),
  *("9" * 5000, "-" + "9" * 400, "1" * 18, "1" * 19, "-0", "1e-400", "01"),
  *("True", "undefined", "'x'", '"\\x"', '"\\u12"', "", ",", "}", "]"),
  "[" * 2000,
  "[" * 70 + "]" * 70,
  "[" * 63 + "1" + "]" * 63,
  '{"a":' * 70 + "1" + "}" * 70,
  "[" * 100_000 + "]" * 100_000,
  "[" + "1," * 5000 + "1]",
  "[" + "{}," * 5000 + "{}]",
)
NUMBERS = (0, 1, -1, 3, 2**31, 2**53 + 1, 10**9, 10**17, -(10**17), 0.5, 1e9)


def atom(source: random.Random) -> Any:
  """Returns a value that hardly any field expects."""
  kind = source.randrange(8)
  if kind < 3:
    return text(source)
  if kind < 5:
    return Raw(source.choice(RAWS))
  if kind < 6:
    return source.choice(NUMBERS)
  return copy.deepcopy(
    source.choice((None, True, False, [], Members(), [None], [[]], ["x", 1]))
  )


def text(source: random.Random) -> str:
  """Returns a text of a few pieces."""
  if source.random() < 0.01:
    return source.choice(LONG)
  return "".join(
    source.choice(TEXTS)
    if source.random() < 0.6
    else chr(source.randrange(0x110000))
    for _ in range(source.randrange(1, 5))
  )


def document(source: random.Random, value: Any, most: int = 3) -> bytes:
  """Returns a document as JSON, damaged in up to `most` places, or none."""
  value = _members(value)
  for _ in range(source.randrange(most + 1)):
    value = _damaged(source, value)
  written = _written(source, value)
  return _bytes_of(source, written)


def _members(value: Any) -> Any:
  if isinstance(value, dict):
    return Members([key, _members(each)] for key, each in value.items())
  if isinstance(value, list):
    return [_members(each) for each in value]
  return value


def _damaged(source: random.Random, value: Any) -> Any:
  """Changes one place of a document."""
  if not isinstance(value, list) or not value or source.random() < 0.1:
    return atom(source)
  at = source.randrange(len(value))
  change = source.randrange(6)
  if change == 0:
    del value[at]
  elif change == 1:
    value.insert(at, copy.deepcopy(value[at]))
  elif isinstance(value, Members):
    name, inner = value[at]
    if change == 2:
      name = source.choice(TEXTS)
    else:
      inner = _damaged(source, inner)
    value[at] = [name, inner]
  else:
    value[at] = _damaged(source, value[at])
  return value


def _written(source: random.Random, value: Any) -> str:
  if isinstance(value, Raw):
    return str(value)
  if isinstance(value, Members):
    parts = [
      f"{_written(source, name)}:{_written(source, inner)}"
      for name, inner in value
    ]
    return f"{{{','.join(parts)}}}"
  if isinstance(value, list):
    return f"[{','.join(_written(source, each) for each in value)}]"
  return json.dumps(value, ensure_ascii=source.random() < 0.5)


def _bytes_of(source: random.Random, written: str) -> bytes:
  """Returns the bytes of a text, damaged in one of three cases."""
  data = written.encode("utf-8", "surrogatepass")
  if source.random() < 0.7 or not data:
    return data
  change = source.randrange(7)
  at = source.randrange(len(data))
  if change == 0:
    return data[:at]
  if change == 1:
    flipped = data[at] ^ 1 << source.randrange(8)
    return data[:at] + bytes([flipped]) + data[at + 1 :]
  if change == 2:
    return data[:at] + source.randbytes(source.randrange(1, 9)) + data[at:]
  if change == 3:
    return data[:at] + data[at // 2 :]
  if change == 4:
    return b"\xef\xbb\xbf" + data
  if change == 5:
    return written.encode("utf-16", "surrogatepass")
  return data[:at] + b"\0" * source.randrange(1, 99) + data[at:]


def check_text(text: str) -> None:
  """Checks that a text is text, and valid Unicode."""
  assert isinstance(text, str)
  text.encode()


def check_shown(text: str) -> None:
  """Checks that a terminal obeys nothing in a text."""
  for each in set(text) - set("\n\t"):
    assert unicodedata.category(each) not in ("Cc", "Cs", "Zl", "Zp"), text
