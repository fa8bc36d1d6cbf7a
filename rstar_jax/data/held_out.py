"""Which problems are kept out of training, to measure the model on."""

from collections.abc import Callable, Iterable
from typing import Any

from rstar_jax import rng


def is_held_out(seed: int, problem_id: str, one_in: int) -> bool:
  """Returns whether a problem is kept out of training.

  Args:
    seed: the run's root seed.
    problem_id: id of the problem.
    one_in: one problem in so many is; 0 and less are none.
  """
  return one_in > 0 and not rng.seed_for(seed, "held out", problem_id) % one_in


def divide(
  items: Iterable[Any], id_of: Callable[[Any], str], seed: int, one_in: int
) -> tuple[list, list]:
  """Divides what models learn from by the problems that it is about.

  Args:
    items: anything that is about a problem.
    id_of: returns the problem's id.
    seed: the run's root seed.
    one_in: see `is_held_out`.

  Returns:
    What is trained on, and what is held out; each in order. Nothing is held out
    where that would be all.
  """
  training, kept = [], []
  for item in items:
    out = is_held_out(seed, id_of(item), one_in)
    (kept if out else training).append(item)
  return (training, kept) if training else (kept, [])
