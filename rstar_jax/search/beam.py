"""Step beam search guided by the PPM, as in the released code of rStar-Math.

In diverse beam search the beams are in groups that do not compete: each group
continues its own first steps (DVTS, Beeching et al. 2024).
"""

import dataclasses
from collections.abc import Sequence

from rstar_jax.config.schema import SearchConfig
from rstar_jax.search import driver, expansion, selection
from rstar_jax.search.requests import Calls, Search
from rstar_jax.search.tree import ANSWERED, ROOT_INDEX, Tree
from rstar_jax.types import Problem


def beam_search(
  problems: Sequence[Problem],
  width: int,
  config: SearchConfig,
  calls: Calls,
  seed: int = 0,
  *,
  name: Sequence[int | str] = (),
  groups: int = 1,
) -> list[Tree]:
  """Searches each problem level by level; see `beams`.

  Args:
    problems: the problems.
    width, config, seed, name, groups: as of `beams`.
    calls: the callables; needs `score`.

  Returns:
    A tree for each problem.

  Raises:
    ValueError: as `beams`, or there is no `calls.score`.
  """
  expansion.check(dataclasses.replace(config, annotation="ppm"), calls)
  return driver.run_searches(
    [
      beams(Tree(each), width, config, seed, name=name, groups=groups)
      for each in problems
    ],
    calls,
    config.in_flight,
  )


def beams(
  tree: Tree,
  width: int,
  config: SearchConfig,
  seed: int = 0,
  *,
  name: Sequence[int | str] = (),
  groups: int = 1,
) -> Search[Tree]:
  """Searches level by level and keeps the best partial solutions.

  At each level all beams are expanded, the PPM ranks their children together,
  and the best `width` continue. An answer among them is finished and reduces
  the width by one. (The released code keeps finished nodes in its list but not
  in its prompts, and so attaches children to the wrong parents.)

  Args:
    tree: a new tree.
    width: beams at the start.
    config: uses `candidates`, `max_depth` and `answer_dedup`.
    seed: the run's seed.
    name: identities of this search; seeds derive from them.
    groups: number of groups of `width / groups` beams. Group g starts from the
      ranked first steps g, g + groups, ..., so that all groups start about
      equally well.

  Returns:
    The tree; `trajectories(tree, visited_only=True)` are the finished beams.

  Raises:
    ValueError: if width < 1, or groups do not divide it.
  """
  if width < 1:
    raise ValueError(f"width={width} must be at least 1")
  if groups < 1 or width % groups:
    raise ValueError(f"groups={groups} must divide width={width}")
  config = dataclasses.replace(
    config, annotation="ppm", terminal_reward="ppm", ppm_counts_visit=False
  )
  return _levels(_Beam(tree, width), groups, config, seed, name)


def _levels(
  first: "_Beam",
  groups: int,
  config: SearchConfig,
  seed: int,
  name: Sequence[int | str],
) -> Search[Tree]:
  parts = [first]
  while nodes := [node for part in parts for node in part.nodes]:
    yield from expansion.grow_all(first.tree, nodes, config, seed, name)
    if nodes[0] == ROOT_INDEX:
      parts = first.split(groups)
    else:
      for part in parts:
        part.take(part.ranked())
  return first.tree


@dataclasses.dataclass
class _Beam:
  """The nodes that one group continues, at most `width`."""

  tree: Tree
  width: int
  nodes: list[int] = dataclasses.field(default_factory=lambda: [ROOT_INDEX])

  def ranked(self) -> list[int]:
    """Returns the children of all nodes, highest PPM value first (stable)."""
    children = [c for node in self.nodes for c in self.tree.children(node)]
    return sorted(children, key=lambda child: -self.tree.ppm[child])

  def take(self, children: Sequence[int]) -> None:
    """Keeps the first `width` of ranked nodes; finishes answers among them."""
    tree = self.tree
    self.nodes = []
    for child in children[: self.width]:
      if tree.terminal[child] == ANSWERED:
        selection.finish(tree, child)
        self.width -= 1
      else:
        self.nodes.append(child)

  def split(self, groups: int) -> "list[_Beam]":
    """Returns beams that each take every `groups`-th of the ranked children."""
    ranked = self.ranked()
    parts = [_Beam(self.tree, self.width // groups) for _ in range(groups)]
    for number, part in enumerate(parts):
      part.take(ranked[number::groups])
    return parts
