"""The records of finished folders."""

import pathlib

from absl.testing import absltest

from rstar_jax.pipeline import reading
from rstar_jax.search.tree import Tree
from rstar_jax.storage import records
from rstar_jax.types import PreferencePair, Problem

PROBLEMS = [Problem(f"p{i}", "?") for i in range(8)]


class ReadingTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    self.folder = pathlib.Path(self.create_tempdir().full_path)

  def test_takes_shards_below_in_order(self):
    for i, name in enumerate(("b/shard-0", "a/shard-1", "a/shard-0")):
      records.write_shard(self.folder / name, [{"row": i}])
    records.write_shard(self.folder / "a" / "trees-shard-0", [{"row": 7}])
    rows = [row["row"] for row in reading.read_rows(self.folder)]
    self.assertEqual(rows, [2, 1, 0])
    self.assertEqual(
      list(reading.rows_of(self.folder)), [{"row": 2}, {"row": 1}, {"row": 0}]
    )

  def test_reads_trees_in_order(self):
    for index, problem in enumerate(PROBLEMS):
      path = self.folder / "trees" / records.shard_name(index, len(PROBLEMS))
      records.write_shard(path, [Tree(problem).to_record()])
    found = reading.read_trees(self.folder / "trees")
    self.assertEqual([each.problem for each in found], PROBLEMS)

  def test_solutions_are_read_without_their_steps(self):
    row = {"problem_id": "p", "trajectories": [{"steps": ["a"], "answer": "1"}]}
    records.write_shard(self.folder / records.shard_name(0, 1), [row])
    (found,) = reading.read_solutions(self.folder)
    self.assertEqual(
      found, {"problem_id": "p", "trajectories": [{"answer": "1"}]}
    )

  def test_reads_pairs(self):
    pair = PreferencePair("p", "?", ("a", "b"), ("c",), 0.5, "final")
    records.write_shard(self.folder / records.shard_name(0, 1), [vars(pair)])
    self.assertEqual(reading.read_pairs(self.folder), [pair])


if __name__ == "__main__":
  absltest.main()
