"""MCTS on enumerable toy problems, against brute force."""

import dataclasses
import itertools
import json

import numpy as np
from absl.testing import absltest, parameterized

from rstar_jax import testing
from rstar_jax.search import mcts
from rstar_jax.search import tree as tree_lib
from rstar_jax.types import Problem
from tests.search.toys import PROBLEMS, calls_of, config_of


class BruteForceTest(parameterized.TestCase):
  @parameterized.product(unvisited=["inf", "zero"], c=[0.0, 2.0])
  def test_enough_rollouts_visit_everything_once(self, unvisited, c):
    policy = testing.ToySum(offsets=(0, 1), covers=True)
    config = config_of(rollouts=99, c=c, uct_unvisited=unvisited)
    (tree,) = mcts.search([PROBLEMS[2]], config, calls_of(policy), seed=1)
    # x = a + b, the answer is x or x + 1, and right where it is 4.
    results = {
      (a, b, o): 1.0 if a + b + o == 4 else -1.0
      for a, b, o in itertools.product((1, 2, 3), (1, 2, 3), (0, 1))
    }
    self.assertEqual(tree.rollouts, len(results))
    self.assertEqual(tree.failed_rollouts, 0)
    self.assertTrue(tree.exhausted[0])
    # One expansion of the root, of 3 steps and of 9 closed blocks.
    self.assertEqual(tree.expansions, 1 + 3 + 9)
    self.assertEqual(tree.q(0), np.mean(list(results.values())))
    for i, a in enumerate((1, 2, 3)):
      first = tree.children(0)[i]
      below = [r for (x, _, _), r in results.items() if x == a]
      self.assertEqual(tree.q(first), np.mean(below))
      for j, b in enumerate((1, 2, 3)):
        second = tree.children(first)[j]
        below = [results[a, b, 0], results[a, b, 1]]
        self.assertEqual(tree.q(second), np.mean(below))
        self.assertEqual([tree.q(n) for n in tree.children(second)], below)
    found = tree_lib.trajectories(tree)
    self.assertLen(found, 18)
    self.assertEqual(sum(each.correct for each in found), 5)

  def test_a_wrong_selection_costs_nothing(self):
    def expand(*_):
      self.fail("it was called")

    config = config_of(selection="pucct")
    with self.assertRaisesRegex(ValueError, "selection='pucct' must be one of"):
      mcts.search(PROBLEMS, config, calls_of(expand))

  @parameterized.parameters(1, 4, 9)
  def test_q_is_the_mean_of_the_visited_answers_below(self, rollouts):
    config = config_of(rollouts=rollouts, candidates=5)
    for tree in mcts.search(PROBLEMS, config, calls_of(), seed=2):
      ends = np.flatnonzero((tree.terminal == 1) & (tree.visits > 0))
      self.assertEqual(tree.rollouts, len(ends))
      for node in range(len(tree)):
        prefix = tree.prefix(node)
        rewards = [
          1.0 if tree.answers[end] == tree.problem.answer else -1.0
          for end in ends
          if tree.prefix(end)[: len(prefix)] == prefix
        ]
        self.assertEqual(tree.visits[node], len(rewards))
        self.assertEqual(tree.value_sum[node], sum(rewards))

  @parameterized.parameters("terminal", "ppm")
  def test_visits_follow_from_where_rollouts_ended(self, annotation):
    config = config_of(rollouts=9, candidates=5, annotation=annotation)
    for tree in mcts.search(PROBLEMS, config, calls_of(), seed=2):
      visits, sums = np.zeros(len(tree)), np.zeros(len(tree))
      if annotation == "ppm":
        first = (tree.terminal != tree_lib.ANSWERED) & ~np.isnan(tree.ppm)
        visits += first
        sums[first] = tree.ppm[first]
      seen = 1
      for _, nodes, end in tree.growth:
        self.assertBetween(end, 0, nodes - 1)
        self.assertGreaterEqual(nodes, seen)
        seen = nodes
        visits[tree.path(end)] += 1
        sums[tree.path(end)] += tree.reward[end]
      np.testing.assert_array_equal(tree.visits, visits)
      np.testing.assert_allclose(tree.value_sum, sums)

  def test_search_goes_where_the_reward_is(self):
    # Only 3 + 3 + 3 is right: after some rollouts the search stays below 3.
    policy = testing.ToySum(levels=3, covers=True)
    problem = Problem("nine", "make 9", "9")
    config = config_of(rollouts=99)
    (tree,) = mcts.search([problem], config, calls_of(policy), seed=3)
    best = max(tree_lib.trajectories(tree), key=lambda each: each.mean_q)
    self.assertTrue(best.correct)
    self.assertEqual([s.count("x += 3") for s in best.steps], [1, 1, 1, 0])


