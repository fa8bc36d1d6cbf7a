"""The entry of text from outside; `outside_fuzz_test` has its users."""

import io
import json
import os
import subprocess
import sys
import time
import unicodedata
from unittest import mock

import hypothesis
from absl.testing import absltest, parameterized
from hypothesis import strategies as st

from rstar_jax import outside

TEXTS = st.text(st.characters(exclude_categories=["Cs"]))
VALUES = st.recursive(
  st.none()
  | st.booleans()
  | st.integers(-(10**18) + 1, 10**18 - 1)
  | st.floats(allow_nan=False, allow_infinity=False)
  | TEXTS,
  lambda inner: st.lists(inner) | st.dictionaries(TEXTS, inner),
  max_leaves=20,
)


def nested(depth: int) -> str:
  """Returns a text, within lists and objects so deep."""
  opening = "".join('{"a":' if i % 2 else "[" for i in range(depth))
  closing = "".join("}" if i % 2 else "]" for i in reversed(range(depth)))
  return f'{opening}"x"{closing}'


class ParseTest(parameterized.TestCase):
  @hypothesis.settings(max_examples=100, deadline=None)
  @hypothesis.given(VALUES, st.booleans())
  def test_reads_what_json_reads(self, value, escaped):
    text = json.dumps(value, ensure_ascii=escaped)
    self.assertEqual(outside.parse(text, strict=True), value)
    self.assertEqual(outside.parse(text.encode(), strict=True), value)

  @parameterized.parameters(
    (b"\xff", "is not UTF-8 .invalid start byte"),
    ("{", "is not JSON .Expecting property name"),
    ("", "is not JSON .Expecting value"),
    ("NaN", "NaN is not a JSON number"),
    ("[-Infinity]", "-Infinity is not a JSON number"),
    ("1e309", "has 1e309, which is too large"),
    ("-1e309", "too large"),
    ("1" * 20, "has a number of 20 digits"),
    (f"-{'1' * 20}", "has a number of 20 digits"),
    ("9" * 5000, "has a number of 5000 digits"),
    (str(2**63), "has a number of 19 digits, beyond 64 bits"),
    (str(-(2**63) - 1), "has a number of 19 digits, beyond 64 bits"),
    ("[" * 10**6, "nested too deeply"),
    ('{"a": 1, "b": 2, "a": 1}', 'has "a" twice in one object'),
    ('[{"a": {"\\u0062": 1, "b": 2}}]', 'has "b" twice'),
    ("1 2", "is not JSON .Extra data"),
  )
  def test_refuses(self, data, reason):
    with self.assertRaisesRegex(outside.Bad, reason) as caught:
      outside.parse(data)
    self.assertNotIn("\n", str(caught.exception))
    self.assertIsInstance(caught.exception, ValueError)

  def test_the_largest_numbers(self):
    for value in (2**63 - 1, -(2**63)):
      self.assertEqual(outside.parse(str(value)), value)

  def test_the_deepest(self):
    self.assertEqual(outside.parse(nested(2)), [{"a": "x"}])
    outside.parse(nested(outside.DEPTH))
    with self.assertRaisesRegex(outside.Bad, "deep"):
      outside.parse(nested(outside.DEPTH + 1))
    outside.parse(nested(outside.DEPTH + 1), depth=outside.DEPTH + 1)
    # Many that are not within each other are not deep.
    self.assertLen(outside.parse("[[]" + ",[]" * 999 + "]"), 1000)
    # Brackets in a text are none.
    self.assertEqual(outside.parse('"' + "[" * 999 + '"'), "[" * 999)

  def test_the_longest(self):
    self.assertEqual(outside.parse(b'"abcd"', most=6), "abcd")
    with self.assertRaisesRegex(outside.Bad, "is longer than 5 bytes"):
      outside.parse(b'"abcd"', most=5)
    # 64 bytes may have four values, however short these are.
    self.assertEqual(outside.parse("[1,2,3,4]", most=64), [1, 2, 3, 4])
    with self.assertRaisesRegex(outside.Bad, "has more than 4 values"):
      outside.parse("[1,2,3,4,5]", most=64)

  @parameterized.parameters(
    (r'"\ud800"', "\ufffd"),
    (r'"a\uDFFFb\udbff"', "a\ufffdb\ufffd"),
    (r'{"\udc00": ["\ud83d\ud83d\ude00"]}', {"\ufffd": ["\ufffd\U0001f600"]}),
  )
  def test_half_of_a_pair(self, text, expected):
    self.assertEqual(outside.parse(text), expected)
    self.assertEqual(outside.parse(text.encode()), expected)
    with self.assertRaisesRegex(outside.Bad, "not valid Unicode"):
      outside.parse(text, strict=True)
    # A text, unlike bytes, can hold it as it is.
    self.assertEqual(outside.parse('"\ud800"'), "\ufffd")

  def test_a_whole_pair(self):
    for text in (r'"\ud83d\ude00"', '"\U0001f600"', r'"\\ud800"'):
      self.assertEqual(outside.parse(text, strict=True), json.loads(text))

  def test_numbers_and_constants_of_ones_own(self):
    found = outside.parse(f"[1.50, -2, {'9' * 99}]", number=str)
    self.assertEqual(found, ["1.50", "-2", "9" * 99])
    found = outside.parse("[NaN, -Infinity]", constant=str.lower)
    self.assertEqual(found, ["nan", "-infinity"])
    self.assertEqual(outside.parse(f"-{'9' * 18}"), -(10**18) + 1)

  def test_checked(self):
    value = {"a": ["\ud800", 3, None, b"x"]}
    self.assertEqual(outside.checked(value), {"a": ["\ufffd", 3, None, b"x"]})
    loop = []
    loop.append(loop)
    with self.assertRaisesRegex(outside.Bad, "deep"):
      outside.checked(loop)


