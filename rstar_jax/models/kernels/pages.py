"""Attention to pages of keys and values, on TPUs.

`attend_shared` is a Pallas kernel which reads a page once for neighbours whose
tables hold it in the same place: candidates of a leaf, tokens of a prefix.
`attend_ragged` is jax's kernel for ragged sequences, which reads a row's pages
for that row alone. Letters: T tokens, N query heads, K key/value heads,
G = N / K, H head, R rows of a table, P pages of a row, L layers, NP pages of a
layer.

Pages are [L * NP, page, 2 K, H]: page i of layer l is l * NP + i, and heads are
interleaved (keys of head 0, its values, keys of head 1, ...), so that one copy
brings a page, and a word of two bfloat16 is a key beside its value.

Paged attention: Kwon et al., 2023, arXiv:2309.06180. Online softmax: Milakov
and Gimelshein, 2018, arXiv:1805.02867. Shared prefixes: Juravsky et al., 2024,
arXiv:2402.05099.
"""

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jax.experimental.pallas.ops.tpu import ragged_paged_attention as ragged

from rstar_jax.models.layers import MASKED

# Keys that are added to a softmax at a time. Results depend on it.
BLOCK = 128
# The running maximum at first. It is above a masked score, so that a block of
# masked scores changes not one bit: exp(MASKED - _START) is 0.
_START = MASKED / 2
# Rows and columns of a float32 tile.
_SUBLANES, _LANES = 8, 128
# Most different sets of keys for which all queries of a chunk are multiplied
# with each set. Above, each token is multiplied with its own.
_RUNS = 4
# A run that is not there begins at no token of a chunk.
_NEVER = 127
# Bits of a move that say where in the buffers a page goes.
_PLACE = 9
# Most bytes of the buffers for keys and values.
_BYTES = 2**23
# Keys that jax's kernel reads at a time.
_RAGGED_KEYS = 256
_VMEM = 64 * 2**20


class Reads(NamedTuple):
  """What the kernel reads; the same for all layers.

  Attributes:
    moves: int32, for each page that is read its number in the layer, shifted,
      and its place in the buffers; by chunk, block, token and page.
    ends: int32 [chunks * blocks + 1], where the moves of a block begin and end.
    places: int32 [T * P / 4], a byte for each token and page: the token of the
      chunk whose buffer holds the page.
    forms: int32 [chunks * blocks], a byte each: 0 nothing to do, 1 one run of
      tokens with the same pages, 2 up to `_RUNS` runs, 3 more; then where the
      second, third and fourth run begin.
    spans: int32 [chunks * 3]: the first block, the one past the last, and how
      many blocks the chunks before have.
  """

  moves: jax.Array
  ends: jax.Array
  places: jax.Array
  forms: jax.Array
  spans: jax.Array


class Sequences(NamedTuple):
  """Tokens as jax's kernel wants them; see its arguments.

  Attributes:
    lengths: int32 [R], keys of each row up to its last token, at least 1: the
      kernel cannot skip a row in the middle.
    starts: int32 [R + 1], the first token of each row.
    count: int32 [1], rows up to the last that has a token.
  """

  lengths: jax.Array
  starts: jax.Array
  count: jax.Array


class Plan(NamedTuple):
  """What a call needs and what is the same for all layers.

  Attributes:
    slots: int32 [T], where a token is written in a layer, -1 for nowhere.
    reads: of the kind of attention.
  """

  slots: jax.Array
  reads: Reads | Sequences


