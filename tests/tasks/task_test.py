"""What a task leaves out is as for mathematics."""

from absl.testing import absltest

from rstar_jax.steps import prompts
from rstar_jax.tasks.task import MATH, Task


class TaskTest(absltest.TestCase):
  def test_mathematics_is_what_the_models_were_trained_on(self):
    self.assertIs(MATH.prompt, prompts.prompt)
    self.assertEqual(MATH.few_shot("How?"), prompts.few_shot("How?"))
    self.assertIsNone(MATH.reward)

  def test_examples_and_instruction_of_one_s_own(self):
    examples = (("1?", ("<code>a", "<answer>b")), ("2?", ("c",)))
    task = Task(instruction="Do it.", examples=examples)
    self.assertEqual(
      task.few_shot("3?"),
      "Do it.\n\nQuestion: 1?\nSolution:\n<code>a<answer>b\n\n"
      "Question: 2?\nSolution:\nc\n\nQuestion: 3?\nSolution:\n",
    )


if __name__ == "__main__":
  absltest.main()