class FilterTest(absltest.TestCase):
  def test_failing_malformed_and_repeated_candidates_are_no_children(self):
    options = ("x += 1", "x += nope", "x += 1", "<output>", "x += 2")
    policy = testing.ToySum(options, covers=True)
    config = config_of(candidates=5, rollouts=99)
    (tree,) = mcts.search(PROBLEMS[:1], config, calls_of(policy), seed=4)
    self.assertEqual(tree.num_children[:3].tolist(), [2, 2, 2])
    self.assertFalse(
      any("nope" in t or "<output>" in t for t in tree.texts[:3])
    )
    # 3 expansions of code, and 4 of answers: 5 equal texts each.
    self.assertEqual(tree.expansions, 7)
    self.assertEqual(
      tree.dropped, {"error": 3, "malformed": 3, "duplicate": 3 + 4 * 4}
    )
    self.assertEqual(tree.rollouts, 4)

  def test_candidates_cut_by_the_token_limit_are_counted(self):
    policy, written = testing.ToySum(covers=True), []

    def expand(questions, prefixes, seeds):
      rows = policy(questions, prefixes, seeds)
      written.extend(len(each.token_ids) for row in rows for each in row)
      return [
        [dataclasses.replace(row[0], finish="length"), *row[1:]] for row in rows
      ]

    (tree,) = mcts.search(PROBLEMS[:1], config_of(), calls_of(expand), seed=0)
    self.assertEqual(tree.tokens, sum(written))
    self.assertEqual(tree.num_children[0], 2)
    self.assertEqual(tree.dropped["length"], tree.expansions)

  def test_tokens_of_dropped_candidates_count(self):
    policy = testing.ToySum(("x += nope",), covers=True)
    config = config_of(rollouts=1)
    (tree,) = mcts.search(PROBLEMS[:1], config, calls_of(policy), seed=0)
    ((each,),) = policy(["q"], [()], [[0]])
    self.assertEqual(tree.tokens, 3 * len(each.token_ids))

  def test_keep_first_leaves_one_answer(self):
    policy = testing.ToySum(offsets=(0, 1, 0, 2), covers=True)
    for dedup, count in (("merge", 3), ("keep_first", 1)):
      config = config_of(candidates=4, answer_dedup=dedup)
      (tree,) = mcts.search(PROBLEMS[:1], config, calls_of(policy), seed=5)
      closed = np.flatnonzero((tree.kind == tree_lib.CODE) & (tree.visits > 0))
      self.assertNotEmpty(closed)
      self.assertEqual(set(tree.num_children[closed]), {count})
    self.assertEqual(tree.dropped["beside_answer"], 2 * len(closed))

  def test_verify_gets_the_whole_program_and_its_output_is_shown(self):
    seen = []

    def verify(programs):
      seen.extend(programs)
      return testing.run_trusted(programs)

    config = config_of(rollouts=1, candidates=1)
    policy = testing.ToySum(("x += 3",), covers=True)
    (tree,) = mcts.search(
      PROBLEMS[:1], config, calls_of(policy, verify=verify), seed=0
    )
    first, second = "\nx = 0\nx += 3\n", "\nx += 3\nprint(x)\n"
    self.assertEqual(seen, [[first], [first, second]])
    self.assertTrue(tree.texts[2].endswith("\n<output>6<end_of_output>\n"))
    self.assertEqual(tree.answers[3], "6")

  def test_an_undecided_answer_is_wrong_and_counted(self):
    calls = calls_of(grade=lambda pairs: ["undecided"] * len(pairs))
    (tree,) = mcts.search(PROBLEMS[:1], config_of(rollouts=2), calls, seed=0)
    self.assertEqual(tree.value_sum[0], -2.0)
    self.assertEqual(tree.undecided, (tree.terminal == 1).sum())
    self.assertFalse(tree_lib.solved(tree))


