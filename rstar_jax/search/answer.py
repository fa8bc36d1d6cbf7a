"""Chooses the answer of a searched tree."""

from rstar_jax.grading import choose
from rstar_jax.search import tree as tree_lib
from rstar_jax.search.tree import TrajectoryValue, Tree


def answer_node(
  tree: Tree, select: choose.Select, how: TrajectoryValue, k: int = 4
) -> int | None:
  """Returns the node of the chosen answer, None if the tree has no answer.

  Args:
    tree: a searched tree.
    select: how to choose among all answers of the tree; see `choose`.
    how: combines the values of steps; see `tree.trajectory_value`.
    k: number of voters of "top_k".
  """
  found = tree_lib.trajectories(tree, how=how)
  index = choose.choose(
    select,
    [each.answer for each in found],
    [each.value for each in found],
    k=k,
  )
  if index is None:
    return None
  return tree_lib.answers_of(tree)[index]