class ShapeTest(parameterized.TestCase):
  @parameterized.parameters(
    (True, "has true as n, want 0 to 9"),
    (10, "has 10 as n"),
    (-1, "has -1 as n"),
    (3.0, "has 3.0 as n"),
    ("3", 'has "3" as n'),
    (None, "has null as n"),
    ([[]], "has a list as n"),
    ("x" * 99, r'has "x{36}\.\.\. as n'),
  )
  def test_integer(self, value, reason):
    with self.assertRaisesRegex(outside.Bad, f"^{reason}"):
      outside.integer(value, "n", 0, 9)
    self.assertEqual(outside.integer(0, "n", 0, 9), 0)
    self.assertEqual(outside.integer(9, "n", 0, 9), 9)

  def test_real(self):
    self.assertEqual(outside.real(-2, "n", 2.0), -2.0)
    self.assertIsInstance(outside.real(-2, "n", 2.0), float)
    for bad in (True, "1", None, 2.5, -2.5, float("nan"), float("inf"), []):
      with self.assertRaises(outside.Bad):
        outside.real(bad, "n", 2.0)

  def test_string_and_sequence(self):
    self.assertEqual(outside.string("abc", "t", 3), "abc")
    with self.assertRaisesRegex(outside.Bad, "has a t of 4 characters, want 3"):
      outside.string("abcd", "t", 3)
    with self.assertRaisesRegex(outside.Bad, "has null as t, want a text"):
      outside.string(None, "t", 3)
    self.assertEqual(outside.sequence([1, 2], "s", int), [1, 2])
    with self.assertRaisesRegex(outside.Bad, "has null in s"):
      outside.sequence([1, None], "s", int)
    with self.assertRaisesRegex(outside.Bad, 'has "ab" as s, want a list'):
      outside.sequence("ab", "s", str)


class ReadingTest(parameterized.TestCase):
  @hypothesis.settings(max_examples=100, deadline=None)
  @hypothesis.given(st.binary(max_size=40), st.integers(1, 12))
  def test_lines(self, data, most):
    # Few letters, so that there are line breaks.
    data = bytes(b"ab\n"[each % 3] for each in data)
    found = list(outside.lines(io.BytesIO(data), most))
    self.assertEqual(
      found,
      [
        line
        if len(line) <= most + 1
        else line[: most + 1] + line[-1:]
        if line.endswith(b"\n")
        else line[: most + 1]
        for line in data.splitlines(keepends=True)
      ],
    )

  def stream(self, data: bytes, **bounds) -> tuple[io.BufferedReader, list]:
    waits = []
    raw = outside.Bounded(io.BytesIO(data), waits.append, **bounds)
    return io.BufferedReader(raw, 4), waits

  def test_bounded_in_size(self):
    stream, _ = self.stream(b"x" * 100, seconds=9.0, most=100)
    self.assertLen(stream.read(), 100)
    stream, _ = self.stream(b"x" * 101, seconds=9.0, most=100)
    with self.assertRaisesRegex(outside.Bad, "longer than 100 bytes"):
      stream.read()
    stream.close()
    self.assertTrue(stream.raw._raw.closed)

  def test_bounded_in_time(self):
    clock = iter([10.0, 10.0, 14.0, 18.5, 19.0])
    with mock.patch.object(time, "monotonic", lambda: next(clock)):
      stream, waits = self.stream(b"x" * 100, seconds=9.0)
      for _ in range(3):
        stream.read(4)
      # Each read may take what is left, and not as long as the first.
      self.assertEqual(waits, [9.0, 5.0, 0.5])
      with self.assertRaisesRegex(TimeoutError, "not complete after 9 s"):
        stream.read(4)


