"""The same tree in mctx: its backward pass and descents agree with ours."""

import math

import jax
import jax.numpy as jnp
import mctx
import numpy as np
from absl.testing import absltest, parameterized
from mctx._src import action_selection as mctx_select
from mctx._src import search as mctx_search

from rstar_jax.config.schema import SearchConfig
from rstar_jax.search import selection
from rstar_jax.search.tree import STEP, Child, Tree
from rstar_jax.types import Problem

BRANCHES = 3


def random_tree(seed: int, expansions: int) -> Tree:
  """A tree without texts, with `BRANCHES` children at each inner node."""
  tree = Tree(Problem("p", "q", "1"))
  draws = np.random.default_rng(seed)
  for _ in range(expansions):
    leaves = np.flatnonzero(tree.num_children == 0)
    tree.add_children(int(draws.choice(leaves)), [Child("", STEP)] * BRANCHES)
  return tree


def to_mctx(tree: Tree) -> mctx.Tree:
  """Copies a tree: node for node, reward 0 and discount 1 on all edges."""
  size = len(tree)
  index = np.full((size, BRANCHES), mctx.Tree.UNVISITED, np.int32)
  action = np.full(size, mctx.Tree.NO_PARENT, np.int32)
  for node in range(size):
    for branch, child in enumerate(tree.children(node)):
      index[node, branch], action[child] = child, branch
  visits = tree.visits.astype(np.int32)
  means = tree.value_sum / np.maximum(visits, 1)

  def at_children(values):
    return jnp.asarray(np.where(index >= 0, values[index], 0))[None]

  return mctx.Tree(
    node_visits=jnp.asarray(visits)[None],
    raw_values=jnp.zeros((1, size)),
    node_values=jnp.asarray(means)[None],
    parents=jnp.asarray(tree.parent)[None],
    action_from_parent=jnp.asarray(action)[None],
    children_index=jnp.asarray(index)[None],
    children_prior_logits=at_children(tree.logprob),
    children_values=at_children(means),
    children_visits=at_children(visits),
    children_rewards=jnp.zeros((1, size, BRANCHES)),
    children_discounts=jnp.ones((1, size, BRANCHES)),
    embeddings=jnp.zeros((1, size)),
    root_invalid_actions=jnp.zeros((1, BRANCHES)),
    extra_data=None,
  )


def uct_action(c: float, unvisited: float):
  """Paper Eq. 1 as an mctx action selection."""

  def select(key, tree, node, depth):
    del key, depth
    visits = tree.children_visits[node]
    bonus = c * jnp.sqrt(
      jnp.log(jnp.maximum(tree.node_visits[node], 1)) / jnp.maximum(visits, 1)
    )
    scores = tree.qvalues(node) + bonus
    return jnp.argmax(jnp.where(visits > 0, scores, unvisited)).astype(
      jnp.int32
    )

  return select


class MctxTest(parameterized.TestCase):
  @parameterized.product(seed=(0, 1), unvisited=("zero", "inf"))
  def test_backward_and_simulate_agree(self, seed, unvisited):
    with jax.enable_x64(True):
      tree = random_tree(seed, expansions=7)
      other = to_mctx(tree)
      config = SearchConfig(c=math.sqrt(2), uct_unvisited=unvisited)
      first = {"zero": 0.0, "inf": math.inf}[unvisited]
      select = jax.jit(
        lambda t: mctx_search.simulate(
          jax.random.key(0)[None], t, uct_action(config.c, first), 99
        )
      )
      backward = jax.jit(mctx_search.backward)
      draws = np.random.default_rng(seed + 100)
      for _ in range(23):
        leaf = selection.select_leaf(tree, config)
        parent, action = select(other)
        # mctx stops at an edge without a node: the edge below our leaf.
        self.assertEqual(int(parent[0]), leaf)
        value = float(draws.uniform(-1, 1))
        # mctx wants the leaf's own statistics updated before `backward`.
        count = int(tree.visits[leaf])
        mean = (tree.value_sum[leaf] + value) / (count + 1)
        selection.backup(tree, leaf, value)
        other = other.replace(
          node_visits=other.node_visits.at[0, leaf].set(count + 1),
          node_values=other.node_values.at[0, leaf].set(value),
        )
        other = backward(other, jnp.array([leaf]))
        up = int(tree.parent[leaf]), int(other.action_from_parent[0, leaf])
        other = other.replace(
          node_values=other.node_values.at[0, leaf].set(mean),
          children_values=other.children_values.at[0, *up].set(mean),
        )
        np.testing.assert_array_equal(other.node_visits[0], tree.visits)
        np.testing.assert_allclose(
          other.node_values[0],
          tree.value_sum / np.maximum(tree.visits, 1),
          atol=1e-12,
        )

  @parameterized.parameters(0.5, 2.0, 9.0)
  def test_puct_agrees(self, c):
    config = SearchConfig(selection="puct", c=c)
    draws = np.random.default_rng(0)
    agree = jax.jit(
      lambda tree: mctx_select.muzero_action_selection(
        *(jax.random.key(0), jax.tree.map(lambda each: each[0], tree), 0, 0),
        pb_c_init=c,
        # mctx's c grows by ln((visits + base + 1) / base), which is 0 here.
        pb_c_base=1e18,
        qtransform=lambda tree, node: tree.qvalues(node),
      )
    )
    with jax.enable_x64(True):
      chosen = set()
      for _ in range(40):
        tree = random_tree(0, expansions=1)
        tree.visits[1:] = draws.integers(1, 9, BRANCHES)
        tree.value_sum[1:] = tree.visits[1:] * draws.uniform(-1, 1, BRANCHES)
        tree.logprob[1:] = draws.normal(-3, 1, BRANCHES)
        tree.visits[0] = tree.visits[1:].sum()
        expected = 1 + int(agree(to_mctx(tree)))
        self.assertEqual(selection.select_leaf(tree, config), expected)
        chosen.add(expected)
      self.assertLen(chosen, BRANCHES)


if __name__ == "__main__":
  absltest.main()
