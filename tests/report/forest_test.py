"""Tests of which problems are listed and which trees are drawn."""

import dataclasses
import pathlib
from unittest import mock

from absl.testing import absltest, parameterized

from rstar_jax.config.schema import ExtractConfig
from rstar_jax.data import pairs, trajectories
from rstar_jax.report import forest, inputs, trees
from rstar_jax.storage import json_io, records
from tests.report import workdirs


class ForestTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.folder = pathlib.Path(self.create_tempdir().full_path)

  def test_the_share_that_is_solved_is_that_of_the_evaluation(self):
    # The verdict of the search is the one that results.json counts.
    rows = [
      workdirs.record(name, "mcts", *verdicts)
      for name, verdicts in (
        ("a", ("equal", "different", "different")),
        ("b", ("equal", "equal", "different")),
        ("c", ("failed",)),
      )
    ]
    workdirs.write_round(self.folder, 1, rows=rows)
    json_io.write(
      self.folder / "config.json", {"eval": {"answer_select": "majority"}}
    )
    found = inputs.read(self.folder)["problems"]
    self.assertEqual([row["solved"] for row in found], [False, True, False])

  def test_the_list_shows_the_beginning_of_a_question(self):
    tree = workdirs.apples()
    problem = dataclasses.replace(tree.problem, question="x" * 999)
    tree.problem = problem
    workdirs.write_round(self.folder, 1, [tree])
    found = inputs.read(self.folder)
    self.assertEqual(found["problems"][0]["question"], "x" * 159 + "…")
    # The whole of it is with the tree.
    self.assertEqual(
      trees.decode(found["trees"][0])["question"], problem.question
    )

  def test_several_trees_of_a_problem(self):
    workdirs.write_round(self.folder, 1, [workdirs.apples()] * 2)
    found = inputs.read(self.folder)["problems"]
    self.assertEqual([row["tree"] for row in found], [0, 1])

  def test_trees_of_turns_are_those_of_their_round(self):
    some = [workdirs.apples(f"p{i}") for i in range(4)]
    workdirs.write_round(self.folder, 1, some)
    expected = inputs.read(self.folder)
    folder = self.folder / "round_1" / "trees"
    for path in folder.iterdir():
      path.unlink()
    for turn in range(2):
      trees_of = [each.to_record() for each in some[2 * turn : 2 * turn + 2]]
      # What a policy wrote is left out.
      for record in trees_of:
        record["draws"] = [[0, 1, [5, 6], [-0.5, -0.25]]]
      records.write_shard(
        folder / f"turn-{turn:05d}" / "shard-00000-of-00001.jsonl.zst", trees_of
      )
    found = inputs.read(self.folder)
    self.assertLen(found["trees"], 4)
    for name in ("problems", "trees"):
      self.assertEqual(found[name], expected[name])

  def test_a_budget_of_bytes_is_kept_and_told(self):
    some = [workdirs.apples(f"p{i}") for i in range(7)]
    for number in (1, 2):
      workdirs.write_round(self.folder, number, some)
    size = max(map(len, inputs.read(self.folder)["trees"]))
    budget = forest.Budget(tree_bytes=6 * size)
    found = inputs.read(self.folder, budget)
    self.assertLessEqual(sum(map(len, found["trees"])), 6 * size)
    self.assertLen(found["problems"], 14)
    newest, oldest = found["sets"]
    self.assertEqual((newest["round"], oldest["round"]), (2, 1))
    # Half of it for the newest round, what is left for the other.
    self.assertEqual((newest["drawn"], oldest["drawn"]), (3, 3))
    drawn = [row["block"] >= 0 for row in found["problems"]]
    self.assertEqual(drawn, 2 * (3 * [True] + 4 * [False]))

  def test_a_budget_of_rows_is_kept_and_told(self):
    some = [workdirs.apples(f"p{i}") for i in range(7)]
    for number in (1, 2):
      workdirs.write_round(self.folder, number, some)
    found = inputs.read(self.folder, forest.Budget(rows=4))
    self.assertLen(found["problems"], 4)
    self.assertEqual([each["listed"] for each in found["sets"]], [2, 2])
    self.assertEqual([each["problems"] for each in found["sets"]], [7, 7])

  def test_shards_beyond_the_budget_are_counted_and_not_read(self):
    folder = self.folder / "round_1" / "trees"
    for index in range(2):
      records.write_shard(
        folder / records.shard_name(index, 2),
        [workdirs.apples(f"p{index}").to_record()],
      )
    found = inputs.read(self.folder, forest.Budget(rows=1))
    self.assertEqual(
      {name: found["sets"][0][name] for name in ("problems", "listed", "read")},
      {"problems": 2, "listed": 1, "read": 1},
    )

  @parameterized.parameters(
    # Of one round: what is made of a file of trees has its name.
    ("shard-00000-of-00003", ("sft/shard-00000", "pairs/shard-00000")),
    # Of several: which file a problem is in is looked up, once.
    ("shard-00006-of-00009", ()),
  )
  def test_training_data_is_read_file_by_file(self, first, once):
    tree = workdirs.apples()
    (row,), _ = trajectories.sft_rows([tree], ExtractConfig(sft_per_problem=1))
    pair, *_ = pairs.pairs([tree], ExtractConfig())[0]
    folder, number = self.folder / "round_1", int(first[6:11])
    for index in range(3):
      ids = {"problem_id": f"p{index}"}
      for name, place, each in (
        ("trees", index, workdirs.apples(f"p{index}").to_record()),
        ("sft", number + index, dataclasses.asdict(row) | ids),
        ("pairs", number + index, dataclasses.asdict(pair) | ids),
      ):
        total = 3 if name == "trees" else int(first[-5:])
        path = folder / name / records.shard_name(place, total)
        records.write_shard(path, [each])
    opened = []

    def each_row(path):
      opened.append(path)
      return records.each_row(path)

    with mock.patch.object(forest, "each_row", each_row):
      found = inputs.read(self.folder)
    self.assertLen(found["trees"], 3)
    for packed in found["trees"]:
      drawn = trees.decode(packed)
      self.assertNotEmpty(drawn["chosen"])
      self.assertNotEmpty(drawn["pairs"])
    # Two files for each of three: read as they are, or after a look at all.
    self.assertLen(opened, 6 if once else 12)

  def test_a_tree_that_is_not_drawn_is_not_built(self):
    record = workdirs.apples().to_record()
    # No tree: a parent that comes after its child.
    record["nodes"]["parent"][1] = 9
    name = records.shard_name(0, 1)
    path = self.folder / "round_1" / "trees" / name
    records.write_shard(path, [workdirs.apples().to_record(), record])
    with self.assertRaisesRegex(ValueError, "parents come first"):
      inputs.read(self.folder)
    found = inputs.read(self.folder, forest.Budget(tree_bytes=0))
    self.assertEqual([row["nodes"] for row in found["problems"]], [10, 10])
    self.assertEqual(found["trees"], [])


if __name__ == "__main__":
  absltest.main()
