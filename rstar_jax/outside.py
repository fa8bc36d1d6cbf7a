"""Entry of untrusted text: from servers, data sets, programs and records.

`parse` bounds JSON in size, depth and numbers; `lines` and `Bounded` bound
reading before that, in size and time. A failure is `Bad`, with a message of one
line; the caller sets the failed part aside, counts it and goes on. `valid`
makes text valid Unicode, and `shown` makes it safe to print. `program` applies
this to a whole program.

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

# Most bytes of a line or an answer: a hundred times the largest seen.
LONGEST = 1 << 24
# Most nested lists and objects; an answer with log-probabilities has 7.
DEPTH = 64
# Least bytes of a document per value: 16 MB of the smallest objects would take
# a gigabyte of memory.
_PER_VALUE = 16
# Most digits of an integer, whose value has to fit into 64 bits, too.
_DIGITS = 19

_SURROGATE = re.compile("[\ud800-\udfff]")
# The escape of half a surrogate pair, which json also decodes alone.
_ESCAPED_HALF = re.compile(r"\\u[dD][89a-fA-F]")
# Characters that move the cursor, hide text or change its direction on a
# terminal: control characters except tab and line break, marks of direction,
# and lone surrogates.
_CONTROL = re.compile(
  "[\0-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069"
  "\ufeff\ud800-\udfff]"
)


class Bad(ValueError):
  """Text from outside is malformed; the message is one line."""


def valid(text: str) -> str:
  """Returns a text as valid Unicode, with U+FFFD for each lone surrogate."""
  # Most texts are valid, and encoding is the fastest check.
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
  """Parses a JSON document.

  Args:
    data: UTF-8, or text.
    most: most bytes or characters.
    depth: most nested lists and objects.
    strict: whether a lone surrogate raises; otherwise see `valid`.
    number: converts a number's literal; None makes an int or a finite float.
    constant: converts NaN, Infinity and -Infinity; None raises for them.

  Returns:
    Lists, dicts, strings and so on; all strings are valid Unicode.

  Raises:
    Bad: the document breaks a bound, or an object has a name twice.
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
  # Most documents are shallow and without escapes, and need no second pass.
  whole = text is not data or text.isascii()
  if brackets <= depth and whole and not _ESCAPED_HALF.search(text):
    return value
  return checked(value, strict=strict, depth=depth)


def decoder(
  number: Callable[[str], Any] | None = None,
  constant: Callable[[str], Any] | None = None,
) -> json.JSONDecoder:
  """Returns the decoder of `parse`, to read documents piece by piece.

  It checks neither depth nor Unicode; see `checked`.
  """
  return json.JSONDecoder(
    parse_int=number or _integer,
    parse_float=number or _finite,
    parse_constant=constant or _not_finite,
    object_pairs_hook=_object,
  )


def checked(value: Any, *, strict: bool = False, depth: int = DEPTH) -> Any:
  """Checks and cleans parsed values as `parse` does.

  Args:
    value: lists, dicts and strings are checked, other objects are not.
    strict: whether a lone surrogate raises.
    depth: most nested lists and objects.

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
  """Yields the lines of a file with their line breaks.

  Of a line that is too long only the first `most` + 1 bytes, which `parse`
  refuses, and its line break are yielded, which bounds memory.
  """
  if not isinstance(file, io.BufferedIOBase):
    # `readline` of a file in a bucket takes no size.
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
    value: from the document.
    what: name of the value, for the message.
    least: smallest allowed value.
    most: largest allowed value.

  Raises:
    Bad: it is no integer, or out of range.
  """
  if type(value) is not int or not least <= value <= most:
    raise Bad(f"has {_short(value)} as {what}, want {least} to {most}")
  return value


def real(value: Any, what: str, most: float) -> float:
  """Returns a number of a document in [-most, most]; see `integer`."""
  if type(value) not in (int, float) or not abs(value) <= most:
    raise Bad(f"has {_short(value)} as {what}, want a number")
  return float(value)


def string(value: Any, what: str, most: int) -> str:
  """Returns a text of a document, of at most `most` characters."""
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
  """A stream from a socket with a limit of size and a deadline.

  A socket's own timeout restarts with each byte that arrives.
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
      raw: the stream to read.
      wait: sets the timeout of the next read, in seconds.
      seconds: most time for all reads together.
      most: most bytes of all reads together.
    """
    super().__init__()
    self._raw, self._wait = raw, wait
    self._seconds, self._until = seconds, time.monotonic() + seconds
    self._most = self._left = most

  def readable(self) -> bool:
    return True

  def readinto(self, buffer: Any) -> int | None:
    """Reads available bytes.

    Raises:
      Bad: the stream exceeds `most` bytes.
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
  r"""Returns a text that is safe on a terminal: ESC becomes four letters, \x1b.

  Tabs and line breaks stay.
  """
  return _CONTROL.sub(_escaped, text)


def line(text: str, most: int = 300) -> str:
  """Returns a text as one line of about `most` characters, as `shown`."""
  text = shown(" ".join(text[: 4 * most].split()))
  return text if len(text) <= most else f"{text[:most]}..."


def one_line(error: BaseException) -> str:
  """Returns an error's message as one line; without any, its type."""
  return " ".join(str(error).split()) or type(error).__name__


def first_line(error: Exception) -> str:
  """Returns the first line of another library's message, for one of ours.

  At most 300 characters.
  """
  return str(error).strip().partition("\n")[0][:300]


def say(text: str, file: TextIO | None = None) -> None:
  """Prints a text as `shown`; everything for people is printed by this.

  Args:
    text: without the final line break.
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
  """Ends the program if a stream's reader has ended, as in `| head`.

  Args:
    file: the stream that the block writes.

  Raises:
    SystemExit: with status 1.
  """
  try:
    yield
  except BrokenPipeError:
    # At exit Python flushes the stream, and would report that this fails.
    os.dup2(os.open(os.devnull, os.O_WRONLY), file.fileno())
    raise SystemExit(1) from None


@contextlib.contextmanager
def program(name: str) -> Iterator[None]:
  """Runs a program; a wrong input prints one line and no traceback.

  A closed standard stream is replaced by an empty one. Otherwise the next
  opened file would get its number, and so everything that libraries print.

  Args:
    name: prefix of the line.

  Raises:
    SystemExit: with status 1, or 130 after Ctrl-C.
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
  """Returns a short text for a value of any size."""
  if isinstance(value, dict | list):
    return "an object" if isinstance(value, dict) else "a list"
  text = json.dumps(value if not isinstance(value, str) else value[:40])
  return text if len(text) <= 40 else f"{text[:37]}..."


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
  result = dict(pairs)
  if len(result) < len(pairs):
    counts = collections.Counter(name for name, _ in pairs)
    raise Bad(f"has {_short(counts.most_common(1)[0][0])} twice in one object")
  return result


def _integer(text: str) -> int:
  digits = len(text.removeprefix("-"))
  if digits > _DIGITS or not -(2**63) <= int(text) < 2**63:
    raise Bad(f"has a number of {digits} digits, beyond 64 bits")
  return int(text)


def _finite(text: str) -> float:
  value = float(text)
  if not math.isfinite(value):
    raise Bad(f"has {text:.40}, which is too large")
  return value


def _not_finite(name: str) -> Any:
  raise Bad(f"is not JSON ({name} is not a JSON number)")
