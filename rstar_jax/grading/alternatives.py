"""Verdicts of answers to problems, some of which have several right answers."""

from collections.abc import Sequence

from rstar_jax.types import Grade, Problem, Verdict


def verdicts(
  grade: Grade, answered: Sequence[tuple[Problem, str]]
) -> list[Verdict]:
  """Grades answers against all that count as right.

  Args:
    grade: compares two answers.
    answered: problems that have a gold answer, each with what was answered.

  Returns:
    "equal" where any right answer is; else "undecided" where the grader gave up
    on any; else "different".
  """
  pairs = [
    (gold, given)
    for problem, given in answered
    for gold in (problem.answer, *problem.also)
  ]
  found = iter(grade(pairs))
  results = []
  for problem, _ in answered:
    several = [next(found) for _ in range(1 + len(problem.also))]
    results.append(min(several, key=("equal", "undecided", "different").index))
  return results
