"""The files of a job: what is wanted, and what is counted."""

import pathlib
import subprocess
import sys

from absl.testing import absltest

from rstar_jax.config.schema import ExtractConfig
from rstar_jax.data import extraction, pairs, pools, trajectories
from rstar_jax.search.tree import RIGHT, WRONG
from rstar_jax.storage import records
from tests.data.trajectories_test import make_tree


class ExtractionTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    self.folder = pathlib.Path(self.create_tempdir().full_path)
    right, wrong = ("a", 1.0, "1", 1.0, RIGHT), ("b", 0.0, "2", -1.0, WRONG)
    self.trees = [
      make_tree(right, wrong, name="mixed"),
      make_tree(wrong, name="unsolved"),
      make_tree(right, name="easy"),
    ]
    path = self.folder / "trees" / records.shard_name(0, 1)
    records.write_shard(path, [tree.to_record() for tree in self.trees])
    self.job = extraction.Job(
      pools.Part(path), self.folder / "sft" / "s", self.folder / "pairs" / "p"
    )

  def write(self, job: extraction.Job) -> set[str]:
    extraction.write(job, ExtractConfig(), 0)
    found = (path for path in self.folder.rglob("*") if path.is_file())
    return {path.name for path in found if path.parent.name != "trees"}

  def test_rows_and_counts_are_those_of_all_trees_at_once(self):
    self.assertEqual(self.write(self.job), {"s", "unsolved-s", "p"})
    rows, stats = trajectories.sft_rows(self.trees, ExtractConfig())
    read = records.read_shard(self.job.sft)
    self.assertEqual(list(map(trajectories.from_dict, read)), rows)
    said = records.header(self.job.sft)["info"]
    self.assertEqual(said, stats | {"suspects": 0})
    found, stats = pairs.pairs(self.trees, ExtractConfig())
    self.assertNotEmpty(found)
    read = records.read_shard(self.job.pairs)
    self.assertEqual(list(map(pairs.from_dict, read)), found)
    self.assertEqual(records.header(self.job.pairs)["info"], stats)
    (left,) = records.read_shard(self.job.unsolved)
    self.assertEqual(left["problem_id"], "unsolved")

  def test_what_is_there_is_left(self):
    self.assertEqual(self.job.left(), self.job)
    alone = extraction.Job(self.job.part, None, self.job.pairs)
    self.assertEqual(self.write(alone), {"p"})
    left = self.job.left()
    self.assertEqual((left.sft, left.pairs), (self.job.sft, None))
    self.write(left)
    self.assertEqual(self.job.left().sft, None)
    # Both files of the solutions are made together.
    self.job.unsolved.unlink()
    self.assertEqual(self.job.left().sft, self.job.sft)

  def test_counts_of_no_trees(self):
    records.write_shard(self.job.part.path, [])
    self.write(self.job)
    self.assertEqual(records.header(self.job.sft)["info"]["problems"], 0)
    self.assertEqual(records.header(self.job.pairs)["info"]["step"], 0)

  def test_trees_that_are_damaged_write_nothing(self):
    path = self.job.part.path
    data = bytearray(path.read_bytes())
    data[-40] ^= 1
    path.write_bytes(data)
    with self.assertRaises(records.CorruptShard):
      self.write(self.job)
    self.assertFalse(self.job.sft.exists() or self.job.pairs.exists())

  def test_a_process_loads_no_accelerator_library(self):
    program = (
      "import sys, rstar_jax.data.extraction\n"
      "assert not {'jax', 'transformers', 'sympy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


if __name__ == "__main__":
  absltest.main()
