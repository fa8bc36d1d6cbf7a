"""Where text from outside comes in: of servers, data sets, programs, records.

Nothing of it is trusted. `parse` bounds JSON in size, depth and numbers,
`lines` and `Bounded` what is read before that, in size and time. A failure is
`Bad`, of one line; the caller puts aside what failed, counts it and goes on.
`valid` is where text becomes valid Unicode, `shown` where it becomes safe to
print. `program` is where a whole program is held to these.

Standard library only.
"""

import collections
import contextlib
import io
import json
import math
import os
import re
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO, TextIO

# Bytes of a line or an answer: a hundred times what any has been seen to need.
LONGEST = 1 << 24
# Lists and objects within each other; an answer with log-probabilities has 7.
DEPTH = 64
# Bytes that a document has for each of its values: 16 MB of the smallest
# objects would take a gigabyte.
_PER_VALUE = 16
# Digits of an integer: more than 64 bits hold are no count of anything.
_DIGITS = 18

_SURROGATE = re.compile("[\ud800-\udfff]")
# The escape of one half of a pair, which json decodes alone too.
_ESCAPED_HALF = re.compile(r"\\u[dD][89a-fA-F]")
# What moves the cursor, hides text or changes its direction on a terminal: all
# control characters but tab and line break, marks of direction, and halves.
_CONTROL = re.compile(
  "[\0-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069"
  "\ufeff\ud800-\udfff]"
)


class Bad(ValueError):
  """Text from outside is not what it should be; the message is one line."""


def valid(text: str) -> str:
  """Returns a text as valid Unicode, with U+FFFD for each lone surrogate."""
  # Most texts are valid, and encoding them is the fastest way to tell.
  try:
    text.encode()
  except UnicodeEncodeError:
    return _SURROGATE.sub("\ufffd", text)
  return text


def parse(
  data: bytes | str,
  *,
  most: int = LONGEST,
  depth: int = DEPTH,
  strict: bool = False,
  number: Callable[[str], Any] | None = None,
  constant: Callable[[str], Any] | None = None,
) -> Any:
  """Reads a JSON document.

  Args:
    data: UTF-8, or text.
    most: longest document, in bytes or characters.
    depth: how many lists and objects may be within each other.
    strict: whether a lone surrogate is refused; otherwise see `valid`.
    number: what becomes of a number as it is written; None makes an int or a
      finite float.
    constant: what becomes of NaN, Infinity and -Infinity; None refuses them.

  Returns:
    Lists, objects, texts and so on; all texts are valid Unicode.

  Raises:
    Bad: it is not such a document, or an object has a name twice.
  """
  if len(data) > most:
    raise Bad(f"is longer than {most} bytes")
  try:
    text = data if isinstance(data, str) else data.decode()
    brackets = text.count("[") + text.count("{")
    if brackets + text.count(",") > most // _PER_VALUE:
      raise Bad(f"has more than {most // _PER_VALUE} values")
    value = decoder(number, constant).decode(text)
  except UnicodeDecodeError as error:
    raise Bad(f"is not UTF-8 ({error.reason})") from None
  except RecursionError:
    raise Bad("is nested too deeply") from None
  except json.JSONDecodeError as error:
    where = f" in line {error.lineno}" if error.lineno > 1 else ""
    raise Bad(f"is not JSON ({error.msg}{where})") from None
  # Most documents are not deep and have no escapes: no second look is needed.
  whole = text is not data or text.isascii()
  if brackets <= depth and whole and not _ESCAPED_HALF.search(text):
    return value
  return checked(value, strict=strict, depth=depth)


def decoder(
  number: Callable[[str], Any] | None = None,
  constant: Callable[[str], Any] | None = None,
) -> json.JSONDecoder:
  """Returns the decoder of `parse`, for those who read piece by piece.

  It does not check depth and Unicode; see `checked`.
  """
  return json.JSONDecoder(
    parse_int=number or _integer,
    parse_float=number or _finite,
    parse_constant=constant or _not_finite,
    object_pairs_hook=_object,
  )


def checked(value: Any, *, strict: bool = False, depth: int = DEPTH) -> Any:
  """Returns lists, objects and texts as `parse` does.

  Args:
    value: any object; what is none of these stays as it is.
    strict: whether a lone surrogate is refused.
    depth: how many lists and objects may be within each other.

  Raises:
    Bad: it is deeper, or `strict` and not valid Unicode.
  """
  if isinstance(value, str):
    text = valid(value)
    if strict and text is not value:
      raise Bad("is not valid Unicode (a surrogate without its pair)")
    return text
  if not isinstance(value, dict | list):
    return value
  if not depth:
    raise Bad("is nested too deeply")
  if isinstance(value, list):
    return [checked(e, strict=strict, depth=depth - 1) for e in value]
  return {
    checked(k, strict=strict): checked(v, strict=strict, depth=depth - 1)
    for k, v in value.items()
  }


def lines(file: BinaryIO, most: int = LONGEST) -> Iterator[bytes]:
  """Yields the lines of a file with their ends.

  Of a line that is too long come its first `most` + 1 bytes, which `parse`
  refuses, and its end if it has one; memory is bounded by these.
  """
  if not isinstance(file, io.BufferedIOBase):
    # A file in a bucket: its `readline` takes no size.
    file = io.BufferedReader(file)
  while line := file.readline(most + 1):
    if len(line) > most and not line.endswith(b"\n"):
      rest = line
      while rest and not rest.endswith(b"\n"):
        rest = file.readline(1 << 20)
      line += rest[-1:]
    yield line


