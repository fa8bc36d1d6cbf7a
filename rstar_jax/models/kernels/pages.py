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
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jax.experimental.pallas.ops.tpu import ragged_paged_attention as ragged

from rstar_jax.models.layers import MASKED
from rstar_jax.models.sharding import RULES

# Keys that are added to a softmax at a time. Results depend on it.
BLOCK = 128
# The running maximum at first. It is above a masked score, so that a block of
# masked scores changes not one bit: exp(MASKED - _START) is 0.
_START = MASKED / 2
# Rows of a float32 tile.
_SUBLANES = 8
# Most different sets of keys for which all queries of a chunk are multiplied
# with each set. Above, each token is multiplied with its own.
_RUNS = 4
# A run that is not there begins at no token of a chunk.
_NEVER = 127
# Most bytes of the buffers for keys and values.
_BYTES = 2**23
# What jax's kernel reads at a time, and queries of a block of its own.
_RAGGED_KEYS, _RAGGED_QUERIES = 256, 32
_VMEM = 64 * 2**20


class Plan(NamedTuple):
  """What the kernel reads; the same for all layers of a step.

  Attributes:
    places: int32 [T * P / 4], a byte for each token and page: the token of the
      chunk whose buffer holds the page, plus 128 if this token reads it.
    forms: int32 [chunks * blocks], a byte each: 0 nothing to do, 1 one run of
      tokens with the same pages, 2 up to `_RUNS` runs, 3 more; then where the
      second, third and fourth run begin.
    reads: int32 [chunks * blocks], pages to read.
    spans: int32 [3 * chunks]: the first block, the one past the last, and how
      many blocks the chunks before have.
  """

  places: jax.Array
  forms: jax.Array
  reads: jax.Array
  spans: jax.Array


