"""Turns reward models' training data into arrays: pairs and scored prefixes.

A question's items are adjacent, so that most of their tokens are shared: steps
are short and prefixes long. Of items on the disk (`stored_sides.py`) only those
of a batch are in memory. Batch k is a pure function of (seed, k), as in
`batches.py`.

Sizes: Q questions, N packed rows, T tokens, M items of a packed row, G sides (1
for a scored prefix, 2 for a preference pair).
"""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Protocol

import numpy as np

from rstar_jax.data import batches, prefix_trees
from rstar_jax.data.batches import Batch, BatchAt
from rstar_jax.data.prefix_trees import PrefixTree
from rstar_jax.steps import tokenizer as tokenizer_lib
from rstar_jax.types import PreferencePair, Prefix

# T is a multiple of this.
_MULTIPLE = 128
# Questions per call of the shuffled order.
_AT_ONCE = 1024


@dataclasses.dataclass(frozen=True)
class Group:
  """The encoded items of a question.

  Attributes:
    ids: n tuples of G int32 arrays: prompt and nodes, no end-of-text. The
      preferred side comes first.
    weight: float32 [n], above 0.
    target: float32 [n], the value's target; 0 for pairs.
  """

  ids: Sequence[tuple[np.ndarray, ...]]
  weight: np.ndarray
  target: np.ndarray


class Sides(Protocol):
  """Items by question, in memory (`Encoded`) or on the disk (`StoredSides`).

  Attributes:
    counts: int64 [Q], number of items of each question.
    above: number of items whose target is above 0.
    longest: tokens of the longest item, shared prefixes counted once; 0 without
      items.
    dropped: number of items left out because a side is too long.
  """

  @property
  def counts(self) -> np.ndarray: ...

  @property
  def above(self) -> int: ...

  @property
  def longest(self) -> int: ...

  @property
  def dropped(self) -> int: ...

  def group(self, question: int) -> Group:
    """Returns the items of a question."""
    ...


@dataclasses.dataclass(frozen=True)
class Encoded:
  """Items in memory; see `Sides`.

  Attributes:
    groups: the items of each question, at least one per question.
  """

  groups: Sequence[Group]
  dropped: int = 0

  @functools.cached_property
  def counts(self) -> np.ndarray:
    return np.array([len(each.ids) for each in self.groups], np.int64)

  @functools.cached_property
  def above(self) -> int:
    return sum(int(np.sum(each.target > 0)) for each in self.groups)

  @functools.cached_property
  def longest(self) -> int:
    return max(
      (
        sum(map(len, item))
        - sum(itertools.starmap(prefix_trees.common, itertools.pairwise(item)))
        for each in self.groups
        for item in each.ids
      ),
      default=0,
    )

  def group(self, question: int) -> Group:
    """See `Sides`."""
    return self.groups[question]


def encode_pairs(
  tokenizer: tokenizer_lib.Tokenizer,
  pairs: Iterable[PreferencePair],
  length: int,
) -> Encoded:
  """Encodes preference pairs; drops pairs with a side over `length` tokens.

  Returns:
    The encoded pairs in order. The PPM reads the value at a side's last token,
    the last one of its newest step.
  """
  return _encode(
    tokenizer,
    [(p.question, (p.chosen, p.rejected), p.weight, 0.0) for p in pairs],
    length,
  )


def encode_scored(
  tokenizer: tokenizer_lib.Tokenizer,
  items: Iterable[tuple[str, Prefix, float]],
  length: int,
) -> Encoded:
  """Encodes (question, nodes, target) items, for the ORM and PQM losses.

  Args:
    tokenizer: encodes prompts and nodes.
    items: question, node texts, and the target: 0 or 1 (ORM), or a Q-value.
    length: most tokens of an item; longer items are dropped and counted.
  """
  return _encode(
    tokenizer,
    [(q, (nodes,), 1.0, target) for q, nodes, target in items],
    length,
  )


def balance(sides: Sides) -> np.ndarray:
  """Returns item weights that give both classes the same total weight.

  Items with a target above 0 are one class: an ORM's right solutions, and a
  PQM's prefixes that lead to more right answers than wrong ones. The mean
  weight is 1; with one class alone all weights are 1.

  Returns:
    float32 [2]: the weight for targets up to 0, and for those above.
  """
  total = int(sides.counts.sum())
  sizes = total - sides.above, sides.above
  classes = sum(size > 0 for size in sizes)
  return np.array(
    [total / classes / size if size else 0 for size in sizes], np.float32
  )


