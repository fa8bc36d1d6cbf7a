"""A search that trusts the policy too, as a plugin.

  rstar_jax study --config=CONFIG --workdir=DIR --round=1 \\
    --config.study.methods='("mcts", "benchmarks.prior:search")'

A PPM may know less about the next step than the policy that it guides
(docs/results/tiny_long.md). This is MCTS with PUCT in the place of UCT (Silver
et al. 2017, "Mastering the game of Go without human knowledge", Methods):

  score(s) = Q(s) + c P(s) sqrt(N of all siblings) / (1 + N(s))

P(s) is the policy's probability of a child's text at temperature 1, as a share
of its siblings'; c is `search.c`.
"""

from collections.abc import Sequence

import numpy as np

from rstar_jax.config.schema import SearchConfig
from rstar_jax.search import mcts, uct
from rstar_jax.search.requests import Calls
from rstar_jax.search.tree import ROOT_INDEX, Tree
from rstar_jax.types import Problem


def scores(tree: Tree, node: int, c: float) -> np.ndarray:
  """Returns the scores of a node's children, float64 [C]."""
  span = tree.span(node)
  visits, logprob = tree.visits[span], tree.logprob[span]
  share = np.exp(logprob - logprob.max())
  bonus = c * share / share.sum() * np.sqrt(visits.sum()) / (1 + visits)
  return uct.q_values(tree, node) + bonus


def select_leaf(
  tree: Tree, config: SearchConfig, node: int = ROOT_INDEX
) -> int:
  """Descends from a node to an unexpanded leaf or to an answer."""
  while tree.num_children[node]:
    span = tree.span(node)
    found = scores(tree, node, config.c)
    node = span.start + int(
      np.where(tree.exhausted[span], -np.inf, found).argmax()
    )
  return node


def search(
  problems: Sequence[Problem],
  config: SearchConfig,
  calls: Calls,
  seed: int = 0,
  name: Sequence[int | str] = (),
) -> list[Tree]:
  """Searches one tree for each problem; see `mcts.search`."""
  return mcts.search(
    problems, config, calls, seed, name=name, select=select_leaf
  )
