"""A policy and a reward model of one's own, checked."""

import sys

import numpy as np
from absl.testing import absltest, parameterized

from rstar_jax import testing
from rstar_jax.config.schema import Config, PolicyConfig
from rstar_jax.inference import plugin_backends as plugged
from rstar_jax.steps import grammar
from rstar_jax.types import Candidate

QUESTIONS = ["Make 3.", "Make 4."]
SEEDS = np.arange(6, dtype=np.uint32).reshape(2, 3)
STEP = Candidate("x\n<end_of_step>", (1, 2), -0.5, "step")


class OwnTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.main = sys.modules["__main__"]
    self.addCleanup(delattr, self.main, "make")

  def policy(self, expand) -> plugged.PluginPolicy:
    self.made = []

    def make(config, folder):
      self.made.append((config, folder))
      return expand

    self.main.make = make
    self.config = Config(policy=PolicyConfig(backend="__main__:make"))
    return plugged.PluginPolicy(self.config, "some/folder")

  def score(self, score) -> plugged.PluginScore:
    self.main.make = lambda config: score
    return plugged.PluginScore(Config(), "__main__:make", "eval.reward_model")

  def line(self, action, *args) -> str:
    with self.assertRaises(ValueError) as caught:
      action(*args)
    self.assertNotIn("\n", str(caught.exception))
    return str(caught.exception)

  def test_a_policy(self):
    toy = testing.ToySum()
    policy = self.policy(toy)
    found = policy(QUESTIONS, [(), ()], SEEDS)
    self.assertEqual(self.made, [(self.config, "some/folder")])
    self.assertEqual(found, toy(QUESTIONS, [(), ()], SEEDS))
    self.assertEqual(
      policy.generated_tokens,
      sum(len(each.token_ids) for row in found for each in row),
    )

  @parameterized.parameters(
    (None, "not None"),
    ([[STEP] * 3], "an Expand that gives 2 lists of 3 Candidates, not 1"),
    ([[STEP] * 3, [STEP] * 2], "not a list of 2"),
    ([["x", "y", "z"]] * 2, r"\\(text, token_ids, logprob, finish\\), not 'x'"),
    ([[Candidate("x", (), 0.0, "done")] * 3] * 2, "finish='done'"),
    ([[Candidate(None, (), 0.0, "step")] * 3] * 2, "text=None"),
  )
  def test_a_policy_that_returns_something_else(self, rows, reason):
    policy = self.policy(lambda questions, prefixes, seeds: rows)
    found = self.line(policy, QUESTIONS, [(), ()], SEEDS)
    self.assertRegex(found, reason.replace("\\\\", "\\"))
    self.assertStartsWith(found, "config.policy.backend='__main__:make' must")

  def test_what_cannot_be_called(self):
    self.assertIn(
      "must return an Expand, which can be called, not 7",
      self.line(self.policy, 7),
    )
    self.assertIn("must return a Score", self.line(self.score, None))

  def test_what_raises(self):
    policy = self.policy(lambda *_: {}["gone"])
    self.assertIn(
      "raised KeyError: 'gone'", self.line(policy, QUESTIONS, [(), ()], SEEDS)
    )

  def test_whole_blocks_of_single_steps(self):
    toy = testing.ToySum(levels=3)
    blocks = plugged.Blocks(self.policy(toy), most=10_000)
    rows = blocks(QUESTIONS, [(), ()], SEEDS)
    self.assertEqual([len(row) for row in rows], [3, 3])
    for block in (each for row in rows for each in row):
      self.assertEqual(block.finish, "code")
      self.assertIsNone(grammar.problem_with_block(block.text, block.finish))
      self.assertLen(grammar.split_block(block.text), 3)
      self.assertEqual(block.token_ids, tuple(block.text.encode()))
      self.assertEqual(block.logprob, -len(block.text))
    # A block depends on its own seed alone.
    alone = blocks(QUESTIONS[1:], [()], SEEDS[1:, 2:])
    self.assertEqual(alone, [[rows[1][2]]])
    self.assertGreater(len({each.text for row in rows for each in row}), 2)

  def test_an_answer_is_one_step(self):
    prefix = (grammar.with_output("<code>\nprint(7)\n<end_of_code>", "7"),)
    blocks = plugged.Blocks(self.policy(testing.ToySum()), most=10_000)
    ((found,),) = blocks(["Q"], [prefix], np.zeros((1, 1), np.uint32))
    self.assertEqual(found.finish, "answer")
    self.assertIn("\\boxed{7}", found.text)

  def test_a_block_without_end_is_given_up(self):
    endless = self.policy(lambda questions, *_: [[STEP]] * len(questions))
    seeds = np.zeros((1, 1), np.uint32)
    ((found,),) = plugged.Blocks(endless, most=7)(["Q"], [()], seeds)
    self.assertEqual((found.finish, len(found.token_ids)), ("length", 8))
    nothing = Candidate("x", (), 0.0, "step")
    endless = self.policy(lambda questions, *_: [[nothing]] * len(questions))
    ((found,),) = plugged.Blocks(endless, most=7)(["Q"], [()], seeds)
    self.assertEqual(found.finish, "length")

  def test_a_score(self):
    score = self.score(lambda *_: [[0.5, -1], np.array([1.0])])
    found = score(QUESTIONS, [(), ()], [["a", "b"], ["c"]])
    self.assertEqual([each.tolist() for each in found], [[0.5, -1.0], [1.0]])
    self.assertEqual({each.dtype.name for each in found}, {"float32"})

  @parameterized.parameters(
    (None, "a Score that gives 2 arrays, not None"),
    ([[0.0, 0.0]], "not 1"),
    ([[0.0], [0.0]], r"gives 2 values from -1 to 1, not \[0.0\]"),
    ([[0.0, 1.5], [0.0]], r"not \[0.0, 1.5\]"),
    ([[0.0, float("nan")], [0.0]], r"not \[0.0, nan\]"),
    ([["a", "b"], [0.0]], "not .'a', 'b'."),
  )
  def test_a_score_that_returns_something_else(self, rows, reason):
    score = self.score(lambda *_: rows)
    found = self.line(score, QUESTIONS, [(), ()], [["a", "b"], ["c"]])
    self.assertRegex(found, reason)
    self.assertStartsWith(found, "eval.reward_model='__main__:make' must")


if __name__ == "__main__":
  absltest.main()
