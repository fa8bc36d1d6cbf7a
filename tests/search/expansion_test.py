"""One expansion of several leaves at once, request by request."""

import collections
import dataclasses

import numpy as np
from absl.testing import absltest, parameterized

from rstar_jax import testing
from rstar_jax.config.schema import SearchConfig
from rstar_jax.rng import seed_for
from rstar_jax.search import driver, expansion, mcts
from rstar_jax.search import tree as tree_lib
from rstar_jax.search.requests import Calls
from rstar_jax.search.tree import Tree
from rstar_jax.types import Candidate, Problem

STEP = "<code>\nx = 1\n<end_of_step>"
CODE = "\nprint(x)\n<end_of_code>"
SHOWN = CODE + "\n<output>1<end_of_output>\n"


def answer(number: int) -> str:
  return f"<answer>\\boxed{{{number}}}<end_of_answer>"


class Recorder:
  """Callables that record their arguments."""

  def __init__(self):
    self.log = []

  def calls(self, policy) -> Calls:
    def recorded(name, function):
      def call(*args):
        self.log.append((name, *args))
        return function(*args)

      return call

    return Calls(
      expand=recorded("expand", policy),
      verify=recorded("verify", testing.run_trusted),
      grade=recorded("grade", testing.grade_equal),
      score=recorded("score", testing.score_by_hash),
    )


class TestedProblemTest(absltest.TestCase):
  def test_tests_judge_the_program_as_a_gold_answer_its_number(self):
    calls = Recorder().calls(testing.ToySum(levels=2, covers=True))
    config = SearchConfig(rollouts=12, candidates=3)
    # The same policy, asked for a number and for a program that makes it.
    (gold,) = mcts.search([Problem("p", "Make 4.", "4")], config, calls)
    tested = Problem("p", "Make 4.", tests="assert x == 4")
    (tree,) = mcts.search([tested], config, calls)
    self.assertEqual(tree.texts, gold.texts)
    np.testing.assert_array_equal(tree.correct, gold.correct)
    np.testing.assert_array_equal(tree.visits, gold.visits)
    self.assertContainsSubset((tree_lib.RIGHT, tree_lib.WRONG), tree.correct)
    for node, program in enumerate(tree.answers):
      if program is not None:
        scope = {"print": str}
        exec(program, scope)
        self.assertEqual(str(scope["x"]), gold.answers[node])


class GrowTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    self.recorder = Recorder()
    policy = testing.ToySum(("x += 1", "x += nope"), levels=2, covers=True)
    self.calls = self.recorder.calls(policy)
    self.config = SearchConfig(candidates=2, annotation="ppm")
    self.trees = [Tree(Problem(f"p{i}", f"q{i}", "2")) for i in range(3)]

  def grow(self, nodes):
    self.recorder.log.clear()
    return driver.run_searches(
      [
        expansion.grow(tree, node, self.config, 5, ("r", 1))
        for tree, node in zip(self.trees, nodes, strict=True)
      ],
      self.calls,
      3,
    )

  def test_what_a_tree_asks_for(self):
    asked = []
    for nodes in ([0] * 3, [1] * 3, [2] * 3):
      self.assertEqual(self.grow(nodes), [1] * 3)
      # All leaves are sampled in one call.
      self.assertEqual(self.recorder.log[0][0], "expand")
      asked.append(collections.Counter())
      for name, rows, *_ in self.recorder.log:
        asked[-1][name] += len(rows)
    # One of the two candidates fails; one program or answer is left of each.
    ran = {"expand": 3, "verify": 6, "score": 3}
    self.assertEqual(asked, [ran, ran, {"expand": 3, "score": 3, "grade": 3}])
    pairs = [args for name, *args in self.recorder.log if name == "grade"]
    self.assertEqual(pairs, [[[("2", "2")]]] * 3)
    for tree in self.trees:
      self.assertEqual(tree.kind.tolist(), [0, 1, 2, 3])
      self.assertTrue(tree_lib.solved(tree))
      self.assertEqual(tree.visits.tolist(), [0, 1, 1, 0])
      self.assertEqual(tree.value_sum[1:3].tolist(), tree.ppm[1:3].tolist())
      # The policy's log-probability is minus the length of what it wrote.
      written = [text.partition("<output>")[0] for text in tree.texts[1:]]
      self.assertEqual(
        tree.logprob.tolist(),
        [0.0, *(-float(len(text.rstrip("\n"))) for text in written)],
      )

  def test_seeds_are_named_by_the_trees_own_expansions(self):
    self.grow([0] * 3)
    self.trees[1].expansions = 7
    self.grow([1] * 3)
    _, questions, prefixes, seeds = self.recorder.log[0]
    self.assertEqual(questions, ["q0", "q1", "q2"])
    self.assertEqual(prefixes, [tree.prefix(1) for tree in self.trees])
    for row, (problem, count) in enumerate((("p0", 1), ("p1", 7), ("p2", 1))):
      expected = [
        seed_for(5, "r", 1, problem, "expand", count, i) for i in range(2)
      ]
      self.assertEqual(seeds[row].tolist(), expected)
    self.assertEqual([tree.expansions for tree in self.trees], [2, 8, 2])

  def test_leaves_without_survivors_stay_open(self):
    policy = testing.ToySum(("x += nope",), covers=True)
    self.calls = self.recorder.calls(policy)
    self.assertEqual(self.grow([0] * 3), [0] * 3)
    # Nothing is left to score; the leaf can be tried again.
    names = {name for name, *_ in self.recorder.log}
    self.assertEqual(names, {"expand", "verify"})
    for tree in self.trees:
      self.assertEqual((len(tree), tree.terminal[0]), (1, tree_lib.OPEN))
      self.assertEqual(tree.dropped, {"duplicate": 1, "error": 1})

  def test_two_leaves_of_one_tree(self):
    policy = testing.ToySum(("x += 1", "x += 2"), covers=True)
    self.calls = self.recorder.calls(policy)
    self.trees = self.trees[:1]
    self.grow([0])
    (tree,) = self.trees
    self.recorder.log.clear()
    both = expansion.grow_all(tree, [2, 1], self.config, 5)
    self.assertEqual(driver.run_searches([both], self.calls, 1), [[2, 2]])
    self.assertLen(self.recorder.log, 3)
    self.assertEqual(list(tree.children(2)), [3, 4])
    self.assertEqual(list(tree.children(1)), [5, 6])
    seeds = self.recorder.log[0][3]
    self.assertLen(set(seeds.ravel().tolist()), 4)

  def test_all_that_was_sampled_is_kept_dropped_or_not(self):
    written = [
      ("\nx = 1\n<end_of_step>", "step"),
      ("\nx = nope\n<end_of_step>", "step"),
      ("malformed", "eos"),
      ("\nx = 1\n<end_of_step>", "step"),
      ("\nx = 2\n<end_of_step>", "step"),
      ("", "length"),
    ]
    sampled = [
      Candidate(text, (i, 7)[: len(text)], -1.5, finish)
      for i, (text, finish) in enumerate(written)
    ]

    def policy(questions, prefixes, seeds):
      return [
        [dataclasses.replace(each, logprobs=(-row,)) for each in sampled]
        for row in range(len(questions))
      ]

    tree = Tree(Problem("p", "q", "1"), keeps_draws=True)
    tree.add_children(0, [tree_lib.Child(f"{STEP}{i}", 1) for i in range(2)])
    growing = expansion.grow_all(tree, [2, 1], SearchConfig(candidates=6))
    driver.run_searches([growing], self.recorder.calls(policy), 1)
    self.assertEqual(
      [(each.parent, each.node, each.logprobs) for each in tree.draws],
      [
        (parent, first + child if child >= 0 else tree_lib.NO_NODE, (-row,))
        for row, (parent, first) in enumerate(((2, 3), (1, 5)))
        for child in (0, -1, -1, 0, 1, -1)
      ],
    )
    self.assertEqual(
      [each.token_ids for each in tree.draws],
      [each.token_ids for each in sampled] * 2,
    )
    self.assertEqual(tree.draws[5].token_ids, ())
    plain = Tree(Problem("p", "q", "1"))
    growing = expansion.grow(plain, 0, SearchConfig(candidates=6))
    driver.run_searches([growing], self.recorder.calls(policy), 1)
    self.assertIsNone(plain.draws)

  def test_an_answer_that_nobody_can_judge_is_worth_as_much_as_a_wrong_one(
    self,
  ):
    self.config = SearchConfig(candidates=2)
    self.trees = [Tree(Problem("p", "q"))]
    for node in range(3):
      self.grow([node])
    (tree,) = self.trees
    self.assertEqual(tree.terminal.tolist(), [0, 0, 0, 1])
    self.assertEqual((tree.reward[3], tree.correct[3]), (-1.0, -1))

  def test_the_ppm_must_be_there_where_it_is_used(self):
    self.calls = dataclasses.replace(self.calls, score=None)
    with self.assertRaisesRegex(ValueError, "calls.score, which is None"):
      self.grow([0] * 3)


