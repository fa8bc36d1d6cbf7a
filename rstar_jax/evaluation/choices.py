"""Chooses among the solutions that a method found, and says what they cost.

  first     the first solution (of "greedy" there is but one)
  pass      whether any is right: what no choice can exceed
  majority, best, weighted, top_k: see `grading/choose.py`

Each of several independent searches contributes its best solution, and the
choice is made among these, as in the released code; "pass" looks at all.
"""

import dataclasses
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, get_args

from rstar_jax.evaluation import cost, sources
from rstar_jax.grading import choose as choose_lib
from rstar_jax.grading.voting import vote_key

Record = Mapping[str, Any]
Normalise = Callable[[str], Hashable]

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
  normalise: Normalise = vote_key,
) -> Outcome:
  """Chooses among the solutions of the first units.

  Args:
    record: see `solutions.py`.
    choice: one of `CHOICES`.
    units: number of units to choose among and to count the tokens of, at least
      1; None is all. A search that ended early has fewer.
    k: number of solutions that vote in "top_k", at least 1.
    normalise: answers with the same normal form vote together.

  Raises:
    ValueError: `choice` is unknown.
  """
  if choice not in CHOICES:
    raise ValueError(f"choice={choice!r} must be one of {', '.join(CHOICES)}")
  found = voters(record, choice, units)
  if choice == "first":
    verdict = found[0]["verdict"] if found else "failed"
  elif choice == "pass":
    verdict = _ceiling(found)
  else:
    index = choose_lib.choose(
      choice,
      list(map(_answer, found)),
      [each["value"] for each in found],
      normalise,
      k=k,
    )
    verdict = "failed" if index is None else found[index]["verdict"]
  return Outcome(
    record["problem_id"], record["level"], verdict, cost.tokens(record, units)
  )


def voters(
  record: Record, choice: str, units: int | None = None
) -> Sequence[Mapping[str, Any]]:
  """Returns the solutions that a choice is made among, in their order."""
  found = record["trajectories"]
  if units is not None:
    found = [each for each in found if each["unit"] < units]
  if record["source"] == "searches" and choice != "pass":
    found = _best_of_each(found)
  return found


def settled(
  record: Record,
  choice: str,
  units: int,
  *,
  normalise: Normalise = vote_key,
  confidence: float = 1.0,
) -> int | None:
  """Returns the number of units after which no later one changes the choice.

  A unit has at most one vote, of weight at most 1. An answer therefore keeps
  its lead if it leads by more than the number of remaining units, or by exactly
  that number if it came first. The best keeps its lead if its value is the
  highest that there is, 1.

  Args:
    record: of a source whose units are independent: one vote each.
    choice: "majority", "weighted" or "best"; others are open until the end.
    units: number of units without early stopping.
    normalise: answers with the same normal form vote together.
    confidence: of the majority, that it is so in truth; see `choose.sure`.

  Returns:
    A number in [1, `units`]; None for another choice or source.
  """
  if not sources.of(record["source"]).independent:
    return None
  if choice not in ("majority", "weighted", "best"):
    return None
  found = voters(record, choice)
  if choice == "best" and valued([record]):
    tops = (each["unit"] + 1 for each in found if each["value"] == 1)
    return min(min(tops, default=units), units)
  weighted = choice == "weighted" and any(
    each["value"] is not None for each in found
  )
  votes = {each["unit"]: each for each in found if _answer(each) is not None}
  # In order of first votes, as `choose` keeps them.
  weights: dict[Hashable, float] = {}
  for unit in range(units):
    each = votes.get(unit)
    if each and (not weighted or each["value"] is not None):
      name = normalise(each["answer"])
      weight = (1 + each["value"]) / 2 if weighted else 1.0
      weights[name] = weights.get(name, 0.0) + weight
    # Weights are no numbers of votes.
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
  """Returns the best verdict of all, which no choice can exceed."""
  return min(
    (each["verdict"] for each in trajectories),
    key=("equal", "undecided", "different", "failed").index,
    default="failed",
  )


def _best_of_each(found: Sequence[Mapping]) -> list[Mapping]:
  """Returns the highest-valued solution of each unit, the first of equals."""
  units: dict[int, list[Mapping]] = {}
  for each in found:
    units.setdefault(each["unit"], []).append(each)
  best = [
    (unit, choose_lib.best([each["value"] for each in unit]))
    for unit in units.values()
  ]
  return [unit[index] for unit, index in best if index is not None]
