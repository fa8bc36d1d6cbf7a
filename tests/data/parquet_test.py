"""Parquet files, beside the same rows as JSON."""

import json
import pathlib
import sys
from unittest import mock

import numpy as np
import pyarrow as pa
import pyarrow.parquet
from absl.testing import absltest
from etils import epath

from rstar_jax.config.schema import DataConfig
from rstar_jax.data import files, parquet, problems
from rstar_jax.data.rows import ProblemError

ROWS = [
  {
    "prompt": [{"role": "user", "content": f"Q{i}?"}],
    "reward_model": {"ground_truth": str(i), "style": "rule"},
    "extra_info": {"index": i},
  }
  for i in range(600)
]


class ParquetTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    self.folder = pathlib.Path(self.create_tempdir().full_path)
    self.path = epath.Path(self.folder / "set.parquet")
    pa.parquet.write_table(pa.Table.from_pylist(ROWS), self.path)

  def test_rows_are_as_in_a_json_file(self):
    same = epath.Path(self.folder / "set.jsonl")
    same.write_text("\n".join(map(json.dumps, ROWS)))
    found = list(parquet.rows(self.path))
    for row, other in zip(found, files.file_rows(same), strict=True):
      self.assertEqual((row.value, row.index), (other.value, other.index))
    self.assertEqual(found[599].place, f"{self.path}[599]")
    read = [
      problems.load_problems(DataConfig(source=str(path)))
      for path in (self.path, same)
    ]
    self.assertEqual(read[0], read[1])
    self.assertEqual(read[0][599].question, "Q599?")

  def test_a_text_that_is_not_utf_8_is_one_row_s(self):
    offsets = np.array([0, 1, 3, 4], np.int32).tobytes()
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(b"Q\xff\xfeR")]
    texts = pa.Array.from_buffers(pa.string(), 3, buffers)
    table = pa.table({"question": texts, "answer": ["1", "2", "3"]})
    pa.parquet.write_table(table, self.path)
    found = list(parquet.rows(self.path))
    self.assertEqual(found[1].error, "is not UTF-8 (invalid start byte)")
    self.assertEqual(found[2].value, {"question": "R", "answer": "3"})

  def test_what_cannot_be_read_is_named(self):
    whole = self.path.read_bytes()
    changed = bytearray(whole)
    changed[4:60] = bytes(56)
    for data in (whole[:-20], b"PAR1", b"", bytes(changed)):
      self.path.write_bytes(data)
      with self.assertRaisesRegex(
        ProblemError, rf"^{self.path} cannot be read \(.*: copy it again$"
      ):
        list(parquet.rows(self.path))
    with self.assertRaisesRegex(ProblemError, "there is no file"):
      parquet.rows(epath.Path(self.folder / "none.parquet"))

  def test_without_the_library(self):
    with mock.patch.dict(sys.modules, {"pyarrow": None}):
      with self.assertRaisesRegex(
        ProblemError, r"pyarrow: pip install 'rstar_jax\[hub\]'$"
      ):
        parquet.rows(self.path)


if __name__ == "__main__":
  absltest.main()
