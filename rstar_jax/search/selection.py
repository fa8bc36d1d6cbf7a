"""Selection and backup in one tree, with the source of each formula.

A rollout descends by the scores of children (`SearchConfig.selection`), and
ends at an answer. Answers that a rollout has reached, dead leaves, and nodes
with only such nodes below them are `exhausted` and never selected again, so
that every rollout ends at a new answer.
"""

import math
from collections.abc import Callable

import numpy as np

from rstar_jax.config import plugins
from rstar_jax.config.schema import SearchConfig
from rstar_jax.search.tree import ROOT_INDEX, Tree

# (tree, node, config) -> the scores of the node's children, float64 [C].
Scores = Callable[[Tree, int, SearchConfig], np.ndarray]


def q_values(tree: Tree, node: int, config: SearchConfig) -> np.ndarray:
  """Returns Q(s) = q(s) / N(s) of a node's children, float64 [C].

  An unvisited child has its initial value: the PPM's with `annotation="ppm"`
  (paper Eq. 3), if it has one, else 0 (Eq. 2).
  """
  span = tree.span(node)
  visits, ppm = tree.visits[span], tree.ppm[span]
  valued = (config.annotation == "ppm") & ~np.isnan(ppm)
  initial = np.where(valued, ppm, 0.0)
  mean = tree.value_sum[span] / np.maximum(visits, 1)
  return np.where(visits > 0, mean, initial)


def uct(tree: Tree, node: int, config: SearchConfig) -> np.ndarray:
  """Returns UCT(s) = Q(s) + c sqrt(ln N_parent(s) / N(s)) (paper Eq. 1).

  An unvisited child has no bonus with `uct_unvisited="zero"`, as in the
  released code, and the score +inf with "inf". There is no bonus either if the
  parent is unvisited (the root before its first backup, whose children have a
  visit each by the PPM).
  """
  visits = tree.visits[tree.span(node)]
  log_parent = math.log(max(int(tree.visits[node]), 1))
  bonus = config.c * np.sqrt(log_parent / np.maximum(visits, 1))
  first = math.inf if config.uct_unvisited == "inf" else 0.0
  return q_values(tree, node, config) + np.where(visits > 0, bonus, first)


def puct(tree: Tree, node: int, config: SearchConfig) -> np.ndarray:
  """Returns Q(s) + c P(s) sqrt(N of all siblings) / (1 + N(s)).

  This is PUCT (Silver et al. 2017, "Mastering the game of Go without human
  knowledge", Methods). P(s) is the policy's probability of a child's text at
  temperature 1, as a share of its siblings'; that of a child without a
  log-probability is the mean of the others'. The sum of visits is at least 1,
  so that the likeliest comes first.

  Raises:
    ValueError: no child has a log-probability.
  """
  span = tree.span(node)
  visits, logprob = tree.visits[span], tree.logprob[span]
  known = np.isfinite(logprob)
  if not known.any():
    raise ValueError(
      "search.selection='puct' needs the policy's log-probabilities, and "
      f"problem {tree.problem.id} has steps without them: have its server or "
      "backend give them, leave 'puct' out of study.methods, or set 'uct' in "
      "another --workdir"
    )
  weight = np.exp(np.where(known, logprob, 0) - logprob[known].max())
  weight = np.where(known, weight, weight[known].mean())
  share = weight / weight.sum()
  bonus = config.c * share * np.sqrt(max(visits.sum(), 1)) / (1 + visits)
  return q_values(tree, node, config) + bonus


def scores_of(config: SearchConfig) -> Scores:
  """Returns what scores the children of a node, as `config.selection` says.

  Raises:
    ValueError: it names nothing.
    PluginError: there is no such function. One that raises, or does not return
      a number for each child, raises it when it is called.
  """
  ours = {"uct": uct, "puct": puct}
  if config.selection in ours:
    return ours[config.selection]
  if ":" not in config.selection:
    raise ValueError(
      f"search.selection={config.selection!r} must be one of 'uct', 'puct', or "
      f"a function of yours as {plugins.FORM!r}"
    )
  plugin = plugins.load(config.selection, "search.selection")

  def checked(tree: Tree, node: int, config: SearchConfig) -> np.ndarray:
    found, count = plugin(tree, node, config), len(tree.children(node))
    try:
      scores = np.asarray(found, np.float64)
    except (TypeError, ValueError, OverflowError):
      scores = np.empty(0)
    if scores.shape != (count,) or np.isnan(scores).any():
      wanted = f"{count} numbers, one for each child"
      raise plugin.wrong(wanted, plugins.shown(found))
    return scores

  return checked


def select_child(tree: Tree, node: int, config: SearchConfig) -> int:
  """Returns the child of highest score that is not exhausted.

  Of equal scores the first wins; of children with +inf, the one of highest Q.

  Raises:
    ValueError: all children are exhausted, or as `puct`.
    PluginError: as `scores_of`.
  """
  span = tree.span(node)
  left = np.flatnonzero(~tree.exhausted[span])
  if not left.size:
    raise ValueError(
      f"tree of {tree.problem.id}: node {node} has no child left to select; "
      "check `exhausted` before a descent"
    )
  scores = scores_of(config)(tree, node, config)[left]
  if scores.max() == math.inf:
    values = q_values(tree, node, config)[left]
    scores = np.where(scores == math.inf, values, -math.inf)
  return span.start + int(left[scores.argmax()])


def select_leaf(
  tree: Tree, config: SearchConfig, node: int = ROOT_INDEX
) -> int:
  """Descends from a node to an unexpanded leaf or to an answer.

  Raises:
    ValueError: all children on its way are exhausted, or as `puct`.
    PluginError: as `scores_of`.
  """
  while tree.num_children[node]:
    node = select_child(tree, node, config)
  return node


def finish(tree: Tree, answer: int) -> None:
  """Ends a rollout at an answer: backs up its reward, and closes it."""
  backup(tree, answer, float(tree.reward[answer]))
  tree.close(answer)
  tree.end_rollout(answer)


def backup(tree: Tree, node: int, value: float) -> None:
  """Adds a terminal's value and a visit to every node from it to the root.

  Paper Eq. 2: q(s_i)^k = q(s_i)^(k-1) + q(s_d)^k, without a discount.
  """
  path = tree.path(node)
  tree.visits[path] += 1
  tree.value_sum[path] += value
