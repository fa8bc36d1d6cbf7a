"""MCTS: what a tree depends on, and what a search may be given."""

import json

import numpy as np
from absl.testing import absltest, parameterized

from rstar_jax import testing
from rstar_jax.search import mcts
from rstar_jax.search import tree as tree_lib
from rstar_jax.types import Problem
from tests.search.toys import PROBLEMS, calls_of, config_of, texts_of

OPTIONS = (
  {},
  {"annotation": "ppm"},
  {"corrective": 0.5},
  {"unseen_mass": 0.3, "portion": 2},
)


class IdentityTest(parameterized.TestCase):
  @parameterized.parameters(*OPTIONS)
  def test_trees_do_not_depend_on_how_many_are_in_flight(self, **options):
    texts = set()
    for in_flight in (1, 2, 3, 64):
      config = config_of(in_flight=in_flight, **options)
      trees = mcts.search(PROBLEMS, config, calls_of(), seed=9)
      texts.add("\n".join(texts_of(trees)))
    self.assertLen(texts, 1)

  def test_a_tree_does_not_depend_on_the_other_problems(self):
    together = mcts.search(PROBLEMS, config_of(), calls_of(), seed=9)
    alone = mcts.search(PROBLEMS[3:4], config_of(), calls_of(), seed=9)
    self.assertEqual(texts_of(alone), texts_of(together[3:4]))

  def test_seed_and_name_make_another_tree(self):
    texts = {
      tuple(texts_of(mcts.search(PROBLEMS, config_of(), calls_of(), **each)))
      for each in (
        {"seed": 1},
        {"seed": 2},
        {"seed": 1, "name": ("round", 1)},
        {"seed": 1, "name": ("round", 2)},
      )
    }
    self.assertLen(texts, 4)

  def test_the_seed_is_0_unless_given(self):
    one, other = (
      mcts.search(PROBLEMS, config_of(), calls_of(), **given)
      for given in ({}, {"seed": 0})
    )
    self.assertEqual(texts_of(one), texts_of(other))

  def test_no_seed_is_used_twice(self):
    seen = []

    def expand(questions, prefixes, seeds):
      self.assertEqual(seeds.dtype, np.uint32)
      seen.extend(seeds.ravel().tolist())
      return testing.ToySum()(questions, prefixes, seeds)

    mcts.search(PROBLEMS, config_of(), calls_of(expand), seed=3)
    self.assertLen(set(seen), len(seen))

  @parameterized.parameters(*OPTIONS)
  def test_continued_trees_are_those_of_a_longer_search(self, **options):
    policy = testing.ToySum(("x += 1", "x += 2", "x += nope"), levels=3)
    config = config_of(rollouts=13, **options)
    straight = mcts.search(PROBLEMS, config, calls_of(policy), seed=4)
    trees = mcts.search(PROBLEMS, config, calls_of(policy), seed=4, rollouts=5)
    trees = [tree_lib.from_record(json.loads(text)) for text in texts_of(trees)]
    again = mcts.search(
      PROBLEMS, config, calls_of(policy), seed=4, trees=trees, rollouts=8
    )
    self.assertEqual(texts_of(again), texts_of(straight))
    self.assertTrue(all(x is y for x, y in zip(again, trees, strict=True)))


class SearchTest(absltest.TestCase):
  def test_progress_counts_every_tree_once(self):
    done = []
    mcts.search(PROBLEMS, config_of(), calls_of(), progress=done.append)
    self.assertEqual(done, [1] * len(PROBLEMS))

  def test_nothing_to_do(self):
    self.assertEqual(mcts.search([], config_of(), calls_of(), seed=0), [])
    (tree,) = mcts.search(
      PROBLEMS[:1], config_of(), calls_of(), seed=0, rollouts=0
    )
    self.assertLen(tree, 1)

  def test_bad_arguments(self):
    no_gold = [Problem("p", "q")]
    with self.assertRaisesRegex(ValueError, "problem p has no gold answer"):
      mcts.search(no_gold, config_of(), calls_of(), seed=0)
    with self.assertRaisesRegex(ValueError, "'p3' comes twice"):
      twice = [*PROBLEMS[:3], PROBLEMS[1]]
      mcts.search(twice, config_of(), calls_of(), seed=0)
    for field in ("annotation", "terminal_reward"):
      with self.assertRaisesRegex(ValueError, f"{field}='ppm' needs"):
        mcts.search(
          PROBLEMS, config_of(**{field: "ppm"}), calls_of(score=None), seed=0
        )
    with self.assertRaisesRegex(ValueError, "must be problems"):
      mcts.search(
        PROBLEMS[:1],
        config_of(),
        calls_of(),
        seed=0,
        trees=[tree_lib.Tree(PROBLEMS[1])],
      )


if __name__ == "__main__":
  absltest.main()
