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
from rstar_jax.search import driver, expansion, mcts, uct
from rstar_jax.search.requests import Calls, Search
from rstar_jax.search.tree import ANSWERED, NO_END, ROOT_INDEX, Tree
from rstar_jax.types import Problem


def scores(tree: Tree, node: int, c: float) -> np.ndarray:
  """Returns the scores of a node's children, float64 [C]."""
  span = tree.span(node)
  visits, logprob = tree.visits[span], tree.logprob[span]
  share = np.exp(logprob - logprob.max())
  bonus = c * share / share.sum() * np.sqrt(visits.sum()) / (1 + visits)
  return uct.q_values(tree, node) + bonus


def select_leaf(tree: Tree, c: float) -> int:
  """Descends from the root to an unexpanded leaf or to an answer."""
  node = ROOT_INDEX
  while tree.num_children[node]:
    span = tree.span(node)
    open_ = np.where(tree.exhausted[span], -np.inf, scores(tree, node, c))
    node = span.start + int(open_.argmax())
  return node


def search(
  problems: Sequence[Problem],
  config: SearchConfig,
  calls: Calls,
  seed: int = 0,
  name: Sequence[int | str] = (),
) -> list[Tree]:
  """Searches one tree for each problem; see `mcts.search`."""
  mcts.check(problems, config, calls)
  trees = [Tree(each) for each in problems]
  return driver.run_searches(
    [_search_tree(each, config, seed, name) for each in trees],
    calls,
    config.in_flight,
  )


def _search_tree(
  tree: Tree, config: SearchConfig, seed: int, name: Sequence[int | str]
) -> Search[Tree]:
  for _ in range(config.rollouts):
    if tree.exhausted[ROOT_INDEX]:
      break
    end = yield from _rollout(tree, config, seed, name)
    tree.end_rollout(end)
  return tree


def _rollout(
  tree: Tree, config: SearchConfig, seed: int, name: Sequence[int | str]
) -> Search[int]:
  """Does one rollout, as that of `mcts`."""
  errors = 0
  while True:
    node = select_leaf(tree, config.c)
    if tree.terminal[node] == ANSWERED:
      uct.finish(tree, node)
      return node
    added = yield from expansion.grow(tree, node, config, seed, name)
    errors = 0 if added else errors + 1
    if not added and errors >= config.max_consecutive_errors:
      tree.failed_rollouts += 1
      if node != ROOT_INDEX:
        tree.give_up(node)
      return NO_END
