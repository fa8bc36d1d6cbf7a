"""AB-MCTS: posteriors by hand, choices by their chances, and brute force."""

import random
from unittest import mock

import numpy as np
from absl.testing import absltest, parameterized

from rstar_jax import testing
from rstar_jax.search import ab_mcts, driver
from rstar_jax.search import tree as tree_lib
from rstar_jax.search.ab_mcts import Node, Rewards
from rstar_jax.search.requests import Calls
from rstar_jax.search.tree import ANSWER, CODE, STEP, Child, Tree
from tests.search.toys import PROBLEMS, Streamed, calls_of, config_of, texts_of

POLICY = testing.ToySum(levels=3)


def rewards(*given) -> Rewards:
  found = Rewards()
  for each in given:
    found.add(each)
  return found


def search(calls=None, rollouts=9, problems=PROBLEMS, seed=0, **options):
  name = options.pop("name", ())
  searches = [
    ab_mcts.search_tree(Tree(each), config_of(**options), seed, name, rollouts)
    for each in problems
  ]
  return driver.run_searches(searches, calls or calls_of(POLICY), 5)


class ChoiceTest(parameterized.TestCase):
  @parameterized.parameters(
    ((), (0.5, 0.5)),
    ((1.0,), (1.5, 0.5)),
    ((-1.0, -1.0), (0.5, 2.5)),
    # (1 + r) / 2 is 0.75, 0.5 and 0.25.
    ((0.5, 0.0), (1.75, 1.25)),
    ((0.5, -0.5, 1.0), (2.5, 1.5)),
  )
  def test_posteriors_by_hand(self, given, expected):
    self.assertEqual(rewards(*given).posterior(), expected)

  def node(self, new, *children, kind=STEP):
    """Returns a node by the rewards of GEN, and first and later of children."""
    node = Node(new=rewards(*new))
    for number, (first, *more) in enumerate(children):
      below = node.below(Child(f"{number}", kind))
      below.through = rewards(first, *more)
      for each in more:
        node.known.add(each)
    return node

  def share(self, node, wanted, count=4000):
    """Returns how often a child, or None, is chosen."""
    draws = np.random.default_rng(0)
    chosen = [ab_mcts.choose(node, draws) for _ in range(count)]
    return sum(each is wanted for each in chosen) / count

  def chance(self, one, other):
    """Returns P(X > Y) of two Beta variables, by sums over a grid."""
    x = (np.arange(20000) + 0.5) / 20000
    density = [x ** (a - 1) * (1 - x) ** (b - 1) for a, b in (one, other)]
    p, q = (each / each.sum() for each in density)
    return float((p * (np.cumsum(q) - q / 2)).sum())

  def test_wider_or_deeper_by_the_chance_that_it_is_better(self):
    # GEN wrote 0.5 and -0.5; two rollouts went on and got 1 and 0.
    node = self.node((0.5, -0.5), (0.5, 1.0, 0.0), (-0.5,))
    expected = self.chance((1.5, 1.5), (2.0, 1.0))
    self.assertAlmostEqual(self.share(node, None), expected, delta=0.03)
    # Of the children: 0.5, 1, 0 against -0.5.
    first, _ = node.children.values()
    one = (1 - expected) * self.chance((2.75, 1.25), (0.75, 1.25))
    self.assertAlmostEqual(self.share(node, first), one, delta=0.03)

  def test_without_a_step_below_there_is_but_a_new_child(self):
    self.assertIsNone(ab_mcts.choose(Node(), np.random.default_rng(0)))
    for kind in (CODE, ANSWER):
      node = self.node((-1.0,) * 9, (1.0,) * 9, kind=kind)
      self.assertEqual(self.share(node, None, 50), 1.0)

  def test_it_goes_where_the_reward_is(self):
    good, bad = (1.0,) * 30, (-1.0,) * 30
    self.assertGreater(self.share(self.node(good, bad), None), 0.99)
    node = self.node(bad, good, bad)
    self.assertGreater(self.share(node, node.children["0"]), 0.95)


