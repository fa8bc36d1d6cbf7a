"""Turns texts into arrays: encodes, masks, packs and batches them.

Everything is numpy on the host. Batch k is a pure function of (seed, k), so a
resumed run continues with the same batches.

Sizes: N packed rows, B rows per batch, T tokens.
"""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Protocol

import numpy as np

from rstar_jax.data import prefix_trees
from rstar_jax.data.prefix_trees import PrefixTree
from rstar_jax.steps import grammar
from rstar_jax.steps import tokenizer as tokenizer_lib
from rstar_jax.types import Prefix

# Token ids, int32 [L], and their loss weights, [L].
Row = tuple[np.ndarray, np.ndarray]
# Per-token numbers by name, float32 [L].
Columns = Mapping[str, np.ndarray]
Batch = dict[str, np.ndarray]
BatchAt = Callable[[int], Batch]

# Most rows that `pack` keeps open; bounds its cost per row.
_OPEN_ROWS = 64


def encode_row(
  tokenizer: tokenizer_lib.Tokenizer, question: str, nodes: Prefix
) -> Row:
  """Encodes a solution, with the policy's loss mask.

  Args:
    tokenizer: encodes the prompt and the steps.
    question: plain text.
    nodes: node texts from the first step to the answer.

  Returns:
    ids int32 [L] and mask int32 [L]. The mask is 1 on the tokens that the
    policy writes, with the final end-of-text, and 0 on the prompt and on the
    interpreter's output spans with their line breaks.
  """
  pieces = [(tokenizer.prompt(question), 0)]
  for node in nodes:
    start = 0
    for begin, end in grammar.output_spans(node):
      pieces += [(node[start:begin], 1), (node[begin:end], 0)]
      start = end
    pieces.append((node[start:], 1))
  ids = list(tokenizer.bos_ids)
  mask = [0] * len(ids)
  for text, kept in pieces:
    new = tokenizer.encode(text) if text else []
    ids += new
    mask += [kept] * len(new)
  ids.append(tokenizer.eos_id)
  mask.append(1)
  return np.asarray(ids, np.int32), np.asarray(mask, np.int32)


class Rows(Protocol):
  """Packed rows, in memory (`Packed`) or on the disk (`stored_rows.py`).

  Attributes:
    solutions: number of rows before packing.
    dropped: number of these that were left out because they are longer than T.
  """

  solutions: int
  dropped: int

  def __len__(self) -> int: ...

  def take(self, numbers: np.ndarray) -> Batch:
    """Returns the arrays of some rows, in this order."""
    ...


@dataclasses.dataclass(frozen=True)
class Packed:
  """Prefix trees packed into equal lengths.

  Attributes:
    arrays: [N, T] each. int32: `tokens`, `positions` (in the original rows),
      `parents` (column of the previous token), `ends` (see
      `prefix_trees.PrefixTree`; 0 is padding). float32: `weights`, the sum over
      the original rows that have the token of its weight there.
    solutions, dropped: see `Rows`.
  """

  arrays: Batch
  solutions: int
  dropped: int

  def __len__(self) -> int:
    return len(next(iter(self.arrays.values())))

  def take(self, numbers: np.ndarray) -> Batch:
    """See `Rows`."""
    return {name: each[numbers] for name, each in self.arrays.items()}


def pack(groups: Sequence[Sequence[Row]], length: int) -> Packed:
  """Packs rows; a prefix that rows of a group share is stored once.

  Args:
    groups: rows that may share prefixes, such as those of a question: (ids,
      mask) as `encode_row` returns them.
    length: T; longer rows are dropped and counted.

  Returns:
    The packed arrays. N is 0 if no row fits.
  """
  return pack_columns(
    [[(ids, {"weights": mask}) for ids, mask in group] for group in groups],
    length,
    ("weights",),
  )


def pack_columns(
  groups: Sequence[Sequence[tuple[np.ndarray, Columns]]],
  length: int,
  names: Sequence[str],
) -> Packed:
  """Packs rows with several numbers per token; see `pack`.

  Args:
    groups: rows of ids and their columns.
    length: T; longer rows are dropped and counted.
    names: the columns' names.
  """
  trees, sums, dropped = [], [], 0
  for group in groups:
    rows = [row for row in group if len(row[0]) <= length]
    dropped += len(group) - len(rows)
    for tree, added in joined(rows, length, names):
      trees.append(tree)
      sums.append(added)
  places, count = placed(trees, length)
  arrays = laid(trees, places, count, length)
  for name in names:
    arrays[name] = np.zeros(arrays["tokens"].shape, np.float32)
    for added, (n, start) in zip(sums, places, strict=True):
      arrays[name][n, start : start + len(added[name])] = added[name]
  return Packed(arrays, sum(map(len, groups)), dropped)


