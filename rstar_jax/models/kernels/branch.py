"""Attention to a shared path and to own tokens as one TPU kernel (Pallas).

It computes `cache.attend_branches` with an online softmax over blocks of keys:
scores stay in VMEM, one pass over a path serves all candidates of a leaf, and
fully masked blocks are not read. Letters: B leaves, C candidates, Q tokens of a
step, N query heads, K key/value heads, G = N / K, H head, T path, S own tokens.

Online softmax: Milakov and Gimelshein, 2018, arXiv:1805.02867.
"""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from rstar_jax.models.layers import MASKED

# Width of a vector register, and of the running maximum and sum.
_LANES = 128
# Rows of a float32 tile.
_SUBLANES = 8
# Most rows of a block of queries.
_ROWS = 1024
# Most bytes of a block of keys.
_BYTES = 2**20


@dataclasses.dataclass(frozen=True)
class Blocks:
  """Block sizes of one call.

  Attributes:
    candidates: candidates in a block of queries.
    tokens: tokens of each of these candidates.
    rows: tokens * G, padded to whole tiles.
    path: keys of the path in a block.
    own: keys of each candidate in a block.
  """

  candidates: int
  tokens: int
  rows: int
  path: int
  own: int


def _divisor(number: int, most: int) -> int:
  """Returns the largest divisor of `number` that is at most `most`."""
  return max(d for d in range(1, number + 1) if number % d == 0 and d <= most)