def integer(value: Any, what: str, least: int, most: int) -> int:
  """Returns an integer of a document.

  Args:
    value: what the document has.
    what: its name, for the message.
    least: the smallest that is right.
    most: the largest that is right.

  Raises:
    Bad: it is another type, or beyond these.
  """
  if type(value) is not int or not least <= value <= most:
    raise Bad(f"has {_short(value)} as {what}, want {least} to {most}")
  return value


def real(value: Any, what: str, most: float) -> float:
  """Returns a number of a document, at most `most` from 0; see `integer`."""
  if type(value) not in (int, float) or not abs(value) <= most:
    raise Bad(f"has {_short(value)} as {what}, want a number")
  return float(value)


def string(value: Any, what: str, most: int) -> str:
  """Returns a text of a document, of `most` characters; see `integer`."""
  if not isinstance(value, str):
    raise Bad(f"has {_short(value)} as {what}, want a text")
  if len(value) > most:
    raise Bad(f"has a {what} of {len(value)} characters, want {most} at most")
  return value


def sequence(value: Any, what: str, kind: type) -> list:
  """Returns a list of a document, of items of one type; see `integer`."""
  if not isinstance(value, list):
    raise Bad(f"has {_short(value)} as {what}, want a list")
  for each in value:
    if not isinstance(each, kind):
      raise Bad(f"has {_short(each)} in {what}")
  return value


class Bounded(io.RawIOBase):
  """A stream from a socket that fails past a size or a deadline.

  A socket's own timeout starts anew with each byte that arrives.
  """

  def __init__(
    self,
    raw: io.RawIOBase,
    wait: Callable[[float], None],
    *,
    seconds: float,
    most: int = LONGEST,
  ):
    """Starts the clock.

    Args:
      raw: what is read.
      wait: sets how many seconds the next read may take.
      seconds: time for all reads together.
      most: bytes of all reads together.
    """
    super().__init__()
    self._raw, self._wait = raw, wait
    self._seconds, self._until = seconds, time.monotonic() + seconds
    self._most = self._left = most

  def readable(self) -> bool:
    return True

  def readinto(self, buffer: Any) -> int | None:
    """Reads what has come.

    Raises:
      Bad: there is more than `most`.
      TimeoutError: the deadline has passed.
    """
    left = self._until - time.monotonic()
    if left <= 0:
      raise TimeoutError(f"not complete after {self._seconds:g} s")
    self._wait(left)
    count = self._raw.readinto(buffer)
    self._left -= count or 0
    if self._left < 0:
      raise Bad(f"is longer than {self._most} bytes")
    return count

  def close(self) -> None:
    self._raw.close()
    super().close()


def shown(text: str) -> str:
  r"""Returns a text as a terminal may show it: an escape is four letters, \x1b.

  Tabs and line breaks stay.
  """
  return _CONTROL.sub(_escaped, text)


def line(text: str, most: int = 300) -> str:
  """Returns a text as one line of about `most` characters, as `shown`."""
  text = shown(" ".join(text[: 4 * most].split()))
  return text if len(text) <= most else f"{text[:most]}..."


def say(text: str, file: TextIO | None = None) -> None:
  """Prints a text as `shown`; all that a person reads goes through here.

  Args:
    text: without the last line break.
    file: None is standard output.

  Raises:
    SystemExit: see `to_reader`.
  """
  file = file or sys.stdout
  encoding = getattr(file, "encoding", None) or "utf-8"
  text = shown(text).encode(encoding, "backslashreplace").decode(encoding)
  with to_reader(file):
    print(text, file=file, flush=True)


@contextlib.contextmanager
def to_reader(file: BinaryIO | TextIO) -> Iterator[None]:
  """Ends the program where nobody reads a stream any more, as in `| head`.

  Args:
    file: what is written to in the block.

  Raises:
    SystemExit: of status 1.
  """
  try:
    yield
  except BrokenPipeError:
    # At its end Python flushes what is left, and would say that this fails.
    os.dup2(os.open(os.devnull, os.O_WRONLY), file.fileno())
    raise SystemExit(1) from None


@contextlib.contextmanager
def program(name: str) -> Iterator[None]:
  """Runs a program, in which a wrong input is a line and no traceback.

  A standard stream that is closed is empty. Otherwise the next file to be
  opened would get its number, and with it all that libraries print.

  Args:
    name: begins the line.

  Raises:
    SystemExit: of status 1, or 130 after Ctrl-C.
  """
  for stream, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
    if getattr(sys, stream) is None:
      setattr(sys, stream, open(os.devnull, mode))
  try:
    yield
  except (ValueError, OSError) as error:
    say(f"{name}: {error}", sys.stderr)
    raise SystemExit(1) from None
  except KeyboardInterrupt:
    say(f"\n{name}: stopped", sys.stderr)
    raise SystemExit(130) from None


def _escaped(match: re.Match) -> str:
  code = ord(match.group())
  return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"


def _short(value: Any) -> str:
  """Returns a value in a few words, however large it is."""
  if isinstance(value, dict | list):
    return "an object" if isinstance(value, dict) else "a list"
  text = json.dumps(value if not isinstance(value, str) else value[:40])
  return text if len(text) <= 40 else f"{text[:37]}..."


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
  found = dict(pairs)
  if len(found) < len(pairs):
    counts = collections.Counter(name for name, _ in pairs)
    raise Bad(f"has {_short(counts.most_common(1)[0][0])} twice in one object")
  return found


def _integer(text: str) -> int:
  if len(text) > _DIGITS + 1:
    raise Bad(f"has a number of {len(text)} digits")
  return int(text)


def _finite(text: str) -> float:
  value = float(text)
  if not math.isfinite(value):
    raise Bad(f"has {text:.40}, which is too large")
  return value


def _not_finite(name: str) -> Any:
  raise Bad(f"is not JSON ({name} is not a JSON number)")
