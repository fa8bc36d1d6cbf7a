"""Tasks by name, and what is said where one is wrong."""

import sys

from absl.testing import absltest

from rstar_jax.config.plugins import PluginError
from rstar_jax.grading import judging
from rstar_jax.tasks import code
from rstar_jax.tasks.named import load_task
from rstar_jax.tasks.task import MATH, Task
from rstar_jax.types import Problem


class LoadTaskTest(absltest.TestCase):
  def own(self, task):
    """Loads what a function of this program returns."""
    self.addCleanup(delattr, sys.modules["__main__"], "own_task")
    sys.modules["__main__"].own_task = lambda: task
    return load_task("__main__:own_task")

  def test_ours(self):
    self.assertIs(load_task(), MATH)
    self.assertIs(load_task("code"), code.CODE)

  def test_one_s_own(self):
    task = self.own(
      Task(
        problems=lambda split: [Problem(split, "q")],
        prompt=lambda question: f"{question}!",
        reward=lambda problem, answer: 0.5,
      )
    )
    self.assertEqual(task.prompt("How?"), "How?!")
    self.assertEqual(list(task.problems("test")), [Problem("test", "q")])
    found = judging.rewards(task.reward, [(Problem("p", "q"), "7")])
    self.assertEqual(found, [0.5])
    self.assertEqual(task.examples, MATH.examples)

  def test_what_is_no_task(self):
    with self.assertRaisesRegex(
      PluginError, "^config.task='__main__:own_task' must return an rstar_jax.T"
    ):
      self.own({"reward": len})
    with self.assertRaisesRegex(PluginError, "config.task='mathematics' must"):
      load_task("mathematics")

  def test_what_a_function_does_wrong_names_it(self):
    task = self.own(
      Task(prompt=lambda question: "none", reward=lambda problem, answer: 2)
    )
    with self.assertRaisesRegex(PluginError, "^task.prompt=.* holds the quest"):
      task.prompt("How?")
    with self.assertRaisesRegex(PluginError, "^task.reward=.* from -1 to 1"):
      judging.rewards(task.reward, [(Problem("p", "q"), "7")])


if __name__ == "__main__":
  absltest.main()
