"""Verdicts on answers to problems that may have several right answers."""

from collections.abc import Sequence

from rstar_jax.types import Grade, Problem, Verdict


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
