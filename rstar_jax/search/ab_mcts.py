"""AB-MCTS: at each node the search decides whether to go wider or deeper.

Source: Inoue et al. 2025 (arXiv 2503.04412), section 3, "AB-MCTS-A" with Beta
posteriors and Jeffreys' prior, and the code released with it (TreeQuest). At
each node Thompson sampling chooses between a new child (GEN) and the children
there are (CONT), and among these between one and another:

  GEN    rewards of rollouts that wrote a new child here
  CONT   rewards of rollouts that went on from a child
  child  rewards of all rollouts through it

A posterior is Beta(1/2 + sum r, 1/2 + sum (1 - r)), r = (1 + reward) / 2.

Differences: their node is a whole answer with a score, and a rollout adds one.
Here a node is a step, and only an answer has a reward, the PPM's score of its
trajectory. So a rollout continues from its new step to an answer. A rollout
that fails has the lowest reward, -1. A finished code block is answered once in
each rollout that writes it; no other rollout continues from it.
"""

import dataclasses
from collections.abc import Iterable, Sequence

import numpy as np

from rstar_jax import rng
from rstar_jax.config.schema import SearchConfig
from rstar_jax.search import expansion
from rstar_jax.search.requests import Search
from rstar_jax.search.tree import (
  ANSWER,
  NO_END,
  ROOT_INDEX,
  STEP,
  Child,
  Tree,
)
from rstar_jax.types import Prefix

_FAILED = -1.0


@dataclasses.dataclass
class Rewards:
  """Rewards of rollouts, in [-1, 1]."""

  count: int = 0
  total: float = 0.0

  def add(self, reward: float) -> None:
    self.count += 1
    self.total += reward

  def posterior(self) -> tuple[float, float]:
    """Returns a and b of the Beta distribution of (1 + reward) / 2."""
    good = (self.count + self.total) / 2
    return 0.5 + good, 0.5 + self.count - good


@dataclasses.dataclass(eq=False)
class Node:
  """A node of a growing tree; unlike a `Tree`'s, it gets children at any time.

  Attributes:
    prefix: texts from the root's child to the node.
    values: the PPM's values of these, nan where it was not asked.
    child: the node for a `Tree`; None at the root.
    through: rewards of all rollouts through the node.
    new: rewards of rollouts that wrote a new child here (GEN).
    known: rewards of rollouts that continued from a child (CONT).
    children: by text, in the order of their first samples.
  """

  prefix: Prefix = ()
  values: tuple[float, ...] = ()
  child: Child | None = None
  through: Rewards = dataclasses.field(default_factory=Rewards)
  new: Rewards = dataclasses.field(default_factory=Rewards)
  known: Rewards = dataclasses.field(default_factory=Rewards)
  children: "dict[str, Node]" = dataclasses.field(default_factory=dict)

  def below(self, child: Child) -> "Node":
    """Returns the node of a sampled child; equal texts share one."""
    prefix, values = (*self.prefix, child.text), (*self.values, child.ppm)
    return self.children.setdefault(child.text, Node(prefix, values, child))


def search_tree(
  tree: Tree,
  config: SearchConfig,
  seed: int = 0,
  name: Sequence[int | str] = (),
  rollouts: int | None = None,
) -> Search[Tree]:
  """Searches one tree, a candidate at a time.

  Args:
    tree: a new tree.
    config: uses `max_depth`, `trajectory_value` and `max_consecutive_errors`.
    seed: the run's seed.
    name: identities of this search.
    rollouts: number of rollouts; `config.rollouts` if None.

  Returns:
    The tree. All nodes are added at the end: each entry of `growth` has them
    all. An answer's visits are the rollouts that wrote it.
  """
  config = dataclasses.replace(
    config, annotation="terminal", terminal_reward="ppm"
  )
  root = Node()
  ends: list[tuple[int, Node | None]] = []
  for number in range(config.rollouts if rollouts is None else rollouts):
    draws = np.random.default_rng(
      rng.seed_for(seed, *name, tree.problem.id, "descend", number)
    )
    end = yield from _rollout(tree, root, draws, config, seed, name)
    ends.append((tree.tokens, end))
  _add_nodes(tree, root, ends)
  return tree


def choose(node: Node, draws: np.random.Generator) -> Node | None:
  """Chooses the child to continue from; None asks for a new child."""
  open_ = [each for each in node.children.values() if each.child.kind == STEP]
  if not open_:
    return None
  if _best([node.new, node.known], draws) == 0:
    return None
  return open_[_best([each.through for each in open_], draws)]


def _best(arms: Sequence[Rewards], draws: np.random.Generator) -> int:
  return int(np.argmax([draws.beta(*each.posterior()) for each in arms]))


def _rollout(
  tree: Tree,
  root: Node,
  draws: np.random.Generator,
  config: SearchConfig,
  seed: int,
  name: Sequence[int | str],
) -> Search[Node | None]:
  """Runs one rollout; returns the answer where it ends, None if it fails."""
  path: list[tuple[Node, Rewards]] = []
  node, errors = root, 0
  while node.child is None or node.child.kind != ANSWER:
    chosen, arm = choose(node, draws), node.known
    if chosen is None:
      arm = node.new
      child = yield from expansion.sample_child(
        tree, node.prefix, node.values, config, seed, name
      )
      errors = 0 if child else errors + 1
      if errors >= config.max_consecutive_errors:
        tree.failed_rollouts += 1
        _back_up([*path, (node, arm)], _FAILED)
        return None
      if child is None:
        continue
      chosen = node.below(child)
    path.append((node, arm))
    node = chosen
  _back_up(path, node.child.reward)
  node.through.add(node.child.reward)
  return node


def _back_up(path: Iterable[tuple[Node, Rewards]], reward: float) -> None:
  for node, arm in path:
    node.through.add(reward)
    arm.add(reward)


def _add_nodes(
  tree: Tree, root: Node, ends: Sequence[tuple[int, Node | None]]
) -> None:
  """Adds all nodes to a tree, and its rollouts."""
  places = {root: ROOT_INDEX}
  tree.visits[ROOT_INDEX] = root.through.count
  tree.value_sum[ROOT_INDEX] = root.through.total
  level = [root]
  while level:
    for node in level:
      if node.children:
        below = list(node.children.values())
        added = tree.add_children(
          places[node],
          [
            dataclasses.replace(
              each.child,
              visits=each.through.count,
              value_sum=each.through.total,
            )
            for each in below
          ],
        )
        places |= zip(below, added, strict=True)
    level = [each for node in level for each in node.children.values()]
  for _, end in ends:
    if end is not None:
      tree.close(places[end])
  tree.growth = [
    (tokens, len(tree), NO_END if end is None else places[end])
    for tokens, end in ends
  ]
