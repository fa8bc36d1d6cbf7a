"""Tests of how a tree is packed for the page."""

import numpy as np
from absl.testing import absltest, parameterized

from rstar_jax import outside, testing
from rstar_jax.report import trees
from rstar_jax.search import ab_mcts, beam, driver, mcts
from rstar_jax.search import tree as tree_lib
from rstar_jax.search.tree import Tree
from tests.report import workdirs
from tests.search.toys import PROBLEMS, calls_of, config_of


class CompactTest(parameterized.TestCase):
  def test_columns_are_those_of_the_tree(self):
    tree = workdirs.apples()
    packed = trees.compact(tree, [7], [["step", 1, 2, 0.5]])
    self.assertEqual(packed["parent"], [-1, 0, 0, 0, 0, 1, 1, 5, 2, 8])
    self.assertEqual(packed["kind"], [0, 1, 1, 1, 1, 2, 1, 3, 2, 3])
    self.assertEqual(packed["visits"], [3, 2, 1, 0, 0, 2, 0, 2, 1, 1])
    # 1 / 3 at the root, what is not visited at the PPM's value or 0.
    self.assertEqual(packed["q"], [0.333, 1, -1, 0, 0, 1, 0, 1, -1, -1])
    self.assertEqual(packed["ppm"][:4], [None, 0.5, -0.5, None])
    self.assertEqual(packed["logprob"][:2], [0, -0.25])
    self.assertEqual(packed["answer"], {"7": "14", "9": "15"})
    self.assertEqual(packed["correct"][7:], [1, -1, 0])
    self.assertEqual(packed["tried"], [1, 1, 1, 0, 0, 1, 0, 1, 1, 1])
    self.assertEqual(packed["growth"], [[40, 8, 7], [61, 10, 9], [61, 10, 7]])
    self.assertEqual(packed["dropped"], {"duplicate": 2, "error": 1})
    self.assertEqual(packed["chosen"], [7])
    self.assertEqual(packed["pairs"], [["step", 1, 2, 0.5]])
    self.assertEqual(packed["text"], tree.texts)
    self.assertEqual((packed["gold"], packed["level"]), ("14", 2))
    self.assertEqual(packed["tests"], "")
    packed = trees.compact(workdirs.hostile())
    self.assertEqual(packed["tests"], outside.valid(workdirs.HOSTILE))

  @parameterized.product(
    annotation=["terminal", "ppm"], ppm_counts_visit=[False, True]
  )
  def test_what_the_ppm_gave_before_any_rollout(self, **options):
    config = config_of(rollouts=9, **options)
    for tree in mcts.search(PROBLEMS, config, calls_of(), seed=2):
      packed = trees.compact(tree)
      steps = (tree.terminal != tree_lib.ANSWERED) & ~np.isnan(tree.ppm)
      steps &= config.annotation == "ppm" and config.ppm_counts_visit
      self.assertEqual(packed["own_visits"], steps.astype(int).tolist())
      np.testing.assert_allclose(
        packed["own_sum"], np.where(steps, tree.ppm, 0), atol=5e-4
      )
      self.assertEqual(
        np.flatnonzero(packed["tried"]).tolist(),
        sorted({each for *_, end in tree.growth for each in tree.path(end)}),
      )

  def test_other_searches_count_no_visit_of_the_ppm(self):
    config = config_of(annotation="ppm")
    for tree in beam.beam_search(PROBLEMS, 2, config, calls_of(), seed=0):
      packed = trees.compact(tree)
      self.assertFalse(any(packed["own_visits"]) or any(packed["own_sum"]))

  def test_the_root_of_a_new_tree_is_tried(self):
    self.assertEqual(trees.tried(Tree(PROBLEMS[0])).tolist(), [True])

  def test_failed_rollouts_that_are_backed_up(self):
    broken = testing.ToySum(("x += 1", "x += nope"), levels=2)
    failed = 0
    searches = [
      ab_mcts.search_tree(Tree(each), config_of(rollouts=30))
      for each in PROBLEMS
    ]
    for tree in driver.run_searches(searches, calls_of(broken), 5):
      packed = trees.compact(tree)
      failed += tree.failed_rollouts
      self.assertEqual(packed["own_visits"][0], tree.failed_rollouts)
      self.assertEqual(packed["own_sum"][0], -tree.failed_rollouts)
    self.assertGreater(failed, 0)

  def test_packed_and_back(self):
    for tree in (workdirs.apples(), workdirs.hostile()):
      packed = trees.compact(tree)
      text = trees.encode(packed)
      self.assertEqual(trees.decode(text), packed)
      self.assertRegex(text, r"^[A-Za-z0-9+/]+=*$")
      self.assertEqual(text, trees.encode(packed))


class ChosenTest(absltest.TestCase):
  def test_training_rows_and_pairs_find_their_nodes(self):
    tree = workdirs.apples()
    nodes = trees.by_prefix(tree)
    texts = tree.texts
    first = [texts[1], texts[5], texts[7]]
    rows = [{"steps": first}, {"steps": [texts[1], "no node"]}]
    self.assertEqual(trees.taken(nodes, rows), [7])
    pair = {"kind": "final", "weight": 1 / 3, "chosen": first}
    self.assertEqual(
      trees.pairs_within(
        nodes,
        [
          {**pair, "rejected": [texts[2], texts[8], texts[9]]},
          {**pair, "rejected": ["elsewhere"]},
        ],
      ),
      [["final", 7, 9, 0.333]],
    )

  def test_large_tree_has_its_size(self):
    tree = workdirs.large()
    packed = trees.compact(tree)
    self.assertLen(packed["parent"], 5000)
    self.assertTrue(np.all(np.array(packed["parent"]) < np.arange(5000)))
    self.assertLess(sum(packed["tried"]), 2500)


if __name__ == "__main__":
  absltest.main()
