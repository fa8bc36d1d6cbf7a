"""Turns texts into arrays: encodes, masks, packs and batches them.

Everything is numpy on the host. Batch k is a pure function of (seed, k), so
that a resumed run continues with batch k.

Sizes: N packed rows, B rows per batch, T tokens, P pairs, G sides (1 for a
scored prefix, 2 for a preference pair).
"""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from rstar_jax.steps import grammar
from rstar_jax.steps import tokenizer as tokenizer_lib
from rstar_jax.types import PreferencePair, Prefix

Row = tuple[np.ndarray, np.ndarray]
Batch = dict[str, np.ndarray]
BatchAt = Callable[[int], Batch]

# Number of rows that `pack` keeps open; bounds its cost per row.
_OPEN_ROWS = 64


def encode_row(
  tokenizer: tokenizer_lib.Tokenizer, question: str, nodes: Prefix
) -> Row:
  """Encodes one solution with the loss mask of the policy.

  Args:
    tokenizer: the tokenizer.
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


@dataclasses.dataclass(frozen=True)
class Packed:
  """Rows packed into equal lengths.

  Attributes:
    arrays: int32 [N, T] each: `tokens`; `targets` (the next token of the same
      segment), `mask` (1 if the target counts), `segment_ids` (from 1; 0 is
      padding), `positions` (from 0 in each segment).
    dropped: number of rows left out because they are longer than T.
  """

  arrays: Batch
  dropped: int


def pack(rows: Sequence[Row], length: int) -> Packed:
  """Packs rows greedily: each goes into the first open row with room for it.

  Args:
    rows: (ids, mask) as `encode_row` returns them.
    length: T; longer rows are dropped and counted.

  Returns:
    The packed arrays. N is 0 if no row fits.
  """
  bins: list[list[int]] = []
  open_bins: list[list[int]] = []  # [index of the bin, room left]
  dropped = 0
  for index, (ids, _) in enumerate(rows):
    size = len(ids)
    if size > length:
      dropped += 1
      continue
    for slot in open_bins:
      if slot[1] >= size:
        break
    else:
      slot = [len(bins), length]
      bins.append([])
      open_bins.append(slot)
      if len(open_bins) > _OPEN_ROWS:
        open_bins.remove(min(open_bins[:-1], key=lambda each: each[1]))
    bins[slot[0]].append(index)
    slot[1] -= size
  names = ("tokens", "targets", "mask", "segment_ids", "positions")
  arrays = {n: np.zeros((len(bins), length), np.int32) for n in names}
  for n, members in enumerate(bins):
    start = 0
    for segment, index in enumerate(members, 1):
      ids, mask = rows[index]
      end = start + len(ids)
      arrays["tokens"][n, start:end] = ids
      arrays["targets"][n, start : end - 1] = ids[1:]
      arrays["mask"][n, start : end - 1] = mask[1:]
      arrays["segment_ids"][n, start:end] = segment
      arrays["positions"][n, start:end] = np.arange(len(ids))
      start = end
  return Packed(arrays, dropped)


def row_batches(
  arrays: Batch, batch_size: int, epochs: int, seed: int
) -> tuple[BatchAt, int]:
  """Makes shuffled batches of packed rows.

  Args:
    arrays: [N, ...] each, N at least 1.
    batch_size: B.
    epochs: passes over the rows, each shuffled differently.
    seed: seed of the shuffling.

  Returns:
    `batch_at(k)`, which returns arrays [B, ...], and the number of batches. The
    last batch is padded with rows of zeros, whose loss mask is 0.
  """
  count = len(next(iter(arrays.values())))
  order, num_batches = _orders(count, batch_size, epochs, seed)

  def batch_at(k: int) -> Batch:
    rows = order(k)
    return {name: _fill(a[rows], batch_size) for name, a in arrays.items()}

  return batch_at, num_batches


@dataclasses.dataclass(frozen=True)
class Sides:
  """Encoded preference pairs (G = 2) or scored prefixes (G = 1).

  Attributes:
    ids: P tuples of G int32 arrays: prompt and nodes, no end-of-text. The
      preferred side is the first.
    weight: float32 [P], above 0.
    target: float32 [P], the target of the value; 0 for pairs.
    dropped: number of items left out because a side is too long.
  """

  ids: list[tuple[np.ndarray, ...]]
  weight: np.ndarray
  target: np.ndarray
  dropped: int


def encode_pairs(
  tokenizer: tokenizer_lib.Tokenizer,
  pairs: Sequence[PreferencePair],
  length: int,
) -> Sides:
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
  items: Sequence[tuple[str, Prefix, float]],
  length: int,
) -> Sides:
  """Encodes (question, nodes, target) items, for the ORM and PQM losses.

  Args:
    tokenizer: the tokenizer.
    items: question, node texts, and the target: 0 or 1 (ORM), or a Q-value.
    length: longest item, in tokens; longer ones are dropped and counted.
  """
  return _encode(
    tokenizer,
    [(q, (nodes,), 1.0, target) for q, nodes, target in items],
    length,
  )


def side_batches(
  sides: Sides,
  batch_size: int,
  epochs: int,
  seed: int | None,
  *,
  pad_id: int = 0,
  multiple: int = 128,
) -> tuple[BatchAt, int]:
  """Makes batches of pairs; each batch is padded to its own length.

  The common prefix of a pair's sides is segment 1, and each side's own tokens
  are a segment after it, 2 to G + 1. Steps are short and prefixes long, so that
  computing the prefix once saves most of the work. A row needs
  `Transformer.hidden(shared_segment=1)`.

  Args:
    sides: P pairs, P at least 1.
    batch_size: pairs per batch.
    epochs: passes over the pairs.
    seed: seed of the shuffling; None keeps the given order.
    pad_id: the id of padding.
    multiple: T is the smallest multiple of it that fits, so that few shapes
      are compiled.

  Returns:
    `batch_at(k)` and the number of batches. With P = batch_size a batch holds
    `tokens`, `segment_ids` (0 on padding) and `positions` int32 [P, T], `last`
    int32 [P, G] (column of each side's last token), `weight` and `target`
    float32 [P]. Padding pairs have weight 0.
  """
  order, num_batches = _orders(len(sides.ids), batch_size, epochs, seed)
  group = len(sides.ids[0])

  def batch_at(k: int) -> Batch:
    chosen = order(k)
    shared = [_shared(sides.ids[p]) for p in chosen]
    longest = max(
      start + sum(len(ids) - start for ids in sides.ids[p])
      for start, p in zip(shared, chosen, strict=True)
    )
    length = -(-longest // multiple) * multiple
    tokens = np.full((batch_size, length), pad_id, np.int32)
    segment_ids = np.zeros((batch_size, length), np.int32)
    positions = np.zeros((batch_size, length), np.int32)
    last = np.zeros((batch_size, group), np.int32)
    for row, (start, p) in enumerate(zip(shared, chosen, strict=True)):
      tokens[row, :start] = sides.ids[p][0][:start]
      segment_ids[row, :start] = 1
      positions[row, :start] = np.arange(start)
      end = start
      for g, ids in enumerate(sides.ids[p]):
        own = slice(end, end + len(ids) - start)
        tokens[row, own] = ids[start:]
        segment_ids[row, own] = g + 2
        positions[row, own] = np.arange(start, len(ids))
        end = own.stop
        last[row, g] = end - 1
    return {
      "tokens": tokens,
      "segment_ids": segment_ids,
      "positions": positions,
      "last": last,
      "weight": _fill(sides.weight[chosen], batch_size),
      "target": _fill(sides.target[chosen], batch_size),
    }

  return batch_at, num_batches


def _shared(sides: tuple[np.ndarray, ...]) -> int:
  """Returns the length of the common prefix, less than any side's length."""
  size = min(map(len, sides)) - 1
  differing = np.zeros(size, bool)
  for ids in sides[1:]:
    differing |= ids[:size] != sides[0][:size]
  return int(np.argmax(differing)) if differing.any() else size


def _encode(tokenizer, items, length: int) -> Sides:
  kept, weights, targets = [], [], []
  for question, prefixes, weight, target in items:
    prompt = tokenizer.prompt(question)
    sides = tuple(
      np.asarray(
        tokenizer_lib.encode_solution(tokenizer, prompt, nodes), np.int32
      )
      for nodes in prefixes
    )
    if max(map(len, sides)) > length:
      continue
    kept.append(sides)
    weights.append(weight)
    targets.append(target)
  return Sides(
    kept,
    np.asarray(weights, np.float32),
    np.asarray(targets, np.float32),
    len(items) - len(kept),
  )


def _orders(count: int, batch_size: int, epochs: int, seed: int | None):
  """Returns k -> row numbers of batch k, and the number of batches."""
  if count < 1:
    raise ValueError(
      "no rows to make batches of: all were dropped, or none given"
    )
  # grain imports jax, which this module does not need otherwise.
  import grain

  dataset = grain.MapDataset.range(count)
  if seed is not None:
    dataset = dataset.seed(seed).shuffle()
  dataset = dataset.repeat(epochs).batch(batch_size, batch_fn=np.asarray)
  return dataset.__getitem__, len(dataset)


def _fill(array: np.ndarray, size: int) -> np.ndarray:
  """Pads the first axis with zeros up to `size`."""
  if len(array) == size:
    return array
  filled = np.zeros((size, *array.shape[1:]), array.dtype)
  filled[: len(array)] = array
  return filled
