"""The search that a config names."""

import sys

from absl.testing import absltest, parameterized

import rstar_jax as rj
from rstar_jax.search import mcts, named
from rstar_jax.search import tree as tree_lib
from tests.search import toys

PROBLEMS = [rj.Problem(f"p{n}", f"Make {n}.", str(n)) for n in (3, 4, 9)]
CONFIG = rj.SearchConfig(rollouts=4, candidates=3)


class NamedTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.main = sys.modules["__main__"]
    self.addCleanup(delattr, self.main, "own_search")
    self.main.own_search = None
    self.own = rj.SearchConfig(rollouts=4, method="__main__:own_search")

  def test_mcts(self):
    done = []
    found = named.search(
      PROBLEMS,
      CONFIG,
      toys.calls_of(),
      7,
      name=("a", 1),
      progress=done.append,
    )
    self.assertEqual(done, [1, 1, 1])
    expected = mcts.search(PROBLEMS, CONFIG, toys.calls_of(), 7, name=("a", 1))
    self.assertEqual(
      [tree.to_json() for tree in found], [tree.to_json() for tree in expected]
    )

  def test_the_seed_is_0_unless_given(self):
    none, zero, other = (
      [
        tree.to_json()
        for tree in named.search(PROBLEMS, CONFIG, toys.calls_of(), **given)
      ]
      for given in ({}, {"seed": 0}, {"seed": -1})
    )
    self.assertEqual(none, zero)
    self.assertNotEqual(none, other)

  def test_one_s_own(self):
    asked, done = [], []

    def own_search(problems, config, calls, seed, name):
      asked.append((problems, config, seed, name))
      trees = [rj.Tree(problem) for problem in problems]
      growing = [rj.grow(each, 0, config, seed, name) for each in trees]
      rj.run_searches(growing, calls, config.in_flight)
      return trees

    self.main.own_search = own_search
    found = named.search(
      PROBLEMS,
      self.own,
      toys.calls_of(),
      7,
      name=("a", 1),
      progress=done.append,
    )
    self.assertEqual(asked, [(PROBLEMS, self.own, 7, ("a", 1))])
    self.assertEqual(done, [3])
    self.assertEqual([tree.problem for tree in found], PROBLEMS)
    self.assertGreater(min(map(len, found)), 1)

  def test_one_s_own_may_search_again(self):
    def own_search(problems, config, calls, seed, name):
      return rj.search(problems, CONFIG, calls, seed, name=name)

    self.main.own_search = own_search
    found = named.search(PROBLEMS, self.own, toys.calls_of(), 7, name=("a",))
    expected = mcts.search(PROBLEMS, CONFIG, toys.calls_of(), 7, name=("a",))
    self.assertEqual(toys.texts_of(found), toys.texts_of(expected))

  @parameterized.parameters(
    (lambda trees: None, "not None"),
    (lambda trees: trees[:2], "not 2"),
    (lambda trees: trees[::-1], "not the tree of p9 in the place of p3"),
    (lambda trees: [*trees[:2], "x"], "not 'x' as item 2"),
    (lambda trees: 1 / 0, "raised ZeroDivisionError: division by zero"),
  )
  def test_what_is_wrong_with_one_is_one_line(self, change, reason):
    self.main.own_search = lambda problems, config, calls, seed, name: change(
      [rj.Tree(problem) for problem in problems]
    )
    with self.assertRaisesRegex(
      ValueError, f"^search.method='__main__:own_search' .*{reason}"
    ) as caught:
      named.search(PROBLEMS, self.own, toys.calls_of())
    self.assertNotIn("\n", str(caught.exception))

  def test_rewards_of_one_s_own_need_no_gold_answer(self):
    problems = [rj.Problem("p", "Make 2 or 6.")]

    def reward(problem, answer):
      return {"2": 1.0, "6": 0.5}.get(answer, -0.75)

    config = rj.SearchConfig(rollouts=30, candidates=3)
    calls = toys.calls_of(policy=rj.testing.ToySum(covers=True), reward=reward)
    (tree,) = named.search(problems, config, calls)
    ends = tree.terminal == tree_lib.ANSWERED
    for node in ends.nonzero()[0]:
      worth = reward(None, tree.answers[node])
      self.assertEqual(tree.reward[node], worth)
      self.assertEqual(tree.correct[node] == tree_lib.RIGHT, worth > 0)
      if tree.visits[node]:
        self.assertEqual(tree.q(node), worth)
    self.assertEqual(set(tree.correct[ends].tolist()), {0, 1})
    with self.assertRaisesRegex(ValueError, "or give calls.reward"):
      named.search(problems, config, toys.calls_of())


if __name__ == "__main__":
  absltest.main()
