"""PRMBench (arXiv 2501.03124): which steps are wrong, by kind of error.

Each solution has one kind of error, written into it. A step is called good if
its chance is above 0.5. A kind's *PRMScore* is the mean of two F1: of good
steps and of wrong ones; of solutions without a wrong step (`multi_solutions`)
it is the first alone. Names, spelling and formulas are the authors'.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from rstar_jax import outside
from rstar_jax.data.files import ProblemError, Row
from rstar_jax.evaluation import step_errors
from rstar_jax.evaluation.step_errors import Marked

# On the hub at hitsmy/PRMBench_Preview.
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
# A chance above it is that of a good step, for all of the authors' models that
# give probabilities.
THRESHOLD = 0.5


def read(rows: Iterable[Row]) -> list[Marked]:
  """Reads rows of "modified_question", "modified_process" and so on.

  "error_steps" are numbers of steps from 1, "classification" is the kind.

  Raises:
    ProblemError: a row has another form, or there is none.
  """
  found = []
  for place, fields in step_errors.fields_of(rows):
    try:
      steps = step_errors.texts(fields, "modified_process")
      kind = step_errors.text(fields, "classification")
      if kind not in _KINDS:
        raise outside.Bad(
          f"has classification={kind!r:.40}, want one of {', '.join(_KINDS)}"
        )
      # Some numbers are of steps that a solution does not have.
      wrong = {
        step_errors.number(each, "error_steps", 1, 1 << 20) - 1
        for each in outside.sequence(
          fields.get("error_steps"), "error_steps", object
        )
      }
      question = step_errors.text(fields, "modified_question")
    except outside.Bad as error:
      raise ProblemError(f"{place} {error}") from None
    found.append(Marked(question, steps, frozenset(wrong), kind))
  if not found:
    raise ProblemError("PRMBench has no solutions")
  return found


def measure(
  marked: Sequence[Marked],
  chances: Sequence[np.ndarray],
  threshold: float = THRESHOLD,
) -> dict[str, Any]:
  """Measures a reward model.

  Args:
    marked: solutions.
    chances: of each step; see `step_errors.chances`.
    threshold: a step above it is called good.

  Returns:
    "overall", and by "kinds": "prm_score", "f1" of good steps, "negative_f1" of
    wrong ones, and "n", solutions. "groups": the mean PRMScore of the kinds of
    each, left out unless all kinds are there.
  """
  counts = {kind: np.zeros((2, 2), int) for kind in _KINDS}
  solutions = dict.fromkeys(_KINDS, 0)
  for each, found in zip(marked, chances, strict=True):
    solutions[each.kind] += 1
    for index, chance in enumerate(found):
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
  """Returns the scores of counts [is wrong, is called wrong]."""
  f1, negative = (
    _f1(counts[c, c], counts[:, c].sum(), counts[c].sum()) for c in (0, 1)
  )
  score = f1 if all_good else (f1 + negative) / 2
  return {"prm_score": score, "f1": f1, "negative_f1": negative, "n": solutions}


def _f1(hits: int, called: int, are: int) -> float:
  """Returns the F1 of a class, 0 where nothing is or is called it."""
  if not called or not are:
    return 0.0
  return step_errors.harmonic(float(hits / called), float(hits / are))
