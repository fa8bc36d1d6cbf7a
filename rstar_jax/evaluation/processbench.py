"""ProcessBench (arXiv 2412.06559): finds the first wrong step.

A reward model's prediction is the first step whose chance is below a threshold,
or none. A subset's figure is F1, the harmonic mean of the accuracies on
solutions with a wrong step and on those without. As in the paper, the threshold
is the best one on GSM8K, for all subsets.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from rstar_jax.data.rows import Row
from rstar_jax.evaluation import step_errors
from rstar_jax.evaluation.step_errors import Marked

# On the Hub at Qwen/ProcessBench; the first gives the threshold.
SUBSETS = ("gsm8k", "math", "olympiadbench", "omnimath")
# The label of a solution without a wrong step.
NOWHERE = -1


def read(rows: Iterable[Row], subset: str) -> list[Marked]:
  """Reads rows of "problem", "steps", and "label".

  The label is the index of the first wrong step, -1 without one.

  Raises:
    ProblemError: a row has another form, or there are no rows.
  """

  def marked(fields: Mapping[str, Any]) -> Marked:
    steps = step_errors.texts(fields, "steps")
    first = step_errors.number(
      fields.get("label"), "label", NOWHERE, len(steps) - 1
    )
    question = step_errors.text(fields, "problem")
    wrong = frozenset() if first == NOWHERE else frozenset([first])
    return Marked(question, steps, wrong, subset)

  return step_errors.read(rows, marked, f"{subset} of ProcessBench")


def first_wrong(chances: np.ndarray, threshold: float) -> int:
  """Returns the first step whose chance is below it, `NOWHERE` if none is."""
  (below,) = np.nonzero(np.asarray(chances) < threshold)
  return int(below[0]) if len(below) else NOWHERE


def measure(
  marked: Sequence[Marked], chances: Sequence[np.ndarray], threshold: float
) -> dict[str, Any]:
  """Computes a reward model's figures on a subset.

  Args:
    marked: solutions with known wrong steps.
    chances: float [steps] per solution; see `step_errors.chances`.
    threshold: a step with a chance below it is predicted to be wrong.

  Returns:
    "f1", the harmonic mean of "error", the share of wrong solutions whose first
    wrong step is found, and "correct", the share of right solutions without a
    predicted error; all in [0, 1], 0 for no solutions. "n": numbers of
    solutions [with a wrong step, without].
  """
  hits: tuple[list[bool], list[bool]] = [], []
  for each, steps in zip(marked, chances, strict=True):
    label = min(each.wrong, default=NOWHERE)
    hits[not each.wrong].append(first_wrong(steps, threshold) == label)
  error, correct = (float(np.mean(each)) if each else 0.0 for each in hits)
  return {
    "f1": step_errors.harmonic(error, correct),
    "error": error,
    "correct": correct,
    "n": [len(each) for each in hits],
  }


def best_threshold(
  marked: Sequence[Marked], chances: Sequence[np.ndarray]
) -> float:
  """Returns the threshold with the highest F1, the nearest to 0.5 of equals.

  All thresholds between two neighbouring chances are equivalent, so only the
  midpoints are tried, and 0, 0.5 and 1.
  """
  longest = max(map(len, chances))
  # The running minimum of chances: a step that is not below all earlier ones is
  # never the first below any threshold.
  lowest = np.full((len(chances), longest), np.inf)
  for row, steps in zip(lowest, chances, strict=True):
    row[: len(steps)] = np.minimum.accumulate(steps)
    row[len(steps) :] = row[len(steps) - 1]
  label = np.array([min(each.wrong, default=NOWHERE) for each in marked])
  values = np.unique(lowest)
  tried = np.unique([0.0, 0.5, *(values[1:] + values[:-1]) / 2, 1.0])
  best = (-1.0, 0.0, 0.5)
  for threshold in tried:
    below = lowest < threshold
    first = np.where(below.any(axis=1), below.argmax(axis=1), NOWHERE)
    hits = first == label
    parts = hits[label != NOWHERE], hits[label == NOWHERE]
    f1 = step_errors.harmonic(
      *(each.mean() if len(each) else 0.0 for each in parts)
    )
    best = max(best, (float(f1), -abs(threshold - 0.5), float(threshold)))
  return best[2]
