"""Tests of what the report reads of a workdir."""

import dataclasses
import pathlib

from absl.testing import absltest, parameterized

from rstar_jax.io import records as records_lib
from rstar_jax.report import records, trees
from tests.report import workdirs


class ReadTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.folder = pathlib.Path(self.create_tempdir().full_path) / "run"
    self.folder.mkdir()

  def test_reads_a_run(self):
    found = records.read(workdirs.write(self.folder))
    self.assertEqual(found["name"], "run")
    self.assertLen(found["metrics"], 4)
    self.assertEqual([each["round"] for each in found["rounds"]], [0, 1])
    self.assertEqual(
      [(row["set"], row["round"], row["id"]) for row in found["problems"]],
      [
        ("test", 1, "pears"),
        ("test", 1, "figs"),
        ("training", 1, "apples"),
        ("training", 1, workdirs.hostile().problem.id),
        ("test", 0, "pears"),
      ],
    )
    self.assertEqual(
      [row["solved"] for row in found["problems"]],
      [True, False, True, False, False],
    )
    self.assertEqual(
      [row["block"] for row in found["problems"]], [0, -1, 1, 2, -1]
    )
    pears, _, apples, bad, _ = found["problems"]
    self.assertEqual(pears["samples"], [1, 3])
    self.assertEqual((pears["greedy"], pears["search"]), ("equal", "equal"))
    self.assertEqual((apples["right"], apples["answers"]), (1, 2))
    self.assertEqual((apples["suspect"], bad["suspect"]), (False, True))
    self.assertEqual(bad["question"], workdirs.HOSTILE)
    tree = trees.decode(found["trees"][1])
    self.assertEqual(tree["chosen"], [7])
    self.assertEqual(tree["pairs"], [["step", 1, 2, 0.5], ["final", 7, 9, 0.5]])
    test = trees.decode(found["trees"][0])
    self.assertEqual((test["chosen"], test["pairs"]), ([7], []))
    self.assertEqual([each["problems"] for each in found["sets"]], [2, 2, 1])
    self.assertEqual(found["sets"][0]["dropped"], {"duplicate": 2, "error": 1})

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
    records_lib.write_json(
      self.folder / "config.json", {"eval": {"answer_select": "majority"}}
    )
    found = records.read(self.folder)["problems"]
    self.assertEqual([row["solved"] for row in found], [False, True, False])

  def test_an_empty_folder_is_a_run_that_has_just_begun(self):
    found = records.read(self.folder)
    self.assertEqual(found["problems"], [])
    self.assertEqual(found["results"]["rows"], [])

  def test_no_folder(self):
    with self.assertRaisesRegex(ValueError, "is no folder"):
      records.read(self.folder / "nowhere")

  def test_what_is_being_written_is_read_as_far_as_it_goes(self):
    path = self.folder / "metrics.jsonl"
    path.write_text('{"step": 1, "a": NaN}\n{"step": 2}\n{"step": 3, "')
    self.assertEqual(
      list(records.rows(path)), [{"step": 1, "a": None}, {"step": 2}]
    )

  def test_the_list_shows_the_beginning_of_a_question(self):
    tree = workdirs.apples()
    problem = dataclasses.replace(tree.problem, question="x" * 999)
    tree.problem = problem
    workdirs.write_round(self.folder, 1, [tree])
    found = records.read(self.folder)
    self.assertEqual(found["problems"][0]["question"], "x" * 159 + "…")
    # The whole of it is with the tree.
    self.assertEqual(
      trees.decode(found["trees"][0])["question"], problem.question
    )

  def test_several_trees_of_a_problem(self):
    workdirs.write_round(self.folder, 1, [workdirs.apples()] * 2)
    found = records.read(self.folder)["problems"]
    self.assertEqual([row["tree"] for row in found], [0, 1])

  def test_a_budget_of_bytes_is_kept_and_told(self):
    some = [workdirs.apples(f"p{i}") for i in range(7)]
    for number in (1, 2):
      workdirs.write_round(self.folder, number, some)
    size = max(map(len, records.read(self.folder)["trees"]))
    budget = records.Budget(tree_bytes=6 * size)
    found = records.read(self.folder, budget)
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
    found = records.read(self.folder, records.Budget(rows=4))
    self.assertLen(found["problems"], 4)
    self.assertEqual([each["listed"] for each in found["sets"]], [2, 2])
    self.assertEqual([each["problems"] for each in found["sets"]], [7, 7])

  def test_shards_beyond_the_budget_are_counted_and_not_read(self):
    folder = self.folder / "round_1" / "trees"
    for index in range(2):
      records_lib.write_shard(
        folder / records_lib.shard_name(index, 2),
        [workdirs.apples(f"p{index}").to_record()],
      )
    found = records.read(self.folder, records.Budget(rows=1))
    self.assertEqual(
      {name: found["sets"][0][name] for name in ("problems", "listed", "read")},
      {"problems": 2, "listed": 1, "read": 1},
    )


if __name__ == "__main__":
  absltest.main()
