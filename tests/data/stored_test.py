"""Records are read by their numbers, once all are written."""

import pathlib

import numpy as np
from absl.testing import absltest

from rstar_jax.data import stored


class _Writer(stored.Writer):
  def index(self):
    return {"said": 7}


class StoredTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    self.folder = pathlib.Path(self.create_tempdir().full_path) / "records"
    self.records = [np.arange(size, dtype=np.int32) for size in (3, 0, 5000)]

  def test_any_is_read(self):
    with _Writer(self.folder) as writer:
      for each in self.records:
        writer.write(each)
    reader = stored.Reader(self.folder)
    self.assertEqual(reader.index, {"said": 7})
    for numbers in ([2, 0], [1], [0, 1, 2]):
      found = reader.read(numbers)
      self.assertLen(found, len(numbers))
      for number, each in zip(numbers, found, strict=True):
        np.testing.assert_array_equal(each, self.records[number])
        self.assertEqual(each.dtype, np.int32)

  def test_a_writer_that_fails_leaves_no_index(self):
    with self.assertRaises(KeyError):
      with _Writer(self.folder) as writer:
        writer.write(self.records[0])
        raise KeyError
    with self.assertRaisesRegex(ValueError, "delete it"):
      stored.Reader(self.folder)


if __name__ == "__main__":
  absltest.main()
