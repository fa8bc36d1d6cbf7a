"""reasoning-gym as a task: a stand-in for it.

`tests/parity/gym.py` tries the library.
"""

import itertools
import sys
from unittest import mock

from absl.testing import absltest

from configs import tiny_gym
from rstar_jax import testing
from rstar_jax.config import validation
from rstar_jax.config.plugins import PluginError
from rstar_jax.data import released
from rstar_jax.grading import answers, judging
from rstar_jax.steps import grammar
from rstar_jax.tasks import gym
from rstar_jax.tasks.named import load_task
from rstar_jax.types import Problem
from tests.tasks import stand_ins


def first(task, split, count):
  return list(itertools.islice(task.problems(split), count))


class StandInTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    self.enter_context(stand_ins.importable())

  def test_problems_of_two_splits(self):
    task = load_task("reasoning_gym:squares")
    problem = first(task, "train", 4)[3]
    self.assertEqual(
      (problem.id, problem.question, problem.answer),
      ("squares/train/3", "What is 3^2?", "9"),
    )
    train = {each.question for each in first(task, "train", 50)}
    test = {each.question for each in first(task, "test", 50)}
    self.assertLen(train | test, 100)
    with self.assertRaisesRegex(PluginError, "no split 'dev', only train"):
      first(task, "dev", 1)

  def test_only_a_full_score_is_right(self):
    task = load_task("reasoning_gym:squares")
    *_, three = first(task, "train", 4)
    asked = [(three, each) for each in ("9", "10", "11", "70")]
    asked.append((three, "unknown"))  # At which the library raises.
    self.assertEqual(
      judging.judge(asked, None, task.reward),
      [("equal", 1.0), ("different", -0.25), ("different", -0.5)]
      + 2 * [("different", -1.0)],
    )

  def test_problems_of_another_source(self):
    reward = load_task("reasoning_gym:squares").reward
    # The id is one of the library's, whose answer is 9.
    one = Problem(
      "squares/train/3", "What is 4^2?", "16", alternatives=("4^2",)
    )
    for answer in ("16", "16.0", "4^2"):
      self.assertEqual(reward(one, answer), 1.0)
    for answer in ("9", "15", "unknown", ""):
      self.assertEqual(reward(one, answer), -1.0)
    self.assertEqual(reward(Problem("a", "What is 3^2?"), "9"), -1.0)

  def test_problems_are_those_that_are_scored(self):
    found = [
      first(load_task("reasoning_gym:hashed"), "train", 4) for _ in range(2)
    ]
    self.assertEqual(*found)
    task = load_task("reasoning_gym:hashed")
    self.assertEqual([task.reward(p, p.answer) for p in found[0]], [1.0] * 4)

  def test_a_number_may_be_written_in_another_way(self):
    for gold, answer, wanted in (
      ("123", "123.00", 1.0),
      ("1230", "1,230", 1.0),
      ("-1.5", "-1.50", 1.0),
      # These contain the gold, and get that part of a point.
      ("123", "1234", -0.25),
      ("123", "-123", -0.25),
      ("123", "9123", -0.25),
      # The question asks for one form, or one order.
      ("3/4", "6/8", -0.25),
      ("1, 2", "2, 1", -0.25),
    ):
      with self.subTest(answer):
        self.assertEqual(gym.worth(0.75, gold, answer), wanted)
    self.assertEqual(gym.worth(1.0, "(1 + 2)", "3"), 1.0)
    self.assertEqual(gym.worth(0.0, "(1 + 2)", "3"), -1.0)
    self.assertAlmostEqual(gym.worth(0.99, "(1 + 2)", "3"), -0.01)

  def test_what_is_not_there(self):
    with self.assertRaisesRegex(
      PluginError, "^config.task='reasoning_gym:cubes': .*not registered"
    ):
      load_task("reasoning_gym:cubes")
    with mock.patch.dict(sys.modules, {"reasoning_gym": None}):
      with self.assertRaisesRegex(PluginError, r"pip install 'rstar_jax\[reas"):
        load_task("reasoning_gym:squares")


class ColdStartTest(absltest.TestCase):
  """The solutions that `configs/tiny_gym.py` begins with."""

  def test_a_solution_runs_to_the_answer(self):
    question = "State the final answer to the following arithmetic problem:"
    for sum_, answer in (("4 - 1 - 70 + 205 =", "138"), ("8 =", "8")):
      problem = Problem("p", f"{question} {sum_}", answer)
      nodes = released.split_nodes(tiny_gym.written(problem))
      self.assertIsNone(grammar.problem_with_solution(nodes))
      # A step for each number, one that prints, and the answer.
      self.assertLen(nodes, len(sum_.split()) // 2 + 2)
      (ran,) = testing.run_trusted([grammar.program(nodes)])
      self.assertEqual((ran.status, ran.stdout), ("ok", answer))
      self.assertEqual(answers.final_answer(nodes[-1]), answer)

  def test_configs(self):
    for arg in ("cold", "run"):
      validation.validate(tiny_gym.get_config(arg))
    with self.assertRaisesRegex(ValueError, "tiny_gym.py:hot: must be cold or"):
      tiny_gym.get_config("hot")


if __name__ == "__main__":
  absltest.main()
