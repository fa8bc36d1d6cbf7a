"""Monte Carlo tree search.

`search_tree` searches one problem, as a generator (`requests.py`); `search`
runs many at once. A tree depends only on its problem, the config, the seed and
the name.
"""

from collections.abc import Callable, Sequence

from rstar_jax.config.schema import SearchConfig
from rstar_jax.search import corrective, driver, expansion, selection
from rstar_jax.search.requests import Calls, Search
from rstar_jax.search.tree import ANSWERED, ROOT_INDEX, Tree
from rstar_jax.types import Problem

__all__ = ["Calls", "search", "search_tree"]


def search(
  problems: Sequence[Problem],
  config: SearchConfig,
  calls: Calls,
  seed: int = 0,
  *,
  name: Sequence[int | str] = (),
  trees: Sequence[Tree] | None = None,
  rollouts: int | None = None,
  progress: Callable[[int], None] | None = None,
) -> list[Tree]:
  """Searches one tree for each problem; see `search_tree`.

  Args:
    problems: problems with different ids.
    config: the search's config.
    calls: the callables.
    seed: the run's seed.
    name: identities of this search, e.g. the round and the tree's number;
      seeds derive from them.
    trees: one tree for each problem, continued in place; new ones if None. A
      continued tree equals that of one longer search.
    rollouts: number of rollouts; `config.rollouts` if None.
    progress: called with 1 as each tree is finished, in the calling thread.

  Returns:
    One tree for each problem, in order.

  Raises:
    ValueError: a problem has neither a gold answer nor `calls.reward` under
      `terminal_reward="truth"`, the PPM is missing, `config.selection` names
      nothing, ids are repeated, or trees belong to other problems.
  """
  check(problems, config, calls)
  if trees is None:
    trees = [Tree(problem) for problem in problems]
  elif [tree.problem for tree in trees] != list(problems):
    raise ValueError("trees[i].problem must be problems[i] for every i")
  searches = [search_tree(each, config, seed, name, rollouts) for each in trees]
  return driver.run_searches(searches, calls, config.in_flight, progress)


def check(
  problems: Sequence[Problem], config: SearchConfig, calls: Calls
) -> None:
  """Checks the arguments of `search`.

  Raises:
    ValueError: as `search` does.
  """
  expansion.check(config, calls)
  selection.scores_of(config)
  ids = [problem.id for problem in problems]
  if len(set(ids)) < len(ids):
    twice = next(each for each in ids if ids.count(each) > 1)
    raise ValueError(
      f"problem id {twice!r} comes twice and would get the same tree twice; "
      "search again under another `name`"
    )
  if config.terminal_reward != "truth" or calls.reward is not None:
    return
  for problem in problems:
    if not problem.judged:
      raise ValueError(
        f"problem {problem.id} has no gold answer and no tests, which "
        "terminal_reward='truth' needs; use 'ppm', or give calls.reward"
      )


def search_tree(
  tree: Tree,
  config: SearchConfig,
  seed: int = 0,
  name: Sequence[int | str] = (),
  rollouts: int | None = None,
) -> Search[Tree]:
  """Searches one tree.

  A rollout descends from the root (with `config.corrective`, sometimes from
  another node) to the children that `config.selection` prefers, expands every
  unexpanded node on its path and ends at an answer, whose reward is backed up
  (paper section 3.2). If expansions yield no valid candidate
  `max_consecutive_errors` times in a row, the rollout fails: nothing is backed
  up, and the leaf becomes a dead end. The root never becomes one; the next
  rollout samples it again. The search of a tree with nothing left to select
  ends early.

  Args:
    tree: a new tree, or one that is continued in place.
    config: the search's config.
    seed: the run's seed.
    name: identities of this search.
    rollouts: number of rollouts; `config.rollouts` if None.

  Returns:
    The tree.
  """
  for _ in range(config.rollouts if rollouts is None else rollouts):
    if tree.exhausted[ROOT_INDEX]:
      break
    yield from _rollout(tree, config, seed, name)
  return tree


def _rollout(
  tree: Tree, config: SearchConfig, seed: int, name: Sequence[int | str]
) -> Search[None]:
  """Does one rollout."""
  node = ROOT_INDEX
  if config.corrective:
    node = corrective.start(tree, config.corrective, seed, name)
  errors = 0
  while True:
    node = selection.select_leaf(tree, config, node)
    if tree.terminal[node] == ANSWERED:
      selection.finish(tree, node)
      return
    added = yield from expansion.grow(tree, node, config, seed, name)
    errors = 0 if added else errors + 1
    if not added and errors >= config.max_consecutive_errors:
      tree.failed_rollouts += 1
      tree.end_rollout()
      if node != ROOT_INDEX:
        tree.give_up(node)
      return
