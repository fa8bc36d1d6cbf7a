"""Runs the search that a config names: MCTS, or one of the user's."""

from collections.abc import Callable, Sequence

from rstar_jax.config import plugins
from rstar_jax.config.schema import SearchConfig
from rstar_jax.search import mcts
from rstar_jax.search.requests import Calls
from rstar_jax.search.tree import Tree
from rstar_jax.types import Problem


def search(
  problems: Sequence[Problem],
  config: SearchConfig,
  calls: Calls,
  seed: int = 0,
  *,
  name: Sequence[int | str] = (),
  progress: Callable[[int], None] | None = None,
) -> list[Tree]:
  """Searches with `config.method`; arguments as of `mcts.search`.

  Raises:
    PluginError: the user's search raises, or does not return one tree for each
      problem, in order.
  """
  if config.method == "mcts":
    return mcts.search(
      problems, config, calls, seed, name=name, progress=progress
    )
  plugin = plugins.load(config.method, "search.method")
  trees = plugin(list(problems), config, calls, seed=seed, name=tuple(name))
  wanted = f"a list of {len(problems)} trees, one for each problem, in order"
  if not isinstance(trees, list | tuple):
    raise plugin.wrong(wanted, plugins.shown(trees))
  if len(trees) != len(problems):
    raise plugin.wrong(wanted, f"{len(trees)}")
  for index, (tree, problem) in enumerate(zip(trees, problems, strict=True)):
    if not isinstance(tree, Tree):
      raise plugin.wrong(wanted, f"{plugins.shown(tree)} as item {index}")
    if tree.problem != problem:
      raise plugin.wrong(
        wanted, f"the tree of {tree.problem.id} in the place of {problem.id}"
      )
  if progress is not None:
    progress(len(trees))
  return list(trees)