def make_batches(
  sides: Sides,
  batch_size: int,
  epochs: int,
  seed: int | None,
  *,
  length: int,
  parts: int = 1,
  balanced: bool = False,
  size: tuple[int, int] | None = None,
) -> tuple[BatchAt, int]:
  """Makes batches of items, with shared prefixes of a question stored once.

  Args:
    sides: at least one item.
    batch_size: items per batch.
    epochs: passes over the questions, each shuffled differently.
    seed: seed of the shuffling; None keeps the order of the questions.
    length: T, unless an item is longer; rounded up to a multiple of 128.
    parts: N is a multiple of this.
    balanced: whether `balance` replaces the items' own weights.
    size: `largest` of these batches; None computes it.

  Returns:
    `batch_at(k)` and the number of batches. A batch holds `tokens`,
    `positions` and `ends` int32 [N, T] (see `batches.Packed`), `last` int32
    [N, M, G] (the column of each side's last token), `weight` and `target`
    float32 [N, M]. Padding has weight 0. To compile few programs, all batches
    have the same T and M, M is a power of two, and N has at most four values.
  """
  length = _length(sides, length)
  pieces, count = _pieces(sides, batch_size, epochs, seed, length)
  rows, items = size or _largest(pieces, count, length)
  items = 1 << (items - 1).bit_length()
  step = -(-rows // (4 * parts)) * parts
  weights = balance(sides) if balanced else None

  def batch_at(k: int) -> Batch:
    group_trees = list(pieces(k))
    trees = [tree for _, tree in group_trees]
    places, filled = batches.placed(trees, length)
    filled = -(-filled // step) * step
    arrays = batches.laid(trees, places, filled, length)
    del arrays["parents"]
    last = np.zeros((filled, items, len(group_trees[0][0].ids[0])), np.int32)
    weight, target = np.zeros((2, filled, items), np.float32)
    taken = np.zeros(filled, int)
    for (group, tree), (n, start) in zip(group_trees, places, strict=True):
      own = len(group.ids)
      here = n, slice(taken[n], taken[n] + own)
      ends = [start + each[-1] for each in tree.places]
      last[here] = np.reshape(ends, (own, -1))
      target[here] = group.target
      weight[here] = group.weight
      if weights is not None:
        weight[here] = weights[(group.target > 0).astype(int)]
      taken[n] += own
    return arrays | {"last": last, "weight": weight, "target": target}

  return batch_at, count


def largest(
  sides: Sides,
  batch_size: int,
  epochs: int,
  seed: int | None,
  *,
  length: int,
) -> tuple[int, int]:
  """Returns the most rows of any batch, and the most items of any row.

  It takes about as long as making the batches; see `make_batches`.
  """
  length = _length(sides, length)
  return _largest(*_pieces(sides, batch_size, epochs, seed, length), length)


# Items of a question, and the tree of their sides.
_Piece = tuple[Group, PrefixTree]


def _length(sides: Sides, length: int) -> int:
  return -(-max(length, sides.longest) // _MULTIPLE) * _MULTIPLE


def _pieces(
  sides: Sides, batch_size: int, epochs: int, seed: int | None, length: int
) -> tuple[Callable[[int], Iterator[_Piece]], int]:
  """Returns k -> the trees of batch k, and the number of batches."""
  order, parts = batches.orders(len(sides.counts), _AT_ONCE, epochs, seed)
  # The question of each turn, and the number of items up to its end.
  turns = np.concatenate([order(part) for part in range(parts)])
  ends = np.cumsum(sides.counts[turns])
  total = int(ends[-1])

  def members(k: int) -> dict[int, np.ndarray]:
    """Returns a batch's items by question; a question may come up twice."""
    start, stop = k * batch_size, min((k + 1) * batch_size, total)
    found: dict[int, np.ndarray] = {}
    turn = int(np.searchsorted(ends, start, "right"))
    while start < stop:
      question, end = int(turns[turn]), min(int(ends[turn]), stop)
      before = int(ends[turn] - sides.counts[question])
      items = np.arange(start, end) - before
      found[question] = np.concatenate([found.get(question, items[:0]), items])
      start, turn = end, turn + 1
    return found

  def pieces(k: int) -> Iterator[_Piece]:
    for question, items in members(k).items():
      group = sides.group(question)
      units = [group.ids[item] for item in items]
      for some, tree in prefix_trees.divide(units, length):
        chosen = items[some]
        ids = [units[number] for number in some]
        yield Group(ids, group.weight[chosen], group.target[chosen]), tree

  return pieces, -(-total // batch_size)


def _largest(
  pieces: Callable[[int], Iterator[_Piece]], count: int, length: int
) -> tuple[int, int]:
  def sizes(k: int) -> tuple[int, int]:
    group_trees = list(pieces(k))
    places, rows = batches.placed([tree for _, tree in group_trees], length)
    items = [len(group.ids) for group, _ in group_trees]
    return rows, int(np.bincount([n for n, _ in places], items).max())

  rows, items = zip(*map(sizes, range(count)), strict=True)
  return max(rows), max(items)


def _encode(tokenizer, items, length: int) -> Encoded:
  # Most sides occur in several pairs.
  @functools.cache
  def encoded(question: str, nodes: Prefix) -> np.ndarray:
    prompt = tokenizer.prompt(question)
    ids = tokenizer_lib.encode_solution(tokenizer, prompt, nodes)
    return np.asarray(ids, np.int32)

  kept, dropped = [], 0
  for question, prefixes, weight, target in items:
    ids = tuple(encoded(question, tuple(nodes)) for nodes in prefixes)
    if max(map(len, ids)) > length:
      dropped += 1
    else:
      kept.append((question, ids, weight, target))
  groups = []
  for numbers in batches.by_question(question for question, *_ in kept):
    _, ids, weight, target = zip(*(kept[n] for n in numbers), strict=True)
    groups.append(
      Group(ids, np.asarray(weight, np.float32), np.asarray(target, np.float32))
    )
  return Encoded(groups, dropped)
