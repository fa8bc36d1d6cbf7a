"""What the report says of evaluations on generated problems."""

import dataclasses
import pathlib

from absl.testing import absltest

from rstar_jax.data.synthetic import oracle
from rstar_jax.report import judged
from rstar_jax.search.tree import RIGHT, WRONG
from tests.report import workdirs

SPLIT = "synthetic:test"


class DecisionsTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    self.folder = pathlib.Path(self.create_tempdir().full_path)

  def write(self, trees, split=SPLIT):
    rows = [
      workdirs.record(each.problem.id, "mcts", "equal", split=split)
      for each in trees
    ]
    workdirs.write_round(self.folder, 1, tests=trees, rows=rows)

  def read(self, **evaluation):
    return judged.of_round(self.folder / "round_1", evaluation)

  def test_rates_and_failures_by_hand(self):
    trees = [workdirs.generated(i, right=i < 3) for i in range(4)]
    for tree in trees:
      self.assertEqual(oracle.labels(tree)[1:3].tolist(), [RIGHT, WRONG])
    self.write(trees)
    (found,) = self.read()
    self.assertEqual(found["split"], SPLIT)
    self.assertEqual((found["n"], found["decisions"]), (4, 4))
    self.assertEqual(found["chance"], [0.5, 0.5, 0.5])
    self.assertEqual(found["policy"], [1.0, 1.0, 1.0])
    self.assertEqual((found["ppm"][0], found["pairs"][0]), (0.75, 0.75))
    # The right step of the last one waits, and its answer is wrong.
    self.assertEqual(found["failures"], {"right": 3, "search": 1})
    levels = [each.problem.level for each in trees]
    self.assertEqual(
      [(each["level"], each["n"]) for each in found["levels"]],
      [(level, levels.count(level)) for level in sorted(set(levels))],
    )

  def test_the_answer_is_chosen_as_the_config_says(self):
    tree = workdirs.generated(0, right=True)
    # A wrong answer of higher value, twice as often.
    wrong = [
      dataclasses.replace(workdirs.answer(text, False), ppm=value)
      for text, value in (("7777", 0.95), ("7777 ", 0.1))
    ]
    tree.add_children(2, wrong)
    self.write([tree])
    for evaluation, expected in (
      ({}, "choice"),
      # The least value on their path is that of the wrong step.
      ({"search": {"trajectory_value": "min"}}, "right"),
      ({"answer_select": "majority"}, "choice"),
      ({"answer_select": "top_k", "top_k": 1}, "choice"),
    ):
      (found,) = self.read(**evaluation)
      self.assertEqual(found["failures"], {expected: 1}, evaluation)

  def test_only_problems_of_the_generator(self):
    self.write([workdirs.apples()], workdirs.SPLIT)
    self.assertEqual(self.read(), [])
    tree = workdirs.generated(0, right=True)
    changed = dataclasses.replace(tree.problem, question="Another version's?")
    tree.problem = changed
    self.write([tree])
    self.assertEqual(self.read(), [])

  def test_a_run_that_was_killed_before_the_records_of_its_trees(self):
    self.write([workdirs.generated(0, right=True)])
    (path,) = self.folder.glob("round_1/eval/*/shard-*")
    path.unlink()
    self.assertEqual(self.read(), [])

  def test_no_evaluation(self):
    self.assertEqual(self.read(), [])


if __name__ == "__main__":
  absltest.main()
