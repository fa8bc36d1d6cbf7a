"""Measures a reward model by its values on held-out trees."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from rstar_jax.config.schema import ExtractConfig
from rstar_jax.data import pairs as pairs_lib
from rstar_jax.data import trajectories as trajectories_lib
from rstar_jax.search import values as values_lib
from rstar_jax.search.tree import Tree
from rstar_jax.types import Score

_BINS = 10


def of_problem(
  trees: Sequence[Tree], score: Score, config: ExtractConfig
) -> dict[str, Any]:
  """Values the solutions and pairs of a held-out problem's trees.

  Args:
    trees: all trees of the problem, with graded answers.
    score: the reward model.
    config: how preference pairs are made from trees.

  Returns:
    JSON-able: "problem", its id; "level"; "solutions", for each graded solution
    "values", one per step, and "right"; "wins" {kind of pair: [1 if the
    preferred side has the higher value, 0 if the other has, 0.5 for a tie]}.
  """
  right, wrong, _ = trajectories_lib.graded(trees)
  pairs, _ = pairs_lib.pairs(trees, config)
  partials = [
    each
    for t in (*right, *wrong)
    for each in values_lib.partials_of(t.question, t.steps, "mean")
  ]
  partials += [(p.question, p.chosen) for p in pairs]
  partials += [(p.question, p.rejected) for p in pairs]
  values = values_lib.values_of(score, partials)
  wins: dict[str, list[float]] = {}
  for pair in pairs:
    margin = values[pair.question, pair.chosen]
    margin -= values[pair.question, pair.rejected]
    wins.setdefault(pair.kind, []).append(float(np.sign(margin) + 1) / 2)
  return {
    "problem": trees[0].problem.id,
    "level": trees[0].problem.level,
    "solutions": [
      {
        "values": [
          float(values[each])
          for each in values_lib.partials_of(t.question, t.steps, "mean")
        ],
        "right": bool(t.correct),
      }
      for t in (*right, *wrong)
    ],
    "wins": wins,
  }


def summary(problems: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
  """Summarises a reward model's quality.

  Args:
    problems: `of_problem` of each problem.

  Returns:
    The fields of `report`, unless no solution is graded; and "pairs" {kind:
    {"accuracy", "n"}}, the share of pairs whose preferred side has the higher
    value; a tie counts half.
  """
  rows: list[dict[str, Any]] = []
  wins: dict[str, list[float]] = {}
  for each in problems:
    problem = {"problem": each["problem"], "level": each["level"]}
    rows += [solution | problem for solution in each["solutions"]]
    for kind, won in each["wins"].items():
      wins.setdefault(kind, []).extend(won)
  return (report(rows) if rows else {}) | {
    "pairs": {
      kind: {"accuracy": float(np.mean(each)), "n": len(each)}
      for kind, each in wins.items()
    }
  }


def auc(values: np.ndarray, outcomes: np.ndarray) -> float | None:
  """Returns the area under the ROC curve (Mann and Whitney 1947).

  This is the probability that a right solution has a higher value than a wrong
  one; a tie counts half.

  Args:
    values: float [n].
    outcomes: bool [n], whether the solution is right.

  Returns:
    An area in [0, 1], 0.5 by chance; None unless both outcomes occur.
  """
  values, outcomes = np.asarray(values, np.float64), np.asarray(outcomes, bool)
  right, wrong = int(outcomes.sum()), int((~outcomes).sum())
  if not right or not wrong:
    return None
  _, inverse, counts = np.unique(
    values, return_inverse=True, return_counts=True
  )
  # Equal values share their mean rank, counted from 1.
  ends = np.cumsum(counts)
  ranks = (ends - (counts - 1) / 2)[inverse]
  above = ranks[outcomes].sum() - right * (right + 1) / 2
  return float(above / (right * wrong))


def calibration(
  values: np.ndarray, outcomes: np.ndarray
) -> tuple[float, list[dict[str, float]]]:
  """Compares (1 + value) / 2, as a probability, with the outcomes.

  A PPM is trained to rank and need not be calibrated; a PQM and an ORM should.

  Args:
    values: float [n] in [-1, 1], n at least 1.
    outcomes: bool [n].

  Returns:
    The expected calibration error (Guo et al. 2017) over ten bins of equal
    width, in [0, 1]; and the bins that are not empty, with "predicted" and
    "right", means in [0, 1], and "n".
  """
  chance = (1 + np.asarray(values, np.float64)) / 2
  outcomes = np.asarray(outcomes, np.float64)
  place = np.clip((chance * _BINS).astype(int), 0, _BINS - 1)
  bins = []
  for each in np.unique(place):
    inside = place == each
    bins.append(
      {
        "predicted": float(chance[inside].mean()),
        "right": float(outcomes[inside].mean()),
        "n": int(inside.sum()),
      }
    )
  error = sum(b["n"] * abs(b["predicted"] - b["right"]) for b in bins)
  return error / len(chance), bins


def report(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
  """Summarises a reward model's values on graded solutions.

  Args:
    rows: one per solution: "values", one per step from the first; "right",
      whether its answer is right; "problem", its id; "level", int or None.

  Returns:
    "solutions": number of solutions.
    "auc", "calibration_error", "bins": of whole solutions' values.
    "auc_within": the mean AUC within the "problems_within" problems that have
    both right and wrong solutions. Unlike "auc", it gains nothing from telling
    hard problems from easy ones.
    "by_step": {"0", "-1", ... (steps from the last): {"auc", "n"}}, how well
    the value at that step predicts the final answer.
    "by_level": {level: {"auc", "n"}}.
  """
  last = np.array([row["values"][-1] for row in rows])
  right = np.array([row["right"] for row in rows], bool)
  error, bins = calibration(last, right)
  problems: dict[str, list[tuple[float, bool]]] = {}
  for row in rows:
    problems.setdefault(row["problem"], []).append(
      (row["values"][-1], row["right"])
    )
  within = [_auc_of(each)["auc"] for each in problems.values()]
  within = [each for each in within if each is not None]
  steps: dict[str, list[tuple[float, bool]]] = {}
  levels: dict[str, list[tuple[float, bool]]] = {}
  for row in rows:
    for back, value in enumerate(reversed(row["values"])):
      steps.setdefault(str(-back), []).append((value, row["right"]))
    levels.setdefault(str(row["level"]), []).append(
      (row["values"][-1], row["right"])
    )
  return {
    "solutions": len(rows),
    "auc": auc(last, right),
    "auc_within": float(np.mean(within)) if within else None,
    "problems_within": len(within),
    "calibration_error": error,
    "bins": bins,
    "by_step": {name: _auc_of(each) for name, each in steps.items()},
    "by_level": {name: _auc_of(levels[name]) for name in sorted(levels)},
  }


def _auc_of(pairs: Sequence[tuple[float, bool]]) -> dict[str, Any]:
  values, right = zip(*pairs, strict=True)
  return {"auc": auc(np.array(values), np.array(right)), "n": len(pairs)}
