"""Computes each method's accuracy, with intervals, from records alone.

Every number of results.json comes from the records of `solutions.py` and the
methods of `methods.py`; no model is needed.
"""

import collections
import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from rstar_jax import rng
from rstar_jax.evaluation import choices, intervals
from rstar_jax.evaluation.choices import Outcome
from rstar_jax.evaluation.methods import (
  METHODS,
  by_split,
  samples_of,
  solve,
  solve_split,
)
from rstar_jax.evaluation.solutions import Record
from rstar_jax.grading.choose import Select

# Split -> problem -> whether it is solved.
Right = Mapping[str, Mapping[str, bool]]

# Methods that a search is compared with.
COMPARED = ("policy", "majority", "best_of_n")
# Why a search does not solve a problem; see `_failures`.
MISSED = ("choice", "search", "policy")


def table(
  records: Iterable[Record],
  *,
  round_: int,
  seed: int = 0,
  select: Select = "best",
  k: int = 4,
  base: Right | None = None,
) -> list[dict[str, Any]]:
  """Computes a row for each split and method that has records.

  Majority, best-of-N and pass@k have as many samples as cost what the search
  costs; see `cost.equal_samples`.

  Args:
    records: the records of one round; see `solutions.py`.
    round_: the round, 0 for the bootstrap model.
    seed: the run's seed; names the bootstrap's resamples.
    select: how the search's answer is chosen. Without values (no PPM yet) the
      majority is chosen, and the row's "select" is "majority".
    k: number of solutions that vote in "top_k", at least 1.
    base: problems that the policy of round 0 solves; see `alone`.

  Returns:
    Rows with round, method, split; accuracy, low, high in [0, 1] (95%
    bootstrap interval over problems); n, the number of problems, and of these
    wrong, undecided, failed; tokens_per_problem; samples (null for mcts);
    select (null except for mcts); levels {level: {"accuracy", "n"}}. With
    `base`, policy has "less": {"base": `intervals.Difference`}. mcts has "less"
    {method: `intervals.Difference`}, and "missed", see `_failures`.

  Raises:
    ValueError: a record is given twice, or has an unknown source or verdict.
  """
  rows = []
  for split, by_source in by_split(records).items():
    count, by_method = solve_split(by_source, select, k)
    of_split: dict[str, dict[str, Any]] = {}
    for method, outcomes in by_method.items():
      how = METHODS[method]
      valued = choices.valued(by_source[how.source])
      of_split[method] = {
        "round": round_,
        "method": method,
        "split": split,
        **_measured(
          outcomes,
          rng.seed_for(seed, "bootstrap", round_, split, method),
        ),
        "samples": samples_of(how.source, count),
        "select": None if how.choice else select if valued else "majority",
      }
    if base and "policy" in by_method:
      grown = intervals.compare(
        _right(by_method["policy"]),
        base.get(split, {}),
        rng.seed_for(seed, "base", round_, split),
      )
      if grown is not None:
        of_split["policy"]["less"] = {"base": dataclasses.asdict(grown)}
    if "mcts" in by_method:
      of_split["mcts"]["less"] = _gains(
        by_method, rng.seed_for(seed, "less", round_, split)
      )
      if "pass@k" in by_method:
        of_split["mcts"]["missed"] = _failures(by_method, by_source["mcts"])
    rows += of_split.values()
  return rows


def _measured(outcomes: Sequence[Outcome], seed: int) -> dict[str, Any]:
  """Returns a method's accuracy, verdicts and cost over its problems."""
  right = np.array([each.right for each in outcomes], np.float64)
  low, high = intervals.bootstrap(right, seed)
  verdicts = collections.Counter(each.verdict for each in outcomes)
  return {
    "accuracy": float(right.mean()),
    "low": low,
    "high": high,
    "n": len(outcomes),
    "wrong": verdicts["different"],
    "undecided": verdicts["undecided"],
    "failed": verdicts["failed"],
    "tokens_per_problem": float(np.mean([each.tokens for each in outcomes])),
    "levels": _levels(outcomes),
  }


def alone(records: Iterable[Record]) -> Right:
  """Returns split -> problem -> whether its greedy solution is right."""
  return {
    split: _right(solve(by_source.get("greedy", []), "policy", 1))
    for split, by_source in by_split(records).items()
  }


def _right(outcomes: Sequence[Outcome]) -> dict[str, bool]:
  return {each.problem_id: each.right for each in outcomes}


def _gains(
  by_method: Mapping[str, Sequence[Outcome]], seed: int
) -> dict[str, dict[str, Any]]:
  right = {method: _right(outcomes) for method, outcomes in by_method.items()}
  pairs = {
    method: intervals.compare(right["mcts"], right[method], seed)
    for method in COMPARED
    if method in right
  }
  return {
    method: dataclasses.asdict(each)
    for method, each in pairs.items()
    if each is not None
  }


def _failures(
  by_method: Mapping[str, Sequence[Outcome]], searches: Sequence[Record]
) -> dict[str, int]:
  """Counts the problems that the search did not solve, by cause.

  Returns:
    "choice": the tree has a right answer, and another was chosen; "search": it
    has none, but one of the samples of equal cost is right; "policy": neither
    has one. Problems without samples are left out.
  """
  sampled = {each.problem_id: each.right for each in by_method["pass@k"]}
  missed = dict.fromkeys(MISSED, 0)
  for outcome, record in zip(by_method["mcts"], searches, strict=True):
    if outcome.right or outcome.problem_id not in sampled:
      continue
    if choices.choose(record, "pass").right:
      missed["choice"] += 1
    else:
      missed["search" if sampled[outcome.problem_id] else "policy"] += 1
  return missed


def _levels(outcomes: Sequence[Outcome]) -> dict[str, dict[str, Any]]:
  right: dict[str, list[bool]] = {}
  for outcome in sorted(
    outcomes, key=lambda o: (o.level is None, o.level or 0)
  ):
    right.setdefault(str(outcome.level), []).append(outcome.right)
  return {
    level: {"accuracy": sum(each) / len(each), "n": len(each)}
    for level, each in right.items()
  }


def solved(round_: int, trees: Mapping[str, Any]) -> dict[str, Any]:
  """Returns the share of training problems that a round solved.

  Args:
    round_: from 1.
    trees: the manifest of its trees.
  """
  # Older runs' manifests lack some of these.
  names = ("levels", "easy", "medium", "hard", "generated_tokens")
  return {
    "round": round_,
    "share": trees["solved"],
    **{name: trees[name] for name in names if name in trees},
  }
