"""Reads the records of finished folders."""

from collections.abc import Iterator
from typing import Any

from rstar_jax.data import pairs as pairs_lib
from rstar_jax.data import pools
from rstar_jax.search import tree as tree_lib
from rstar_jax.search.tree import Tree
from rstar_jax.storage import records, store
from rstar_jax.types import PreferencePair


def rows_of(folder: store.Path) -> Iterator[dict[str, Any]]:
  """Yields the rows of all shards below a finished folder, in order.

  Raises:
    CorruptShard: see `records.rows_of`.
  """
  for path in pools.paths_of(folder):
    yield from records.rows_of(path)


def read_rows(folder: store.Path) -> list[dict[str, Any]]:
  """Returns the rows of all shards below a finished folder, in order."""
  return [
    row
    for rows in store.prefetch(
      records.read_shard, pools.paths_of(folder), folder
    )
    for row in rows
  ]


def read_solutions(folder: store.Path) -> Iterator[dict[str, Any]]:
  """Yields the records of a finished evaluation or study, without texts.

  Choosing and counting need answers, verdicts and values; the steps, most of a
  record's size, are dropped. See `evaluation/solutions.py`.
  """
  for row in rows_of(folder):
    for each in row["trajectories"]:
      del each["steps"]
    yield row


def read_trees(folder: store.Path | str, *, draws: bool = False) -> list[Tree]:
  """Returns the trees of a finished folder, `round_k/trees`.

  Args:
    folder: all of its trees are held in memory, about 350 bytes a node.
    draws: whether trees keep the policy's own tokens; see `tree.Draw`.
  """
  rows = rows_of(store.path(folder))
  return [tree_lib.from_record(row, draws=draws) for row in rows]


def read_pairs(folder: store.Path | str) -> list[PreferencePair]:
  """Returns the preference pairs of a finished folder, `round_k/pairs`."""
  return [pairs_lib.from_dict(row) for row in read_rows(store.path(folder))]