class SearchTest(parameterized.TestCase):
  def value_of(self, question, path):
    *prefix, last = path
    ((value,),) = testing.score_by_hash([question], [prefix], [[last]])
    return float(value)

  @parameterized.parameters("last", "min", "mean")
  def test_visits_and_values_are_those_of_the_rollouts(self, how):
    for tree in search(trajectory_value=how, rollouts=12):
      self.assertEqual(tree.rollouts, 12)
      visits, sums = np.zeros(len(tree)), np.zeros(len(tree))
      for tokens, nodes, end in tree.growth:
        self.assertEqual(nodes, len(tree))
        self.assertEqual(tree.kind[end], ANSWER)
        path = tree.prefix(end)
        values = [
          self.value_of(tree.problem.question, path[: i + 1])
          for i in range(len(path))
        ]
        reward = {"last": values[-1], "min": min(values)}.get(
          how, np.mean(values)
        )
        self.assertAlmostEqual(tree.reward[end], reward, places=6)
        visits[tree.path(end)] += 1
        sums[tree.path(end)] += reward
        self.assertGreater(tokens, 0)
      np.testing.assert_array_equal(tree.visits, visits)
      np.testing.assert_allclose(tree.value_sum, sums, atol=1e-5)
      self.assertEqual(tree.growth, sorted(tree.growth, key=lambda g: g[0]))
      self.assertEqual(tree.growth[-1][0], tree.tokens)
      again = tree_lib.from_record(tree.to_record())
      self.assertEqual(again.to_json(), tree.to_json())
      np.testing.assert_array_equal(again.exhausted, tree.exhausted)

  def test_what_is_known_of_a_node_is_what_rollouts_did_there(self):
    seen, choose = [], ab_mcts.choose

    def spy(node, draws):
      known = [
        (each.count, round(each.total, 4)) for each in (node.new, node.known)
      ]
      chosen = choose(node, draws)
      seen.append((node.prefix, chosen is None, known))
      return chosen

    with mock.patch.object(ab_mcts, "choose", spy):
      (tree,) = search(rollouts=40, problems=PROBLEMS[:1])
    rewards_of, number = [float(tree.reward[e]) for _, _, e in tree.growth], -1
    did = {}
    for prefix, wrote, known in seen:
      number += prefix == ()
      expected = []
      for arm in (True, False):
        given = [rewards_of[i] for i, w in did.get(prefix, []) if w == arm]
        expected.append((len(given), round(sum(given), 4)))
      self.assertEqual(known, expected)
      did.setdefault(prefix, []).append((number, wrote))
    self.assertEqual(number, 39)
    self.assertLen({wrote for _, wrote in did[()]}, 2)

  def test_the_values_of_steps_are_not_asked_for(self):
    self.assertEqual(texts_of(search()), texts_of(search(annotation="ppm")))
    self.assertTrue(np.isnan(search()[0].ppm[1]))

  def test_enough_rollouts_find_all_and_go_to_the_best(self):
    def score(questions, prefixes, rows):
      del questions
      paths = [
        [(*prefix, each) for each in row]
        for prefix, row in zip(prefixes, rows, strict=True)
      ]
      return [
        np.array(
          [
            1.0 if "x += 3" in path[0] and "x += 2" in path[1] else -0.8
            for path in row
          ]
        )
        for row in paths
      ]

    policy = testing.ToySum(levels=2)
    (tree,) = search(calls_of(policy, score=score), 200, [PROBLEMS[0]], seed=2)
    found = {each.steps[:2] for each in tree_lib.trajectories(tree)}
    self.assertLen(found, 9)
    (three,) = (n for n in tree.children(0) if "x += 3" in tree.texts[n])
    # A new child is as good by chance in one of nine; going on in one of three.
    self.assertGreater(tree.visits[three], 200 / 3)

  def test_a_rollout_writes_one_candidate_a_time(self):
    asked = []

    def expand(questions, prefixes, seeds):
      asked.extend(len(row) for row in seeds)
      return POLICY(questions, prefixes, seeds)

    (tree,) = search(calls_of(expand), 1, PROBLEMS[:1])
    self.assertEqual(asked, [1, 1, 1, 1])
    self.assertEqual(tree.expansions, 4)
    self.assertEqual(tree.num_children.tolist(), [1, 1, 1, 1, 0])

  def test_a_failing_rollout_has_the_least_reward(self):
    broken = testing.ToySum(("x += 1", "x += nope"), levels=2)
    failed = 0
    for tree in search(calls_of(broken), 30):
      ends = [end for _, _, end in tree.growth]
      self.assertEqual(tree.failed_rollouts, ends.count(tree_lib.NO_END))
      failed += tree.failed_rollouts
      good = [float(tree.reward[end]) for end in ends if end >= 0]
      self.assertEqual(tree.visits[0], 30)
      self.assertAlmostEqual(
        tree.value_sum[0], sum(good) - tree.failed_rollouts
      )
    self.assertGreater(failed, 0)

  def test_so_many_errors_in_a_row_are_borne(self):
    broken = testing.ToySum(("x += nope",))
    for errors in (1, 3):
      (tree,) = search(
        calls_of(broken), 4, PROBLEMS[:1], max_consecutive_errors=errors
      )
      self.assertEqual(tree.expansions, 4 * errors)
      self.assertEqual(tree.failed_rollouts, 4)

  def test_neither_order_nor_number_in_flight_matters(self):
    alone = texts_of(search(seed=3))
    for seed in range(3):
      order = random.Random(seed).sample(range(len(PROBLEMS)), len(PROBLEMS))
      slow = Calls(
        expand=Streamed(POLICY, seed),
        score=Streamed(testing.score_by_hash, seed + 9),
        verify=testing.run_trusted,
        grade=testing.grade_equal,
      )
      searches = [
        ab_mcts.search_tree(Tree(PROBLEMS[i]), config_of(), 3, (), 9)
        for i in order
      ]
      found = driver.run_searches(searches, slow, 1 + 3 * seed)
      self.assertEqual(texts_of(found), [alone[i] for i in order])

  def test_a_shorter_search_is_the_beginning_of_a_longer_one(self):
    for short, long in zip(search(rollouts=4), search(rollouts=9), strict=True):
      for (tokens, _, end), (longer, _, ending) in zip(
        short.growth, long.growth, strict=False
      ):
        self.assertEqual(tokens, longer)
        self.assertEqual(short.prefix(end), long.prefix(ending))

  def test_seed_and_name_make_other_trees(self):
    one, same, *others = (
      texts_of(search(**options))
      for options in ({}, {"seed": 0}, {"seed": 1}, {"name": ("other",)})
    )
    self.assertEqual(one, same)
    for each in others:
      self.assertNotEqual(one, each)


if __name__ == "__main__":
  absltest.main()
