"""REBASE: a budget of samples, divided again among the nodes of each depth.

Source: Wu et al. 2024 (arXiv 2408.00724), section 3.1, and the code released
with it. Each answer takes one sample of the budget. What is left is divided
among the other nodes of a depth by the softmax of their rewards over a
temperature: good nodes get more children, and only rounding cuts a node off.

Differences: the reward of a PPM's value v is (1 + v) / 2, since theirs is in
[0, 1]. Candidates of equal text are one node and failing candidates are none,
so that a depth may have fewer nodes than samples.
"""

import dataclasses
import math
from collections.abc import Sequence

from rstar_jax.config.schema import SearchConfig
from rstar_jax.search import expansion, selection
from rstar_jax.search.requests import Search
from rstar_jax.search.tree import ANSWERED, ROOT_INDEX, Tree


def rebase(
  tree: Tree,
  budget: int,
  temperature: float,
  config: SearchConfig,
  seed: int = 0,
  name: Sequence[int | str] = (),
) -> Search[Tree]:
  """Searches depth by depth; every answer is finished and costs one sample.

  Args:
    tree: a new tree.
    budget: samples of each depth, minus the answers above it; at least 1.
    temperature: of the softmax, above 0.
    config: uses `max_depth` and `answer_dedup`.
    seed: the run's seed.
    name: identities of this search; seeds derive from them.

  Returns:
    The tree; all its answers are finished.
  """
  config = dataclasses.replace(
    config, annotation="ppm", terminal_reward="ppm", ppm_counts_visit=False
  )
  nodes, counts = [ROOT_INDEX], [budget]
  while nodes:
    yield from expansion.grow_all(tree, nodes, config, seed, name, counts)
    below = [child for node in nodes for child in tree.children(node)]
    for child in below:
      if tree.terminal[child] == ANSWERED:
        selection.finish(tree, child)
        budget -= 1
    open_ = [each for each in below if tree.terminal[each] != ANSWERED]
    values = [float(tree.ppm[each]) for each in open_]
    given = dict(zip(open_, shares(values, budget, temperature), strict=True))
    nodes = [node for node, count in given.items() if count]
    counts = [given[node] for node in nodes]
  return tree


def shares(
  values: Sequence[float], budget: int, temperature: float
) -> list[int]:
  """Divides a budget by the softmax of (1 + value) / 2 over a temperature.

  The share of the node of highest value is rounded up, then that of each next
  node, of what is left, as in the released code; so the shares sum to the
  budget.

  Args:
    values: of n nodes, in [-1, 1]; the first of equal values comes first.
    budget: at least 0.
    temperature: above 0; a small one gives all to the best node.

  Returns:
    The share of each node.
  """
  found: dict[int, int] = {}
  order = sorted(range(len(values)), key=lambda index: -values[index])
  # Relative to the highest, so that none overflows.
  weights = [
    math.exp((values[index] - values[order[0]]) / 2 / temperature)
    for index in order
  ]
  for place, index in enumerate(order):
    share = weights[place] / math.fsum(weights[place:])
    # A share that is whole but for rounding is not rounded up.
    found[index] = math.ceil(budget * share - 1e-9)
    budget -= found[index]
  return [found[index] for index in range(len(values))]
