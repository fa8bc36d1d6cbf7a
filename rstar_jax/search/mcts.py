"""Monte Carlo tree search over many problems at once.

Problems are distributed over groups. Each group is a thread with its own trees:
it selects one leaf in each tree and expands all of them together. While one
group waits for the device, the others run code. Groups share only the
callables, so that a tree does not depend on timing, on the number of groups or
slots, or on the other problems.
"""

import concurrent.futures
import dataclasses
import threading
from collections.abc import Callable, Sequence

from rstar_jax.config.schema import SearchConfig
from rstar_jax.search import expansion, uct
from rstar_jax.search.expansion import Calls
from rstar_jax.search.tree import ANSWERED, NO_END, ROOT_INDEX, Tree
from rstar_jax.types import Problem

__all__ = ["Calls", "search"]


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
  """Searches one tree for each problem.

  A rollout descends by UCT from the root, expands every unexpanded node on its
  path and ends at an answer, whose reward is backed up (paper section 3.2). If
  an expansion gives no valid candidate `max_consecutive_errors` times in a row,
  the rollout fails: nothing is backed up, and the leaf becomes a dead end. The
  root never does; the next rollout samples it again. A tree with nothing left
  to select stops early.

  Args:
    problems: problems with different ids.
    config: the search's config.
    calls: the callables; called from `config.groups` threads, so that one that
      is not thread-safe must lock itself.
    seed: the run's seed.
    name: identities of this search, e.g. the round and the tree's number;
      seeds derive from them.
    trees: one tree for each problem, continued in place; new ones if None. A
      continued tree equals that of one longer search.
    rollouts: number of rollouts; `config.rollouts` if None.
    progress: called with the number of trees just finished, from any thread but
      never from two at once.

  Returns:
    One tree for each problem, in order.

  Raises:
    ValueError: if a problem has neither a gold answer nor `calls.reward` under
      `terminal_reward="truth"`, the PPM is missing, ids are repeated, or trees
      belong to other problems.
  """
  expansion.check(config, calls)
  _check_problems(problems, config, calls)
  if trees is None:
    trees = [Tree(problem) for problem in problems]
  elif [tree.problem for tree in trees] != list(problems):
    raise ValueError("trees[i].problem must be problems[i] for every i")
  budget = config.rollouts if rollouts is None else rollouts
  runs = [_Run(tree, budget) for tree in trees]
  stop, lock = threading.Event(), threading.Lock()

  def finished() -> None:
    if progress is not None:
      with lock:
        progress(1)

  def work(group: int) -> None:
    try:
      _search_group(
        runs[group :: config.groups],
        config,
        calls.of_group(group),
        seed,
        name,
        finished,
        stop,
      )
    except BaseException:
      stop.set()
      raise

  groups = range(min(config.groups, len(runs)))
  if len(groups) <= 1:
    for group in groups:
      work(group)
    return list(trees)
  with concurrent.futures.ThreadPoolExecutor(len(groups)) as pool:
    try:
      for future in [pool.submit(work, group) for group in groups]:
        future.result()
    finally:
      stop.set()
  return list(trees)


def _check_problems(
  problems: Sequence[Problem], config: SearchConfig, calls: Calls
) -> None:
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
    if problem.answer is None:
      raise ValueError(
        f"problem {problem.id} has no gold answer, which "
        "terminal_reward='truth' needs; use 'ppm', or give calls.reward"
      )


@dataclasses.dataclass
class _Run:
  """A tree, its remaining rollouts, and the node of the current rollout."""

  tree: Tree
  left: int
  node: int = ROOT_INDEX
  errors: int = 0

  def descend(self, config: SearchConfig) -> bool:
    """Descends to a leaf that must be expanded; False if the search is over."""
    tree = self.tree
    while self.left > 0 and not tree.exhausted[ROOT_INDEX]:
      self.node = uct.select_leaf(tree, config, self.node)
      if tree.terminal[self.node] != ANSWERED:
        return True
      uct.backup(tree, self.node, float(tree.reward[self.node]))
      tree.close(self.node)
      self._end(self.node)
    return False

  def record_expansion(self, added: int, config: SearchConfig) -> None:
    """Records that the expansion of the leaf added so many children."""
    if added:
      self.errors = 0
      return
    self.errors += 1
    if self.errors < config.max_consecutive_errors:
      return
    self.tree.failed_rollouts += 1
    if self.node != ROOT_INDEX:
      self.tree.give_up(self.node)
    self._end(NO_END)

  def _end(self, end: int) -> None:
    self.tree.end_rollout(end)
    self.left -= 1
    self.node, self.errors = ROOT_INDEX, 0


def _search_group(
  runs: Sequence[_Run],
  config: SearchConfig,
  calls: Calls,
  seed: int,
  name: Sequence[int | str],
  finished: Callable[[], None],
  stop: threading.Event,
) -> None:
  """Searches the trees of one group, `config.slots` at a time, in order."""
  waiting = iter(runs)
  active: list[_Run] = []
  while not stop.is_set():
    still = [run for run in active if run.descend(config)]
    for _ in range(len(active) - len(still)):
      finished()
    active = still
    while len(active) < config.slots:
      run = next(waiting, None)
      if run is None:
        break
      if run.descend(config):
        active.append(run)
      else:
        finished()
    if not active:
      return
    added = expansion.grow(
      [run.tree for run in active],
      [run.node for run in active],
      config,
      calls,
      seed,
      name,
    )
    for run, count in zip(active, added, strict=True):
      run.record_expansion(count, config)
