"""Judges answers to problems: by the grader, or by a reward of one's own."""

import numbers
from collections.abc import Callable, Sequence

from rstar_jax.config import plugins
from rstar_jax.types import Grade, Problem, Verdict

# What an answer is worth, from -1 to 1; it is right above 0.
Reward = Callable[[Problem, str], float]


def judge(
  answered: Sequence[tuple[Problem, str]],
  grade: Grade,
  reward: Reward | None = None,
) -> list[tuple[Verdict, float] | None]:
  """Judges answers; see `verdicts` and `rewards`.

  Args:
    answered: (problem, answer) pairs.
    grade: compares two answers.
    reward: judges in its place; None is the grader.

  Returns:
    For each pair its verdict and its reward: 1 or -1 of the grader, for which
    an undecided answer is not right. None where there is neither a gold answer
    nor a reward.
  """
  if reward is not None:
    return [
      ("equal" if worth > 0 else "different", worth)
      for worth in rewards(reward, answered)
    ]
  gold = [each for each in answered if each[0].answer is not None]
  graded = iter(verdicts(grade, gold) if gold else ())
  found: list[tuple[Verdict, float] | None] = []
  for problem, _ in answered:
    verdict = None if problem.answer is None else next(graded)
    worth = 1.0 if verdict == "equal" else -1.0
    found.append(None if verdict is None else (verdict, worth))
  return found


def rewards(
  reward: Reward, answered: Sequence[tuple[Problem, str]]
) -> list[float]:
  """Returns the rewards of answers.

  Raises:
    PluginError: one is no number from -1 to 1.
  """
  plugin = plugins.wrap(reward, "calls.reward")
  found = []
  for problem, answer in answered:
    worth = plugin(problem, answer)
    # A truth value would make a wrong answer worth 0.
    number = isinstance(worth, numbers.Real) and not isinstance(worth, bool)
    if not (number and -1 <= worth <= 1):
      raise plugin.wrong("a number from -1 to 1", plugins.shown(worth))
    found.append(float(worth))
  return found


def verdicts(
  grade: Grade, answered: Sequence[tuple[Problem, str]]
) -> list[Verdict]:
  """Grades each answer against all right answers of its problem.

  Args:
    grade: compares two answers.
    answered: (problem, answer) pairs; each problem has a gold answer.

  Returns:
    A verdict for each pair: "equal" if any right answer is equal, else
    "undecided" if any comparison is, else "different".
  """
  pairs = [
    (gold, given)
    for problem, given in answered
    for gold in (problem.answer, *problem.alternatives)
  ]
  graded = iter(grade(pairs))
  results = []
  for problem, _ in answered:
    each = [next(graded) for _ in range(1 + len(problem.alternatives))]
    results.append(min(each, key=("equal", "undecided", "different").index))
  return results
