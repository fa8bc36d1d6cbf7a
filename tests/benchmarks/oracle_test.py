"""Reads a run's trees, and says who picks right and why a search failed."""

import contextlib
import io
import json
import pathlib

from absl.testing import absltest, flagsaver

import rstar_jax as rj
from benchmarks import oracle, scripted
from rstar_jax.config import identity
from rstar_jax.data.synthetic import generator
from rstar_jax.search import mcts
from rstar_jax.search.tree import Tree
from rstar_jax.storage import layout, records


def searched(index: int, flip: float) -> Tree:
  """Returns the tree of a scripted search."""
  solved = generator.generate("test", index)
  checker = scripted.Checker(solved)
  world = scripted.World(
    scripted.Policy(solved, 0.4, len),
    checker,
    scripted.Ppm(checker, flip, scripted.Chances(index)),
  )
  config = rj.Config().eval.search
  config.rollouts, config.candidates = 2, 4
  return world.run(mcts.search_tree(Tree(solved.problem), config))


class MainTest(absltest.TestCase):
  def test_of_a_workdir(self):
    root = pathlib.Path(self.create_tempdir().full_path)
    config = json.dumps(identity.to_json(rj.Config()))
    (root / layout.CONFIG).write_text(config)
    trees = [searched(index, 0.0) for index in range(8)]
    wrong = [searched(index, 1.0) for index in range(8)]
    for folder, name, found in (
      ("round_1/trees", "", trees),
      ("round_2/eval/synthetic_test", layout.TREES_OF, wrong),
    ):
      path = root / folder / f"{name}{records.shard_name(0, 1)}"
      records.write_shard(path, (each.to_record() for each in found))
    printed = io.StringIO()
    with flagsaver.flagsaver(workdir=str(root)):
      with contextlib.redirect_stdout(printed):
        oracle.main([])
    lines = [json.loads(each) for each in printed.getvalue().splitlines()]
    by_name = {(each["trees"], each.get("of")): each for each in lines}
    right = by_name["round_1/trees", "all"]
    self.assertEqual(right["ppm"], [1.0, 1.0, 1.0])
    self.assertEqual(right["pairs"], [1.0, 1.0, 1.0])
    self.assertEqual(right["across"], [1.0, 1.0, 1.0])
    name = "round_2/eval/synthetic_test"
    self.assertEqual(by_name[name, "all"]["ppm"][0], 0.0)
    self.assertEqual(by_name[name, "all"]["across"][0], 0.0)
    self.assertGreater(by_name[name, "all"]["policy"][0], 0.5)
    failures = by_name[name, None]
    self.assertEqual(failures["n"], 8)
    self.assertLess(failures.get("right", 0), 4)
    self.assertGreater(failures["search"], 0)
    parts = {each["of"] for each in lines if each["trees"] == "round_1/trees"}
    self.assertContainsSubset(
      {"depth 1", "level 2", "families seen", "families unseen"}, parts
    )
    total = sum(
      each["decisions"]
      for each in lines
      if each["trees"] == name and "families" in each.get("of", "")
    )
    self.assertEqual(total, by_name[name, "all"]["decisions"])


if __name__ == "__main__":
  absltest.main()
