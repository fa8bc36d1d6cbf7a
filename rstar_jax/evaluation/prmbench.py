"""PRMBench (arXiv 2501.03124): finds wrong steps, by kind of error.

Each solution has errors of one kind, written into it. A step is predicted to be
good if its chance is above 0.5. A kind's *PRMScore* is the mean of two F1
scores: of good steps and of wrong steps; for solutions without wrong steps
(`multi_solutions`) it is the first alone. Names, spelling and formulas are the
authors'.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from rstar_jax import outside
from rstar_jax.data.rows import Row
from rstar_jax.evaluation import step_errors
from rstar_jax.evaluation.step_errors import Marked

# On the Hub at hitsmy/PRMBench_Preview.
GROUPS = {
  "simplicity": ("redundency", "circular"),
  "soundness": (
    "counterfactual",
    "step_contradiction",
    "domain_inconsistency",
    "confidence",
  ),
  "sensitivity": ("missing_condition", "deception", "multi_solutions"),
}
_KINDS = tuple(kind for kinds in GROUPS.values() for kind in kinds)
_ALL_GOOD = "multi_solutions"
# A step with a chance above this is predicted to be good; the authors use it
# for all models that give probabilities.
THRESHOLD = 0.5


def read(rows: Iterable[Row]) -> list[Marked]:
  """Reads rows of "modified_question", "modified_process" and so on.

  "error_steps" are step numbers from 1, "classification" is the kind.

  Raises:
    ProblemError: a row has another form, or there are no rows.
  """
  return step_errors.read(rows, _marked, "PRMBench")


def _marked(fields: Mapping[str, Any]) -> Marked:
  steps = step_errors.texts(fields, "modified_process")
  kind = step_errors.text(fields, "classification")
  if kind not in _KINDS:
    raise outside.Bad(
      f"has classification={kind!r:.40}, want one of {', '.join(_KINDS)}"
    )
  # Some of the data's numbers exceed the number of steps.
  wrong = frozenset(
    step_errors.number(each, "error_steps", 1, 1 << 20) - 1
    for each in outside.sequence(
      fields.get("error_steps"), "error_steps", object
    )
  )
  question = step_errors.text(fields, "modified_question")
  return Marked(question, steps, wrong, kind)


def measure(
  marked: Sequence[Marked],
  chances: Sequence[np.ndarray],
  threshold: float = THRESHOLD,
) -> dict[str, Any]:
  """Computes a reward model's scores.

  Args:
    marked: solutions with known wrong steps.
    chances: float [steps] per solution; see `step_errors.chances`.
    threshold: a step with a chance above it is predicted to be good.

  Returns:
    "overall", and per kind in "kinds": "prm_score", "f1" of good steps,
    "negative_f1" of wrong steps, and "n", the number of solutions. "groups":
    the mean PRMScore of each group's kinds, left out unless all of them are
    there.
  """
  counts = {kind: np.zeros((2, 2), int) for kind in _KINDS}
  solutions = dict.fromkeys(_KINDS, 0)
  for each, steps in zip(marked, chances, strict=True):
    solutions[each.kind] += 1
    for index, chance in enumerate(steps):
      wrong, called = index in each.wrong, chance <= threshold
      counts[each.kind][int(wrong), int(called)] += 1
  kinds = {
    kind: _scores(counts[kind], solutions[kind], kind == _ALL_GOOD)
    for kind in _KINDS
    if solutions[kind]
  }
  return {
    "overall": _scores(sum(counts.values()), len(marked)),
    "kinds": kinds,
    "groups": {
      group: float(np.mean([kinds[kind]["prm_score"] for kind in members]))
      for group, members in GROUPS.items()
      if kinds.keys() >= set(members)
    },
  }


def _scores(
  counts: np.ndarray, solutions: int, all_good: bool = False
) -> dict[str, Any]:
  """Returns the scores of counts, int [is wrong, is predicted wrong]."""
  f1, negative = (
    _f1(counts[c, c], counts[:, c].sum(), counts[c].sum()) for c in (0, 1)
  )
  score = f1 if all_good else (f1 + negative) / 2
  return {"prm_score": score, "f1": f1, "negative_f1": negative, "n": solutions}


def _f1(hits: int, called: int, are: int) -> float:
  """Returns a class's F1; 0 if it is empty, or never predicted."""
  if not called or not are:
    return 0.0
  return step_errors.harmonic(float(hits / called), float(hits / are))