def plan_of(
  tables: jax.Array,
  rows: jax.Array,
  positions: jax.Array,
  *,
  page: int,
  chunk: int,
  block: int = BLOCK,
  window: int = 0,
) -> Plan:
  """Plans which token reads which pages.

  Args:
    tables: int32 [R, P], P a multiple of the pages of a block.
    rows: int32 [T], T a multiple of `chunk`.
    positions: int32 [T], -1 for an empty slot.
    page: tokens of a page.
    chunk: tokens that share buffers, up to 64.
    block: keys of a block, four pages or a multiple of that.
    window: tokens that a token attends to, itself included; 0 is no limit.
  """
  pages, places = block // page, tables.shape[1]
  shape = (-1, chunk, places // pages, pages)
  starts = jnp.arange(places) * page
  needed = starts <= positions[:, None]
  if window:
    needed &= starts + page > positions[:, None] - window + 1
  needed = needed.reshape(shape)
  tables = tables[rows].reshape(shape)
  same = (tables[:, 1:] == tables[:, :-1]) & needed[:, :-1]
  read = needed & ~jnp.pad(same, [(0, 0), (1, 0), (0, 0), (0, 0)])

  token = jnp.arange(chunk)[:, None, None]
  holder = jax.lax.cummax(jnp.where(read, token, 0), axis=1)
  found = (holder + 128 * read).reshape(-1, 4)

  begins = read.any(axis=3).at[:, 0].set(True)
  run = jnp.cumsum(begins, axis=1)
  count = run[:, -1]
  kinds = jnp.where(count == 1, 1, jnp.where(count <= _RUNS, 2, 3))
  used = needed.any(axis=(1, 3))
  forms = jnp.where(used, kinds, 0)
  for at in range(1, _RUNS):
    begin = jnp.where(begins & (run == at + 1), token[..., 0], _NEVER)
    forms += begin.min(axis=1) << 8 * at

  blocks = used.shape[1]
  first = jnp.argmax(used, axis=1)
  # A chunk of empty slots has one block, in which there is nothing to do.
  last = jnp.where(
    used.any(axis=1), blocks - jnp.argmax(used[:, ::-1], axis=1), 1
  )
  before = jnp.cumsum(last - first) - (last - first)
  bytes_of_word = jnp.arange(4) * 8
  return Plan(
    places=(found << bytes_of_word).sum(axis=1, dtype=jnp.int32),
    forms=forms.reshape(-1),
    reads=read.sum(axis=(1, 3), dtype=jnp.int32).reshape(-1),
    spans=jnp.stack([first, last, before], axis=1)
    .reshape(-1)
    .astype(jnp.int32),
  )


def _kernel(
  layer,
  tables,
  rows,
  positions,
  places,
  forms,
  reads,
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
  width: int,
  scale: float,
  window: int,
):
  """Attends with one chunk of tokens, block after block of keys."""
  chunk, per_block, page, both, dim = buffers.shape[1:]
  heads, group = both // 2, q.shape[1] // chunk
  block, blocks, words = per_block * page, width // per_block, per_block // 4
  this, chunks = pl.program_id(0), pl.num_programs(0)
  first, last, before = (spans[3 * this + each] for each in range(3))

  def places_of(token, number):
    """Returns the bytes of a token (of all chunks) and a block's pages."""
    base = (token * blocks + number) * words
    for each in range(per_block):
      yield places[base + each // 4] >> 8 * (each % 4) & 255

  def start(which, number, slot):
    """Starts to read what a chunk needs of a block."""
    form = forms[which * blocks + number]
    kind = form & 255

    def read(token):
      at = which * chunk + token
      row = rows[at] * width + number * per_block
      for each, place in enumerate(places_of(at, number)):

        @pl.when(place >= 128)
        def _(each=each):
          pltpu.make_async_copy(
            pages.at[layer[0] * count + tables[row + each]],
            buffers.at[slot, token, each],
            arrived.at[slot],
          ).start()

    @pl.when((kind == 1) | (kind == 2))
    def _():
      read(0)
      for begin in _begins(form):
        pl.when(begin != _NEVER)(functools.partial(read, begin))

    @pl.when(kind == 3)
    def _():
      jax.lax.fori_loop(0, chunk, lambda token, _: read(token), None)

  def wait(number, slot):
    """Waits for the pages of a block; all have one size."""
    one = pltpu.make_async_copy(
      pages.at[0], buffers.at[slot, 0, 0], arrived.at[slot]
    )
    pages_read = reads[this * blocks + number]
    jax.lax.fori_loop(0, pages_read, lambda *_: one.wait(), None)

  def half_of(token, head, number, half):
    """Returns a token's keys (half 0) or values (half 1), [block, H]."""
    slot = (before + number - first) % 2
    return _half(
      [
        buffers.at[slot, place & 127, each]
        for each, place in enumerate(places_of(this * chunk + token, number))
      ],
      head,
      half,
    )

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

  @pl.when(this == 0)
  def _():
    # A weight of 0 does not cancel a NaN where nothing was read.
    def clear(at, _):
      shape = buffers.shape[2:]
      buffers[at // chunk, at % chunk] = jnp.zeros(shape, buffers.dtype)

    jax.lax.fori_loop(0, 2 * chunk, clear, None)
    start(0, first, 0)

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

    @pl.when(ends & (this + 1 < chunks))
    def _():
      start(this + 1, spans[3 * (this + 1)], 1 - slot)

    wait(number, slot)
    form = forms[this * blocks + number]
    kind = form & 255
    one, four = [0], [0, *_begins(form)]

    def each(head, _):
      pl.when(kind == 1)(lambda: by_runs(one, head, number))
      pl.when(kind == 2)(lambda: by_runs(four, head, number))
      pl.when(kind == 3)(lambda: by_tokens(head, number))

    jax.lax.fori_loop(0, heads, each, None)

  jax.lax.fori_loop(first, last, step, None)
  weights = total[...][:, :, :1]
  # An empty slot has no weights at all.
  out[...] = (mixed[...] / jnp.where(weights > 0, weights, 1)).astype(out.dtype)


def _begins(form) -> list:
  """Returns where the runs after the first begin; see `Plan`."""
  return [form >> 8 * at & 255 for at in range(1, _RUNS)]


def _half(pages: list, head, half: int) -> jax.Array:
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


def chunk_of(tokens: int, page_bytes: int, pages: int) -> int:
  """Returns how many tokens share buffers.

  Args:
    tokens: T.
    page_bytes: bytes of a page.
    pages: pages of a block.
  """
  most = _BYTES // (2 * pages * page_bytes) // _SUBLANES * _SUBLANES
  whole = -(-tokens // _SUBLANES) * _SUBLANES
  return max(_SUBLANES, min(32, most, whole))


def write(
  k: jax.Array,
  v: jax.Array,
  pages: jax.Array,
  tables: jax.Array,
  rows: jax.Array,
  positions: jax.Array,
  first: jax.Array,
) -> jax.Array:
  """Returns pages with new keys and values in their places.

  Args:
    k: [T, K, H].
    v: [T, K, H].
    pages: [L * NP, page, 2 K, H].
    tables: int32 [R, P].
    rows: int32 [T].
    positions: int32 [T]; nothing is written for -1.
    first: int32 scalar, the layer's first page.
  """
  page = pages.shape[1]
  new = jnp.stack([k, v], axis=2).reshape(-1, *pages.shape[2:])
  at = (first + tables[rows, positions // page]) * page + positions % page
  at = jnp.where(positions < 0, pages.shape[0] * page, at)
  flat = pages.reshape(-1, *pages.shape[2:])
  flat = flat.at[at].set(new.astype(pages.dtype), mode="drop")
  return flat.reshape(pages.shape)


@functools.partial(
  jax.jit, static_argnames=("count", "window", "block", "chunk", "interpret")
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
  block: int = BLOCK,
  chunk: int | None = None,
  interpret=False,
) -> tuple[jax.Array, jax.Array]:
  """Writes new keys and values, then attends with each token to its path.

  A page is read once for neighbours in a chunk which have it in the same place
  of their tables. Which tokens these are changes no bit of a result: blocks of
  keys are added from position 0 on, each row of a product is computed alone,
  and a masked block adds nothing.

  Args:
    q: [T, N, H].
    k: [T, K, H].
    v: [T, K, H].
    pages: [L * NP, page, 2 K, H], all finite; a page has a quarter of a block
      at most.
    tables: int32 [R, P], page numbers in a layer; those past a row's positions
      may be any.
    rows: int32 [T], the table of each token.
    positions: int32 [T], the place of a token in its path; -1 is an empty slot.
    layer: the layer whose pages these are.
    count: NP, pages of a layer.
    window: tokens that a token attends to, itself included; 0 is no limit.
    block: keys of a block.
    chunk: tokens that share buffers, a multiple of 8 up to 64; None chooses.
    interpret: runs on any device, slowly; see `pl.pallas_call`.

  Returns:
    [T, N, H] in q's dtype, 0 for an empty slot; and the pages.
  """
  tokens, heads, dim = q.shape
  page, both = pages.shape[1:3]
  kv_heads, per_block = both // 2, block // page
  if per_block % 4 or block % page:
    raise ValueError(f"a block of {block} keys is not 4 or 8 pages of {page}")
  layer = jnp.asarray(layer, jnp.int32)
  pages = write(k, v, pages, tables, rows, positions, layer * count)

  chunk = chunk or chunk_of(
    tokens, page * both * dim * pages.dtype.itemsize, per_block
  )
  tables = jnp.pad(tables, [(0, 0), (0, -tables.shape[1] % per_block)])
  more = -tokens % chunk
  rows = jnp.pad(rows, (0, more))
  positions = jnp.pad(positions, (0, more), constant_values=-1)
  plan = plan_of(
    tables,
    rows,
    positions,
    page=page,
    chunk=chunk,
    block=block,
    window=window,
  )
  # [T, N, H] to [K, T * G, H], G filled to whole tiles.
  group = heads // kv_heads
  padded = -(-group // _SUBLANES) * _SUBLANES
  queries = jnp.transpose(q.reshape(tokens, kv_heads, group, dim), (1, 0, 2, 3))
  queries = jnp.pad(queries, [(0, 0), (0, more), (0, padded - group), (0, 0)])
  queries = queries.reshape(kv_heads, -1, dim)

  of_chunk = pl.BlockSpec(
    (kv_heads, chunk * padded, dim), lambda at, *_: (0, at, 0)
  )
  mixed = pl.pallas_call(
    functools.partial(
      _kernel,
      count=count,
      width=tables.shape[1],
      scale=dim**-0.5,
      window=window,
    ),
    out_shape=jax.ShapeDtypeStruct(queries.shape, q.dtype),
    grid_spec=pltpu.PrefetchScalarGridSpec(
      num_scalar_prefetch=8,
      grid=(rows.size // chunk,),
      in_specs=[of_chunk, pl.BlockSpec(memory_space=pltpu.HBM)],
      out_specs=of_chunk,
      scratch_shapes=[
        pltpu.VMEM((2, chunk, per_block, page, both, dim), pages.dtype),
        pltpu.SemaphoreType.DMA((2,)),
        *[pltpu.VMEM((kv_heads, chunk * padded, block), jnp.float32)] * 2,
        pltpu.VMEM((kv_heads, chunk * padded, dim), jnp.float32),
      ],
    ),
    compiler_params=pltpu.CompilerParams(
      dimension_semantics=("arbitrary",), vmem_limit_bytes=_VMEM
    ),
    interpret=interpret,
    name="attend_shared",
  )(
    layer.reshape(1), tables.reshape(-1), rows, positions, *plan, queries, pages
  )
  mixed = mixed.reshape(kv_heads, -1, padded, dim)[:, :tokens, :group]
  return jnp.transpose(mixed, (1, 0, 2, 3)).reshape(q.shape), pages


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
) -> tuple[jax.Array, jax.Array]:
  """Computes the same as `attend_shared` by jax's ragged kernel.

  Args: see `attend_shared`; `rows` is nondecreasing, and positions of a row
    increase by 1.

  Returns:
    [T, N, H] and the pages.
  """
  first = jnp.asarray(layer, jnp.int32) * count
  pages = write(k, v, pages, tables, rows, positions, first)
  lengths, starts, sequences = ragged_of(rows, positions, tables.shape[0])
  mixed = ragged.ragged_paged_attention(
    q,
    pages,
    lengths,
    first + tables,
    starts,
    sequences,
    sm_scale=q.shape[-1] ** -0.5,
    sliding_window=window or None,
    num_kv_pages_per_block=min(
      max(1, _RAGGED_KEYS // pages.shape[1]), tables.shape[1]
    ),
    num_queries_per_block=min(_RAGGED_QUERIES, q.shape[0]),
    vmem_limit_bytes=_VMEM,
  )
  return jnp.where(positions[:, None, None] < 0, 0, mixed), pages


def ragged_of(
  rows: jax.Array, positions: jax.Array, count: int
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """Describes tokens as jax's kernel wants them.

  Args:
    rows: int32 [T], nondecreasing.
    positions: int32 [T].
    count: R.

  Returns:
    int32 [R], keys of each row up to its last token, never 0, which the kernel
    cannot skip; int32 [R + 1], the first token of each row; and int32 [1], rows
    up to the last that has a token.
  """
  starts = jnp.searchsorted(rows, jnp.arange(count + 1)).astype(jnp.int32)
  # The kernel counts positions back from a row's last key.
  token = jnp.arange(rows.size)
  ahead = jnp.where(positions < 0, -token, positions - token)
  ahead = jax.ops.segment_max(ahead, rows, count, indices_are_sorted=True)
  lengths = jnp.maximum(ahead + starts[1:], starts[1:] - starts[:-1])
  return (
    jnp.maximum(lengths, 1).astype(jnp.int32),
    starts,
    jnp.searchsorted(starts, starts[-1]).astype(jnp.int32).reshape(1),
  )


def on_mesh(mesh: jax.sharding.Mesh, attend: Callable) -> Callable:
  """Returns `attend` on a mesh, by `jax.shard_map`.

  The compiler cannot partition a kernel. Tokens, tables and pages are sharded
  over the axes of rows, and each shard's `rows` and `tables` count from its
  own first row and page; heads are sharded over theirs, or replicated where
  they do not divide.

  Args:
    mesh: from `sharding.make_mesh`.
    attend: `attend_shared` or `attend_ragged`; `count` is pages of a layer in
      one shard.
  """
  spec = jax.P

  def run(q, k, v, pages, tables, rows, positions, *, layer, **options):
    heads = RULES.kv_heads
    if heads and k.shape[1] % mesh.shape[heads]:
      heads = None
    tokens, held = spec(RULES.batch, heads), spec(RULES.batch, None, heads)
    return jax.shard_map(
      lambda layer, *arrays: attend(*arrays, layer=layer, **options),
      mesh=mesh,
      in_specs=(spec(), *[tokens] * 3, held, *[spec(RULES.batch)] * 3),
      out_specs=(tokens, held),
      # Kernels do not declare the mesh axes over which their results vary.
      check_vma=False,
    )(layer, q, k, v, pages, tables, rows, positions)

  return run
