"""Reads a run's trees, and says who picks right and why a search failed."""

import contextlib
import io
import json
import math
import pathlib

import numpy as np
from absl.testing import absltest, flagsaver

import rstar_jax as rj
from benchmarks import oracle, scripted
from rstar_jax.config import identity
from rstar_jax.data.synthetic import generator
from rstar_jax.data.synthetic.oracle import labels as labels_of
from rstar_jax.search import mcts
from rstar_jax.search.tree import RIGHT, WRONG, Tree
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
    by_name = {
      (each["trees"], each.get("of", each["line"])): each for each in lines
    }
    right = by_name["round_1/trees", "all"]
    self.assertEqual(right["ppm"], [1.0, 1.0, 1.0])
    self.assertEqual(right["pairs"], [1.0, 1.0, 1.0])
    self.assertEqual(right["across"], [1.0, 1.0, 1.0])
    name = "round_2/eval/synthetic_test"
    self.assertEqual(by_name[name, "all"]["ppm"][0], 0.0)
    self.assertEqual(by_name[name, "all"]["across"][0], 0.0)
    self.assertGreater(by_name[name, "all"]["policy"][0], 0.5)
    failures = by_name[name, "failures"]
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


class MistakesTest(absltest.TestCase):
  def test_a_perfect_ppm_makes_none_and_its_opposite_makes_all(self):
    for flip, rate in ((0.0, 0.0), (1.0, 1.0)):
      trees = [searched(index, flip) for index in range(6)]
      labels = [labels_of(tree) for tree in trees]
      found = oracle.mistakes(list(zip(trees, labels, strict=True)))
      every = np.concatenate([each[1:] for each in labels])
      self.assertEqual(found["right"], (rate, int((every == RIGHT).sum())))
      self.assertEqual(found["wrong"][0], rate)
      # What comes after a wrong step is wrong, whatever was thought of it.
      numbers = [found[name][1] for name in ("wrong", "missed", "noticed")]
      self.assertEqual(sum(numbers), int((every == WRONG).sum()))
      self.assertEqual(numbers[1] > 0, flip == 1.0)
      self.assertTrue(math.isnan(found["noticed" if flip else "missed"][0]))

  def test_whether_a_mistake_stays(self):
    tree = searched(1, 1.0)
    labels = labels_of(tree)
    # Of a PPM that never errs, with one mistake and one in what follows.
    tree.ppm[1:] = np.where(labels[1:] == RIGHT, 0.9, -0.9)
    first = next(
      node
      for node in range(1, len(tree))
      if labels[node] == WRONG
      and labels[tree.parent[node]] == RIGHT
      and tree.num_children[node]
    )
    tree.ppm[first] = tree.ppm[tree.span(first).start] = 0.9
    others = [searched(index, 0.0) for index in range(4)]
    both = [(tree, labels), *((each, labels_of(each)) for each in others)]
    found = oracle.mistakes(both)
    self.assertEqual(round(found["wrong"][0] * found["wrong"][1]), 1)
    below = [n for n in range(1, len(tree)) if first in tree.path(n)[:-1]]
    self.assertEqual(found["missed"], (1 / len(below), len(below)))
    self.assertEqual((found["right"][0], found["noticed"][0]), (0.0, 0.0))


if __name__ == "__main__":
  absltest.main()
