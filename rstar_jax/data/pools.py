"""Reads the trees of one or more rounds by problem, file after file.

Training data are made from the trees of one problem at a time, so extraction is
a map over files. At most one problem's trees are in memory; or, if several
folders have trees of a problem, those of one file's problems.
"""

import dataclasses
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from rstar_jax.data import outcomes
from rstar_jax.search import tree as tree_lib
from rstar_jax.search.tree import Tree
from rstar_jax.storage import records, store


@dataclasses.dataclass(frozen=True)
class Part:
  """The problems whose first tree is in a file, and the files of their trees.

  Attributes:
    path: the file.
    others: later files that also have trees of these problems.
    skipped: ids of the file's problems whose first tree is in an earlier file.
  """

  path: store.Path
  others: tuple[store.Path, ...] = ()
  skipped: frozenset[str] = frozenset()


def paths_of(folder: store.Path) -> list[store.Path]:
  """Returns the shards below a folder, at any depth, in order."""
  return sorted(
    folder / name
    for name in store.files(folder)
    if name.rpartition("/")[2].startswith("shard-")
  )


def parts(folders: Sequence[store.Path]) -> list[Part]:
  """Returns the parts of finished folders of trees, in order.

  All headers are read if two files may have trees of one problem.

  Args:
    folders: one per round, oldest first.
  """
  paths = [path for folder in folders for path in paths_of(folder)]
  # Within a folder a problem is in one file. Each turn of reinforcement has a
  # folder of its own.
  if len({path.parent for path in paths}) < 2:
    return [Part(path) for path in paths]
  # The first file of each problem.
  home: dict[str, store.Path] = {}
  others: dict[store.Path, list[store.Path]] = {path: [] for path in paths}
  skipped: dict[store.Path, set[str]] = {path: set() for path in paths}
  files = store.prefetch(outcomes.of_file, paths, paths[0])
  for path, file in zip(paths, files, strict=True):
    for each in file:
      first = home.setdefault(each.problem_id, path)
      if first is not path:
        skipped[path].add(each.problem_id)
        others[first].append(path)
  return [
    Part(path, tuple(dict.fromkeys(others[path])), frozenset(skipped[path]))
    for path in paths
  ]


def outcomes_of(folders: Sequence[store.Path]) -> Iterator[outcomes.Outcome]:
  """Yields each problem's outcome, summed over all files.

  Args:
    folders: finished folders of trees.
  """
  paths = [path for folder in folders for path in paths_of(folder)]
  if not paths:
    return
  files = store.prefetch(outcomes.of_file, paths, paths[0])
  if len({path.parent for path in paths}) == 1:
    for file in files:
      yield from file
    return
  total: dict[str, outcomes.Outcome] = {}
  for file in files:
    for each in file:
      if each.problem_id in total:
        total[each.problem_id].add(each)
      else:
        total[each.problem_id] = each
  yield from total.values()


def problems(part: Part) -> Iterator[list[Tree]]:
  """Yields the trees of each problem of a part, oldest first.

  Raises:
    CorruptShard: a file is missing, truncated or damaged; see
      `records.rows_of`.
  """
  elsewhere: dict[str, list[Tree]] = {}
  if part.others:
    wanted = {each.problem_id for each in outcomes.of_file(part.path)}
    wanted -= part.skipped
    for path in part.others:
      for name, trees in _by_problem(records.rows_of(path), wanted):
        elsewhere.setdefault(name, []).extend(trees)
  for name, trees in _by_problem(records.rows_of(part.path)):
    if name not in part.skipped:
      yield [*trees, *elsewhere.pop(name, [])]


def _by_problem(
  rows: Iterable[Mapping[str, Any]], wanted: set[str] | None = None
) -> Iterator[tuple[str, list[Tree]]]:
  """Yields the trees of each problem; a problem's rows are adjacent."""
  for name, group in itertools.groupby(rows, lambda row: row["problem"]["id"]):
    if wanted is None or name in wanted:
      yield name, [tree_lib.from_record(dict(row)) for row in group]
