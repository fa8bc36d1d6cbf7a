"""Problems of several folders, against trees that are pooled in memory."""

import pathlib
import random

from absl.testing import absltest, parameterized

from rstar_jax.data import outcomes, pools, trajectories
from rstar_jax.search.tree import Tree
from rstar_jax.storage import records
from rstar_jax.types import Problem


def tree(name: str, tokens: int) -> Tree:
  made = Tree(Problem(name, f"what is {name}?"))
  made.tokens = tokens
  return made


class PoolsTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.folder = pathlib.Path(self.create_tempdir().full_path)
    self.trees: list[Tree] = []

  def write(self, name: str, ids, size: int, each: int) -> pathlib.Path:
    """Writes a folder of files of so many problems, with so many trees each."""
    groups = []
    for problem in ids:
      groups.append([])
      for _ in range(each):
        self.trees.append(tree(problem, len(self.trees)))
        groups[-1].append(self.trees[-1])
    files = [groups[at : at + size] for at in range(0, len(groups), size)]
    for number, file in enumerate(files):
      rows = [t.to_record() for group in file for t in group]
      records.write_shard(
        self.folder / name / records.shard_name(number, len(files)),
        rows,
        outcomes.header_of(rows),
      )
    return self.folder / name

  def check(self, folders) -> list[pools.Part]:
    parts = pools.parts(folders)
    found = [trees for part in parts for trees in pools.problems(part)]
    self.assertEqual(
      [[t.to_json() for t in trees] for trees in found],
      [
        [t.to_json() for t in trees]
        for trees in trajectories.by_problem(self.trees)
      ],
    )
    of_trees = {
      trees[0].problem.id: sum(t.tokens for t in trees) for trees in found
    }
    self.assertEqual(
      {o.problem_id: o.tokens for o in pools.outcomes_of(folders)}, of_trees
    )
    return parts

  def test_one_folder(self):
    folder = self.write("a", "abcdefg", 3, 2)
    parts = self.check([folder])
    self.assertLen(parts, 3)
    self.assertEqual({part.others for part in parts}, {()})

  def test_a_later_round_left_some_problems_out(self):
    first = self.write("b", "abcdefg", 3, 1)
    second = self.write("a", "adfg", 2, 2)
    parts = self.check([first, second])
    files = [[each.name[6:11] for each in part.others] for part in parts]
    self.assertEqual(files, [["00000"], ["00000", "00001"], ["00001"], [], []])

  def test_turns_take_any_problems(self):
    source = random.Random(0)
    for _ in range(5):
      self.trees = []
      top = self.folder / f"trees-{source.random()}"
      for turn in range(4):
        ids = source.sample("abcdefghijk", 5)
        self.write(f"{top.name}/turn-{turn:05d}", ids, 2, 1)
      self.check([top])

  def test_nothing(self):
    self.assertEmpty(pools.parts([]))
    self.assertEmpty(list(pools.outcomes_of([])))


if __name__ == "__main__":
  absltest.main()
