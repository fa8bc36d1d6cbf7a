"""Problems with several right answers: any of them is accepted."""

import numpy as np
from absl.testing import absltest, parameterized

from rstar_jax.grading import judging
from rstar_jax.sandbox.pool import Limits, Sandbox
from rstar_jax.types import Problem

ONE = Problem("a", "q", "3")
TWO = Problem("b", "q", "3", alternatives=("-3", "hard"))


def grade(pairs):
  calls.append(list(pairs))
  return [
    "undecided" if gold == "hard" else "equal" if gold == given else "different"
    for gold, given in pairs
  ]


calls: list = []


class GradingTest(absltest.TestCase):
  def test_any_right_answer_counts(self):
    calls.clear()
    found = judging.verdicts(
      grade, [(ONE, "3"), (TWO, "-3"), (ONE, "-3"), (TWO, "3"), (TWO, "5")]
    )
    self.assertEqual(
      found, ["equal", "equal", "different", "equal", "undecided"]
    )
    self.assertLen(calls, 1)
    self.assertLen(calls[0], 2 + 3 * 3)

  def test_by_the_grader(self):
    calls.clear()
    none = Problem("c", "q")
    found = judging.judge([(ONE, "3"), (none, "3"), (TWO, "5")], grade)
    self.assertEqual(found, [("equal", 1.0), None, ("undecided", -1.0)])
    self.assertEqual(judging.judge([(none, "3")], grade), [None])
    self.assertLen(calls, 1)

  def test_by_a_reward(self):
    def reward(problem, answer):
      return {"3": 0.25, "4": 0}.get(answer, -0.5) + (problem.answer is None)

    calls.clear()
    none = Problem("c", "q")
    found = judging.judge(
      [(ONE, "3"), (ONE, "4"), (ONE, "5"), (none, "5")], grade, reward
    )
    expected = [("equal", 0.25), ("different", 0.0), ("different", -0.5)]
    self.assertEqual(found, [*expected, ("equal", 0.5)])
    self.assertEmpty(calls)

  def test_what_is_no_reward(self):
    for worth in (None, "1", True, float("nan"), 1.5, -2, [0.5]):
      with self.subTest(str(worth)):
        with self.assertRaisesRegex(
          ValueError, "^calls.reward=.*must return a number from -1 to 1, not"
        ):
          judging.judge([(ONE, "3")], grade, lambda *_, worth=worth: worth)
    judging.judge([(ONE, "3")], grade, lambda *_: np.float32(0.5))


ROOT = Problem(
  "root",
  "def root(x):",
  tests="def check(f):\n"
  "  for x in (0, 4, 9):\n"
  "    assert abs(f(x) ** 2 - x) < 1e-6\n\n"
  "check(root)\n",
)
RIGHT = "def root(x):\n  return x ** 0.5"
WRONG = "def root(x):\n  return x / 2"


class AnswerTest(absltest.TestCase):
  STEPS = (
    "<code>\nx = 1\n<end_of_step>",
    "\nprint(x)\n<end_of_code>\n<output>1<end_of_output>\n",
    "<answer>It is \\boxed{root}.<end_of_answer>",
  )

  def test_the_box_or_where_there_are_tests_the_program(self):
    self.assertEqual(judging.answer_of(ONE, self.STEPS), "root")
    self.assertEqual(judging.answer_of(ROOT, self.STEPS), "x = 1\nprint(x)")
    bare = (*self.STEPS[:2], "<answer>It is root.<end_of_answer>")
    self.assertIsNone(judging.answer_of(ONE, bare))
    self.assertIsNone(judging.answer_of(ROOT, bare))


class PassesTest(parameterized.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    cls.sandbox = Sandbox(workers=1, limits=Limits(wall_seconds=1.0))
    cls.addClassCleanup(cls.sandbox.close)

  def passes(self, program, problem=ROOT):
    (found,) = judging.passes(self.sandbox.run, [(problem, program)])
    return found

  def test_a_right_program_and_a_wrong_one(self):
    asked = [(ROOT, RIGHT), (ONE, "3"), (ROOT, WRONG)]
    self.assertEqual(
      judging.judge(asked, grade, verify=self.sandbox.run),
      [("equal", 1.0), ("equal", 1.0), ("different", -1.0)],
    )
    # A reward takes the place of tests, too.
    self.assertEqual(
      judging.judge(asked[2:], grade, lambda problem, answer: 0.5),
      [("equal", 0.5)],
    )
    with self.assertRaisesRegex(ValueError, "root has tests"):
      judging.judge(asked[:1], grade)

  @parameterized.parameters(
    "",
    "raise SystemExit(0)",
    "import os\nos._exit(0)",
    f"{WRONG}\nprint('ok')",
    "def root(x):\n  raise SystemExit(0)",
    "def root(x):\n  import os\n  os._exit(0)",
    "def root(x):\n  quit()",
    # What the tests use, or what runs them, is hidden by a name.
    f"{WRONG}\ndef abs(x): return 0",
    f"{WRONG}\ndef check(f): pass",
    f"{WRONG}\ndef exec(*args): pass\ndef compile(*args): pass",
    f"{WRONG}\nclass AssertionError(Exception): pass",
    f"{WRONG}\ndef print(*args): pass",
    f"{WRONG}\n__builtins__ = dict(__builtins__, abs=lambda x: 0)",
    # What judges is told that all is well, by another way than the tests.
    f"{WRONG}\nimport atexit, os\natexit.register(os._exit, 0)",
    "def root(x):\n"
    "  import json, os, struct\n"
    "  text = json.dumps(['ok', 'done', '', 0, 0.1, False]).encode()\n"
    "  os.write(60, struct.pack('>I', len(text)) + text)\n"
    "  os._exit(0)",
    "def root(x):\n"
    "  import sys\n"
    "  sys.settrace(None)\n"
    "  sys.stdout.close()\n"
    "  raise SystemExit",
  )
  def test_a_program_that_would_not_pass(self, program):
    self.assertEqual(self.passes(program), "different")

  @parameterized.parameters(
    "while True: pass",
    "def root(x):\n  while True: pass",
  )
  def test_what_takes_too_long_is_undecided_and_not_right(self, program):
    self.assertEqual(self.passes(program), "undecided")
    self.assertEqual(
      judging.judge([(ROOT, program)], grade, verify=self.sandbox.run),
      [("undecided", -1.0)],
    )

  @parameterized.parameters(
    # An honest program may name things as Python does, or print.
    f"{RIGHT}\nsum = 3\ndef max(x): return x\nprint(max(sum))",
    "def abs(x): return x ** 0.5\ndef root(x):\n  return abs(x)",
    f"from __future__ import annotations\n{RIGHT}",
  )
  def test_a_program_that_passes(self, program):
    self.assertEqual(self.passes(program), "equal")


if __name__ == "__main__":
  absltest.main()
