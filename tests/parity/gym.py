"""reasoning-gym itself as a task: a part of what `make parity` runs.

It depends on packages that have no wheels, so no test of `make test` needs it.
"""

import itertools

from absl.testing import absltest, parameterized

from rstar_jax.grading import judging
from rstar_jax.tasks.named import load_task


def first(task, split, count):
  return list(itertools.islice(task.problems(split), count))


class LibraryTest(parameterized.TestCase):
  @parameterized.parameters(
    "countdown", "gsm_symbolic", "chain_sum", "polynomial_multiplication"
  )
  def test_its_own_answers_are_right_and_others_are_not(self, name):
    task = load_task(f"reasoning_gym:{name}")
    problems = first(task, "train", 3) + first(task, "test", 2)
    self.assertEqual(problems[:3], first(task, "train", 3))
    right = judging.rewards(task.reward, [(p, p.answer) for p in problems])
    self.assertEqual(right, [1.0] * 5)
    wrong = judging.rewards(
      task.reward,
      [(p, each) for p in problems for each in ("-12345", f"{p.answer}7")],
    )
    self.assertLess(max(wrong), 0)

  def test_what_contains_the_answer_is_wrong(self):
    task = load_task("reasoning_gym:chain_sum")
    for problem in first(task, "train", 5):
      for form in ("{}1", "9{}", "0.{}", "-{}.5"):
        answer = form.format(problem.answer)
        with self.subTest(answer):
          self.assertLess(task.reward(problem, answer), 0)
      self.assertEqual(task.reward(problem, f"{problem.answer}.00"), 1.0)


if __name__ == "__main__":
  absltest.main()