class TextTest(parameterized.TestCase):
  @hypothesis.settings(max_examples=200, deadline=None)
  @hypothesis.given(st.text(st.characters(), max_size=30))
  def test_valid(self, text):
    expected = "".join(
      "\ufffd" if unicodedata.category(c) == "Cs" else c for c in text
    )
    self.assertEqual(outside.valid(text), expected)

  @hypothesis.settings(max_examples=200, deadline=None)
  @hypothesis.given(st.text(st.characters(), max_size=30))
  def test_shown(self, text):
    shown = outside.shown(text)
    for c in shown:
      # Nothing that a terminal obeys, or that changes the direction of text.
      self.assertTrue(
        c in "\n\t" or unicodedata.category(c) not in ("Cc", "Cs", "Zl", "Zp")
      )
      bidi = unicodedata.bidirectional(c)
      self.assertNotIn(bidi[-1:] if len(bidi) == 3 else "", ("E", "O", "I"))
    # Nothing is lost: an escape says which character it was.
    self.assertEqual(
      shown.encode("ascii", "backslashreplace"),
      b"".join(
        c.encode("ascii", "backslashreplace")
        if c == outside.shown(c)
        else outside.shown(c).encode()
        for c in text
      ),
    )

  @parameterized.parameters(
    ("\x1b[2J\x07", r"\x1b[2J\x07"),
    ("a\r\x08\x7f\x9b31m", r"a\x0d\x08\x7f\x9b31m"),
    ("\u202eabc\u2066\ud800", r"\u202eabc\u2066\ud800"),
    ("é\t\n\U0001f600", "é\t\n\U0001f600"),
  )
  def test_escapes(self, text, expected):
    self.assertEqual(outside.shown(text), expected)

  def test_line(self):
    self.assertEqual(outside.line(" a\n\tb  c "), "a b c")
    self.assertEqual(outside.line("x" * 9, 4), "xxxx...")
    self.assertEqual(outside.line("\x1b"), r"\x1b")

  def test_first_line(self):
    error = ValueError("\n " + "x" * 400 + "\n and a trace")
    self.assertEqual(outside.first_line(error), "x" * 300)
    self.assertEqual(outside.first_line(ValueError()), "")

  def test_say(self):
    raw = io.BytesIO()
    file = io.TextIOWrapper(raw, encoding="ascii")
    outside.say("é\x1b[1m\ud800", file)
    self.assertEqual(raw.getvalue(), b"\\xe9\\x1b[1m\\ud800\n")
    text = io.StringIO()
    outside.say("é\nb", text)
    self.assertEqual(text.getvalue(), "é\nb\n")


class ProgramTest(absltest.TestCase):
  def run_program(self, line: str, shell: str = "") -> tuple[int, str, str]:
    """Runs a line of Python; returns (exit status, out, err)."""
    program = (
      "import contextlib, os, sys\n"
      "from rstar_jax import outside\n"
      f"with outside.program('name'):\n  {line}"
    )
    done = subprocess.run(
      ["sh", "-c", f'exec "$0" -c "$1" {shell}', sys.executable, program],
      capture_output=True,
      text=True,
      check=False,
    )
    return done.returncode, done.stdout, done.stderr

  def test_what_a_person_did_wrong_is_a_line(self):
    for error in ("ValueError('no \\x1b')", "OSError('no \\x1b')"):
      self.assertEqual(
        self.run_program(f"raise {error}"), (1, "", "name: no \\x1b\n")
      )
    self.assertEqual(
      self.run_program("raise KeyboardInterrupt"),
      (130, "", "\nname: stopped\n"),
    )
    code, _, said = self.run_program("raise KeyError('a bug')")
    self.assertEqual(code, 1)
    self.assertStartsWith(said, "Traceback")

  def test_closed_streams_are_empty(self):
    code, said, _ = self.run_program("print(sys.stdin.read() == '')", "<&-")
    self.assertEqual((code, said), (0, "True\n"))
    # Whatever is opened next does not get their numbers.
    line = "os._exit(os.open('/', os.O_RDONLY))"
    code, _, _ = self.run_program(line, "<&- >&- 2>&-")
    self.assertGreater(code, 2)

  def test_a_reader_that_has_gone_is_no_error(self):
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "w") as file, self.assertRaises(SystemExit) as caught:
      outside.say("a line", file)
    # Closing it has flushed what was left, to nobody.
    self.assertEqual(caught.exception.code, 1)


if __name__ == "__main__":
  absltest.main()