def plan_shared(
  pages: jax.Array,
  tables: jax.Array,
  rows: jax.Array,
  positions: jax.Array,
  *,
  window: int = 0,
  reads: Reads | None = None,
  block: int = BLOCK,
  chunk: int | None = None,
) -> Plan:
  """Plans `attend_shared`, for all layers.

  Args:
    pages: [L * NP, page, 2 K, H], for its shape; see `attend_shared`.
    tables: int32 [R, P].
    rows: int32 [T].
    positions: int32 [T].
    window: tokens that a token attends to, itself included; 0 is no limit.
    reads: those of another plan, to be kept: of the same rows at positions that
      are not lower, and without a window.
    block: keys of a block, 4 or 8 pages.
    chunk: tokens that share buffers, a multiple of 8 up to 64; None chooses.
  """
  page = pages.shape[1]
  slots = _slots(tables, rows, positions, page)
  if reads is not None:
    return Plan(slots, reads)
  of_block = block // page
  if of_block not in (4, 8) or block % page:
    raise ValueError(f"a block of {block} keys is not 4 or 8 pages of {page}")
  if chunk is None:
    size = math.prod(pages.shape[1:]) * pages.dtype.itemsize
    most = _BYTES // (2 * of_block * size) // _SUBLANES * _SUBLANES
    chunk = max(_SUBLANES, min(32, most, pl.cdiv(rows.size, 8) * 8))
  more = -rows.size % chunk
  rows, positions = jnp.pad(rows, (0, more)), _filled(positions, more)
  tables = jnp.pad(tables, [(0, 0), (0, -tables.shape[1] % of_block)])

  starts = jnp.arange(tables.shape[1]) * page
  needed = starts <= positions[:, None]
  if window:
    needed &= starts + page > positions[:, None] - window + 1
  shape = (-1, chunk, tables.shape[1] // of_block, of_block)
  needed, numbers = needed.reshape(shape), tables[rows].reshape(shape)
  same = (numbers[:, 1:] == numbers[:, :-1]) & needed[:, :-1]
  read = needed & ~jnp.pad(same, [(0, 0), (1, 0), (0, 0), (0, 0)])

  # A row's tokens read a page once in a chunk.
  chunks, _, blocks, _ = needed.shape
  most = min(rows.size, chunks + tables.shape[0]) * tables.shape[1]
  token = jnp.arange(chunk)[:, None, None]
  moves = numbers << _PLACE | token * of_block + jnp.arange(of_block)
  flags, moves = (jnp.swapaxes(x, 1, 2).reshape(-1) for x in (read, moves))
  # The compiler takes a minute for a sort.
  to = jnp.where(flags, jnp.cumsum(flags) - 1, most)
  moves = jnp.zeros(most, jnp.int32).at[to].set(moves, mode="drop")
  ends = jnp.cumsum(read.sum(axis=(1, 3), dtype=jnp.int32))

  places = jax.lax.cummax(jnp.where(read, token, 0), axis=1).reshape(-1, 4)
  places = (places << jnp.arange(4) * 8).sum(axis=1, dtype=jnp.int32)

  begins = read.any(axis=3).at[:, 0].set(True)
  run = jnp.cumsum(begins, axis=1)
  kinds = jnp.where(run[:, -1] == 1, 1, jnp.where(run[:, -1] <= _RUNS, 2, 3))
  used = needed.any(axis=(1, 3))
  forms = jnp.where(used, kinds, 0)
  for at in range(1, _RUNS):
    begin = jnp.where(begins & (run == at + 1), token[..., 0], _NEVER)
    forms += begin.min(axis=1) << 8 * at

  # A chunk of empty slots has one block, in which there is nothing to do.
  first = jnp.argmax(used, axis=1)
  last = jnp.maximum(first + 1, (used * jnp.arange(1, blocks + 1)).max(axis=1))
  before = jnp.cumsum(last - first) - (last - first)
  return Plan(
    slots,
    Reads(
      moves=moves,
      ends=jnp.pad(ends, (1, 0)),
      places=places,
      forms=forms.reshape(-1),
      spans=jnp.stack([first, last, before], axis=1, dtype=jnp.int32).reshape(
        -1
      ),
    ),
  )


def plan_ragged(
  pages: jax.Array,
  tables: jax.Array,
  rows: jax.Array,
  positions: jax.Array,
  **options,
) -> Plan:
  """Plans `attend_ragged`, for all layers; see `plan_shared`.

  Here `rows` is nondecreasing, positions of a row increase by 1, and nothing is
  kept of another plan.
  """
  del options
  count = tables.shape[0]
  starts = jnp.searchsorted(rows, jnp.arange(count + 1)).astype(jnp.int32)
  # The kernel counts positions back from a row's last key.
  token = jnp.arange(rows.size)
  ahead = jnp.where(positions < 0, -token, positions - token)
  ahead = jax.ops.segment_max(ahead, rows, count, indices_are_sorted=True)
  lengths = jnp.maximum(ahead + starts[1:], starts[1:] - starts[:-1])
  return Plan(
    _slots(tables, rows, positions, pages.shape[1]),
    Sequences(
      lengths=jnp.maximum(lengths, 1).astype(jnp.int32),
      starts=starts,
      count=jnp.searchsorted(starts, starts[-1:]).astype(jnp.int32),
    ),
  )


def _filled(positions: jax.Array, more: int) -> jax.Array:
  """Returns positions with empty slots behind."""
  return jnp.pad(positions, (0, more), constant_values=-1)


def _slots(
  tables: jax.Array, rows: jax.Array, positions: jax.Array, page: int
) -> jax.Array:
  """Returns where tokens are in a layer, -1 for nowhere."""
  at = tables[rows, positions // page] * page + positions % page
  return jnp.where(positions < 0, -1, at)


def _kernel(
  layer,
  positions,
  moves,
  ends,
  places,
  forms,
  spans,
  q,
  pages,
  out,
  buffers,
  arrived,
  peak,
  total,
  mixed,
  *,
  count: int,
  of_block: int,
  scale: float,
  window: int,
):
  """Attends with one chunk of tokens, block after block of keys."""
  kv_heads, page = peak.shape[0], buffers.shape[2]
  chunk, block = buffers.shape[1] // of_block, of_block * page
  at_part, of_part = pl.program_id(1), pl.num_programs(1)
  this = pl.program_id(0) * of_part + at_part
  group, blocks = q.shape[1] // chunk, 3 * forms.shape[0] // spans.shape[0]
  first, last, before = (spans[3 * this + each] for each in range(3))

  def start(which, number, slot):
    """Starts to read what a chunk needs of a block."""
    before = layer[0] * count

    def move(at, _):
      word = moves[at]
      pltpu.make_async_copy(
        pages.at[before + (word >> _PLACE)],
        buffers.at[slot, word & (1 << _PLACE) - 1],
        arrived.at[slot],
      ).start()

    at = which * blocks + number
    jax.lax.fori_loop(ends[at], ends[at + 1], move, None)

  def wait(number, slot):
    """Waits for the bytes of a block's pages, most of them by eights."""
    at = this * blocks + number
    pages_read = ends[at + 1] - ends[at]
    for size, times in ((8, pages_read // 8), (1, pages_read % 8)):
      held = buffers.at[slot, pl.ds(0, size)]
      some = pltpu.make_async_copy(held, held, arrived.at[slot])
      jax.lax.fori_loop(0, times, lambda *_, some=some: some.wait(), None)

  def half_of(token, head, number, half):
    """Returns a token's keys (half 0) or values (half 1), [block, H]."""
    slot = (before + number - first) % 2
    base = ((this * chunk + token) * blocks + number) * of_block // 4
    held = []
    for each in range(of_block):
      place = places[base + each // 4] >> 8 * (each % 4) & 255
      held.append(buffers.at[slot, place * of_block + each])
    return _half(held, head, half)

  def add(head, number, product):
    """Adds a block; `product(x, half)` multiplies with keys or values."""
    column = number * block + jax.lax.broadcasted_iota(
      jnp.int32, (group, block), 1
    )
    seen = []
    for token in range(chunk):
      position = positions[this * chunk + token]
      each = column <= position
      if window:
        each &= column > position - window
      seen.append(each)
    scores = product(q[head], 0) * scale
    scores = jnp.where(jnp.concatenate(seen), scores, MASKED)
    old = peak[head][:, :1]
    now = jnp.maximum(old, jnp.max(scores, axis=1, keepdims=True))
    shares, faded = jnp.exp(scores - now), jnp.exp(old - now)
    added = faded * total[head][:, :1] + jnp.sum(shares, axis=1, keepdims=True)
    peak[head] = jnp.broadcast_to(now, peak.shape[1:])
    total[head] = jnp.broadcast_to(added, total.shape[1:])
    mixed[head] = faded * mixed[head] + product(shares, 1)

  def by_runs(begins, head, number):
    """Multiplies all queries with each run's keys, and keeps a run's own."""
    row = jax.lax.broadcasted_iota(jnp.int32, (chunk * group, 1), 0)

    def product(x, half):
      result = None
      for begin in begins:
        token = jnp.minimum(begin, chunk - 1)
        each = _dot(x, half_of(token, head, number, half), half)
        # Rows from `begin` on; a later run takes the rest over.
        own = row >= begin * group
        result = each if result is None else jnp.where(own, each, result)
      return result

    add(head, number, product)

  def by_tokens(head, number):
    """Multiplies each token's queries with its own keys."""

    def product(x, half):
      parts = [
        _dot(
          x[token * group : (token + 1) * group],
          half_of(token, head, number, half),
          half,
        )
        for token in range(chunk)
      ]
      return jnp.concatenate(parts)

    add(head, number, product)

  @pl.when(at_part == 0)
  def _():
    # A weight of 0 does not cancel a NaN where nothing was read.
    def clear(at, _):
      for slot in range(2):
        buffers[slot, at] = jnp.zeros(buffers.shape[2:], buffers.dtype)

    jax.lax.fori_loop(0, buffers.shape[1], clear, None)
    start(this, first, before % 2)

  peak[...] = jnp.full_like(peak, _START)
  total[...] = jnp.zeros_like(total)
  mixed[...] = jnp.zeros_like(mixed)

  def step(number, _):
    slot = (before + number - first) % 2
    ends = number + 1 == last

    # The next block, be it of the next chunk, arrives meanwhile.
    @pl.when(~ends)
    def _():
      start(this, number + 1, 1 - slot)

    @pl.when(ends & (at_part + 1 < of_part))
    def _():
      start(this + 1, spans[3 * (this + 1)], 1 - slot)

    wait(number, slot)
    form = forms[this * blocks + number]
    kind = form & 255
    one = [0]
    four = [0, *(form >> 8 * at & 255 for at in range(1, _RUNS))]

    for head in range(kv_heads):
      pl.when(kind == 1)(functools.partial(by_runs, one, head, number))
      pl.when(kind == 2)(functools.partial(by_runs, four, head, number))
      pl.when(kind == 3)(functools.partial(by_tokens, head, number))

  jax.lax.fori_loop(first, last, step, None)
  weights = total[...][:, :, :1]
  # An empty slot has no weights at all.
  out[...] = (mixed[...] / jnp.where(weights > 0, weights, 1)).astype(out.dtype)


def _half(pages: list, head: int, half: int) -> jax.Array:
  """Returns keys (half 0) or values (half 1) of a head, [block, H].

  Args:
    pages: references to buffers of [page, 2 K, H].
  """
  page, both, dim = pages[0].shape
  if pages[0].dtype != jnp.bfloat16:
    return jnp.concatenate([each[:, 2 * head + half] for each in pages])
  # A key is the lower half of a word and its value the upper one; a bfloat16
  # is the upper half of a float32.
  rows = pl.ds(head, page, stride=both // 2)
  words = jnp.concatenate(
    [each.reshape(page * both, dim).bitcast(jnp.uint32)[rows] for each in pages]
  )
  words = words & jnp.uint32(0xFFFF0000) if half else words << 16
  return pltpu.bitcast(words, jnp.float32).astype(jnp.bfloat16)


def _dot(x: jax.Array, y: jax.Array, half: int) -> jax.Array:
  """Multiplies queries with keys (half 0), or shares with values (half 1)."""
  over = ((1,), (0,)) if half else ((1,), (1,))
  return jax.lax.dot_general(
    x.astype(y.dtype), y, (over, ((), ())), preferred_element_type=jnp.float32
  )


def write(
  k: jax.Array, v: jax.Array, pages: jax.Array, slots: jax.Array, first
) -> jax.Array:
  """Returns pages with new keys and values in their places.

  Args:
    k: [T, K, H].
    v: [T, K, H].
    pages: [L * NP, page, 2 K, H].
    slots: int32 [T], see `Plan`.
    first: int32 scalar, the layer's first page.
  """
  new = jnp.stack([k, v], axis=2).reshape(-1, *pages.shape[2:])
  flat = pages.reshape(-1, *pages.shape[2:])
  at = jnp.where(slots < 0, flat.shape[0], first * pages.shape[1] + slots)
  flat = flat.at[at].set(new.astype(pages.dtype), mode="drop")
  return flat.reshape(pages.shape)


# Traced once, and not again for every layer.
@functools.partial(
  jax.jit, static_argnames=("count", "window", "block", "interpret")
)
def attend_shared(
  q: jax.Array,
  k: jax.Array,
  v: jax.Array,
  pages: jax.Array,
  tables: jax.Array,
  rows: jax.Array,
  positions: jax.Array,
  *,
  layer: int | jax.Array,
  count: int,
  window: int = 0,
  plan: Plan | None = None,
  block: int = BLOCK,
  interpret=False,
) -> tuple[jax.Array, jax.Array]:
  """Writes new keys and values, then attends with each token to its path.

  A page is read once for neighbours in a chunk which have it in the same place
  of their tables. Which tokens these are changes no bit of a result: blocks of
  keys are added from position 0 on, each row of a product is computed alone,
  and a masked block adds nothing. Programs agree to the bit where their chunks
  are equally long, as they are from 32 tokens on.

  Args:
    q: [T, N, H]; on a TPU H is a multiple of 128.
    k: [T, K, H].
    v: [T, K, H].
    pages: [L * NP, page, 2 K, H], all finite; NP is at most 2^22.
    tables: int32 [R, P], page numbers in a layer; those past a row's positions
      may be any.
    rows: int32 [T], the table of each token, nondecreasing.
    positions: int32 [T], the place of a token in its path, increasing in a row;
      -1 is an empty slot.
    layer: the layer whose pages these are.
    count: NP, pages of a layer.
    window: tokens that a token attends to, itself included; 0 is no limit.
    plan: from `plan_shared`, so that it is made once for all layers; None makes
      it here.
    block: keys of a block, of the plan too.
    interpret: runs on any device, slowly; see `pl.pallas_call`.

  Returns:
    [T, N, H] in q's dtype, 0 for an empty slot; and the pages.
  """
  slots, reads = plan or plan_shared(
    pages, tables, rows, positions, window=window, block=block
  )
  layer = jnp.asarray(layer, jnp.int32)
  pages = write(k, v, pages, slots, layer * count)

  tokens, heads, dim = q.shape
  page, both = pages.shape[1:3]
  kv_heads, of_block, chunks = both // 2, block // page, reads.spans.size // 3
  width = reads.forms.size // chunks * of_block
  chunk = reads.places.size * 4 // (chunks * width)
  more = chunks * chunk - tokens
  # [T, N, H] to [K, T * G, H], G filled to whole tiles.
  group = heads // kv_heads
  filled = pl.cdiv(group, _SUBLANES) * _SUBLANES
  queries = jnp.swapaxes(q.reshape(tokens, kv_heads, group, dim), 0, 1)
  queries = jnp.pad(queries, [(0, 0), (0, more), (0, filled - group), (0, 0)])
  queries = queries.reshape(kv_heads, -1, dim)
  # Chips with two cores share the chunks.
  parts = math.gcd(chunks, 2)
  of_chunk = pl.BlockSpec(
    (kv_heads, chunk * filled, dim),
    lambda part, at, *_: (0, part * (chunks // parts) + at, 0),
  )
  mixed = pl.pallas_call(
    functools.partial(
      _kernel, count=count, of_block=of_block, scale=dim**-0.5, window=window
    ),
    out_shape=jax.ShapeDtypeStruct(queries.shape, q.dtype),
    grid_spec=pltpu.PrefetchScalarGridSpec(
      num_scalar_prefetch=2 + len(reads),
      grid=(parts, chunks // parts),
      in_specs=[of_chunk, pl.BlockSpec(memory_space=pltpu.HBM)],
      out_specs=of_chunk,
      scratch_shapes=[
        pltpu.VMEM((2, chunk * of_block, page, both, dim), pages.dtype),
        pltpu.SemaphoreType.DMA((2,)),
        *[pltpu.VMEM((kv_heads, chunk * filled, _LANES), jnp.float32)] * 2,
        pltpu.VMEM((kv_heads, chunk * filled, dim), jnp.float32),
      ],
    ),
    compiler_params=pltpu.CompilerParams(
      dimension_semantics=("parallel", "arbitrary"),
      vmem_limit_bytes=_VMEM,
      # They take longer than to start a copy.
      disable_bounds_checks=True,
    ),
    interpret=interpret,
    name="attend_shared",
  )(layer.reshape(1), _filled(positions, more), *reads, queries, pages)
  mixed = mixed.reshape(kv_heads, -1, filled, dim)[:, :tokens, :group]
  return jnp.swapaxes(mixed, 0, 1).reshape(q.shape), pages


def attend_ragged(
  q: jax.Array,
  k: jax.Array,
  v: jax.Array,
  pages: jax.Array,
  tables: jax.Array,
  rows: jax.Array,
  positions: jax.Array,
  *,
  layer: int | jax.Array,
  count: int,
  window: int = 0,
  plan: Plan | None = None,
) -> tuple[jax.Array, jax.Array]:
  """Computes the same as `attend_shared` by jax's ragged kernel.

  Positions of a row increase by 1 here.
  """
  slots, sequences = plan or plan_ragged(pages, tables, rows, positions)
  first = jnp.asarray(layer, jnp.int32) * count
  pages = write(k, v, pages, slots, first)
  mixed = ragged.ragged_paged_attention(
    q,
    pages,
    sequences.lengths,
    first + tables,
    sequences.starts,
    sequences.count,
    sm_scale=q.shape[-1] ** -0.5,
    sliding_window=window or None,
    num_kv_pages_per_block=_ragged_pages(pages.shape[1], tables.shape[1]),
    num_queries_per_block=_ragged_queries(q.shape[0], tables.shape[0]),
    vmem_limit_bytes=_VMEM,
  )
  return jnp.where(positions[:, None, None] < 0, 0, mixed), pages


def bytes_read(plan: Plan, pages: jax.Array, width: int) -> int:
  """Returns bytes of keys and values that a call reads, for one layer.

  Args:
    plan: of `plan_shared` or `plan_ragged`.
    pages: [L * NP, page, 2 K, H], for its shape.
    width: P, pages of a table's row.
  """
  size = math.prod(pages.shape[1:]) * pages.dtype.itemsize
  if isinstance(plan.reads, Reads):
    return int(plan.reads.ends[-1]) * size
  lengths, starts, (count,) = map(np.asarray, plan.reads)
  # Whole blocks of keys, again for each block of queries.
  of_block = _ragged_pages(pages.shape[1], width)
  blocks = -(-lengths // (of_block * pages.shape[1]))
  ends = np.maximum(starts[1:] - 1, starts[:-1])
  queries = _ragged_queries(plan.slots.size, lengths.size)
  again = ends // queries - starts[:-1] // queries + 1
  return int((blocks * again)[:count].sum()) * of_block * size


def _ragged_pages(page: int, width: int) -> int:
  """Returns pages that jax's kernel reads at a time."""
  return min(max(1, _RAGGED_KEYS // page), width)


def _ragged_queries(tokens: int, rows: int) -> int:
  """Returns tokens that jax's kernel multiplies at a time with a row's keys.

  Where each row has one token, all products but one are masked.
  """
  return min(tokens, 8 if tokens <= rows else 32)
