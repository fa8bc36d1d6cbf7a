"""Tests of rstar_jax.data.sources; TFDS splits are in tfds_test.py."""

import gzip
import itertools
import json
import pathlib
import sys
from unittest import mock

import pyarrow as pa
import pyarrow.parquet
from absl.testing import absltest, parameterized

from rstar_jax import data
from rstar_jax.config.plugins import PluginError
from rstar_jax.config.schema import DataConfig
from rstar_jax.data import hub, problems, sources
from rstar_jax.data.rows import ProblemError
from rstar_jax.tasks.task import Task
from rstar_jax.types import Problem


class OpenSourceTest(parameterized.TestCase):
  @parameterized.parameters("some.jsonl", "some.json")
  def test_a_file_goes_by_its_stem(self, name):
    path = pathlib.Path(self.create_tempdir().full_path) / name
    path.write_text(json.dumps({"a": "b"}))
    short, rows = sources.open_source(str(path))
    self.assertEqual(short, "some")
    self.assertEqual([row.value for row in rows], [{"a": "b"}])

  @parameterized.parameters(
    ("hf:openai/gsm8k/main/train", "gsm8k/main"),
    ("hf:meta-math/MetaMathQA/train", "MetaMathQA"),
    ("hf:./some/folder/train", "folder"),
  )
  def test_a_hub_name_goes_by_data_set_and_config(self, source, expected):
    asked = []
    with mock.patch.object(hub, "hub_rows", asked.append):
      short, _ = sources.open_source(source)
    self.assertEqual((short, asked), (expected, [source[len("hf:") :]]))

  def test_a_task_s_own_problems(self):
    made = {"train": [Problem("a", "q")], "test": [{"question": "r"}]}
    task = Task(problems=made.__getitem__)
    for split, (value,) in made.items():
      short, rows = sources.open_source(f"task:{split}", task=task)
      self.assertEqual(short, split)
      self.assertEqual([row.value for row in rows], [value])
    with self.assertRaisesRegex(ProblemError, "task has no problems of its o"):
      sources.open_source("task:train")
    with self.assertRaisesRegex(PluginError, "^task.problems=.* KeyError: 'x'"):
      list(sources.open_source("task:x", task=task)[1])

  @parameterized.parameters(
    "set.jsonl", "set.json", "set.csv", "set.csv.gz", "set.parquet", "hf", "own"
  )
  def test_a_template_of_two_fields_of_any_source(self, form):
    row = {"Body": "Ann has 3 pens.", "Question": "How many?", "Answer": "3"}
    folder = pathlib.Path(self.create_tempdir().full_path)
    source = str(folder / form)
    if form == "hf":
      (folder / "train.jsonl").write_text(json.dumps(row))
      source = f"hf:{folder}/train"
    elif form == "own":
      sys.modules["template_rows"] = mock.Mock(rows=lambda: [row])
      self.addCleanup(sys.modules.pop, "template_rows")
      source = "template_rows:rows"
    elif form == "set.parquet":
      pa.parquet.write_table(pa.Table.from_pylist([row]), source)
    else:
      text = f"{','.join(row)}\n{','.join(row.values())}"
      text = json.dumps([row]) if "json" in form else text
      packed = gzip.compress if form.endswith(".gz") else bytes
      pathlib.Path(source).write_bytes(packed(text.encode()))
    # Read so, it would say the question alone.
    with self.assertRaisesRegex(ProblemError, "has a 'Body' beside the 'Quest"):
      problems.load_problems(DataConfig(source=source))
    config = DataConfig(
      source=source, question_field="{Body} {Question}", answer_field="Answer"
    )
    (found,) = problems.load_problems(config)
    self.assertEqual(found.question, "Ann has 3 pens. How many?")
    self.assertEqual(found.answer, "3")

  @parameterized.parameters("", "name", "synthetic:train", "a.txt", "http://x")
  def test_other_forms(self, source):
    with self.assertRaisesRegex(
      ProblemError, f"source '{source}' is none of a .jsonl, .*'hf:OWNER/NAME"
    ):
      sources.open_source(source)

  @parameterized.parameters("A.JSONL", "a.ndjson", "a.Json", "a.NDJSON.GZ")
  def test_endings_of_lines_of_json(self, name):
    path = pathlib.Path(self.create_tempdir().full_path) / name
    text = b'{"a": "b"}\n{"a": "c"}\n'
    path.write_bytes(gzip.compress(text) if name.endswith(".GZ") else text)
    short, rows = sources.open_source(str(path))
    self.assertEqual(short, name.partition(".")[0])
    self.assertEqual([row.value["a"] for row in rows], ["b", "c"])

  def test_an_ending_of_csv_or_parquet_in_capitals(self):
    folder = pathlib.Path(self.create_tempdir().full_path)
    table = pa.Table.from_pylist([{"a": "b"}])
    pa.parquet.write_table(table, folder / "A.PARQUET")
    (folder / "A.CSV").write_text("a\nb\n")
    for name in ("A.PARQUET", "A.CSV"):
      _, rows = sources.open_source(str(folder / name))
      self.assertEqual([row.value for row in rows], [{"a": "b"}])

  @parameterized.parameters(
    ("openai/gsm8k", "did you mean 'hf:openai/gsm8k/CONFIG/SPLIT'?"),
    ("openai/gsm8k/main/train", "did you mean 'hf:openai/gsm8k/main/train'?"),
    ("http://a.b/c", "download it, and give the file's path"),
  )
  def test_a_hint_at_what_was_meant(self, source, hint):
    with self.assertRaises(ProblemError) as told:
      sources.open_source(source)
    self.assertEndsWith(str(told.exception), f"; {hint}")

  def test_a_hint_at_a_folder_of_files(self):
    folder = self.create_tempdir().full_path
    with self.assertRaises(ProblemError) as told:
      sources.open_source(folder)
    self.assertEndsWith(str(told.exception), f"is 'hf:{folder}/SPLIT'")

  @parameterized.parameters("name", "folder/a.txt", "synthetic:train", "a b/c")
  def test_no_hint_where_nothing_is_likely(self, source):
    with self.assertRaises(ProblemError) as told:
      sources.open_source(source)
    self.assertEndsWith(str(told.exception), sources.FORMS)

  def test_tfds_names_the_extra_that_it_needs(self):
    # Another test may have loaded it.
    vars(data).pop("tfds", None)
    with mock.patch.dict(sys.modules, {"tensorflow_datasets": None}):
      sys.modules.pop("rstar_jax.data.tfds", None)
      with self.assertRaisesRegex(
        ProblemError, r"'tfds:a/b' needs .*pip install 'rstar_jax\[tfds\]'$"
      ):
        sources.open_source("tfds:a/b")


class HeadTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    self.folder = pathlib.Path(self.create_tempdir().full_path)
    self.source = self.folder / "all.jsonl"
    self.source.write_text(
      '{"a": "é", "n": 3.10}\n{"a": "2"}\n{"a": 3}\n{bad\n'
    )

  def test_the_first_rows_are_read_as_before(self):
    path = self.folder / "new" / "some.jsonl"
    self.assertEqual(sources.copy_rows(str(self.source), 2, path), 2)
    for source, count in ((self.source, 2), (path, None)):
      rows = itertools.islice(sources.open_source(str(source))[1], count)
      self.assertEqual(
        [row.value for row in rows], [{"a": "é", "n": "3.10"}, {"a": "2"}]
      )

  def test_a_copy_of_verl_s_rows_is_read_as_they_are(self):
    verl = lambda i: {  # noqa: E731
      "prompt": [{"role": "user", "content": f"Q{i}"}],
      "reward_model": {"ground_truth": "7", "n": [0.5, -2, True, None]},
      "extra_info": {"index": i % 2},
    }
    self.source.write_text(json.dumps([verl(i) for i in range(4)]))
    path = self.folder / "all.json"
    table = self.folder / "all.parquet"
    pa.parquet.write_table(
      pa.Table.from_pylist([{"question": "Q", "answer": 1.5}]), table
    )
    self.assertEqual(sources.copy_rows(str(self.source), 9, path), 4)
    self.assertEqual(
      problems.load_problems(DataConfig(source=str(path))),
      problems.load_problems(DataConfig(source=str(self.source))),
    )
    for index, line in enumerate(path.read_text().splitlines()):
      self.assertEqual(json.loads(line), verl(index))
    sources.copy_rows(str(table), 1, path)
    self.assertEqual(json.loads(path.read_text())["answer"], 1.5)

  def test_problems_of_a_function_become_rows(self):
    made = [
      Problem("a", "q", "1", "of mine", 3, ("2",)),
      Problem("b", "r", "2"),
    ]
    sys.modules["own_problems"] = mock.Mock(rows=lambda: made)
    self.addCleanup(sys.modules.pop, "own_problems")
    path = self.folder / "some.jsonl"
    self.assertEqual(sources.copy_rows("own_problems:rows", 5, path), 2)
    one, two = problems.load_problems(DataConfig(source=str(path)))
    self.assertEqual(one, made[0])
    self.assertEqual((two.id, two.answer, two.level), ("b", "2", None))

  def test_a_function_that_takes_an_argument(self):
    sys.modules["own_problems"] = mock.Mock(rows=lambda split: [])
    self.addCleanup(sys.modules.pop, "own_problems")
    with self.assertRaisesRegex(ValueError, r"must take \(\), and takes .spl"):
      sources.open_source("own_problems:rows")

  def test_a_row_that_cannot_be_read_is_named(self):
    path = self.folder / "some.jsonl"
    with self.assertRaisesRegex(ProblemError, "all.jsonl:4: "):
      sources.copy_rows(str(self.source), 5, path)
    self.assertFalse(path.exists())


if __name__ == "__main__":
  absltest.main()
