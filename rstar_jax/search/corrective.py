"""Chooses where a rollout begins: at the root, or at a corrective start.

A pair needs two siblings, one that leads to a right answer and one that leads
to a wrong answer. A search that a PPM guides goes where the PPM's values are
high. Where these are wrong, the search finds only wrong answers and goes
elsewhere, so that no pair corrects the PPM. A corrective rollout begins beside
such a step (`SearchConfig.corrective`; this is not in the paper).
"""

from collections.abc import Sequence

import numpy as np

from rstar_jax import rng
from rstar_jax.search.tree import ANSWER, NO_END, ROOT_INDEX, Tree


def start(
  tree: Tree, share: float, seed: int = 0, name: Sequence[int | str] = ()
) -> int:
  """Returns the node where the next rollout begins.

  Args:
    tree: the tree.
    share: the share of rollouts that are corrective, in [0, 1].
    seed, name: as of `mcts.search_tree`. The choice depends only on them, the
      problem and the number of earlier rollouts.

  Returns:
    The root; in a corrective rollout, if there is a node all of whose rollouts
    ended at a reward of at most 0, the child of highest Q among those of its
    children that no rollout has passed.
  """
  event = (*name, tree.problem.id, "corrective", tree.rollouts)
  if rng.seed_for(seed, *event) >= share * 2**32:
    return ROOT_INDEX
  nodes = _passed_over(tree)
  if not len(nodes):
    return ROOT_INDEX
  parents = np.unique(tree.parent[nodes])
  place = parents[rng.seed_for(seed, *event, "place") % len(parents)]
  return max(nodes[tree.parent[nodes] == place].tolist(), key=tree.q)


def _passed_over(tree: Tree) -> np.ndarray:
  """Returns the nodes that a corrective rollout may begin at, int [n]."""
  reached, pays = np.zeros((2, len(tree)), bool)
  for _, _, end in tree.growth:
    if end != NO_END:
      path = tree.path(end)
      reached[path] = True
      pays[path] |= tree.reward[end] > 0
  # Answers are left out: a pair may have one that no rollout has reached.
  open_ = ~reached & ~tree.exhausted & (tree.kind != ANSWER)
  open_[ROOT_INDEX] = False
  return np.flatnonzero(open_ & (reached & ~pays)[tree.parent])
