"""Advantages against sums over listed ends, and one tree by hand."""

import math

import numpy as np
from absl.testing import absltest, parameterized

from rstar_jax.data import advantages
from rstar_jax.search import driver, sampled_tree
from rstar_jax.search import tree as tree_lib
from rstar_jax.search.tree import Child, Draw, Tree
from rstar_jax.types import Problem
from tests.search import toys
from tests.search.sampled_tree_test import Policy

KINDS = ("grpo", "siblings", "treerl", "treepo")


def by_hand() -> Tree:
  """Two steps; below the first a right and a wrong answer, and a dropped one.

  root - 1 - 3 (1.0), 4 (-1.0), dropped
       - 2 - 5 (1.0), drawn twice
       - dropped
  """
  tree = Tree(Problem("p", "q", "1"), keeps_draws=True)
  tree.add_children(0, [Child("a", tree_lib.STEP), Child("b", tree_lib.STEP)])
  right, wrong = (
    Child(str(value), tree_lib.ANSWER, reward=value) for value in (1.0, -1.0)
  )
  tree.add_children(1, [right, wrong])
  tree.add_children(2, [right])
  places = [(0, 1), (0, 2), (0, -1), (1, 3), (1, 4), (1, -1), (2, 5), (2, 5)]
  tree.draws = [Draw(parent, node, (1,), (-1.0,)) for parent, node in places]
  return tree


def random_tree(seed: int) -> Tree:
  """Returns a tree with open leaves, dropped draws and draws of one node."""
  rng = np.random.default_rng(seed)
  tree = Tree(Problem("p", "q", "1"), keeps_draws=True)
  for node in range(9):
    if node >= len(tree) or tree.kind[node] == tree_lib.ANSWER:
      continue
    kinds = rng.choice([tree_lib.STEP, tree_lib.ANSWER], rng.integers(1, 4))
    rewards = [rng.choice([-1.0, 0.5, 1.0]) for _ in kinds]
    nodes = tree.add_children(
      node,
      [
        Child(
          f"{i}",
          int(kind),
          reward=reward if kind == tree_lib.ANSWER else math.nan,
        )
        for i, (kind, reward) in enumerate(zip(kinds, rewards, strict=True))
      ],
    )
    drawn = [*nodes, *rng.choice([*nodes, -1], rng.integers(0, 4))]
    tree.draws += [Draw(node, int(each), (1,), (-1.0,)) for each in drawn]
  return tree


def brute_force(tree: Tree, kind: str, normalize: bool) -> list[float]:
  """Lists the ends below each node, by walking up from each of them."""
  below = [[] for _ in range(len(tree))]
  rewards = []
  for draw in tree.draws:
    if draw.node < 0:
      reward, node = -1.0, draw.parent
    elif tree.answers[draw.node] is None and tree.kind[draw.node] != 3:
      continue
    else:
      reward, node = tree.reward[draw.node], draw.node
    rewards.append(reward)
    for each in tree.path(node):
      below[each].append(reward)
  if len(set(rewards)) < 2:
    return [0.0] * len(tree.draws)
  scale = np.std(rewards) if normalize else 1.0
  found = []
  for draw in tree.draws:
    own = [-1.0] if draw.node < 0 else below[draw.node]
    if not own:
      found.append(math.nan)
      continue
    value, parent = np.mean(own), np.mean(below[draw.parent])
    root = np.mean(below[0])
    if kind == "grpo":
      worth = value - root
    elif kind == "siblings":
      worth = value - parent
    elif kind == "treerl":
      # In the paper each of the ends below has a row with the step, divided by
      # the root of their number. Those of equal draws are shared among them.
      equal = [each for each in tree.draws if each.node == draw.node]
      rows = len(own) / (len(equal) if draw.node >= 0 else 1)
      worth = rows * ((value - root) + (value - parent)) / math.sqrt(rows)
    else:
      path = tree.path(draw.parent)
      worth = np.mean([value - np.mean(below[each]) for each in path])
    found.append(worth / scale)
  return found


class AdvantagesTest(parameterized.TestCase):
  def test_by_hand(self):
    # Ends: below 1 the rewards 1, -1, -1; below 2 twice 1; and one -1.
    root, one, two = 0.0, -1 / 3, 1.0
    self.assertEqual(root, (1 - 1 - 1 + 1 + 1 - 1) / 6)
    expected = {
      "grpo": [one, two, -1, 1, -1, -1, 1, 1],
      "siblings": [one, two, -1, 1 - one, -1 - one, -1 - one, 0, 0],
      "treerl": [
        2 * one * math.sqrt(3),
        2 * two * math.sqrt(2),
        -2,
        1 + 1 - one,
        -1 + -1 - one,
        -1 + -1 - one,
        1,
        1,
      ],
      "treepo": [
        *(one, two, -1),
        *(1 - one / 2, -1 - one / 2, -1 - one / 2),
        *(1 / 2, 1 / 2),
      ],
    }
    for kind, values in expected.items():
      with self.subTest(kind):
        # The deviation of the six rewards is 1.
        for normalize in (True, False):
          np.testing.assert_allclose(
            advantages.of_tree(by_hand(), kind, normalize), values
          )

  @parameterized.product(kind=KINDS, normalize=(True, False))
  def test_by_listing_all_ends(self, kind, normalize):
    zeros = unknown = 0
    for seed in range(60):
      tree = random_tree(seed)
      found = advantages.of_tree(tree, kind, normalize)
      expected = brute_force(tree, kind, normalize)
      np.testing.assert_allclose(found, expected, atol=1e-12)
      zeros += not np.any(found)
      unknown += int(np.isnan(found).sum())
    self.assertGreater(zeros, 0)
    self.assertGreater(unknown, 0)

  def test_of_samples_it_is_that_of_their_group(self):
    calls = toys.calls_of(Policy(), score=None)
    tree = Tree(Problem("p", "make 4", "4"), keeps_draws=True)
    search = sampled_tree.sample_tree(tree, 40, 5)
    driver.run_searches([search], calls, 1)
    rewards = [
      -1.0 if end == tree_lib.NO_END else float(tree.reward[end])
      for _, _, end in tree.growth
    ]
    expected = (rewards - np.mean(rewards)) / np.std(rewards)
    found = advantages.of_tree(tree, "grpo")
    # What a sample wrote is one draw, or two that follow each other.
    at = 0
    for worth in expected:
      count = 2 if tree.draws[at].node != tree_lib.NO_NODE else 1
      np.testing.assert_allclose(found[at : at + count], worth)
      at += count
    self.assertEqual(at, len(tree.draws))

  @parameterized.parameters(*KINDS)
  def test_equal_rewards_teach_nothing(self, kind):
    tree = by_hand()
    tree.reward[3:] = -1.0
    found = advantages.of_tree(tree, kind)
    self.assertEqual(found.tolist(), [0.0] * 8)
    tree.draws = []
    self.assertEmpty(advantages.of_tree(tree, kind))

  def test_what_cannot_be(self):
    tree = by_hand()
    with self.assertRaisesRegex(ValueError, "no advantage is called 'best'"):
      advantages.of_tree(tree, "best")
    tree.draws = None
    with self.assertRaisesRegex(ValueError, "tree of p has no draws"):
      advantages.of_tree(tree, "grpo")


if __name__ == "__main__":
  absltest.main()
