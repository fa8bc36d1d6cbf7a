"""What is chosen among the solutions that a method found, and what it cost.

  first     the first solution (of "greedy" there is but one)
  pass      whether any is right: what no choice can exceed
  majority, best, weighted, top_k: see `grading/choose.py`

Of independent searches each gives its best solution, and these are chosen from,
as in the released code; "pass" looks at all.
"""

import dataclasses
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, get_args

from rstar_jax.evaluation import cost
from rstar_jax.grading import choose as choose_lib
from rstar_jax.grading.voting import vote_key

Record = Mapping[str, Any]
Normalise = Callable[[str], Hashable]

CHOICES = ("first", "pass", *get_args(choose_lib.Select))
# Those that need values.
VALUED = ("best", "weighted", "top_k")
VERDICTS = ("equal", "different", "undecided", "failed")


@dataclasses.dataclass(frozen=True)
class Outcome:
  """What one method made of one problem.

  Attributes:
    problem_id, level: the problem's.
    verdict: one of `VERDICTS`, of the chosen answer; "failed" without one.
    tokens: generated for it.
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
    units: how many units are looked at, and paid for, at least 1; None is all.
      A search that ended before has fewer.
    k: voters of "top_k".
    normalise: answers with the same normal form vote together.

  Raises:
    ValueError: no such choice.
  """
  if choice not in CHOICES:
    raise ValueError(f"choice={choice!r} must be one of {', '.join(CHOICES)}")
  found = record["trajectories"]
  if units is not None:
    found = [each for each in found if each["unit"] < units]
  if record["source"] == "searches" and choice != "pass":
    found = _best_of_each(found)
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


def settled(
  record: Record,
  choice: str,
  units: int,
  *,
  normalise: Normalise = vote_key,
) -> int | None:
  """Returns after how many units no later one could change the choice.

  A unit has one vote at most, of weight 1 at most: an answer that leads by more
  than the units that are left keeps its lead, and by as many if it came first.

  Args:
    record: of "samples" or "searches", whose units have one vote each.
    choice: "majority" or "weighted"; of others nothing is known before the end.
    units: how many there would be.
    normalise: answers with the same normal form vote together.

  Returns:
    From 1 to `units`; None for another choice or source.
  """
  if record["source"] not in ("samples", "searches"):
    return None
  if choice not in ("majority", "weighted"):
    return None
  found = record["trajectories"]
  if record["source"] == "searches":
    found = _best_of_each(found)
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
    if choose_lib.leads(weights, units - unit - 1):
      return unit + 1
  return units


def valued(records: Sequence[Record]) -> bool:
  """Says whether any solution has a reward model's value."""
  return any(
    each["value"] is not None
    for record in records
    for each in record["trajectories"]
  )


def _answer(trajectory: Mapping[str, Any]) -> str | None:
  """Returns an answer that may be chosen: one that failed may not."""
  return None if trajectory["verdict"] == "failed" else trajectory["answer"]


def _ceiling(trajectories: Sequence[Mapping]) -> str:
  """Returns the best verdict of all: what no choice can exceed."""
  return min(
    (each["verdict"] for each in trajectories),
    key=("equal", "undecided", "different", "failed").index,
    default="failed",
  )


def _best_of_each(found: Sequence[Mapping]) -> list[Mapping]:
  """Returns the solution of highest value of each unit, the first of equals."""
  units: dict[int, list[Mapping]] = {}
  for each in found:
    units.setdefault(each["unit"], []).append(each)
  best = [
    (unit, choose_lib.best([each["value"] for each in unit]))
    for unit in units.values()
  ]
  return [unit[index] for unit, index in best if index is not None]
