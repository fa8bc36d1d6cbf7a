"""ProcessBench (arXiv 2412.06559): where is the first wrong step?

A reward model says: at the first step whose chance is below a threshold, or
nowhere. A subset's figure is F1, the harmonic mean of its accuracy on solutions
with a wrong step and on those without. As the authors do, the threshold is the
best one on GSM8K, and is the same for all subsets.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from rstar_jax import outside
from rstar_jax.data.files import ProblemError, Row
from rstar_jax.evaluation import step_errors
from rstar_jax.evaluation.step_errors import Marked

# On the hub at Qwen/ProcessBench; the first gives the threshold.
SUBSETS = ("gsm8k", "math", "olympiadbench", "omnimath")
# The index of a wrong step where there is none.
NOWHERE = -1


def read(rows: Iterable[Row], subset: str) -> list[Marked]:
  """Reads rows of "problem", "steps", and "label".

  The label is the index of the first wrong step, -1 without one.

  Raises:
    ProblemError: a row has another form, or there is none.
  """
  found = []
  for place, fields in step_errors.fields_of(rows):
    try:
      steps = step_errors.texts(fields, "steps")
      first = step_errors.number(
        fields.get("label"), "label", NOWHERE, len(steps) - 1
      )
      question = step_errors.text(fields, "problem")
    except outside.Bad as error:
      raise ProblemError(f"{place} {error}") from None
    wrong = frozenset() if first == NOWHERE else frozenset([first])
    found.append(Marked(question, steps, wrong, subset))
  if not found:
    raise ProblemError(f"{subset} of ProcessBench has no solutions")
  return found


def first_wrong(chances: np.ndarray, threshold: float) -> int:
  """Returns the first step whose chance is below, `NOWHERE` without one."""
  (below,) = np.nonzero(np.asarray(chances) < threshold)
  return int(below[0]) if len(below) else NOWHERE


def measure(
  marked: Sequence[Marked], chances: Sequence[np.ndarray], threshold: float
) -> dict[str, Any]:
  """Measures a reward model on a subset.

  Args:
    marked: solutions.
    chances: of each step; see `step_errors.chances`.
    threshold: a step below it is called wrong.

  Returns:
    "f1", and what it is the mean of: "error", how often the first wrong step is
    found, and "correct", how often a right solution is called right, in [0, 1]
    and 0 if there is none; "n", [number with a wrong step, without].
  """
  hits: tuple[list[bool], list[bool]] = [], []
  for each, found in zip(marked, chances, strict=True):
    label = min(each.wrong, default=NOWHERE)
    hits[not each.wrong].append(first_wrong(found, threshold) == label)
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
  """Returns the threshold of the highest F1; of equal ones that nearest 0.5.

  Between two neighbouring chances all thresholds are alike, so that only those
  halfway are tried, and 0.5.
  """
  longest = max(map(len, chances))
  # Each step's chance, if it is lower than all before it: others are never the
  # first below any threshold.
  lowest = np.full((len(chances), longest), np.inf)
  for row, found in zip(lowest, chances, strict=True):
    row[: len(found)] = np.minimum.accumulate(found)
    row[len(found) :] = row[len(found) - 1]
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
