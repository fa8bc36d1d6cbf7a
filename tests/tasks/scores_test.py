"""Scores that untrusted answers get; see `stand_in/reasoning_gym.py`."""

import contextlib
import gc
import os
import pathlib
from unittest import mock

from absl.testing import absltest

from rstar_jax.config.plugins import PluginError
from rstar_jax.sandbox import process
from rstar_jax.tasks import gym, scores
from rstar_jax.tasks.named import load_task
from tests.tasks import stand_ins

# Problem 3 of the training split has the answer 9.
_RIGHT = ("train", 3, "10 - 1")
# Gives a full score to the next answers, as far as it can.
_FORGES = """exec('''
import os, reasoning_gym
reasoning_gym.Evaluated.score_answer = lambda *_: 1.0
for number in range(3, 99):
  try: os.write(number, bytes([0, 0, 0, 3]) + b"1.0" + bytes([0, 0, 0, 3]))
  except OSError: pass
''')"""
# Forks, and the fork of the fork stays.
_STAYS = """exec('''
import os, time
if os.fork() == 0:
  if os.fork() == 0: time.sleep(99)
  os._exit(0)
os.wait()
''')"""


def session_of(pid):
  """Returns the pids of the processes of a session."""
  found = []
  for path in pathlib.Path("/proc").glob("[0-9]*/stat"):
    with contextlib.suppress(OSError):
      _, _, _, session, *_ = path.read_text().rpartition(")")[2].split()
      if int(session) == pid:
        found.append(int(path.parent.name))
  return found


class ScoresTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    self.enter_context(stand_ins.importable())
    self.scores = gym.Scores("evaluated")

  def test_scores(self):
    self.assertEqual(self.scores.score(*_RIGHT), 1.0)
    self.assertEqual(self.scores.score("train", 4, "10 - 1"), 0.0)
    self.assertEqual(self.scores.score("test", 0, "10**12"), 1.0)
    for answer in ("1 / 0", "exit()", "(", "", "bytes(1 << 40)"):
      self.assertEqual(self.scores.score("train", 3, answer), 0.0)

  def test_an_answer_that_is_code(self):
    folder = self.create_tempdir().full_path
    for code in (
      f"__import__('os').mkdir('{folder}/made')",
      f"__import__('os').system('touch {folder}/made')",
      f"open('{folder}/made', 'w')",
      "__import__('os').kill(__import__('os').getppid(), 9)",
      "__import__('os')._exit(0)",
    ):
      self.assertEqual(self.scores.score("train", 3, code), 0.0)
    self.assertEmpty(os.listdir(folder))
    with mock.patch.dict(os.environ, {"RSTAR_JAX_TEST_KEY": "3"}):
      other = gym.Scores("evaluated")
      key = "9 * int('RSTAR_JAX_TEST_KEY' in __import__('os').environ)"
      self.assertEqual(other.score("train", 3, key), 0.0)

  def test_an_answer_changes_no_other_score(self):
    self.scores.score("train", 3, _FORGES)
    for answer, wanted in (("8", 0.0), ("9", 1.0), ("7", 0.0), ("9", 1.0)):
      self.assertEqual(self.scores.score("train", 3, answer), wanted)

  def test_an_answer_that_does_not_end(self):
    with mock.patch.object(gym, "_SECONDS", 0.5):
      for code in ("9**9**9**9", "__import__('time').sleep(99)"):
        self.assertEqual(self.scores.score("train", 3, code), 0.0)
      self.assertEqual(self.scores.score(*_RIGHT), 1.0)

  def test_nothing_that_an_answer_starts_stays(self):
    self.scores.score("train", 3, _STAYS)
    worker = self.scores._workers[0].pid
    self.assertEqual(session_of(worker), [worker])

  def test_a_worker_that_was_killed_is_replaced(self):
    self.scores.score(*_RIGHT)
    os.kill(self.scores._workers[0].pid, 9)
    self.assertEqual(self.scores.score(*_RIGHT), 1.0)

  def test_what_the_worker_cannot_make(self):
    other = gym.Scores("cubes")
    with self.assertRaisesRegex(PluginError, "^reasoning_gym: ValueError: Da"):
      other.score("train", 3, "27")

  def test_the_worker_ends_with_the_task(self):
    task = load_task("reasoning_gym:squares")
    problem = next(iter(task.problems("train")))
    task.reward(problem, "0")
    before = process._descendants(os.getpid())
    del task
    gc.collect()
    self.assertLess(len(process._descendants(os.getpid())), len(before))


class CheckedTest(absltest.TestCase):
  def test_only_numbers_from_0_to_1(self):
    for found, wanted in (
      (0.25, 0.25),
      (1, 1.0),
      (7, 1.0),
      (-1, 0.0),
      (float("nan"), 0.0),
      (float("inf"), 0.0),
      ("1", 0.0),
      (None, 0.0),
      ([1], 0.0),
    ):
      self.assertEqual(scores.checked(found), wanted)


if __name__ == "__main__":
  absltest.main()
