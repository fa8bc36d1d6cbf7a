"""Batches of what a policy wrote against sums over the rows one by one."""

import collections
import hashlib
import math

import numpy as np
from absl.testing import absltest, parameterized

from rstar_jax import testing
from rstar_jax.data import advantages, experience
from rstar_jax.search import tree as tree_lib
from rstar_jax.search.tree import Child, Draw, Tree
from rstar_jax.steps import tokenizer as tokenizer_lib
from rstar_jax.types import Problem

TOKENIZER = testing.ByteTokenizer()


def likely(ids) -> float:
  """Returns a log-probability that depends on the ids up to a token alone."""
  digest = hashlib.sha256(bytes(ids)).digest()
  return -float(np.float32(digest[0] / 50))


def encoded(tree: Tree, node: int) -> list[int]:
  prompt = TOKENIZER.prompt(tree.problem.question)
  return tokenizer_lib.encode_solution(TOKENIZER, prompt, tree.prefix(node))


def written(tree: Tree, parent: int, node: int, ids) -> Draw:
  before = encoded(tree, parent)
  logprobs = [
    likely([i % 256 for i in (*before, *ids[: n + 1])]) for n in range(len(ids))
  ]
  return Draw(parent, node, tuple(ids), tuple(logprobs))


def random_tree(question: str, seed: int) -> Tree:
  """Returns a tree of steps "1" and "11", whose draws share ids."""
  rng = np.random.default_rng(seed)
  tree = Tree(Problem(f"p{seed}", question, "1"), keeps_draws=True)
  for node in range(5):
    if node >= len(tree) or tree.kind[node] == tree_lib.ANSWER:
      continue
    kinds = rng.permutation([tree_lib.STEP, tree_lib.ANSWER])
    nodes = tree.add_children(
      node,
      [
        Child(
          "1" * (1 + n),
          int(kind),
          reward=rng.choice([-1.0, 1.0]) if kind == 3 else math.nan,
        )
        for n, kind in enumerate(kinds)
      ],
    )
    for each in [*nodes, *rng.choice([*nodes, -1], 3)]:
      # 59 is "1"; the others are not what the tokenizer makes of any text here.
      ids = rng.choice([59, 7, 8], rng.integers(0, 4)).tolist()
      tree.draws.append(written(tree, node, int(each), ids))
  return tree


def sums(arrays):
  """Adds up the columns of each path of ids, over all places that have it."""
  found = collections.defaultdict(lambda: np.zeros(3))
  old = {}
  for row in range(len(arrays["tokens"])):
    for at in np.flatnonzero(arrays["ends"][row]):
      path = [at]
      while arrays["positions"][row, path[-1]]:
        path.append(arrays["parents"][row, path[-1]])
      ids = tuple(arrays["tokens"][row, path[::-1]].tolist())
      found[ids] += [
        arrays[name][row, at] for name in ("weights", "gain", "cost")
      ]
      if arrays["weights"][row, at]:
        old[ids] = float(arrays["old"][row, at])
  return found, old


