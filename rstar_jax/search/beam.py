"""Step beam search under the PPM: the cheaper cousin of MCTS (spec 2.8)."""

import dataclasses
from collections.abc import Sequence

from rstar_jax.config import SearchConfig
from rstar_jax.search import expansion, uct
from rstar_jax.search.expansion import Calls
from rstar_jax.search.tree import ANSWERED, ROOT_INDEX, Tree
from rstar_jax.types import Problem


def beam_search(
  problems: Sequence[Problem],
  width: int,
  config: SearchConfig,
  calls: Calls,
  *,
  seed: int,
  name: Sequence[int | str] = (),
) -> list[Tree]:
  """Searches each problem level by level, keeping the best partial solutions.

  At each level all beams are expanded and their children ranked together by the
  PPM; the best `width` go on. An answer among them is finished and takes its
  place in the beam with it. (The released code keeps finished nodes in its list
  but not in its prompts, and so attaches children to the wrong parents.)

  Args:
    problems: the problems.
    width: beams per problem at the start.
    config: `candidates`, `max_depth`, `answer_dedup` and `slots` (leaves in
      one call) are used.
    calls: the callables, `score` included.
    seed: the run's seed.
    name: identities of this search.

  Returns:
    A tree for each problem; `trajectories(tree, visited_only=True)` are the
    finished beams.

  Raises:
    ValueError: width < 1, or no `calls.score`.
  """
  if width < 1:
    raise ValueError(f"width={width} must be at least 1")
  config = dataclasses.replace(
    config, annotation="ppm", terminal_reward="ppm", ppm_counts_visit=False
  )
  expansion.check(config, calls)
  calls = calls.of_group(0)
  trees = [Tree(problem) for problem in problems]
  for start in range(0, len(trees), config.slots):
    beams = [_Beam(tree, width) for tree in trees[start : start + config.slots]]
    while leaves := [(b.tree, node) for b in beams for node in b.nodes]:
      for first in range(0, len(leaves), config.slots):
        batch = leaves[first : first + config.slots]
        expansion.grow(
          [tree for tree, _ in batch],
          [node for _, node in batch],
          config,
          calls,
          seed,
          name,
        )
      for beam in beams:
        beam.step()
  return trees


@dataclasses.dataclass
class _Beam:
  tree: Tree
  width: int
  nodes: list[int] = dataclasses.field(default_factory=lambda: [ROOT_INDEX])

  def step(self) -> None:
    """Ranks the children of all beams; of equal ones the first is better."""
    tree = self.tree
    children = [c for node in self.nodes for c in tree.children(node)]
    children.sort(key=lambda child: -tree.ppm[child])
    self.nodes = []
    for child in children[: self.width]:
      if tree.terminal[child] == ANSWERED:
        uct.backup(tree, child, float(tree.reward[child]))
        tree.close(child)
        tree.rollouts += 1
        self.width -= 1
      else:
        self.nodes.append(child)
