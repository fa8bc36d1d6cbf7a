"""Rows on the disk, against the same rows in memory."""

import pathlib
from unittest import mock

import numpy as np
from absl.testing import absltest, parameterized

from rstar_jax.data import batches, stored_rows

_LENGTH = 24


def groups(seed: int, count: int) -> list[list[batches.Row]]:
  """Returns groups of rows that share prefixes; some rows are too long."""
  rng = np.random.default_rng(seed)
  found = []
  for _ in range(count):
    prefix = rng.integers(1, 9, rng.integers(1, 9))
    rows = []
    for _ in range(rng.integers(1, 4)):
      own = rng.integers(1, 9, rng.integers(1, 20))
      ids = np.concatenate([prefix, own]).astype(np.int32)
      rows.append((ids, rng.integers(0, 2, len(ids)).astype(np.int32)))
    found.append(rows)
  return found


class StoredRowsTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.folder = pathlib.Path(self.create_tempdir().full_path) / "rows"

  def write(self, rows) -> stored_rows.StoredRows:
    with stored_rows.Writer(self.folder, _LENGTH) as writer:
      for group in rows:
        writer.put(group)
    return stored_rows.StoredRows(self.folder)

  @parameterized.parameters(*range(4))
  def test_they_are_those_that_are_packed_in_memory(self, seed):
    rows = groups(seed, 60)
    packed = batches.pack(rows, _LENGTH)
    # Few are open at once, so that they are not written in order.
    with mock.patch.object(batches, "_OPEN_ROWS", 3):
      packed = batches.pack(rows, _LENGTH)
      stored = self.write(rows)
    self.assertLen(stored, len(packed))
    self.assertEqual(stored.dropped, packed.dropped)
    self.assertGreater(stored.dropped, 0)
    self.assertEqual(stored.solutions, sum(map(len, rows)))
    numbers = np.random.default_rng(seed).permutation(len(packed))[:7]
    found, wanted = stored.take(numbers), packed.take(numbers)
    self.assertEqual(found.keys(), wanted.keys())
    for name, array in wanted.items():
      np.testing.assert_array_equal(found[name], array, name)
      self.assertEqual(found[name].dtype, array.dtype)
    self.assertNotEqual(stored._places.tolist(), list(range(len(packed))))

  def test_batches_are_the_same_and_begin_anywhere(self):
    rows = groups(5, 40)
    in_memory, count = batches.row_batches(
      batches.pack(rows, _LENGTH), 4, 3, seed=1
    )
    on_disk, same = batches.row_batches(self.write(rows), 4, 3, seed=1)
    self.assertEqual(same, count)
    for k in (count - 1, 0, 5):
      for name, array in in_memory(k).items():
        np.testing.assert_array_equal(on_disk(k)[name], array)

  def test_the_same_rows_give_the_same_bytes(self):
    def contents():
      self.write(groups(6, 40))
      return {each.name: each.read_bytes() for each in self.folder.iterdir()}

    self.assertEqual(contents(), contents())

  def test_no_rows(self):
    stored = self.write([])
    self.assertEqual((len(stored), stored.solutions), (0, 0))


if __name__ == "__main__":
  absltest.main()
