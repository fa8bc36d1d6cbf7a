"""Advantages of a policy's samples, from the tree that they form.

V of a node is the mean reward of all ends at or below it: an answer has its own
reward, and a dropped candidate -1. A candidate that was drawn twice counts
twice.
"""

from typing import Literal

import numpy as np

from rstar_jax.search.tree import ANSWER, NO_NODE, ROOT_INDEX, Tree

Kind = Literal["grpo", "siblings", "treerl", "treepo"]

# The reward of a candidate that was dropped, so that no node has it.
DROPPED = -1.0


def of_tree(tree: Tree, kind: Kind, normalize: bool = True) -> np.ndarray:
  """Returns the advantage of each draw of a tree.

  With n the draw's node, p its parent and r the root:

    grpo      V(n) - V(r): of independent samples, a solution's reward less the
              mean of its group (arXiv 2402.03300)
    siblings  V(n) - V(p). SPO-tree (arXiv 2505.23564) has the mean of the
              children for V, which is the same in its full trees.
    treerl    (V(n) - V(r) + V(n) - V(p)) * sqrt(number of ends below the draw).
              TreeRL (arXiv 2506.11902) divides by that root, and trains on n
              once for each end below; here a draw is trained on once.
    treepo    the mean of V(n) - V(a) over the ancestors a of n, the root to p.
              TreePO (arXiv 2508.17445) has a whole solution's reward for V(n).

  Args:
    tree: a tree that keeps draws.
    kind: the formula.
    normalize: whether to divide by the standard deviation of all rewards.

  Returns:
    float64 [D]; nan where nothing has ended below the node yet. All are 0 if
    all rewards are equal.

  Raises:
    ValueError: the tree keeps no draws.
  """
  if tree.draws is None:
    raise ValueError(
      f"tree of {tree.problem.id} has no draws, which advantages are made of"
    )
  ends, sums, rewards = _ended(tree)
  if not rewards or np.ptp(rewards) == 0:
    return np.zeros(len(tree.draws))
  with np.errstate(invalid="ignore"):
    values = sums / ends
  # The mean over a node and its ancestors.
  above = values.copy()
  for node in range(1, len(tree)):
    depth = int(tree.depth[node])
    above[node] = (above[tree.parent[node]] * depth + values[node]) / (
      depth + 1
    )
  parents, nodes = (
    np.array([getattr(draw, name) for draw in tree.draws], int)
    for name in ("parent", "node")
  )
  dropped = nodes == NO_NODE
  value = np.where(dropped, DROPPED, values[nodes])
  match kind:
    case "grpo":
      advantage = value - values[ROOT_INDEX]
    case "siblings":
      advantage = value - values[parents]
    case "treerl":
      # Equal draws share a node, and divide the ends below it.
      drawn = np.bincount(nodes[~dropped], minlength=len(tree))
      below = np.where(dropped, 1, ends[nodes] / np.maximum(drawn[nodes], 1))
      advantage = 2 * value - values[ROOT_INDEX] - values[parents]
      advantage *= np.sqrt(below)
    case "treepo":
      advantage = value - above[parents]
    case other:
      raise ValueError(f"no advantage is called {other!r}")
  return advantage / np.std(rewards) if normalize else advantage


def _ended(tree: Tree) -> tuple[np.ndarray, np.ndarray, list[float]]:
  """Returns the number of ends and sum of rewards per node, and all rewards."""
  ends, sums = np.zeros((2, len(tree)))
  rewards = []
  for draw in tree.draws or ():
    if draw.node == NO_NODE:
      at, reward = draw.parent, DROPPED
    elif tree.kind[draw.node] == ANSWER:
      at, reward = draw.node, float(tree.reward[draw.node])
    else:
      continue
    ends[at] += 1
    sums[at] += reward
    rewards.append(reward)
  for node in range(len(tree) - 1, 0, -1):
    ends[tree.parent[node]] += ends[node]
    sums[tree.parent[node]] += sums[node]
  return ends, sums, rewards