class FailureTest(parameterized.TestCase):
  def test_no_path_is_deeper_than_max_depth(self):
    policy = testing.ToySum(levels=3, covers=True)
    config = config_of(rollouts=99, max_depth=4)
    (tree,) = mcts.search(PROBLEMS[:1], config, calls_of(policy), seed=0)
    self.assertEqual((tree.depth.max(), tree.rollouts), (4, 27))
    # One level less leaves no room for code and answer below a second step:
    # each first step dies, at the cost of one rollout, and the search is over.
    config = config_of(rollouts=99, max_depth=3)
    (tree,) = mcts.search(PROBLEMS[:1], config, calls_of(policy), seed=0)
    self.assertEqual((tree.rollouts, tree.failed_rollouts), (3, 3))
    self.assertEqual([end for _, _, end in tree.growth], [tree_lib.NO_END] * 3)
    self.assertEqual(tree.terminal.tolist(), [0, 2, 2, 2])
    self.assertEqual(tree.dropped, {"depth": 9})
    self.assertEqual(tree.visits[0], 0)

  @parameterized.parameters(1, 2, 3)
  def test_a_leaf_dies_after_so_many_errors_in_a_row(self, errors):
    # x = 0, 2 or 4 after the first step; then 1 / x fails for 0.
    policy = testing.ToySum(("x += 0", "x += 2"), covers=True)
    seen = []

    def expand(questions, prefixes, seeds):
      seen.extend(zip(prefixes, seeds.tolist(), strict=True))
      return policy(questions, prefixes, seeds)

    def verify(programs):
      return testing.run_trusted(
        [[*p[:-1], "1 / x\n" + p[-1]] if len(p) > 1 else p for p in programs]
      )

    config = config_of(candidates=2, rollouts=99, max_consecutive_errors=errors)
    (tree,) = mcts.search(
      PROBLEMS[:1], config, calls_of(expand, verify=verify), seed=0
    )
    zero, two = tree.children(0)
    self.assertEqual(tree.terminal[[zero, two]].tolist(), [2, 0])
    self.assertEqual(tree.failed_rollouts, 1)
    self.assertEqual(tree.visits[zero], 0)
    self.assertEqual(tree.rollouts, 1 + 2)
    tries = [tuple(s) for prefix, s in seen if prefix == tree.prefix(zero)]
    self.assertLen(set(tries), errors)
    self.assertLen(tries, errors)
    self.assertEqual(tree.dropped["error"], 2 * errors)

  def test_errors_in_a_row_are_counted_per_leaf(self):
    # One draw per expansion, bad in three cases of four: no leaf fails 25 times
    # in a row, though each rollout sees more failures than that.
    options = ("x += 1", "x += nope", "x += none", "x += no")
    policy = testing.ToySum(options, levels=13)
    config = config_of(candidates=1, rollouts=1, max_consecutive_errors=25)
    trees = mcts.search(PROBLEMS, config, calls_of(policy), seed=0)
    self.assertEqual([t.failed_rollouts for t in trees], [0] * 7)
    self.assertGreater(max(t.dropped["error"] for t in trees), 25)

  def test_the_root_is_sampled_anew_by_every_rollout(self):
    policy = testing.ToySum(("x += nope",))
    config = config_of(rollouts=5, max_consecutive_errors=2)
    (tree,) = mcts.search(PROBLEMS[:1], config, calls_of(policy), seed=0)
    self.assertEqual((tree.rollouts, tree.failed_rollouts), (5, 5))
    self.assertEqual(tree.expansions, 10)
    self.assertLen(tree, 1)


