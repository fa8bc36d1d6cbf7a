"""Attention over pages of keys and values on a TPU; shared pages are read once.

A Pallas kernel that reads a page once for neighbours whose tables have it in
the same place: candidates of a leaf, tokens of a prefix. Letters: T tokens, N
query heads, K key/value heads, G = N / K, H head, R rows of a table, P pages of
a row, L layers, NP pages of a layer.

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
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from rstar_jax.models.attention import MASKED, capped
from rstar_jax.models.kernels.shared_plan import (
  BLOCK,
  PLACE,
  RUNS,
  filled,
)
from rstar_jax.models.pages import write
from rstar_jax.models.paths import Layer, Paths

# The initial running maximum. It is above a masked score, so that a block of
# masked scores changes no bit: exp(MASKED - _START) is 0.
_START = MASKED / 2
# Rows and columns of a float32 tile.
_SUBLANES, _LANES = 8, 128
_VMEM = 64 * 2**20


class _Options(NamedTuple):
  """Static arguments; `count` and `of_block` are pages, of layer and block."""

  count: int
  of_block: int
  scale: float
  window: int
  softcap: float


def _kernel(options, scalars, words, q, pages, *refs):
  """Attends with one chunk of tokens, block after block of keys.

  Args:
    options: see `_Options`.
    scalars: layer, positions, and of all chunks `ends`, `forms` and `spans` of
      `shared_plan.Reads`.
    words: of a chunk its moves, the next one's first moves, and its holders.
    q: of the chunk.
    pages: all.
    *refs: sinks if there are any, the result, and the scratch.
  """
  count, of_block, scale, window, softcap = options
  layer, positions, ends, forms, spans = scalars
  moves, ahead, holders = words
  *sinks, out, buffers, arrived, peak, total, mixed = refs
  kv_heads, page = peak.shape[0], buffers.shape[2]
  chunk, block = buffers.shape[1] // of_block, of_block * page
  at_part, of_part = pl.program_id(1), pl.num_programs(1)
  this = pl.program_id(0) * of_part + at_part
  group, blocks = q.shape[1] // chunk, 3 * forms.shape[0] // spans.shape[0]
  first, last, before = (spans[3 * this + each] for each in range(3))

  def start(which, number, slot, moves=moves):
    """Starts to read what a chunk needs of a block."""
    before = layer[0] * count

    def move(at, _):
      word = moves[0, at]
      pltpu.make_async_copy(
        pages.at[before + (word >> PLACE)],
        buffers.at[slot, word & (1 << PLACE) - 1],
        arrived.at[slot],
      ).start()

    at = which * (blocks + 1) + number
    jax.lax.fori_loop(ends[at], ends[at + 1], move, None)

  def wait(number, slot):
    """Waits for the bytes of a block's pages, most of them by eights."""
    at = this * (blocks + 1) + number
    pages_read = ends[at + 1] - ends[at]
    for size, times in ((8, pages_read // 8), (1, pages_read % 8)):
      held = buffers.at[slot, pl.ds(0, size)]
      some = pltpu.make_async_copy(held, held, arrived.at[slot])
      jax.lax.fori_loop(0, times, lambda *_, some=some: some.wait(), None)

  def half_of(token, head, number, half):
    """Returns a token's keys (half 0) or values (half 1), [block, H]."""
    slot = (before + number - first) % 2
    base = (token * blocks + number) * of_block // 4
    held = []
    for each in range(of_block):
      holder = holders[0, base + each // 4] >> 8 * (each % 4) & 255
      held.append(buffers.at[slot, holder * of_block + each])
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
    scores = capped(product(q[head], 0) * scale, softcap)
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
      # Its first moves: blocks before have none.
      start(this + 1, spans[3 * (this + 1)], 1 - slot, ahead)

    wait(number, slot)
    form = forms[this * blocks + number]
    kind = form & 255
    one = [0]
    four = [0, *(form >> 8 * at & 255 for at in range(1, RUNS))]

    for head in range(kv_heads):
      pl.when(kind == 1)(functools.partial(by_runs, one, head, number))
      pl.when(kind == 2)(functools.partial(by_runs, four, head, number))
      pl.when(kind == 3)(functools.partial(by_tokens, head, number))

  jax.lax.fori_loop(first, last, step, None)
  weights = total[...][:, :, :1]
  for sink in sinks:
    weights += jnp.exp(sink[...][:, :, :1] - peak[...][:, :, :1])
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

  def of_head(each) -> jax.Array:
    if dim > _LANES:
      # Mosaic loads with a stride only where a row is one register wide.
      return each.bitcast(jnp.uint32)[:, head]
    return each.reshape(page * both, dim).bitcast(jnp.uint32)[rows]

  words = jnp.concatenate([of_head(each) for each in pages])
  words = words & jnp.uint32(0xFFFF0000) if half else words << 16
  return pltpu.bitcast(words, jnp.float32).astype(jnp.bfloat16)


def _dot(x: jax.Array, y: jax.Array, half: int) -> jax.Array:
  """Multiplies queries with keys (half 0), or shares with values (half 1)."""
  over = ((1,), (0,)) if half else ((1,), (1,))
  return jax.lax.dot_general(
    x.astype(y.dtype), y, (over, ((), ())), preferred_element_type=jnp.float32
  )


# Traced once, and not again for every layer.
@functools.partial(jax.jit, static_argnames=("block", "interpret"))
def attend(
  q: jax.Array,
  k: jax.Array,
  v: jax.Array,
  pages: jax.Array,
  paths: Paths,
  layer: Layer,
  *,
  block: int = BLOCK,
  interpret=False,
) -> tuple[jax.Array, jax.Array]:
  """Writes new keys and values, then attends with each token to its path.

  A page is read once for neighbours in a chunk that have it in the same place
  of their tables. No bit of a result depends on the neighbours: blocks of keys
  are added from position 0 on, each row of a product is computed alone, and a
  masked block adds nothing. Programs agree to the bit if their chunks are
  equally long, as they are from 32 tokens on.

  Args:
    q: [T, N, H].
    k: [T, K, H].
    v: [T, K, H].
    pages: [L * NP, page, 2 K, H], all finite; NP is at most 2^22. Their H may
      be larger, the rest of a head being 0: on a TPU it is a multiple of 128.
    paths: of the T slots, with places and reads of `shared_plan.plan`.
      Positions increase in a row. Pages past them in a table may be any.
    layer: whose pages these are.
    block: keys of a block, of the plan too.
    interpret: runs on any device, slowly; see `pl.pallas_call`.

  Returns:
    [T, N, H] in q's dtype, 0 for an empty slot; and the pages.
  """
  reads, sinks = paths.reads, layer.sinks
  pages = write(k, v, pages, paths.places, layer.first)

  tokens, heads, dim = q.shape
  page, both, wide = pages.shape[1:]
  kv_heads, of_block = both // 2, block // page
  chunks, _, most = reads.moves.shape
  width = reads.forms.size // chunks * of_block
  chunk = most // width
  more = chunks * chunk - tokens
  # [T, N, H] to [K, T * G, H], G and H filled to those of whole tiles.
  group = heads // kv_heads
  rows_of = pl.cdiv(group, _SUBLANES) * _SUBLANES
  queries = jnp.swapaxes(q.reshape(tokens, kv_heads, group, dim), 0, 1)
  queries = jnp.pad(
    queries, [(0, 0), (0, more), (0, rows_of - group), (0, wide - dim)]
  )
  queries = queries.reshape(kv_heads, -1, wide)
  # Chips with two cores share the chunks.
  parts = math.gcd(chunks, 2)
  of_part = chunks // parts
  of_chunk = pl.BlockSpec(
    (kv_heads, chunk * rows_of, wide),
    lambda part, at, *_: (0, part * of_part + at, 0),
  )

  def words(count, later=0):
    """Scalars of a chunk, or of one later: all of them would be too many."""

    def index(part, at, *_):
      return jnp.minimum(part * of_part + at + later, chunks - 1), 0, 0

    return pl.BlockSpec((None, 1, count), index, memory_space=pltpu.SMEM)

  of_sinks = []
  if sinks is not None:
    # A number of each row of queries, of which the kernel wants whole lanes.
    sinks = sinks.astype(jnp.float32).reshape(kv_heads, group)
    sinks = jnp.pad(sinks, [(0, 0), (0, rows_of - group)])
    sinks = jnp.tile(sinks, (1, chunk))[:, :, None]
    of_sinks.append(jnp.broadcast_to(sinks, (*sinks.shape[:2], _LANES)))

  first = min(most, pl.cdiv(chunk * of_block, _LANES) * _LANES)
  options = _Options(
    layer.count, of_block, dim**-0.5, paths.window, layer.softcap
  )
  mixed = pl.pallas_call(
    functools.partial(_kernel, options),
    out_shape=jax.ShapeDtypeStruct(queries.shape, q.dtype),
    grid_spec=pltpu.PrefetchScalarGridSpec(
      num_scalar_prefetch=1,
      grid=(parts, of_part),
      in_specs=[
        (
          words(most),
          words(first, later=1),
          words(reads.holders.shape[-1]),
        ),
        of_chunk,
        pl.BlockSpec(memory_space=pltpu.HBM),
        *(pl.BlockSpec(each.shape, lambda *_: (0, 0, 0)) for each in of_sinks),
      ],
      out_specs=of_chunk,
      scratch_shapes=[
        pltpu.VMEM((2, chunk * of_block, page, both, wide), pages.dtype),
        pltpu.SemaphoreType.DMA((2,)),
        *[pltpu.VMEM((kv_heads, chunk * rows_of, _LANES), jnp.float32)] * 2,
        pltpu.VMEM((kv_heads, chunk * rows_of, wide), jnp.float32),
      ],
    ),
    compiler_params=pltpu.CompilerParams(
      dimension_semantics=("parallel", "arbitrary"),
      vmem_limit_bytes=_VMEM,
      # The checks take longer than to start a copy.
      disable_bounds_checks=True,
    ),
    interpret=interpret,
    name="attend_shared",
  )(
    (
      layer.index.reshape(1),
      filled(paths.positions, more),
      reads.ends,
      reads.forms,
      reads.spans,
    ),
    (reads.moves, reads.moves, reads.holders),
    queries,
    pages,
    *of_sinks,
  )
  mixed = mixed.reshape(kv_heads, -1, rows_of, wide)[:, :tokens, :group, :dim]
  return jnp.swapaxes(mixed, 0, 1).reshape(q.shape), pages
