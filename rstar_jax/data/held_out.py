"""Chooses the problems that are kept out of training, for measurements."""

import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from rstar_jax import rng
from rstar_jax.types import PreferencePair, Trajectory

Item = TypeVar("Item", PreferencePair, Trajectory)

# The folders of training data that a training reads.
PARTS = ("training", "held_out")


def is_held_out(seed: int, problem_id: str, one_in: int) -> bool:
  """Returns whether a problem is kept out of training.

  Args:
    seed: root seed of the run.
    problem_id: decides, together with the seed.
    one_in: one problem in this many is held out; none if it is 0 or less.
  """
  return one_in > 0 and not rng.seed_for(seed, "held out", problem_id) % one_in


def part_of(seed: int, problem_id: str, one_in: int) -> str:
  """Returns the part, of `PARTS`, that has a problem; see `is_held_out`."""
  return PARTS[is_held_out(seed, problem_id, one_in)]


def by_problem(items: Iterable[Item]) -> Iterator[tuple[str, list[Item]]]:
  """Yields the id and the items of each problem, whose items are adjacent."""
  for (name, _), group in itertools.groupby(
    items, lambda each: (each.problem_id, each.question)
  ):
    yield name, list(group)


def divide(
  items: Iterable[Any], id_of: Callable[[Any], str], seed: int, one_in: int
) -> tuple[list, list]:
  """Divides training data into training and held-out items, by problem.

  Args:
    items: items that belong to a problem each.
    id_of: returns the id of an item's problem.
    seed: root seed of the run.
    one_in: see `is_held_out`.

  Returns:
    The training items and the held-out items, each in order. Nothing is held
    out where nothing would be left to train on.
  """
  training, kept = [], []
  for item in items:
    out = is_held_out(seed, id_of(item), one_in)
    (kept if out else training).append(item)
  return (training, kept) if training else (kept, [])