def blocks_of(
  candidates: int, tokens: int, group: int, path: int, own: int, key: int
) -> Blocks:
  """Chooses blocks that fit into VMEM.

  Args:
    candidates: C.
    tokens: Q.
    group: G.
    path: T.
    own: S.
    key: bytes of one key.
  """
  step = _SUBLANES // math.gcd(_SUBLANES, group)
  if tokens * group > _ROWS:
    tokens = max(_ROWS // group // step, 1) * step
  rows = -(-tokens * group // _SUBLANES) * _SUBLANES
  # A block of scores has its keys as columns: 128 fill a register.
  own = min(own, _LANES)
  most = max(1, min(_ROWS // rows, _BYTES // (own * key)))
  return Blocks(
    candidates=_divisor(candidates, most),
    tokens=tokens,
    rows=rows,
    path=min(path, 4 * _LANES),
    own=own,
  )


def _kernel(
  slots,
  lengths,
  index,
  q,
  path_keys,
  path_values,
  own_keys,
  own_values,
  out,
  peak,
  total,
  mixed,
  *,
  blocks: Blocks,
  group: int,
  tokens: int,
  path: int,
  own: int,
  window: int,
):
  """Adds one block of keys; blocks of the path come first."""
  del slots  # Only the index maps need them.
  leaf, step = pl.program_id(0), pl.program_id(3)
  path_steps = pl.cdiv(path, blocks.path)
  length, start = lengths[leaf], index[leaf]
  # Positions of the block's first and last token in their step.
  first = start
  if tokens > blocks.tokens:
    first += pl.program_id(2) % pl.cdiv(tokens, blocks.tokens) * blocks.tokens
  last = first + blocks.tokens - 1

  @pl.when(step == 0)
  def _():
    peak[...] = jnp.full_like(peak, MASKED)
    total[...] = jnp.zeros_like(total)
    mixed[...] = jnp.zeros_like(mixed)

  def places(shape: tuple[int, ...]) -> jax.Array:
    """Returns the position of each row's token in its step."""
    if tokens == 1:
      return first
    row = jax.lax.broadcasted_iota(jnp.int32, shape, len(shape) - 2)
    return first + row // group

  def take(scores, seen, mix):
    """Adds a block of scores, and the values that `mix` weights by them."""
    rows = (-1, scores.shape[-1])
    scores = jnp.where(seen, scores, MASKED).reshape(rows)
    before = peak[:, :1]
    now = jnp.maximum(before, jnp.max(scores, axis=1, keepdims=True))
    shares = jnp.exp(scores - now)
    faded = jnp.exp(before - now)
    added = jnp.sum(shares, axis=1, keepdims=True)
    peak[...] = jnp.broadcast_to(now, peak.shape)
    total[...] = jnp.broadcast_to(faded * total[:, :1] + added, total.shape)
    mixed[...] = faded * mixed[...] + mix(shares)

  def read(values, start, end):
    """Returns a block of values, with zeros past the end."""
    block = values[...]
    axis = block.ndim - 2
    if end % block.shape[axis]:
      # A weight of 0 does not cancel a NaN.
      place = start + jax.lax.broadcasted_iota(jnp.int32, block.shape, axis)
      block = jnp.where(place < end, block, 0)
    return block

  begin = step * blocks.path
  visible = begin < length
  if window:
    visible &= begin + blocks.path > length + first - window + 1

  @pl.when((step < path_steps) & visible)
  def _():
    queries = q[...].reshape(-1, q.shape[-1])
    scores = _dot(queries, path_keys[...], 1, 1)
    scores = scores.reshape(*q.shape[:2], -1)
    column = begin + jax.lax.broadcasted_iota(jnp.int32, scores.shape, 2)
    seen = column < length
    if window:
      seen &= column > length + places(scores.shape) - window
    values = read(path_values, begin, path)
    take(scores, seen, lambda x: _dot(x.astype(values.dtype), values, 1, 0))

  begin_own = (step - path_steps) * blocks.own
  visible_own = begin_own <= last
  if window:
    visible_own &= begin_own + blocks.own > first - window + 1

  @pl.when((step >= path_steps) & visible_own)
  def _():
    scores = _dot(q[...], own_keys[...], 2, 2, batch=True)
    column = begin_own + jax.lax.broadcasted_iota(jnp.int32, scores.shape, 2)
    place = places(scores.shape)
    seen = column <= place
    if window:
      seen &= column > place - window
    values = read(own_values, begin_own, own)

    def mix(shares):
      shares = shares.reshape(scores.shape).astype(values.dtype)
      return _dot(shares, values, 2, 1, batch=True).reshape(mixed.shape)

    take(scores, seen, mix)

  @pl.when(step == pl.num_programs(3) - 1)
  def _():
    result = mixed[...] / total[:, :1]
    out[...] = result.reshape(out.shape).astype(out.dtype)


def _dot(x, y, over_x: int, over_y: int, batch: bool = False) -> jax.Array:
  """Multiplies, with a float32 result; `batch` batches the first axes."""
  batched = ((0,), (0,)) if batch else ((), ())
  return jax.lax.dot_general(
    x,
    y,
    (((over_x,), (over_y,)), batched),
    preferred_element_type=jnp.float32,
  )


def _to_rows(q: jax.Array, kv_heads: int, blocks: Blocks) -> jax.Array:
  """Returns [B, C, Q, N, H] as [B, K, C, rows of its blocks, H], padded."""
  leaves, candidates, tokens, heads, dim = q.shape
  parts = pl.cdiv(tokens, blocks.tokens)
  q = q.reshape(leaves, candidates, tokens, kv_heads, -1, dim)
  q = jnp.transpose(q, (0, 3, 1, 2, 4, 5))
  more = parts * blocks.tokens - tokens
  q = jnp.pad(q, [(0, 0)] * 3 + [(0, more), (0, 0), (0, 0)])
  q = q.reshape(leaves, kv_heads, candidates, parts, -1, dim)
  q = jnp.pad(q, [(0, 0)] * 4 + [(0, blocks.rows - q.shape[4]), (0, 0)])
  return q.reshape(leaves, kv_heads, candidates, -1, dim)


def _from_rows(
  rows: jax.Array, tokens: int, heads: int, blocks: Blocks
) -> jax.Array:
  """Undoes `_to_rows`."""
  leaves, kv_heads, candidates, _, dim = rows.shape
  group = heads // kv_heads
  shape = (leaves, kv_heads, candidates)
  rows = rows.reshape(*shape, -1, blocks.rows, dim)
  rows = rows[:, :, :, :, : blocks.tokens * group]
  rows = rows.reshape(*shape, -1, group, dim)[:, :, :, :tokens]
  rows = jnp.transpose(rows, (0, 2, 3, 1, 4, 5))
  return rows.reshape(leaves, candidates, tokens, heads, dim)


# Traced once, and not again for every layer.
@functools.partial(jax.jit, static_argnames=("window", "blocks", "interpret"))
def attend(
  q: jax.Array,
  path: tuple[jax.Array, jax.Array],
  lengths: jax.Array,
  own: tuple[jax.Array, jax.Array],
  index: jax.Array,
  *,
  slots: jax.Array | None = None,
  window: int = 0,
  blocks: Blocks | None = None,
  interpret=False,
) -> jax.Array:
  """Attends to shared paths and to own tokens, in one pass over both.

  Token i is at position `index + i` of its step. It attends to its whole path,
  and to own tokens up to that position.

  Args:
    q: [B, C, Q, N, H].
    path: keys and values, [P, K, T, H] each.
    lengths: int32 [B], tokens of each leaf's path, 0 to T.
    own: keys and values, [B, C, K, S, H] each, with those of the step's tokens.
    index: int32 scalar or [B], the position of the first token; index + Q - 1
      is below S.
    slots: int32 [B], the row of `path` that each leaf reads; None is row b for
      leaf b.
    window: tokens that a token attends to, itself included; 0 is no limit.
    blocks: block sizes; None chooses them.
    interpret: runs on any device, slowly; see `pl.pallas_call`.

  Returns:
    [B, C, Q, N, H] in q's dtype.
  """
  leaves, candidates, tokens, heads, dim = q.shape
  kv_heads, path_length = path[0].shape[1:3]
  own_length, group = own[0].shape[3], heads // kv_heads
  blocks = blocks or blocks_of(
    candidates,
    tokens,
    group,
    path_length,
    own_length,
    dim * own[0].dtype.itemsize,
  )
  path_steps = pl.cdiv(path_length, blocks.path)
  own_steps = pl.cdiv(own_length, blocks.own)
  token_blocks = pl.cdiv(tokens, blocks.tokens)

  q = _to_rows(q * dim**-0.5, kv_heads, blocks)
  if not interpret:
    # Otherwise the compiler may move whole arrays to VMEM, unread parts too.
    path, own = jax.tree.map(
      lambda x: pltpu.with_memory_space_constraint(x, pltpu.HBM), (path, own)
    )

  def places(leaf, part, index):
    """Returns the positions of a block's first and last token."""
    first = index[leaf] + part % token_blocks * blocks.tokens
    return first, jnp.minimum(first + blocks.tokens, index[leaf] + tokens) - 1

  # A masked block has the index of the nearest visible one, which is already in
  # VMEM and is not read again.
  def at_path(leaf, head, part, step, slots, lengths, index):
    end = lengths[leaf]
    last = jnp.maximum(pl.cdiv(end, blocks.path) - 1, 0)
    if window:
      start = end + places(leaf, part, index)[0] - window + 1
      step = jnp.maximum(step, jnp.maximum(start, 0) // blocks.path)
    return slots[leaf], head, jnp.minimum(step, last), 0

  def at_own(leaf, head, part, step, slots, lengths, index):
    del slots, lengths
    first, last = places(leaf, part, index)
    step = jnp.maximum(step - path_steps, 0)
    if window:
      step = jnp.maximum(step, jnp.maximum(first - window + 1, 0) // blocks.own)
    block = jnp.minimum(step, last // blocks.own)
    return leaf, part // token_blocks, head, block, 0

  def at_queries(leaf, head, part, step, slots, lengths, index):
    del step, slots, lengths, index
    return leaf, head, part // token_blocks, part % token_blocks, 0

  queries = (None, None, blocks.candidates, blocks.rows, dim)
  path_block = (None, None, blocks.path, dim)
  own_block = (None, blocks.candidates, None, blocks.own, dim)
  rows = blocks.candidates * blocks.rows
  mixed = pl.pallas_call(
    functools.partial(
      _kernel,
      blocks=blocks,
      group=group,
      tokens=tokens,
      path=path_length,
      own=own_length,
      window=window,
    ),
    out_shape=jax.ShapeDtypeStruct(q.shape, q.dtype),
    grid_spec=pltpu.PrefetchScalarGridSpec(
      num_scalar_prefetch=3,
      grid=(
        leaves,
        kv_heads,
        candidates // blocks.candidates * token_blocks,
        path_steps + own_steps,
      ),
      in_specs=[
        pl.BlockSpec(queries, at_queries),
        *[pl.BlockSpec(path_block, at_path)] * 2,
        *[pl.BlockSpec(own_block, at_own)] * 2,
      ],
      out_specs=pl.BlockSpec(queries, at_queries),
      scratch_shapes=[
        *[pltpu.VMEM((rows, _LANES), jnp.float32)] * 2,
        pltpu.VMEM((rows, dim), jnp.float32),
      ],
    ),
    compiler_params=pltpu.CompilerParams(
      dimension_semantics=("parallel", "parallel", "parallel", "arbitrary")
    ),
    interpret=interpret,
    name="branch_attention",
  )(
    jnp.arange(leaves) if slots is None else slots,
    lengths,
    jnp.broadcast_to(index, (leaves,)),
    q,
    *path,
    *own,
  )
  return _from_rows(mixed, tokens, heads, blocks)
