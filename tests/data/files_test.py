"""Rows of files, each with its line."""

import functools
import json
import pathlib
from unittest import mock

from absl.testing import absltest, parameterized
from etils import epath

from rstar_jax import outside
from rstar_jax.data import files
from rstar_jax.data.rows import Number, ProblemError, Row


class FileRowsTest(parameterized.TestCase):
  def rows(self, data: bytes, name: str = "f.json") -> list[Row]:
    path = pathlib.Path(self.create_tempdir().full_path) / name
    path.write_bytes(data)
    return list(files.file_rows(epath.Path(path)))

  @parameterized.parameters("lines", "list", "tight list", "mark")
  def test_both_forms_give_the_same_rows(self, form):
    values = [{"a": "\u00e9"}, [1, 2.5], "x\ny", None, {}]
    texts = [json.dumps(each) for each in values]
    data = {
      "lines": "\n\n" + "\n".join(texts) + "\n",
      "list": "\n\n[" + ",\n".join(texts) + "\n]\n",
      "tight list": "[" + ",".join(texts) + "]",
      "mark": "\ufeff" + "\n".join(texts),
    }[form]
    rows = self.rows(data.encode())
    self.assertEqual([row.index for row in rows], list(range(5)))
    self.assertEqual([row.error for row in rows], [""] * 5)
    read = [row.value for row in rows]
    self.assertEqual(json.loads(json.dumps(read[0])), values[0])
    self.assertEqual(read[1], ["1", "2.5"])
    self.assertEqual(read[2:], values[2:])
    lines = [int(row.place.rpartition(":")[2]) for row in rows]
    first = {"lines": 3, "list": 3, "tight list": 1, "mark": 1}[form]
    step = 0 if form == "tight list" else 1
    self.assertEqual(lines, [first + step * i for i in range(5)])

  def test_numbers_stay_as_they_were_written(self):
    (row,) = self.rows(b'{"a": 3.10, "b": 1e3, "c": 7}')
    self.assertEqual(row.value, {"a": "3.10", "b": "1e3", "c": "7"})
    for value in row.value.values():
      self.assertIsInstance(value, Number)

  def test_csv(self):
    text = '\ufeffquestion,answer\n"What is\n3, 4?",7\n\nQ,8,9\n"\u00e9",""\n'
    rows = self.rows(text.encode(), "f.csv")
    self.assertEqual(
      [row.value for row in rows],
      [
        {"question": "What is\n3, 4?", "answer": "7"},
        None,
        {"question": "\u00e9", "answer": ""},
      ],
    )
    self.assertEqual([row.index for row in rows], [0, 1, 2])
    self.assertEqual(
      [row.place.rpartition(":")[2] for row in rows], ["2", "5", "6"]
    )
    self.assertEqual(rows[1].error, "has 3 values for 2 columns")

  def test_csv_with_a_space_after_each_comma(self):
    (row,) = self.rows(b'question, answer\n"2, or 3?", "1,200"\n', "f.csv")
    self.assertEqual(row.value, {"question": "2, or 3?", "answer": "1,200"})

  @parameterized.parameters(
    (b"a,a\n1,2\n", ":1: the first line must give .* not 'a', 'a'"),
    (b"a,\n1,2\n", "must give each column a name"),
    (b"question;answer\n1;2\n", "columns are parted by .;., want commas"),
    (b'a,b\n1,2\n"3,4\n', ":3: is not CSV .*nothing after it"),
    (b"a,b\n1,\xff\n", "is not UTF-8"),
  )
  def test_csv_that_cannot_be_read(self, data, reason):
    with self.assertRaisesRegex(ProblemError, reason):
      self.rows(data, "f.csv")

  def test_a_broken_line_is_a_row_with_a_reason(self):
    rows = self.rows(b'{"a": "1"}\n{"a": \n"\xff"\nNaN\n{"a": "2"}', "f.jsonl")
    self.assertEqual([bool(r.error) for r in rows], [0, 1, 1, 1, 0])
    self.assertIn("is not JSON", rows[1].error)
    self.assertIn("is not UTF-8", rows[2].error)
    self.assertIn("NaN is not a JSON number", rows[3].error)
    self.assertEqual(rows[4].value, {"a": "2"})
    self.assertEndsWith(rows[4].place, "f.jsonl:5")

  @parameterized.parameters(
    (b'[{"a": 1},\n{"a": 2}', "f.json:2: the list is cut short"),
    (b'[{"a": 1}\n{"a": 2}]', "f.json:2: '{' follows an item, want a comma"),
    (b'[1,\n2,\n{"a" 3}]', "f.json:3: is not JSON"),
    (b"[1,\n2]\n3", "text follows the list"),
    (b'[1,\n"\xff"]', "f.json:2: is not UTF-8"),
    (b"[1,\n2,\n", "f.json:3: is not JSON"),
  )
  def test_a_list_that_breaks_off_is_an_error(self, data, message):
    with self.assertRaisesRegex(ProblemError, message):
      self.rows(data)

  @parameterized.parameters(1, 2, 3, 7, 64)
  def test_a_list_is_read_piece_by_piece(self, chunk):
    values = [12345, -1.5, {"é": ["\n", {}]}, "x" * 50, [], None, "𝄞,]"] * 3
    text = json.dumps(values, indent=1, ensure_ascii=False)
    whole = self.rows(text.encode())
    with mock.patch.object(files, "_CHUNK", chunk):
      self.assertEqual(
        [(row.index, row.value) for row in self.rows(text.encode())],
        [(row.index, row.value) for row in whole],
      )
      # Each item is on the line on which a brute-force count has it.
      at = text.splitlines().index(" null,") + 1
      self.assertEndsWith(self.rows(text.encode())[5].place, f"f.json:{at}")
      bad = text.replace("null", "nil", 1).encode()
      with self.assertRaisesRegex(ProblemError, f":{at}: is not JSON"):
        self.rows(bad)
      bad = text.encode().replace(b"null", b"\xff", 1)
      with self.assertRaisesRegex(ProblemError, f":{at}: is not UTF-8"):
        self.rows(bad)

  def test_no_more_is_read_than_is_taken(self):
    path = pathlib.Path(self.create_tempdir().full_path) / "f.json"
    path.write_text("[" + '"' + "x" * (1 << 20) + '", 7, 8' + " " * (1 << 22))
    rows = files.file_rows(epath.Path(path))
    self.assertLen(next(rows).value, 1 << 20)
    self.assertEqual(next(rows).value, "7")
    with self.assertRaisesRegex(ProblemError, "cut short"):
      list(rows)

  # Items that are JSON, and yet no row.
  BAD = (
    (b'"\\ud800"', "is not valid Unicode"),
    (b"[" * 65 + b"]" * 65, "nested too deeply"),
    (b"[" * 99999 + b"]" * 99999, "nested too deeply"),
    (b'{"a": 1, "b": "},]{", "a": "\\""}', 'has "a" twice in one object'),
    (b"[NaN]", "NaN is not a JSON number"),
    (b"NaN", "NaN is not a JSON number"),
  )

  @parameterized.product(
    bad=BAD, name=("f.json", "f.jsonl"), chunk=(5, 64, 1 << 20)
  )
  def test_an_item_that_is_no_row(self, bad, name, chunk):
    item, reason = bad
    items = b'{"a": "x"}', item, item, b'{"b": "y"}'
    data = b"\n".join(items)
    if name == "f.json":
      data = b"[" + b",\n".join(items) + b"]"
    with mock.patch.object(files, "_CHUNK", chunk):
      rows = self.rows(data, name)
    self.assertEqual(
      [row.value for row in rows], [{"a": "x"}, None, None, {"b": "y"}]
    )
    self.assertEqual([row.index for row in rows], [0, 1, 2, 3])
    for row, line in zip(rows[1:], (2, 3, 4), strict=True):
      self.assertEndsWith(row.place, f"{name}:{line}")
    self.assertIn(reason, rows[1].error)
    self.assertEqual(rows[1].error, rows[2].error)

  @parameterized.parameters("f.json", "f.jsonl")
  def test_an_item_that_is_too_long(self, name):
    self.enter_context(mock.patch.object(outside, "LONGEST", 1000))
    self.enter_context(mock.patch.object(files, "_CHUNK", 64))
    kept, long = b'{"a": "%b"}' % (b"x" * 800), b'{"a": "%b"}' % (b"x" * 3000)
    pattern = {"f.json": b"[%b,%b,%b]", "f.jsonl": b"%b\n%b\n%b\n"}[name]
    # The bound of a line is a default argument, taken when it was defined.
    lines = functools.partial(outside.lines, most=1000)
    parse = functools.partial(outside.parse, most=1000)
    self.enter_context(mock.patch.object(outside, "lines", lines))
    self.enter_context(mock.patch.object(outside, "parse", parse))
    rows = self.rows(pattern % (kept, long, kept), name)
    self.assertEqual(
      [row.value and len(row.value["a"]) for row in rows], [800, None, 800]
    )
    self.assertStartsWith(rows[1].error, "is longer than 1000 ")

  def test_a_line_of_a_table_that_is_too_long(self):
    self.enter_context(mock.patch.object(outside, "LONGEST", 1000))
    with self.assertRaisesRegex(ProblemError, "f.csv:3: .* more than 10"):
      self.rows(b"a,b\n1,2\n3," + b"x" * 1000, "f.csv")
    self.assertLen(self.rows(b"a,b\n1,2\n3," + b"x" * 990, "f.csv"), 2)

  def test_a_long_field_of_a_table(self):
    long = "x" * 200_000
    rows = self.rows(f"a,b\n1,{long}\n3,4\n".encode(), "f.csv")
    self.assertEqual(rows[0].value, {"a": "1", "b": long})
    self.assertEqual(rows[1].value, {"a": "3", "b": "4"})
    self.enter_context(mock.patch.object(outside, "LONGEST", 1000))
    # Quoted, it may have any number of lines.
    lines = b"x" * 600 + b"\n" + b"x" * 600
    with self.assertRaisesRegex(ProblemError, "f.csv:2: .* limit"):
      self.rows(b'a,b\n1,"' + lines + b'"\n', "f.csv")

  def test_no_file(self):
    folder = epath.Path(self.create_tempdir().full_path)
    with self.assertRaisesRegex(ProblemError, "there is no file"):
      files.file_rows(folder / "none.jsonl")
    with self.assertRaisesRegex(ProblemError, "is a folder"):
      files.file_rows(folder)


if __name__ == "__main__":
  absltest.main()
