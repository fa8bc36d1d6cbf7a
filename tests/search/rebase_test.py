"""REBASE: budgets by hand, and against a search on texts alone."""

import math
import random

import numpy as np
from absl.testing import absltest, parameterized

from rstar_jax import testing
from rstar_jax.search import driver, rebase
from rstar_jax.search import tree as tree_lib
from rstar_jax.search.requests import Calls
from rstar_jax.search.tree import Tree
from tests.search.toys import PROBLEMS, Streamed, calls_of, config_of, texts_of

POLICY = testing.ToySum(levels=3, covers=True)
LN2 = math.log(2)


class SharesTest(parameterized.TestCase):
  @parameterized.parameters(
    # e^(difference / 2 / 0.5): 2 and 1 of 3 parts, by ln 2.
    ((LN2, 0.0), 9, 0.5, (6, 3)),
    ((0.0, LN2), 9, 0.5, (3, 6)),
    # Half of the difference: the square root of 4 is 2.
    ((LN2, 0.0), 9, 0.25, (8, 1)),
    # 10 * 2/4 = 5; 5 * 1/2 = 2.5, rounded up; the rest.
    ((LN2, 0.0, 0.0), 10, 0.5, (5, 3, 2)),
    # 5 * 1/3 is rounded up, then 3 * 1/2, then 1; the first of equals first.
    ((0.3, 0.3, 0.3), 5, 0.2, (2, 2, 1)),
    # Whole shares stay whole.
    ((-1.0, -1.0, -1.0, -1.0, -1.0, -1.0, -1.0), 49, 0.2, (7,) * 7),
    # What is left is nothing.
    ((1.0, -1.0), 3, 0.01, (3, 0)),
    ((0.9, 1.0), 3, 0.0005, (0, 3)),
    ((-1.0, 1.0, 0.9), 1, 0.2, (0, 1, 0)),
    ((0.1, 0.2), 0, 0.2, (0, 0)),
    ((), 4, 0.2, ()),
  )
  def test_by_hand(self, values, budget, temperature, expected):
    found = rebase.shares(values, budget, temperature)
    self.assertEqual(tuple(found), expected)

  @parameterized.parameters(range(5))
  def test_all_is_given_and_more_to_the_better(self, seed):
    draws = np.random.default_rng(seed)
    values = draws.uniform(-1, 1, 7).tolist()
    budget = int(draws.integers(1, 40))
    found = rebase.shares(values, budget, float(draws.uniform(0.05, 2)))
    self.assertEqual(sum(found), budget)
    order = np.argsort(values)[::-1]
    self.assertEqual([found[i] for i in order], sorted(found, reverse=True))
    self.assertEqual({type(each) for each in found}, {int})


def reference(question, budget, temperature):
  """Searches without a tree: paths of texts, depth by depth.

  Returns:
    The answered paths and what each depth was given, all of it.
  """
  given, level, finished = [], {(): budget}, []
  while level:
    given.append(sorted(level.values()))
    below = {}
    for path, count in level.items():
      ((*options,),) = POLICY([question], [path], [range(count)])
      for each in options:
        text = each.text
        if each.finish == "code":
          total = sum(
            int(part[0]) for part in "".join((*path, text)).split("x += ")[1:]
          )
          text += f"\n<output>{total}<end_of_output>\n"
        value = testing.score_by_hash([question], [path], [[text]])[0][0]
        below[*path, text] = (float(value), each.finish)
    answered = [path for path, (_, end) in below.items() if end == "answer"]
    finished += answered
    budget -= len(answered)
    open_ = {p: v for p, (v, end) in below.items() if end != "answer"}
    level, left = {}, budget
    weights = {p: np.exp((1 + v) / 2 / temperature) for p, v in open_.items()}
    for path in sorted(open_, key=lambda path: -open_[path]):
      share = int(np.ceil(left * weights[path] / sum(weights.values())))
      del weights[path]
      left -= share
      if share:
        level[path] = share
  return finished, given


