"""Chooses among the solutions that a method found, and counts their cost.

  first     the first solution ("greedy" has only one)
  pass      right if any is: the ceiling of all choices
  majority, best, weighted, top_k: see `grading/choose.py`

Each of several independent searches contributes its best solution, and the
choice is made among these, as in the released code; "pass" takes all solutions.
"""

import dataclasses
from collections.abc import Hashable, Mapping, Sequence
from typing import Any, get_args

from rstar_jax.evaluation import cost, sources
from rstar_jax.evaluation.solutions import Record
from rstar_jax.grading import choose as choose_lib
from rstar_jax.grading.voting import vote_key

CHOICES = ("first", "pass", *get_args(choose_lib.Select))
# Choices that need the values of a reward model.
VALUED = ("best", "weighted", "top_k")
VERDICTS = ("equal", "different", "undecided", "failed")


@dataclasses.dataclass(frozen=True)
class Outcome:
  """The verdict and the cost of one method on one problem.

  Attributes:
    level: difficulty of the problem; None if it has none.
    verdict: one of `VERDICTS`, for the chosen answer; "failed" without one.
    tokens: generated tokens, at least 0.
  """

  problem_id: str
  level: int | None
  verdict: str
  tokens: int

  @property
  def right(self) -> bool:
    return self.verdict == "equal"


def choose(
  record: Record,
  choice: str,
  units: int | None = None,
  *,
  k: int = 4,
) -> Outcome:
  """Returns the choice among the solutions of the first units.

  Args:
    record: see `solutions.py`.
    choice: one of `CHOICES`.
    units: number of units, at least 1, that the choice and its tokens cover;
      None is all. A search that ended early has fewer.
    k: number of solutions that vote in "top_k", at least 1.

  Raises:
    ValueError: `choice` is unknown.
  """
  if choice not in CHOICES:
    raise ValueError(f"choice={choice!r} must be one of {', '.join(CHOICES)}")
  solutions = voters(record, choice, units)
  if choice == "first":
    verdict = solutions[0]["verdict"] if solutions else "failed"
  elif choice == "pass":
    verdict = _ceiling(solutions)
  else:
    index = choose_lib.choose(
      choice,
      list(map(_answer, solutions)),
      [each["value"] for each in solutions],
      k=k,
    )
    verdict = "failed" if index is None else solutions[index]["verdict"]
  return Outcome(
    record["problem_id"], record["level"], verdict, cost.tokens(record, units)
  )


def voters(
  record: Record, choice: str, units: int | None = None
) -> Sequence[Mapping[str, Any]]:
  """Returns the solutions that a choice is made among, in record order."""
  solutions = record["trajectories"]
  if units is not None:
    solutions = [each for each in solutions if each["unit"] < units]
  if record["source"] == "searches" and choice != "pass":
    solutions = _best_of_each(solutions)
  return solutions


def settled(
  record: Record,
  choice: str,
  units: int,
  *,
  confidence: float = 1.0,
) -> int | None:
  """Returns the number of units after which no later unit changes the choice.

  A unit has at most one vote, of weight at most 1. So an answer keeps its lead
  if it leads by more than the number of remaining units, or by exactly that
  number if it came first. The best solution is settled if its value is the
  maximum, 1.

  Args:
    record: of a source whose units are independent, with one vote each.
    choice: "majority", "weighted" or "best"; others are open until the end.
    units: number of units without early stopping.
    confidence: in (0, 1]; probability that the majority is the policy's most
      frequent answer, at which it counts as settled; see `choose.sure`.

  Returns:
    A number in [1, `units`]; None for another choice or source.
  """
  if not sources.of(record["source"]).independent:
    return None
  if choice not in ("majority", "weighted", "best"):
    return None
  solutions = voters(record, choice)
  if choice == "best" and valued([record]):
    tops = (each["unit"] + 1 for each in solutions if each["value"] == 1)
    return min(min(tops, default=units), units)
  weighted = choice == "weighted" and any(
    each["value"] is not None for each in solutions
  )
  votes = {
    each["unit"]: each for each in solutions if _answer(each) is not None
  }
  # In order of first votes, as `choose` keeps them.
  weights: dict[Hashable, float] = {}
  for unit in range(units):
    each = votes.get(unit)
    if each and (not weighted or each["value"] is not None):
      name = vote_key(each["answer"])
      weight = (1 + each["value"]) / 2 if weighted else 1.0
      weights[name] = weights.get(name, 0.0) + weight
    # `confidence` counts votes, and weights are not counts.
    enough = 1.0 if weighted else confidence
    if choose_lib.sure(weights, units - unit - 1, enough):
      return unit + 1
  return units


def valued(records: Sequence[Record]) -> bool:
  """Returns whether any solution has a reward model's value."""
  return any(
    each["value"] is not None
    for record in records
    for each in record["trajectories"]
  )


def _answer(trajectory: Mapping[str, Any]) -> str | None:
  """Returns the answer, or None where the solution failed."""
  return None if trajectory["verdict"] == "failed" else trajectory["answer"]


def _ceiling(trajectories: Sequence[Mapping]) -> str:
  """Returns the best of all verdicts, the ceiling of all choices."""
  return min(
    (each["verdict"] for each in trajectories),
    key=("equal", "undecided", "different", "failed").index,
    default="failed",
  )


def _best_of_each(solutions: Sequence[Mapping]) -> list[Mapping]:
  """Returns each unit's "best" solution; a unit without an answer has none."""
  units: dict[int, list[Mapping]] = {}
  for each in solutions:
    units.setdefault(each["unit"], []).append(each)
  best = [
    (
      unit,
      choose_lib.choose(
        "best", list(map(_answer, unit)), [each["value"] for each in unit]
      ),
    )
    for unit in units.values()
  ]
  return [unit[index] for unit, index in best if index is not None]
