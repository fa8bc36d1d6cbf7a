"""Ragged work to fixed shapes: which leaves share a device call, padded how.

Which leaves share a call follows from their lengths alone, never from timing.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

# A device call's fixed cost (dispatch, and decode steps that a few rows do not
# fill), in tokens of prefill. It decides only between one padded call and two.
CALL_COST = 1024


@dataclasses.dataclass(frozen=True)
class Call:
  """One device call.

  Attributes:
    indices: which leaves, in the caller's numbering, at most `leaves` of them.
    leaves: leaf bucket.
    length: prefix bucket.
  """

  indices: tuple[int, ...]
  leaves: int
  length: int


def bucket_of(size: int, buckets: Sequence[int]) -> int:
  """Returns the first of increasing buckets that holds `size`.

  Past the largest, buckets go on by doubling it.
  """
  for bucket in buckets:
    if size <= bucket:
      return bucket
  bucket = buckets[-1]
  while bucket < size:
    bucket *= 2
  return bucket


def plan(
  lengths: Sequence[int],
  prefix_buckets: Sequence[int],
  leaf_buckets: Sequence[int],
  step_cost: int,
) -> list[Call]:
  """Groups leaves so that few tokens are padding.

  Leaves are sorted by prefix bucket, the longest first, and cut into runs: the
  cheapest cut, where a call costs `CALL_COST` and, for each of its leaves, its
  prefix bucket and `step_cost`.

  Args:
    lengths: B prefix lengths in tokens.
    prefix_buckets: increasing.
    leaf_buckets: increasing.
    step_cost: tokens of work that a leaf is beside its prefix.

  Returns:
    Calls that hold each leaf once.
  """
  buckets = [bucket_of(length, prefix_buckets) for length in lengths]
  order = sorted(range(len(lengths)), key=lambda i: (-buckets[i], i))
  # best[i] = (cost, leaf bucket of the first call) of the runs from i on.
  best: list[tuple[int, int]] = [(0, 0)] * (len(order) + 1)
  for start in reversed(range(len(order))):
    per_leaf = buckets[order[start]] + step_cost
    # Of equal costs, the larger call.
    cost, negated = min(
      (
        CALL_COST
        + leaves * per_leaf
        + best[min(start + leaves, len(order))][0],
        -leaves,
      )
      for leaves in leaf_buckets
    )
    best[start] = (cost, -negated)
  calls, start = [], 0
  while start < len(order):
    leaves = best[start][1]
    run = tuple(order[start : start + leaves])
    calls.append(Call(run, leaves, buckets[run[0]]))
    start += leaves
  return calls


def deal(
  banks_of: Sequence[int],
  banks: int,
  sizes: Sequence[int],
  lengths: Sequence[int] | None,
  prefix_buckets: Sequence[int],
  step_cost: int,
) -> list[tuple[np.ndarray, int]]:
  """Deals items to calls in which each bank has as many rows.

  Args:
    banks_of: the bank of each item.
    banks: how many there are.
    sizes: increasing; rows of a bank in a call are padded up to one of these.
    lengths: of the items' paths; None deals in order, in the fewest calls.
    prefix_buckets: increasing.
    step_cost: see `plan`.

  Returns:
    For each call int32 [B] items, -1 for padding, the banks one after the
    other; and the length bucket, 0 without lengths.
  """
  queues: list[list[int]] = [[] for _ in range(banks)]
  order = range(len(banks_of))
  if lengths is not None:
    order = sorted(order, key=lambda i: (-lengths[i], i))
  for item in order:
    queues[banks_of[item]].append(item)
  depth = max(map(len, queues), default=0)
  # Unit k is the k-th item of every bank.
  units = np.full((depth, banks), -1, np.int32)
  for bank, queue in enumerate(queues):
    units[: len(queue), bank] = queue
  if lengths is None:
    calls = [
      Call(tuple(range(start, min(start + sizes[-1], depth))), 0, 0)
      for start in range(0, depth, sizes[-1])
    ]
  else:
    longest = [max(lengths[i] for i in unit if i >= 0) for unit in units]
    calls = plan(longest, prefix_buckets, sizes, step_cost * banks)
  dealt = []
  for call in calls:
    size = call.leaves or bucket_of(len(call.indices), sizes)
    rows = np.full((size, banks), -1, np.int32)
    rows[: len(call.indices)] = units[list(call.indices)]
    dealt.append((rows.T.reshape(-1), call.length))
  return dealt


def pad_rows(
  rows: Sequence[Sequence[int]], shape: tuple[int, int], pad_id: int
) -> tuple[np.ndarray, np.ndarray]:
  """Pads ragged rows on the right, and adds empty rows.

  Args:
    rows: at most `shape[0]` rows of at most `shape[1]` ids.
    shape: (rows, length).
    pad_id: fills.

  Returns:
    int32 ids of `shape`, and int32 lengths [shape[0]].
  """
  tokens = np.full(shape, pad_id, np.int32)
  lengths = np.zeros(shape[0], np.int32)
  for i, row in enumerate(rows):
    tokens[i, : len(row)] = row
    lengths[i] = len(row)
  return tokens, lengths