class RewardTest(parameterized.TestCase):
  @parameterized.parameters(True, False)
  def test_ppm_annotation_starts_q_and_truth_is_backed_up(self, counts):
    config = config_of(annotation="ppm", ppm_counts_visit=counts)
    for tree in mcts.search(PROBLEMS, config, calls_of(), seed=6):
      for node in range(1, len(tree)):
        *prefix, last = tree.prefix(node)
        ((expected,),) = testing.score_by_hash(
          [tree.problem.question], [prefix], [[last]]
        )
        self.assertEqual(tree.ppm[node], expected)
        below = tree.span(node)
        if tree.kind[node] == tree_lib.ANSWER:
          right = tree.answers[node] == tree.problem.answer
          self.assertEqual(tree.reward[node], 1.0 if right else -1.0)
          self.assertIn(tree.visits[node], (0, 1))
        else:
          own = int(counts)
          grown = tree.visits[node] - own
          if tree.kind[node] == tree_lib.CODE:
            self.assertEqual(grown, tree.visits[below].sum())
            self.assertAlmostEqual(
              tree.value_sum[node],
              own * float(expected) + tree.value_sum[below].sum(),
            )
      self.assertEqual(tree.visits[0], tree.rollouts)

  def test_first_rollout_follows_the_ppm(self):
    config = config_of(rollouts=1, annotation="ppm", candidates=7)
    for tree in mcts.search(PROBLEMS, config, calls_of(), seed=7):
      node = 0
      while tree.num_children[node]:
        node = max(tree.children(node), key=lambda each: tree.ppm[each])
      self.assertEqual(tree.visits[node], 1)
      self.assertEqual(tree.terminal[node], tree_lib.ANSWERED)

  def test_terminal_annotation_never_asks_the_ppm(self):
    trees = mcts.search(PROBLEMS, config_of(), calls_of(score=None), seed=0)
    self.assertTrue(all(np.isnan(tree.ppm).all() for tree in trees))

  def test_ppm_reward_without_annotation_scores_answers_only(self):
    config = config_of(terminal_reward="ppm")
    for tree in mcts.search(PROBLEMS[:2], config, calls_of(), seed=0):
      answered = tree.terminal == tree_lib.ANSWERED
      np.testing.assert_array_equal(np.isnan(tree.ppm), ~answered)
      visited = answered & (tree.visits > 0)
      self.assertAlmostEqual(tree.value_sum[0], tree.ppm[visited].sum())

  @parameterized.parameters(
    ("mean", np.mean, "terminal"),
    ("mean", np.mean, "ppm"),
    ("min", np.min, "terminal"),
  )
  def test_an_answer_backs_up_the_value_of_its_trajectory(
    self, how, expected, annotation
  ):
    config = config_of(
      terminal_reward="ppm", trajectory_value=how, annotation=annotation
    )
    for tree in mcts.search(PROBLEMS[:2], config, calls_of(), seed=0):
      self.assertFalse(np.isnan(tree.ppm[1:]).any())
      answers = np.flatnonzero(tree.terminal == tree_lib.ANSWERED)
      self.assertNotEmpty(answers)
      for node in answers:
        values = tree.ppm[tree.path(int(node))[1:]]
        self.assertAlmostEqual(tree.reward[node], expected(values))

  def test_truth_is_recorded_at_test_time_but_changes_nothing(self):
    config = config_of(
      annotation="ppm", terminal_reward="ppm", rollouts=9, corrective=0.5
    )
    policy = testing.ToySum(offsets=(0, 1))
    records = []
    for gold in ("4", "5", None):
      problem = Problem("p", "make 4", gold)
      (tree,) = mcts.search([problem], config, calls_of(policy), seed=8)
      record = json.loads(tree.to_json())
      correct = record["nodes"].pop("correct")
      answers = record["nodes"]["answer"]
      unknown = tree_lib.UNKNOWN
      self.assertEqual(
        correct,
        [unknown if None in (a, gold) else int(a == gold) for a in answers],
      )
      del record["problem"]
      records.append(record)
    self.assertEqual(records[0], records[1])
    self.assertEqual(records[0], records[2])


if __name__ == "__main__":
  absltest.main()
