"""Tabulates accuracy and cost of each method and choice, from records."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from rstar_jax import rng
from rstar_jax.evaluation import choices, cost, sources, subsets
from rstar_jax.evaluation.intervals import bootstrap
from rstar_jax.evaluation.solutions import Record

# (split, reward, source), the key of a group of records.
Group = tuple[str, str | None, str]


def grouped(records: Iterable[Record]) -> dict[Group, list[Record]]:
  """Groups records by split, reward model and method, in order.

  Raises:
    ValueError: a group has two records of one problem.
  """
  groups: dict[Group, dict[str, Record]] = {}
  for record in records:
    key = record["split"], record["reward"], record["source"]
    group = groups.setdefault(key, {})
    if record["problem_id"] in group:
      raise ValueError(
        f"problem {record['problem_id']!r} of split {key[0]!r} has two records "
        f"of {key[2]} with reward model {key[1]}"
      )
    group[record["problem_id"]] = record
  return {key: list(group.values()) for key, group in groups.items()}


def choices_for(records: Sequence[Record]) -> list[str]:
  """Returns the choices that apply to the records of a group.

  The majority and pass@n of samples do not depend on the reward model, so they
  apply only to the records without values.
  """
  reward = records[0]["reward"]
  source = sources.of(records[0]["source"])
  if stop := records[0].get("stop"):
    return [] if source.shared and reward is not None else [stop]
  if source.greedy:
    return ["first"]
  if reward is None:
    return ["pass", "majority"]
  if source.shared:
    return list(choices.VALUED)
  return ["pass", "majority", *choices.VALUED]


def sizes(units: int) -> list[int]:
  """Returns 1, 2, 4, ... and `units` itself."""
  powers = [2**i for i in range(units.bit_length()) if 2**i < units]
  return [*powers, units]


def table(
  records: Iterable[Record],
  *,
  seed: int,
  k: int = 4,
  parameters: int | None = None,
) -> list[dict[str, Any]]:
  """Computes one row for each method, choice and number of units.

  For samples and independent searches a number of units is a mean over all
  subsets of that size (`subsets.py`); for other methods it is the first units.

  Args:
    records: see `solutions.py`.
    seed: root seed of the bootstrap and of random subsets.
    k: number of solutions that vote in "top_k", at least 1.
    parameters: number of the policy's parameters; None leaves FLOPs out.

  Returns:
    Rows with split, reward, method, stop (that of its records), choice, units;
    accuracy, low, high in [0,
    1] (95% bootstrap interval over problems); n, the number of problems;
    tokens, the mean generated per problem; tokens_settled, the mean up to the
    unit after which the choice is settled (None if it is open until the end,
    see `choices.settled`); flops of the policy for `tokens`, see `cost.flops`.
  """
  return [
    _row(group, choice, units, seed, k, parameters)
    for group in grouped(records).values()
    for choice in choices_for(group)
    for units in sizes(cost.units_of(group))
  ]


def at_budget(
  records: Iterable[Record],
  budget: float,
  *,
  seed: int,
  k: int = 4,
) -> list[dict[str, Any]]:
  """Computes the accuracy of each method and choice within a budget.

  Args:
    records: see `solutions.py`.
    budget: mean generated tokens per problem.
    seed, k: see `table`.

  Returns:
    Rows as of `table`, without FLOPs, each for the largest number of units
    whose mean cost is within the budget. A method has no row if one unit costs
    more.
  """
  rows = []
  for group in grouped(records).values():
    units = cost.units_within(group, budget, subsets.tokens)
    if units:
      rows += [
        _row(group, choice, units, seed, k) for choice in choices_for(group)
      ]
  return rows


def right_by_problem(
  records: Sequence[Record], choice: str, units: int, k: int = 4
) -> dict[str, bool]:
  """Returns problem id -> whether the chosen answer is right."""
  chosen = [choices.choose(each, choice, units, k=k) for each in records]
  return {each.problem_id: each.right for each in chosen}


def _settled(group: Sequence[Record], choice: str, units: int) -> float | None:
  spent = []
  for record in group:
    needed = choices.settled(record, choice, units)
    if needed is None:
      return None
    spent.append(cost.tokens(record, needed))
  return float(np.mean(spent))


def _row(
  group: Sequence[Record],
  choice: str,
  units: int,
  seed: int,
  k: int,
  parameters: int | None = None,
) -> dict[str, Any]:
  """Computes the row of a choice among that many units."""
  split, reward, source = (
    group[0][name] for name in ("split", "reward", "source")
  )
  right = np.array(
    [subsets.right(each, choice, units, seed=seed, k=k) for each in group]
  )
  low, high = bootstrap(
    right,
    rng.seed_for(seed, "study", split, str(reward), source, choice, units),
  )
  tokens = float(np.mean([subsets.tokens(each, units) for each in group]))
  return {
    "split": split,
    "reward": reward,
    "method": source,
    "stop": group[0].get("stop"),
    "choice": choice,
    "units": units,
    "accuracy": float(right.mean()),
    "low": low,
    "high": high,
    "n": len(group),
    "tokens": tokens,
    "tokens_settled": _settled(group, choice, units),
    "flops": None if parameters is None else cost.flops(parameters, tokens),
  }
