"""Tests of rstar_jax.data.problems: files, TFDS, what is left out."""

import json

from absl.testing import absltest, parameterized
from etils import epath

from rstar_jax.config.schema import DataConfig
from rstar_jax.data import problems
from rstar_jax.data.synthetic import generator
from rstar_jax.types import Problem


class Base(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.folder = epath.Path(self.create_tempdir().full_path)

  def write(self, text, name="set.jsonl"):
    path = self.folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return str(path)

  def load(self, text, name="set.jsonl", **config):
    return problems.load_problems(
      DataConfig(source=self.write(text, name), **config)
    )


class FileTest(Base):
  def test_one_object_a_line(self):
    text = (
      '{"id": "a", "question": " Q? ", "answer": " 7 ", "level": 3}\r\n'
      "\n"
      '{"question": "R?", "answer": "\\\\frac12", "source": "book"}'
    )
    self.assertEqual(
      self.load(text),
      [
        Problem("a", "Q?", "7", "set", 3),
        Problem("set/1", "R?", "\\frac12", "book", None),
      ],
    )

  def test_one_list(self):
    rows = [
      {"index": 5, "question": "Q\n?", "answer": "[0,1]"},
      {"index": 7, "question": "R?", "answer": 7},
    ]
    for indent in (None, 4):
      self.assertEqual(
        self.load(json.dumps(rows, indent=indent), "bench.json"),
        [
          Problem("bench/5", "Q\n?", "[0,1]", "bench"),
          Problem("bench/7", "R?", "7", "bench"),
        ],
      )

  @parameterized.parameters(
    ("7", "7"),
    ("-0", "-0"),
    ("3.10", "3.10"),
    ("1e400", "1e400"),
    ("1" * 5000, "1" * 5000),
    ('"007"', "007"),
    ('"so it is <<1+1=2>>2.\\n#### 1,234"', "1234"),
    ('"x\\u2028y"', "x\u2028y"),
  )
  def test_answers(self, written, expected):
    [problem] = self.load(f'{{"question": "Q", "answer": {written}}}')
    self.assertEqual(problem.answer, expected)
    self.assertIs(type(problem.answer), str)

  @parameterized.parameters(
    ("2", 2),
    ('"Level 5"', 5),
    ('"Level ?"', None),
    ("true", None),
    ("null", None),
    ("-1", None),
    ("[1]", None),
    ("3.0", 3),
    ("4.5", None),
    ('"4.5"', None),
    ("0.5", None),
    ('".5"', None),
    ('"2-3"', None),
    ('"level 3 of 5"', None),
    ('"level-3."', 3),
    ('"3rd"', 3),
    ("12", 12),
    ("1e3", None),
  )
  def test_levels(self, written, expected):
    [problem] = self.load(
      f'{{"question": "Q", "answer": "1", "level": {written}}}'
    )
    self.assertEqual(problem.level, expected)

  def test_other_field_names(self):
    [problem] = self.load(
      '{"problem": "Q", "solution": 1}',
      question_field="problem",
      answer_field="solution",
    )
    self.assertEqual((problem.question, problem.answer), ("Q", "1"))

  def test_count_takes_the_first_and_reads_no_further(self):
    lines = [f'{{"question": "Q{i}", "answer": 1}}' for i in range(5)]
    text = "\n".join(lines + ["broken"])
    self.assertEqual(
      [p.question for p in self.load(text, count=3)], ["Q0", "Q1", "Q2"]
    )

  def test_a_row_that_repeats_another_is_left_out(self):
    rows = [("a", 1), ("b", 1), ("a", 1)]
    text = "\n".join(
      f'{{"id": "{name}", "question": "Q", "answer": {answer}}}'
      for name, answer in rows
    )
    with self.assertLogs(level="WARNING") as logs:
      found = self.load(text)
    self.assertEqual([each.id for each in found], ["a", "b"])
    self.assertIn("left out 1 repeats of problems", logs.output[0])

  def test_rows_of_some_sources_alone(self):
    text = "\n".join(
      f'{{"question": "Q{i}", "answer": 1, "source": "{source}", "level": {i}}}'
      for i, source in enumerate("abcab")
    )
    for where, count, expected in (
      (("source=a,c",), 0, [0, 2, 3]),
      (("source=b", "level=4,5"), 0, [4]),
      # The first two of those that are taken.
      (("source=a,c",), 2, [0, 2]),
    ):
      found = self.load(text, where=where, count=count)
      # Ids are of places in the file, whatever is left out.
      self.assertEqual(
        [each.id for each in found], [f"set/{i}" for i in expected]
      )
    with self.assertRaisesRegex(
      problems.ProblemError,
      r"no problems \(where=.*'source=d'.* left out 5 rows",
    ):
      self.load(text, where=("source=d",))
    with self.assertRaisesRegex(
      problems.ProblemError, r"set.jsonl:1: has no field 'kind' for where"
    ):
      self.load(text, where=("kind=a",))
    # A row without the field is malformed.
    mixed = '{"question": "R", "answer": 1}\n' + text
    with self.assertLogs(level="WARNING") as logs:
      found = self.load(mixed, where=("source=a,c",), on_error="skip")
    self.assertEqual([each.question for each in found], ["Q0", "Q2", "Q3"])
    self.assertRegex(
      logs.output[0], "skipped 1 of 4 .*set.jsonl:1: has no field 'source' for"
    )
    # What is malformed is said, and not left out in silence.
    with self.assertRaisesRegex(
      problems.ProblemError, "set.jsonl:2: is not JSON"
    ):
      self.load(text.replace("\n", "\n!\n"), where=("source=a",))

  @parameterized.parameters(
    ("ok=true", [0, 2]),
    ("ok=True", [0, 2]),
    ("ok=false", [1]),
    ("meta.kind=a", [0, 1]),
    ("meta.ok=TRUE", [2]),
  )
  def test_truth_values_and_nested_fields_select_rows(self, where, expected):
    rows = (
      (True, {"kind": "a", "ok": "true"}),
      (False, {"kind": "a", "ok": False}),
      (True, {"kind": "b", "ok": True}),
    )
    text = "\n".join(
      json.dumps({"question": f"Q{i}", "answer": 1, "ok": ok, "meta": meta})
      for i, (ok, meta) in enumerate(rows)
    )
    self.assertEqual(
      [each.id for each in self.load(text, where=(where,))],
      [f"set/{i}" for i in expected],
    )

  def test_byte_order_mark(self):
    text = b'\xef\xbb\xbf{"question": "Q", "answer": 1}'
    self.assertLen(self.load(text), 1)

  @parameterized.parameters(
    ("oops", "is not JSON"),
    ('{"question": "Q", "answer": 1', "is not JSON"),
    ('{"question": "Q", "answer": NaN}', "NaN is not a JSON number"),
    (b"\xff", "is not UTF-8"),
    ("[1, 2]", "a list, want an object"),
    ("7", "the number 7, want an object"),
    ('{"question": "Q"}', "no field 'answer', only question"),
    ('{"answer": 1}', "no field 'question', only answer"),
    ('{"question": "Q", "answer": [1]}', "'answer' is a list, want text or"),
    ('{"question": "Q", "answer": {}}', "'answer' is an object"),
    ('{"question": "Q", "answer": null}', "'answer' is null"),
    ('{"question": "Q", "answer": true}', "'answer' is a truth value"),
    ('{"question": "Q", "answer": " "}', "'answer' is empty"),
    ('{"question": "Q", "answer": "so\\n####"}', "nothing follows '####'"),
    ('{"question": "", "answer": 1}', "'question' is empty"),
    ('{"question": 7, "answer": 1}', "'question' is the number 7, want text"),
    ('{"id": [], "question": "Q", "answer": 1}', "'id' is a list"),
    ('{"id": "good", "question": "Q", "answer": 2}', "'good' is taken by .*:1"),
  )
  def test_a_bad_line(self, bad, reason):
    good = '{"id": "good", "question": "Q", "answer": 1}\n\n'
    bad = bad if isinstance(bad, bytes) else bad.encode()
    text = good.encode() + bad + b'\n{"question": "R", "answer": 2}\n'
    with self.assertRaisesRegex(
      problems.ProblemError, f"^{self.folder}/set.jsonl:3: .*{reason}"
    ) as caught:
      self.load(text)
    self.assertNotIn("\n", str(caught.exception))
    with self.assertLogs(level="WARNING") as logs:
      loaded = self.load(text, on_error="skip")
    # A skipped line keeps its number, so that ids do not depend on it.
    self.assertEqual([p.id for p in loaded], ["good", "set/2"])
    self.assertRegex(
      logs.output[0], f"skipped 1 of 3 .*set.jsonl:3: .*{reason}"
    )

  def test_a_bad_item_of_a_list(self):
    text = '[\n {"question": "Q",\n  "answer": 1},\n {"question": "R"}\n]'
    with self.assertRaisesRegex(problems.ProblemError, r"set.json:4: has no"):
      self.load(text, "set.json")
    with self.assertLogs(level="WARNING"):
      self.assertLen(self.load(text, "set.json", on_error="skip"), 1)

  @parameterized.parameters(
    ('[{"question": "Q", "answer": 1},\n{"quest', "set.json:2: is not JSON"),
    ('[{"question": "Q", "answer": 1}\n', "set.json:2: the list is cut short"),
    ('\n[{"question": "Q", "answer": 1}\n{}]', "set.json:3: '{' follows an"),
    ('[{"question": "Q", "answer": 1}]\n[]', "set.json:2: text follows"),
    (b'[{"question":\n"\xff", "answer": 1}]', "set.json:2: is not UTF-8"),
    ("[", "set.json:1: is not JSON"),
  )
  def test_a_broken_list_is_never_skipped(self, text, reason):
    for on_error in ("raise", "skip"):
      with self.assertRaisesRegex(problems.ProblemError, reason):
        self.load(text, "set.json", on_error=on_error)

  def test_what_cannot_be_graded_is_left_out_and_counted(self):
    rows = [
      {"problem": "A", "solution": "so $\\boxed{7}$"},
      {"problem": "B", "solution": "which was to be shown"},
      {"problem": "C", "solution": "so $\\boxed{}$"},
      {"problem": "D", "solution": "\\boxed{see above}"},
      {"problem": "E", "solution": "\\boxed{\\text{one\n\ntwo}}"},
      {"problem": "F", "solution": None},
      {"problem": 7, "solution": "\\boxed{1}"},
    ]
    text = "\n".join(map(json.dumps, rows))
    with self.assertRaisesRegex(problems.ProblemError, ":7: 'problem' is the"):
      self.load(text)
    config = DataConfig(source=self.write(text), on_error="skip")
    with self.assertLogs(level="WARNING") as logs:
      loaded = problems.load_problems(config)
    self.assertEqual([p.question for p in loaded], ["A"])
    self.assertRegex(
      logs.output[0],
      "skipped 1 of 7 .*; left out 5 of 7 .*: 4 no final answer, "
      "1 several paragraphs$",
    )

  @parameterized.parameters(
    ("", "holds no problems$"),
    ("\n\n", "holds no problems$"),
    ("[]", "holds no problems$"),
    (
      "x\ny",
      r"holds no problems \(skipped 2 of 2 .* first: .*set.jsonl:1: is not J",
    ),
  )
  def test_nothing_in_it(self, text, reason):
    with self.assertRaisesRegex(problems.ProblemError, reason):
      self.load(text, on_error="skip")

  def test_wrong_sources(self):
    for source, reason in (
      (f"{self.folder}/none.jsonl", "there is no file .*none.jsonl"),
      ("hub/name", "'hub/name' is none of a .jsonl, .*'synthetic:SPLIT'"),
      ("hf:name/train", "'hf:name/train' is neither 'hf:OWNER/NAME"),
      ("synthetic:elsewhere", "no split 'elsewhere', only train"),
      ("synthetic:train", "set count to at least 1, not 0"),
      ("tfds:name", "is not 'tfds:NAME/SPLIT'"),
      ("tfds:never_made/train", "no prepared TFDS data set 'never_made'"),
    ):
      with self.assertRaisesRegex(problems.ProblemError, reason):
        problems.load_problems(DataConfig(source=source))
    (self.folder / "x.json").mkdir()
    with self.assertRaisesRegex(problems.ProblemError, "is a folder"):
      problems.load_problems(DataConfig(source=f"{self.folder}/x.json"))

  def test_synthetic(self):
    self.assertEqual(
      problems.load_problems(
        DataConfig(source="synthetic:test", count=3, seed=5)
      ),
      generator.problems("test", 3, 5),
    )


if __name__ == "__main__":
  absltest.main()