class RebaseTest(parameterized.TestCase):
  def search(self, budget, temperature=0.2, calls=None, **options):
    searches = [
      rebase.rebase(Tree(each), budget, temperature, config_of(), **options)
      for each in PROBLEMS
    ]
    return driver.run_searches(searches, calls or calls_of(POLICY), 5)

  @parameterized.product(budget=(1, 4, 11), temperature=(0.1, 0.5))
  def test_answers_are_the_reference(self, budget, temperature):
    wide = 0
    for tree in self.search(budget, temperature):
      question = tree.problem.question
      expected, given = reference(question, budget, temperature)
      found = tree_lib.trajectories(tree, visited_only=True)
      self.assertCountEqual([each.steps for each in found], expected)
      self.assertEqual(tree.rollouts, len(expected))
      self.assertEqual(tree.expansions, sum(map(len, given)))
      wide += max(map(len, given))
      ends = np.flatnonzero(tree.terminal == tree_lib.ANSWERED)
      for node in range(len(tree)):
        below = [end for end in ends if node in tree.path(int(end))]
        self.assertEqual(tree.visits[node], len(below))
        self.assertAlmostEqual(
          tree.value_sum[node], tree.ppm[below].sum(), places=6
        )
    self.assertEqual(wide > len(PROBLEMS), budget > 1)

  def test_an_answer_costs_a_sample(self):
    short = testing.ToySum(levels=1, covers=True)
    asked = []

    def expand(questions, prefixes, seeds):
      asked.extend((len(prefix), len(row)) for prefix, row in
                   zip(prefixes, seeds, strict=True))  # fmt: skip
      rows = []
      for question, prefix, row in zip(questions, prefixes, seeds, strict=True):
        # The first step closes the code for option 1 alone.
        first = "x += 1" in "".join(prefix[:1])
        policy = short if first else testing.ToySum(levels=2, covers=True)
        (found,) = policy([question], [prefix], [row])
        if not prefix:
          (closed,) = short([question], [prefix], [row])
          found = [closed[0], *found[1:]]
        rows.append(found)
      return rows

    def score(questions, prefixes, rows):
      return [np.zeros(len(row), np.float32) for row in rows]

    (tree,) = driver.run_searches(
      [rebase.rebase(Tree(PROBLEMS[0]), 6, 1.0, config_of())],
      calls_of(expand, score=score),
      1,
    )
    # Of six samples four first steps, of equal value. One is a finished code,
    # whose two answers are one; so 5 are left for the four open nodes below.
    by_depth = {
      depth: sorted(count for d, count in asked if d == depth)
      for depth in range(3)
    }
    self.assertEqual(by_depth, {0: [6], 1: [1, 1, 2, 2], 2: [1, 1, 1, 2]})
    self.assertEqual(tree.rollouts, 5)
    ends = [end for _, _, end in tree.growth]
    self.assertTrue((tree.visits[ends] == 1).all())
    np.testing.assert_array_equal(tree.reward[ends], tree.ppm[ends])
    self.assertTrue(tree.exhausted[ends].all())

  def test_where_all_fails_the_search_ends(self):
    broken = testing.ToySum(("x += nope",))
    for tree in self.search(4, calls=calls_of(broken)):
      self.assertEqual((len(tree), tree.expansions), (1, 1))

  def test_neither_order_nor_number_in_flight_matters(self):
    drawn = testing.ToySum(levels=3)
    alone = texts_of(self.search(7, calls=calls_of(drawn), seed=3))
    for seed in range(3):
      order = random.Random(seed).sample(range(len(PROBLEMS)), len(PROBLEMS))
      slow = Calls(
        expand=Streamed(drawn, seed),
        score=Streamed(testing.score_by_hash, seed + 9),
        verify=testing.run_trusted,
        grade=testing.grade_equal,
      )
      searches = [
        rebase.rebase(Tree(PROBLEMS[i]), 7, 0.2, config_of(), 3) for i in order
      ]
      found = driver.run_searches(searches, slow, 1 + 3 * seed)
      self.assertEqual(texts_of(found), [alone[i] for i in order])

  def test_seed_and_name_make_other_trees(self):
    calls = calls_of(testing.ToySum(levels=3))
    one, same, *others = (
      texts_of(self.search(5, calls=calls, **options))
      for options in ({}, {"seed": 0}, {"seed": 1}, {"name": ("other",)})
    )
    self.assertEqual(one, same)
    for each in others:
      self.assertNotEqual(one, each)


if __name__ == "__main__":
  absltest.main()