class ExperienceTest(parameterized.TestCase):
  @parameterized.parameters(*experience.advantages.Kind.__args__)
  def test_each_token_has_the_sums_of_the_rows_one_by_one(self, kind):
    for seed in range(6):
      # Two trees of one question share its prompt, and more.
      trees = [random_tree(q, seed * 9 + n) for n, q in enumerate("aab")]
      for length in (68, 999):
        with self.subTest(f"{seed} {length}"):
          self.compare(trees, kind, length)

  def compare(self, trees, kind, length):
    arrays, counts = experience.batch(
      trees, TOKENIZER, kind, normalize=True, length=length
    )
    expected = collections.defaultdict(lambda: np.zeros(3))
    known = collections.Counter(equal=0, open=0, uneven=0, rows=0, too_long=0)
    for tree in trees:
      worth = advantages.of_tree(tree, kind, True)
      known["equal"] += not worth.any()
      if not worth.any():
        continue
      for draw, each in zip(tree.draws, worth, strict=True):
        known["open"] += math.isnan(each)
        if math.isnan(each) or not draw.token_ids:
          continue
        before = encoded(tree, draw.parent)
        row = [*before, *draw.token_ids]
        known["rows" if len(row) <= length else "too_long"] += 1
        if len(row) > length:
          continue
        for size in range(1, len(row) + 1):
          if size > len(before):
            expected[tuple(row[:size])] += [1, max(each, 0), min(each, 0)]
          else:
            # What was given is there, and counts for nothing.
            expected[tuple(row[:size])] += 0
    self.assertEqual(counts, known)
    found, old = sums(arrays)
    self.assertEqual(found.keys(), expected.keys())
    for ids, values in expected.items():
      np.testing.assert_allclose(found[ids], values, atol=1e-5)
      if values[0]:
        self.assertAlmostEqual(
          old[ids], likely([i % 256 for i in ids]), places=5
        )
    for name in experience.COLUMNS:
      self.assertTrue(np.isfinite(arrays[name]).all())
    self.assertLessEqual(arrays["tokens"].shape[1], length)

  def two(self, rewards=(1.0, -1.0), **changes) -> Tree:
    """Returns a tree with two answers, drawn as they are sampled."""
    tree = Tree(Problem("p", "q", "1"), keeps_draws=True)
    tree.add_children(
      0,
      [
        Child(f"{n}", tree_lib.ANSWER, reward=reward)
        for n, reward in enumerate(rewards)
      ],
    )
    draws = {"ids": ((9, 9), (9, 8)), "old": ((-1.0, -2.0), (-1.0, -3.0))}
    draws |= changes
    tree.draws = [
      Draw(0, 1 + n, ids, old)
      for n, (ids, old) in enumerate(
        zip(draws["ids"], draws["old"], strict=True)
      )
    ]
    return tree

  def batch(self, *trees, **changes):
    options = {"normalize": True, "length": 99} | changes
    return experience.batch(trees, TOKENIZER, "grpo", **options)

  def test_sampled_ids_are_trained_as_sampled(self):
    tree = self.two()
    self.assertNotEqual(TOKENIZER.encode(tree.texts[1]), [9, 9])
    arrays, _ = self.batch(tree)
    of_policy = arrays["weights"] > 0
    self.assertEqual(arrays["tokens"][of_policy].tolist(), [9, 8, 9])
    self.assertEqual(arrays["weights"][of_policy].tolist(), [2, 1, 1])
    self.assertEqual(arrays["gain"][of_policy].tolist(), [1, 0, 1])
    self.assertEqual(arrays["cost"][of_policy].tolist(), [-1, -1, 0])
    self.assertEqual(arrays["old"][of_policy].tolist(), [-1, -3, -2])
    prompt = TOKENIZER.encode(TOKENIZER.prompt("q"))
    given = (arrays["ends"] > 0) & ~of_policy
    self.assertEqual(arrays["tokens"][given].tolist(), prompt)

  def test_rows_that_disagree_are_counted_and_have_the_mean(self):
    for other, uneven in ((-1.001, 0), (-1.5, 1), (-1000.0, 1)):
      tree = self.two(old=((-1.0, -2.0), (other, -3.0)))
      arrays, counts = self.batch(tree)
      self.assertEqual(counts["uneven"], uneven)
      shared = arrays["weights"] == 2
      np.testing.assert_allclose(arrays["old"][shared], [(other - 1) / 2])

  def test_groups_of_equal_rewards_and_empty_solutions(self):
    equal, empty = self.two((-1.0, -1.0)), self.two(ids=((), ()), old=((), ()))
    nothing = self.two()
    nothing.draws = []
    arrays, counts = self.batch(equal, empty, nothing)
    self.assertEqual(counts["equal"], 2)
    self.assertEqual(counts["rows"], 0)
    self.assertEqual(arrays["tokens"].shape, (0, 99))
    half = self.two(ids=((9, 9), ()), old=((-1.0, -2.0), ()))
    arrays, counts = self.batch(half)
    self.assertEqual(counts["rows"], 1)
    self.assertEqual(arrays["gain"].sum(), 2)
    for name in experience.COLUMNS:
      self.assertTrue(np.isfinite(arrays[name]).all())


if __name__ == "__main__":
  absltest.main()
