"""Packs ragged work into device calls of fixed shapes.

Which leaves share a call depends on their lengths alone, never on timing.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

# Fixed cost of a device call (dispatch, and decode steps with few rows), in
# tokens of prefill. It decides between one padded call and two.
CALL_COST = 1024


@dataclasses.dataclass(frozen=True)
class Call:
  """One device call.

  Attributes:
    indices: the leaves, at most `leaves` of them.
    leaves: leaf bucket.
    length: prefix bucket.
  """

  indices: tuple[int, ...]
  leaves: int
  length: int


def bucket_of(size: int, buckets: Sequence[int]) -> int:
  """Returns the first of increasing buckets that holds `size`.

  Beyond the largest bucket, its doubles are used.
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
  """Groups leaves into calls with little padding.

  Leaves are sorted by prefix bucket, the longest first, and cut into runs at
  the lowest total cost. A call costs `CALL_COST` plus, for each leaf of its
  leaf bucket, the prefix bucket plus `step_cost`.

  Args:
    lengths: B prefix lengths in tokens.
    prefix_buckets: increasing.
    leaf_buckets: increasing.
    step_cost: tokens of work of a leaf beside its prefix.

  Returns:
    Calls that together have each leaf once.
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
  shard_of: Sequence[int],
  data_shards: int,
  sizes: Sequence[int],
  lengths: Sequence[int] | None,
  prefix_buckets: Sequence[int],
  step_cost: int,
) -> list[tuple[np.ndarray, int]]:
  """Deals items to calls that have equally many rows in each data shard.

  Args:
    shard_of: the data shard of each item.
    data_shards: number of data shards.
    sizes: increasing; a shard's rows in a call are padded up to one of these.
    lengths: path lengths of the items; None deals in order, in fewest calls.
    prefix_buckets: increasing.
    step_cost: see `plan`.

  Returns:
    For each call int32 [B] items, shard after shard, -1 for padding; and the
    length bucket, 0 without lengths.
  """
  queues: list[list[int]] = [[] for _ in range(data_shards)]
  order = range(len(shard_of))
  if lengths is not None:
    order = sorted(order, key=lambda i: (-lengths[i], i))
  for item in order:
    queues[shard_of[item]].append(item)
  depth = max(map(len, queues), default=0)
  # Unit k is the k-th item of every shard.
  units = np.full((depth, data_shards), -1, np.int32)
  for shard, queue in enumerate(queues):
    units[: len(queue), shard] = queue
  if lengths is None:
    calls = [
      Call(tuple(range(start, min(start + sizes[-1], depth))), 0, 0)
      for start in range(0, depth, sizes[-1])
    ]
  else:
    longest = [max(lengths[i] for i in unit if i >= 0) for unit in units]
    calls = plan(longest, prefix_buckets, sizes, step_cost * data_shards)
  dealt = []
  for call in calls:
    size = call.leaves or bucket_of(len(call.indices), sizes)
    rows = np.full((size, data_shards), -1, np.int32)
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