class SurvivorsTest(parameterized.TestCase):
  @parameterized.parameters(
    ((), [(STEP, "step"), (CODE, "code"), (STEP, "step")], [0], "malformed"),
    ((STEP,), [(CODE, "code"), (CODE, "length")], [0], "duplicate"),
    ((STEP,), [("\nx", "length"), (CODE, "code")], [1], "length"),
    ((STEP,), [("", "lost"), (CODE, "code")], [1], "lost"),
    ((STEP,), [("\nx", "eos"), (CODE, "code")], [1], "malformed"),
    # Of max_depth 3, a step here leaves no room for both code and answer.
    (
      (STEP,),
      [("\nx = 2\n<end_of_step>", "step"), (CODE, "code")],
      [1],
      "depth",
    ),
    ((STEP, SHOWN), [(answer(1), "answer"), ("", "eos")], [0], "malformed"),
  )
  def test_drops_and_counts(self, prefix, written, kept, reason):
    tree = Tree(Problem("p", "q", "1"))
    candidates = [Candidate(t, (1,), -1.0, f) for t, f in written]
    found = expansion.valid_candidates(
      tree, prefix, candidates, SearchConfig(max_depth=3)
    )
    self.assertEqual(found, [candidates[i] for i in kept])
    self.assertIn(reason, tree.dropped)
    self.assertEqual(sum(tree.dropped.values()), len(candidates) - len(found))

  @parameterized.parameters(("merge", [0, 1, 3]), ("keep_first", [0]))
  def test_answer_dedup(self, dedup, kept):
    tree = Tree(Problem("p", "q", "1"))
    candidates = [
      Candidate(answer(i), (1,), -1.0, "answer") for i in (4, 5, 4, 6)
    ]
    config = SearchConfig(answer_dedup=dedup)
    found = expansion.valid_candidates(tree, (STEP, SHOWN), candidates, config)
    self.assertEqual(found, [candidates[i] for i in kept])
    self.assertEqual(tree.dropped["duplicate"], 1)
    self.assertEqual(tree.dropped.get("beside_answer", 0), 3 - len(kept))

  def test_an_unclosed_box_is_no_answer(self):
    def policy(questions, prefixes, seeds):
      text = "<answer>\\boxed{5<end_of_answer>"
      return [[Candidate(text, (1,), -1.0, "answer")] for _ in questions]

    tree = Tree(Problem("p", "q", "5"))
    tree.add_children(
      0, [tree_lib.Child("<code>\nprint(5)\n<end_of_code>", tree_lib.CODE)]
    )
    calls = Recorder().calls(policy)
    config = SearchConfig(candidates=1)
    growing = expansion.grow(tree, 1, config)
    self.assertEqual(driver.run_searches([growing], calls, 1), [0])
    self.assertEqual(tree.dropped, {"malformed": 1})
    self.assertTrue(np.isnan(tree.reward).all())


if __name__ == "__main__":
  absltest.main()
