"""Prefix trees: rows of tokens, with each shared prefix stored once.

A forward pass over such a tree computes the same as over its rows: a token
attends to its own path alone, and the loss at a shared token is weighted by the
rows that have it.
"""

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np


@dataclasses.dataclass(frozen=True)
class PrefixTree:
  """Rows in one array of L tokens, in depth-first order.

  Attributes:
    tokens: int32 [L].
    positions: int32 [L], each token's position in its rows.
    parents: int32 [L], index of the previous token; -1 for a first token.
    ends: int32 [L]; the descendants of token i are tokens i + 1 to ends[i] - 1.
    places: for each row, int32 [row length], the indices of its tokens.
  """

  tokens: np.ndarray
  positions: np.ndarray
  parents: np.ndarray
  ends: np.ndarray
  places: list[np.ndarray]


def join(rows: Sequence[np.ndarray]) -> PrefixTree:
  """Joins rows of ids, each int32 [length] and not empty, in any order."""
  total = sum(map(len, rows))
  tokens, positions, parents, ends = np.zeros((4, total), np.int32)
  places: list[np.ndarray] = [np.zeros(0, np.int32)] * len(rows)
  before = path = np.zeros(0, np.int32)
  size = 0
  # Sorting makes rows with a common prefix neighbours.
  for number in sorted(range(len(rows)), key=lambda i: _key(rows[i])):
    row = rows[number]
    shared = common(before, row)
    ends[path[shared:]] = size
    new = np.arange(size, size + len(row) - shared, dtype=np.int32)
    tokens[new], positions[new] = row[shared:], np.arange(shared, len(row))
    path = np.concatenate([path[:shared], new])
    parents[new] = np.concatenate([[-1], path])[shared : len(row)]
    places[number] = path
    size += len(new)
    before = row
  ends[path] = size
  arrays = (each[:size] for each in (tokens, positions, parents, ends))
  return PrefixTree(*arrays, places)


def divide(
  units: Sequence[Sequence[np.ndarray]], length: int
) -> Iterator[tuple[list[int], PrefixTree]]:
  """Joins units of rows into trees of at most `length` tokens.

  Args:
    units: groups of rows that stay together, such as the sides of a pair.
    length: most tokens of a tree; only a tree of a single unit may exceed it.

  Yields:
    The indices of a tree's units, and the tree of their rows in that order.
  """
  order = sorted(range(len(units)), key=lambda i: _key(units[i][0]))
  waiting = [order] if order else []
  while waiting:
    numbers = waiting.pop()
    tree = join([row for number in numbers for row in units[number]])
    if len(tree.tokens) <= length or len(numbers) == 1:
      yield numbers, tree
    else:
      half = len(numbers) // 2
      waiting += [numbers[half:], numbers[:half]]


def common(one: np.ndarray, other: np.ndarray) -> int:
  """Returns the length of the common prefix of two rows."""
  size = min(len(one), len(other))
  differing = one[:size] != other[:size]
  return int(np.argmax(differing)) if differing.any() else size


def _key(row: np.ndarray) -> bytes:
  """Returns a sort key of a row: its ids as big-endian bytes."""
  return row.astype(">u4").tobytes()
