"""What histograms of trees are made of."""

from collections.abc import Iterable

import numpy as np

from rstar_jax.search.tree import ROOT_INDEX, Tree


def of_trees(trees: Iterable[Tree]) -> dict[str, np.ndarray]:
  """Returns the values of nodes, and the sizes of trees.

  Args:
    trees: of a round, say.

  Returns:
    "q": Q(s) of each node below a root that was visited, and "ppm": the PPM's
    value of each node that has one, both in [-1, 1]; and one number a tree:
    "nodes" (the root left out), "depth" (its deepest node's, in steps) and
    "tokens" (generated for it).
  """
  q, ppm, nodes, depth, tokens = [], [], [], [], []
  for tree in trees:
    below = np.arange(len(tree.visits)) != ROOT_INDEX
    visited = below & (tree.visits > 0)
    q.append(tree.value_sum[visited] / tree.visits[visited])
    ppm.append(tree.ppm[below & np.isfinite(tree.ppm)])
    nodes.append(below.sum())
    depth.append(tree.depth.max())
    tokens.append(tree.tokens)
  return {
    "q": np.concatenate(q) if q else np.zeros(0),
    "ppm": np.concatenate(ppm) if ppm else np.zeros(0),
    "nodes": np.array(nodes, np.int64),
    "depth": np.array(depth, np.int64),
    "tokens": np.array(tokens, np.int64),
  }
