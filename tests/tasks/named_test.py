"""Tasks by name, and what is said where one is wrong."""

import sys
from unittest import mock

from absl.testing import absltest, parameterized

from rstar_jax.config.plugins import PluginError
from rstar_jax.grading import judging
from rstar_jax.steps import grammar
from rstar_jax.tasks import code
from rstar_jax.tasks.named import load_task
from rstar_jax.tasks.task import MATH, Task
from rstar_jax.types import Problem

CODE = "<code>\n# Add\nprint(2 + 3)\n<end_of_code>"
ANSWER = "<answer>It is \\boxed{5}.<end_of_answer>"
GOOD = ("Add 2 and 3.", (grammar.with_output(CODE, "5"), ANSWER))


class LoadTaskTest(parameterized.TestCase):
  def own(self, task):
    """Loads what a function of this program returns."""
    program = sys.modules["__main__"]
    with mock.patch.object(program, "own_task", lambda: task, create=True):
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

  @parameterized.parameters(
    ("Add 2 and 3.", r"examples must be a tuple, not 'Add 2 and 3.'"),
    (("Add 2 and 3.",), r"examples\[0\] must be \(question, \(step, ...\)\), "),
    ([GOOD, ("Add 2 and 3.", (5,))], r"examples\[1\] must be .*\(5,\)"),
    ([("Add.", GOOD[1][0])], r"examples\[0\] must be "),
    ([GOOD, ("Add.", ("5",))], r"examples\[1\] step 1: no closing marker"),
    ([("Add.", GOOD[1][:1])], r"examples\[0\] does not end with <end_of_ans"),
    ([("Add.", ())], r"examples\[0\] does not end with <end_of_answer>; write"),
    ([("Add.", (CODE, ANSWER))], r"examples\[0\] step 1: code without its o"),
    ([("Add.", (GOOD[1][0], CODE, ANSWER))], r"examples\[0\] step 2: code aft"),
  )
  def test_examples_that_a_model_could_not_follow(self, examples, said):
    with self.assertRaisesRegex(
      PluginError, f"^config.task='__main__:own_task': {said}"
    ):
      self.own(Task(examples=examples))

  def test_examples_of_ours_and_of_the_form_of_ours(self):
    for task in (MATH, code.CODE):
      self.assertEqual(self.own(task).examples, task.examples)
    self.assertIn("Add 2 and 3.", self.own(Task(examples=[GOOD])).few_shot("?"))
    with self.assertRaisesRegex(PluginError, "instruction must be a text, not"):
      self.own(Task(instruction=None))

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
