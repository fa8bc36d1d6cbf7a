"""Plans on the device which pages `shared_pages.py` reads, and to where.

A plan is made once for all layers: in each layer it would take as long as the
kernel. Letters: T tokens, R rows of a table, P pages of a row, L layers, NP
pages of a layer, C chunks of tokens, c tokens of a chunk.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import pallas as pl

from rstar_jax.models.paths import Paths

# Keys that are added to a softmax at a time; the bits of results depend on it.
BLOCK = 128
# Up to this many different sets of keys, all queries of a chunk are multiplied
# with each set; with more sets, each token only with its own.
RUNS = 4
# Bits of a move that say where in the buffers a page goes.
PLACE = 9
# A chunk is a multiple of it.
_SUBLANES = 8
# Where a missing run begins: past any token of a chunk.
_NEVER = 127
# Most bytes of the buffers for keys and values.
_BYTES = 2**23


class Reads(NamedTuple):
  """The reads of the kernel, the same for all layers.

  Attributes:
    moves: int32 [C, 1, c * P], for each page that a chunk reads its number in
      the layer, shifted, and its place in the buffers; by block, token and
      page.
    ends: int32 [C * (blocks + 1)], where the moves of a chunk's blocks begin
      and end.
    holders: int32 [C, 1, c * P / 4], a byte for each token and page: the token
      of the chunk whose buffer holds the page.
    forms: int32 [C * blocks], a byte each: 0 nothing to do, 1 one run of
      tokens with the same pages, 2 up to `RUNS` runs, 3 more; then where the
      second, third and fourth run begin.
    spans: int32 [C * 3]: the first block, the one past the last, and how
      many blocks the chunks before have.
  """

  moves: jax.Array
  ends: jax.Array
  holders: jax.Array
  forms: jax.Array
  spans: jax.Array


def plan(
  pages: jax.Array,
  paths: Paths,
  *,
  block: int = BLOCK,
  chunk: int | None = None,
) -> tuple[jax.Array, Reads]:
  """Returns the places and reads of `shared_pages.attend`, for all layers.

  Args:
    pages: [L * NP, page, 2 K, H], for its shape.
    paths: of the T slots. Reads that they have are kept: of the same rows at
      positions that are not lower, and without a window.
    block: keys of a block, 4 or 8 pages.
    chunk: tokens that share buffers, a multiple of 8 up to 64; None chooses.
  """
  page = pages.shape[1]
  places = paths.at(page)
  if paths.reads is not None:
    return places, paths.reads
  of_block = block // page
  if of_block not in (4, 8) or block % page:
    raise ValueError(f"a block of {block} keys is not 4 or 8 pages of {page}")
  if chunk is None:
    size = math.prod(pages.shape[1:]) * pages.dtype.itemsize
    most = _BYTES // (2 * of_block * size) // _SUBLANES * _SUBLANES
    chunk = max(_SUBLANES, min(32, most, pl.cdiv(paths.rows.size, 8) * 8))
  more, width = -paths.rows.size % chunk, paths.tables.shape[1]
  rows, positions = (
    jnp.pad(paths.rows, (0, more)),
    filled(paths.positions, more),
  )
  tables = jnp.pad(paths.tables, [(0, 0), (0, -width % of_block)])

  starts = jnp.arange(tables.shape[1]) * page
  needed = starts <= positions[:, None]
  if paths.window:
    needed &= starts + page > positions[:, None] - paths.window + 1
  shape = (-1, chunk, tables.shape[1] // of_block, of_block)
  needed, numbers = needed.reshape(shape), tables[rows].reshape(shape)
  same = (numbers[:, 1:] == numbers[:, :-1]) & needed[:, :-1]
  read = needed & ~jnp.pad(same, [(0, 0), (1, 0), (0, 0), (0, 0)])

  chunks, _, blocks, _ = needed.shape
  token = jnp.arange(chunk)[:, None, None]
  moves = numbers << PLACE | token * of_block + jnp.arange(of_block)
  flags, moves = (
    jnp.swapaxes(x, 1, 2).reshape(chunks, -1) for x in (read, moves)
  )
  # The compiler takes a minute for a sort.
  to = jnp.where(flags, jnp.cumsum(flags, axis=1) - 1, moves.shape[1])
  moves = (
    jnp.zeros_like(moves)
    .at[jnp.arange(chunks)[:, None], to]
    .set(moves, mode="drop")
  )
  ends = jnp.cumsum(read.sum(axis=(1, 3), dtype=jnp.int32), axis=1)

  holders = jax.lax.cummax(jnp.where(read, token, 0), axis=1)
  holders = (holders.reshape(chunks, -1, 4) << jnp.arange(4) * 8).sum(
    axis=2, dtype=jnp.int32
  )

  begins = read.any(axis=3).at[:, 0].set(True)
  run = jnp.cumsum(begins, axis=1)
  kinds = jnp.where(run[:, -1] == 1, 1, jnp.where(run[:, -1] <= RUNS, 2, 3))
  used = needed.any(axis=(1, 3))
  forms = jnp.where(used, kinds, 0)
  for at in range(1, RUNS):
    begin = jnp.where(begins & (run == at + 1), token[..., 0], _NEVER)
    forms += begin.min(axis=1) << 8 * at

  # A chunk of empty slots has one block, in which there is nothing to do.
  first = jnp.argmax(used, axis=1)
  last = jnp.maximum(first + 1, (used * jnp.arange(1, blocks + 1)).max(axis=1))
  before = jnp.cumsum(last - first) - (last - first)
  spans = jnp.stack([first, last, before], axis=1, dtype=jnp.int32)
  return places, Reads(
    moves=moves[:, None],
    ends=jnp.pad(ends, [(0, 0), (1, 0)]).reshape(-1),
    holders=holders[:, None],
    forms=forms.reshape(-1),
    spans=spans.reshape(-1),
  )


def bytes_read(reads: Reads, pages: jax.Array) -> int:
  """Returns bytes of keys and values that a call reads, for one layer.

  Args:
    reads: of a plan.
    pages: [L * NP, page, 2 K, H], for its shape.
  """
  size = math.prod(pages.shape[1:]) * pages.dtype.itemsize
  ends = np.asarray(reads.ends).reshape(len(reads.moves), -1)
  return int(ends[:, -1].sum()) * size


def filled(positions: jax.Array, more: int) -> jax.Array:
  """Returns positions followed by empty slots."""
  return jnp.pad(positions, (0, more), constant_values=-1)
