"""Rows and their values, whatever they are read from."""

import datetime
import decimal
import functools
import io
import json

import numpy as np
from absl.testing import absltest, parameterized

from rstar_jax.data import files, rows


class RowsTest(parameterized.TestCase):
  @parameterized.parameters(
    (b"x", "x"),
    (b"", ""),
    (3, "3"),
    (np.float32(0.5), "0.5"),
    (np.asarray(7), "7"),
    (True, True),
    (None, None),
    ([1], ["1"]),
    (np.array([b"x", b"y"], object), ["x", "y"]),
    ([], []),
    (float("nan"), None),
    (np.float32("nan"), None),
    (np.array([1.5, np.nan]), ["1.5", None]),
    (10**400, "1" + "0" * 400),
    (decimal.Decimal("3.10"), "3.10"),
  )
  def test_values_of_tables_are_as_in_json(self, value, expected):
    found = rows.plain(value)
    self.assertEqual(found, expected)
    number = isinstance(expected, str) and expected[:1].isdigit()
    self.assertEqual(isinstance(found, rows.Number), number)

  def test_json_of_a_row_is_the_row_again(self):
    text = '{"a": {"é\\"": [3.10, -1E+5, 12345678901234567890]}, "b": "3"}'
    (row,) = files.line_rows(io.BytesIO(text.encode()), "f")
    self.assertEqual(rows.as_json(row.value), text)
    self.assertEqual(
      json.loads(rows.as_json({1: (), "t": True, "n": None, "s": "\n"})),
      {"1": [], "t": True, "n": None, "s": "\n"},
    )

  def test_json_of_a_value_that_json_lacks(self):
    row = {"when": datetime.date(2026, 11, 30), "b": "3"}
    self.assertEqual(rows.as_json(row), '{"when": "2026-11-30", "b": "3"}')

  def test_rows_of_tables(self):
    row = rows.table_row("t[3]", 3, {"a": 1, "b": "x"})
    self.assertEqual(row, rows.Row("t[3]", 3, {"a": "1", "b": "x"}))
    loop = []
    loop.append(loop)
    for value, reason in (
      ("\ud800", "not valid Unicode"),
      (["\ud800"], "not valid Unicode"),
      (float("inf"), "has inf, which is no number"),
      ([-np.inf], "has -inf, which is no number"),
      (loop, "cannot be read .maximum recursion"),
      (functools.reduce(lambda a, _: [a], range(65), "x"), "nested too deep"),
    ):
      row = rows.table_row("t[3]", 3, {"a": value})
      self.assertRegex(row.error, reason)
      self.assertIsNone(row.value)

  def test_a_message_is_one_short_line(self):
    error = rows.ProblemError("a\n\x1b[2J" + "x" * 5000)
    self.assertStartsWith(str(error), "a \\x1b[2Jxxx")
    self.assertLess(len(str(error)), 1010)


if __name__ == "__main__":
  absltest.main()
