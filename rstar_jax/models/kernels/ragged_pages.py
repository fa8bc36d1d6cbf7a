"""Attention to pages by jax's kernel for ragged sequences, on TPUs.

It reads the pages of each row for that row alone, also those that rows share.
Pages and letters are those of `shared_pages.py`.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.pallas.ops.tpu import ragged_paged_attention as ragged

from rstar_jax.models.pages import write
from rstar_jax.models.paths import Layer, Paths

# Keys that the kernel reads at a time.
_KEYS = 256
_VMEM = 64 * 2**20


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


def plan(pages: jax.Array, paths: Paths) -> tuple[jax.Array, Sequences]:
  """Returns the places and reads of `attend`, for all layers.

  Positions of a row increase by 1 here, and no reads are kept.
  """
  rows, positions, count = paths.rows, paths.positions, len(paths.tables)
  starts = jnp.searchsorted(rows, jnp.arange(count + 1)).astype(jnp.int32)
  # The kernel counts positions back from a row's last key.
  token = jnp.arange(rows.size)
  ahead = jnp.where(positions < 0, -token, positions - token)
  ahead = jax.ops.segment_max(ahead, rows, count, indices_are_sorted=True)
  lengths = jnp.maximum(ahead + starts[1:], starts[1:] - starts[:-1])
  return paths.at(pages.shape[1]), Sequences(
    lengths=jnp.maximum(lengths, 1).astype(jnp.int32),
    starts=starts,
    count=jnp.searchsorted(starts, starts[-1:]).astype(jnp.int32),
  )


def attend(
  q: jax.Array,
  k: jax.Array,
  v: jax.Array,
  pages: jax.Array,
  paths: Paths,
  layer: Layer,
) -> tuple[jax.Array, jax.Array]:
  """Computes the same as `shared_pages.attend`, without sinks.

  Positions of a row increase by 1 here.
  """
  if layer.sinks is not None:
    raise ValueError("jax's ragged kernel has no sinks: use another one")
  tables, sequences = paths.tables, paths.reads
  first = layer.first
  pages = write(k, v, pages, paths.places, first)
  more = pages.shape[-1] - q.shape[-1]
  mixed = ragged.ragged_paged_attention(
    jnp.pad(q, [(0, 0), (0, 0), (0, more)]),
    pages,
    sequences.lengths,
    first + tables,
    sequences.starts,
    sequences.count,
    sm_scale=q.shape[-1] ** -0.5,
    sliding_window=paths.window or None,
    soft_cap=layer.softcap or None,
    num_kv_pages_per_block=_pages_at_once(pages.shape[1], tables.shape[1]),
    num_queries_per_block=_queries_at_once(q.shape[0], tables.shape[0]),
    vmem_limit_bytes=_VMEM,
  )
  mixed = mixed[..., : q.shape[-1]]
  return jnp.where(paths.positions[:, None, None] < 0, 0, mixed), pages


def bytes_read(sequences: Sequences, pages: jax.Array, width: int) -> int:
  """Returns bytes of keys and values that a call reads, for one layer.

  Args:
    sequences: of a plan.
    pages: [L * NP, page, 2 K, H], for its shape.
    width: P, pages of a table's row.
  """
  size = math.prod(pages.shape[1:]) * pages.dtype.itemsize
  lengths, starts, (count,) = map(np.asarray, sequences)
  # Whole blocks of keys, again for each block of queries.
  of_block = _pages_at_once(pages.shape[1], width)
  blocks = -(-lengths // (of_block * pages.shape[1]))
  ends = np.maximum(starts[1:] - 1, starts[:-1])
  queries = _queries_at_once(int(starts[-1]), lengths.size)
  again = ends // queries - starts[:-1] // queries + 1
  return int((blocks * again)[:count].sum()) * of_block * size


def _pages_at_once(page: int, width: int) -> int:
  """Returns pages that the kernel reads at a time."""
  return min(max(1, _KEYS // page), width)


def _queries_at_once(tokens: int, rows: int) -> int:
  """Returns tokens that the kernel multiplies at a time with a row's keys.

  Where each row has one token, all products but one are masked.
  """
  return min(tokens, 8 if tokens <= rows else 32)
