"""reasoning-gym as a task: a stand-in for it.

`tests/parity/gym.py` tries the library.
"""

import itertools
import sys
import types
from unittest import mock

from absl.testing import absltest

from rstar_jax.config.plugins import PluginError
from rstar_jax.grading import judging
from rstar_jax.tasks.named import load_task
from rstar_jax.types import Problem


class Squares:
  """Asks for the square of a problem's number; half a point if 1 off."""

  def __init__(self, size, seed):
    self.size, self.seed = size, seed

  def __getitem__(self, index):
    number = self.seed + index
    return {"question": f"What is {number}^2?", "answer": str(number**2)}

  def score_answer(self, answer, entry):
    off = abs(int(answer) - int(entry["answer"]))
    return max(0.0, 1.0 - off / 2)


def create_dataset(name, **options):
  if name != "squares":
    raise ValueError(f"Dataset '{name}' not registered")
  return Squares(**options)


def first(task, split, count):
  return list(itertools.islice(task.problems(split), count))


class StandInTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    gym = types.SimpleNamespace(create_dataset=create_dataset)
    self.enter_context(mock.patch.dict(sys.modules, {"reasoning_gym": gym}))

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

  def test_a_score_from_0_to_1_is_a_reward_from_minus_1_to_1(self):
    task = load_task("reasoning_gym:squares")
    *_, three = first(task, "train", 4)
    asked = [(three, each) for each in ("9", "10", "11", "70")]
    asked.append((Problem("What is 3^2?", "What is 3^2?"), "9"))
    self.assertEqual(
      judging.rewards(task.reward, asked), [1.0, 0.0, -1.0, -1.0, -1.0]
    )

  def test_what_is_not_there(self):
    with self.assertRaisesRegex(
      PluginError, "^config.task='reasoning_gym:cubes': .*not registered"
    ):
      load_task("reasoning_gym:cubes")
    with mock.patch.dict(sys.modules, {"reasoning_gym": None}):
      with self.assertRaisesRegex(PluginError, r"pip install 'rstar_jax\[reas"):
        load_task("reasoning_gym:squares")


if __name__ == "__main__":
  absltest.main()
