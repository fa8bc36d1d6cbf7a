"""The ways to choose an answer among the solutions that a method found.

  first     the first solution (of "greedy" there is but one)
  pass      whether any is right: what no choice can exceed
  majority  the most frequent answer
  best      that of highest value (paper section 4.1)
  weighted  the heaviest answer, a vote weighing (1 + value) / 2
  top_k     the most frequent among the k of highest value (released code)

Of independent searches each gives its best solution, and these are chosen from,
as in the released code; "pass" looks at all.
"""

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

from rstar_jax.evaluation import methods
from rstar_jax.evaluation.methods import Normalise, Outcome
from rstar_jax.grading import choose as choose_lib
from rstar_jax.grading.voting import vote_key

CHOICES = ("first", "pass", "majority", "best", "weighted", "top_k")
# Those that need values.
VALUED = ("best", "weighted", "top_k")


def units_of(records: Sequence[Mapping[str, Any]]) -> int:
  """Returns how many units the longest of records has."""
  return max(len(record["spent"]) for record in records)


def choose(
  record: Mapping[str, Any],
  choice: str,
  units: int,
  *,
  k: int = 4,
  normalise: Normalise = vote_key,
) -> Outcome:
  """Chooses among the solutions of the first units.

  Args:
    record: of `solutions.py`.
    choice: one of `CHOICES`.
    units: how many units are looked at, and paid for; at least 1. A search that
      ended before has fewer.
    k: voters of "top_k".
    normalise: answers with the same normal form vote together.

  Raises:
    ValueError: no such choice.
  """
  if choice not in CHOICES:
    raise ValueError(f"choice={choice!r} must be one of {', '.join(CHOICES)}")
  found = [each for each in record["trajectories"] if each["unit"] < units]
  if record["source"] == "searches" and choice != "pass":
    found = _best_of_each(found)
  if choice == "first":
    verdict = found[0]["verdict"] if found else "failed"
  elif choice == "pass":
    verdict = methods.ceiling(found)
  elif choice == "best":
    verdict = methods.best(found)
  elif choice == "top_k":
    verdict = methods.vote(methods.highest(found, k), normalise)
  else:
    verdict = methods.vote(found, normalise, weighted=choice == "weighted")
  spent = record["spent"]
  return Outcome(
    record["problem_id"],
    record["level"],
    verdict,
    spent[min(units, len(spent)) - 1],
  )


def settled(
  record: Mapping[str, Any],
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
  votes = {each["unit"]: each for each in methods.answered(found)}
  # In order of first votes, as `methods.vote` keeps them.
  weights: dict[Hashable, float] = {}
  for unit in range(units):
    if each := votes.get(unit):
      name = normalise(each["answer"])
      weight = methods.weight(each, choice == "weighted")
      weights[name] = weights.get(name, 0.0) + weight
    if choose_lib.leads(weights, units - unit - 1):
      return unit + 1
  return units


def _best_of_each(found: Sequence[Mapping]) -> list[Mapping]:
  """Returns the solution of highest value of each unit, the first of equals."""
  best: dict[int, Mapping] = {}
  for each in found:
    if each["value"] is None:
      continue
    held = best.get(each["unit"])
    if held is None or each["value"] > held["value"]:
      best[each["unit"]] = each
  return list(best.values())