def joined(
  rows: Sequence[tuple[np.ndarray, Columns]],
  length: int,
  names: Sequence[str],
) -> Iterator[tuple[PrefixTree, dict[str, np.ndarray]]]:
  """Yields prefix trees of rows, with their columns' sums; see `pack`.

  Args:
    rows: rows of at most `length` ids, which may share prefixes.
    length: most tokens of a tree.
    names: the columns' names.
  """
  units = [(ids,) for ids, _ in rows]
  for numbers, tree in prefix_trees.divide(units, length):
    added = {name: np.zeros(len(tree.tokens), np.float32) for name in names}
    for number, places in zip(numbers, tree.places, strict=True):
      for name, total in added.items():
        total[places] += rows[number][1][name]
    for total in added.values():
      # A first token has no predecessor that predicts it.
      total[tree.parents < 0] = 0
    yield tree, added


def by_question(questions: Iterable[str]) -> list[list[int]]:
  """Groups indices by question, in order of first appearance."""
  groups: dict[str, list[int]] = {}
  for number, question in enumerate(questions):
    groups.setdefault(question, []).append(number)
  return list(groups.values())


def placed(
  trees: Sequence[PrefixTree], length: int
) -> tuple[list[tuple[int, int]], int]:
  """Places each tree in the first open row that has room for it.

  Args:
    trees: of at most `length` tokens each.
    length: T.

  Returns:
    Row and column of each tree, and the number of rows.
  """
  shelf = Shelf(length)
  return [shelf.place(len(tree.tokens))[:2] for tree in trees], shelf.count


class Shelf:
  """First-fit packing into rows, of which a limited number is open.

  Attributes:
    count: number of rows so far.
  """

  def __init__(self, length: int):
    """Starts without rows; each row will have `length` columns."""
    self._length, self._open = length, []  # Of [row, room left].
    self.count = 0

  def place(self, size: int) -> tuple[int, int, int | None]:
    """Takes room in the first open row that has it.

    Args:
      size: number of columns, at most a row's.

    Returns:
      Row and first column; and a row that was closed by this, or None.
    """
    full = None
    for slot in self._open:
      if slot[1] >= size:
        break
    else:
      slot = [self.count, self._length]
      self.count += 1
      self._open.append(slot)
      if len(self._open) > _OPEN_ROWS:
        least = min(self._open[:-1], key=lambda each: each[1])
        self._open.remove(least)
        full = least[0]
    column = self._length - slot[1]
    slot[1] -= size
    return slot[0], column, full


def laid(
  trees: Sequence[PrefixTree],
  places: Sequence[tuple[int, int]],
  rows: int,
  length: int,
) -> Batch:
  """Returns the int32 arrays of `Packed`, [rows, length]."""
  names = ("tokens", "positions", "parents", "ends")
  arrays = {name: np.zeros((rows, length), np.int32) for name in names}
  for tree, (n, start) in zip(trees, places, strict=True):
    here = n, slice(start, start + len(tree.tokens))
    arrays["tokens"][here] = tree.tokens
    arrays["positions"][here] = tree.positions
    arrays["parents"][here] = np.maximum(tree.parents, 0) + start
    arrays["ends"][here] = tree.ends + start
  return arrays


def row_batches(
  packed: Rows, batch_size: int, epochs: int, seed: int
) -> tuple[BatchAt, int]:
  """Makes shuffled batches of packed rows.

  Args:
    packed: N rows, N at least 1.
    batch_size: B.
    epochs: passes over the rows, each shuffled differently.
    seed: seed of the shuffling.

  Returns:
    `batch_at(k)`, which returns arrays [B, ...], and the number of batches. The
    last batch is padded with rows of zeros, whose loss mask is 0.
  """
  order, num_batches = orders(len(packed), batch_size, epochs, seed)

  def batch_at(k: int) -> Batch:
    rows = packed.take(order(k))
    return {name: padded(each, batch_size) for name, each in rows.items()}

  return batch_at, num_batches


def orders(
  count: int, batch_size: int, epochs: int, seed: int | None
) -> tuple[Callable[[int], np.ndarray], int]:
  """Returns k -> the numbers of batch k, shuffled, and the number of batches.

  Args:
    count: numbers run from 0 to count - 1; at least 1.
    batch_size: numbers per batch.
    epochs: passes over the numbers, each shuffled differently.
    seed: seed of the shuffling; None keeps their order.

  Raises:
    ValueError: the count is below 1.
  """
  if count < 1:
    raise ValueError(
      "no rows to make batches of: all were dropped, or none given"
    )
  # Imported late: grain imports jax, which host rooms do not load.
  import grain

  dataset = grain.MapDataset.range(count)
  if seed is not None:
    dataset = dataset.seed(seed).shuffle()
  dataset = dataset.repeat(epochs).batch(batch_size, batch_fn=np.asarray)
  return dataset.__getitem__, len(dataset)


def padded(array: np.ndarray, size: int) -> np.ndarray:
  """Returns an array whose first axis is filled up with zeros to `size`."""
  if len(array) == size:
    return array
  filled = np.zeros((size, *array.shape[1:]), array.dtype)
  filled[: len(array)] = array
  return filled
