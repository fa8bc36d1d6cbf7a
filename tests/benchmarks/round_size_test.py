"""The made-up trees have the shape that they are said to have."""

from absl.testing import absltest

from benchmarks import round_size
from rstar_jax.search import tree as tree_lib


class RoundSizeTest(absltest.TestCase):
  def test_a_tree_is_one_of_the_paper_s_shape(self):
    tree = round_size.make_tree(3)
    self.assertEqual(tree.rollouts, 16)
    self.assertEqual(set(tree.num_children.tolist()), {0, 8})
    self.assertBetween(len(tree), 400, 2000)
    self.assertLessEqual(tree.depth.max(), 16)
    verdicts = tree.correct[tree.terminal == tree_lib.ANSWERED].tolist()
    self.assertEqual(set(verdicts), {tree_lib.RIGHT, tree_lib.WRONG})
    self.assertEqual(tree.to_json(), round_size.make_tree(3).to_json())
    # A record is read again as the tree that was written.
    again = tree_lib.from_record(tree.to_record())
    self.assertEqual(again.to_json(), tree.to_json())


if __name__ == "__main__":
  absltest.main()
