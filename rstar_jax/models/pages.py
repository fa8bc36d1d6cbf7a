"""Keys and values in pages, and attention over them by XLA.

A path's token at position p is in the page `table[p // PAGE]` at offset p %
PAGE. Paths share pages; a page is in any number of tables. The pages of all
layers are one array, so that a layer is an offset in it and nothing is sliced:
page i of layer l is l * pages + i. Letters: T token slots, R rows of tables, P
pages of a table, L layers, N query heads, K key/value heads, G = N / K, H head.
"""

import jax
import jax.numpy as jnp

from rstar_jax.models.attention import MASKED, capped
from rstar_jax.models.config import PAGE, ModelConfig
from rstar_jax.models.moves import move
from rstar_jax.models.paths import Layer, Paths

# Pages whose scores are in memory at once.
_BLOCK = 8


def empty(config: ModelConfig, count: int, lanes: int = 1) -> jax.Array:
  """Returns empty pages [count, PAGE, 2 K, H].

  Heads of keys and of values alternate, as in jax's ragged kernel.

  Args:
    config: of the model.
    count: number of pages.
    lanes: H is the model's, rounded up to a multiple of this.
  """
  dim = -(-config.head_dim // lanes) * lanes
  shape = count, PAGE, 2 * config.num_kv_heads, dim
  return jnp.zeros(shape, config.dtype)


def copy(
  pages: jax.Array, sources: jax.Array, targets: jax.Array, layers: int
) -> jax.Array:
  """Copies whole pages in every layer.

  Args:
    pages: [L * count, ...].
    sources: int32 [M], pages of a layer.
    targets: int32 [M], all different, none of them a source; above the last
      page where nothing is copied.
    layers: L.
  """
  count = pages.shape[0] // layers
  first = count * jnp.arange(layers)[:, None]
  to = jnp.where(targets < count, first + targets, len(pages)).reshape(-1)
  return move(
    lambda x, i, j: x.at[j].set(x[i], mode="drop", unique_indices=True),
    pages,
    (first + sources).reshape(-1),
    to,
  )


def attend(
  q: jax.Array,
  k: jax.Array,
  v: jax.Array,
  pages: jax.Array,
  paths: Paths,
  layer: Layer,
) -> tuple[jax.Array, jax.Array]:
  """Writes tokens to their pages and attends to their paths, by XLA.

  A slot's result depends only on its own path, to the bit: blocks of pages are
  added up from the first on, and blocks past its position change nothing.

  Args:
    q: [T, N, H].
    k: [T, K, H].
    v: [T, K, H].
    pages: [L * count, PAGE, 2 K, H], or with more numbers of a head.
    paths: of the T slots.
    layer: whose pages these are.

  Returns:
    [T, N, H], 0 for empty slots; and the pages with the new keys and values.
  """
  pages = write(k, v, pages, paths.at(PAGE), layer.first)
  slots, heads, dim = q.shape
  kv_heads, wide = k.shape[1], pages.shape[-1]
  q = q.reshape(slots, kv_heads, -1, dim) * dim**-0.5
  width, window = paths.tables.shape[1], paths.window
  blocks = -(-width // _BLOCK)
  tables = jnp.pad(paths.tables, ((0, 0), (0, blocks * _BLOCK - width)))
  tables = tables[paths.rows].reshape(slots, blocks, _BLOCK)

  def add(index, state):
    peak, total, mixed = state
    ids = layer.first + tables[:, index]
    both = move(lambda pages, ids: pages[ids], pages, ids)
    both = both.reshape(slots, -1, kv_heads, 2, wide)[..., :dim]
    at = index * _BLOCK * PAGE + jnp.arange(_BLOCK * PAGE)
    seen = at <= paths.positions[:, None]
    if window:
      seen &= at > paths.positions[:, None] - window
    scores = jnp.einsum(
      "tkgh,tskh->tkgs",
      q,
      both[:, :, :, 0],
      preferred_element_type=jnp.float32,
    )
    scores = capped(scores, layer.softcap)
    scores = jnp.where(seen[:, None, None], scores, MASKED)
    high = jnp.maximum(peak, jnp.max(scores, axis=-1))
    # Where no key is seen yet, MASKED - MASKED must not count.
    shares = jnp.where(
      seen[:, None, None], jnp.exp(scores - high[..., None]), 0
    )
    kept = jnp.exp(peak - high)
    total = total * kept + jnp.sum(shares, axis=-1)
    mixed = mixed * kept[..., None] + jnp.einsum(
      "tkgs,tskh->tkgh",
      shares.astype(q.dtype),
      both[:, :, :, 1],
      preferred_element_type=jnp.float32,
    )
    return high, total, mixed

  shape = q.shape[:-1]
  state = (
    jnp.full(shape, MASKED, jnp.float32),
    jnp.zeros(shape, jnp.float32),
    jnp.zeros(q.shape, jnp.float32),
  )
  # Positions of empty slots are -1: no block at all if all are empty.
  needed = jnp.max(paths.positions) // (_BLOCK * PAGE) + 1
  peak, total, mixed = jax.lax.fori_loop(0, needed, add, state)
  if layer.sinks is not None:
    sinks = layer.sinks.astype(jnp.float32).reshape(kv_heads, -1)
    total += jnp.exp(sinks - peak)
  mixed = mixed / jnp.maximum(total, 1e-30)[..., None]
  return mixed.reshape(slots, heads, dim).astype(v.dtype), pages


def write(
  k: jax.Array,
  v: jax.Array,
  pages: jax.Array,
  places: jax.Array,
  first: int | jax.Array,
) -> jax.Array:
  """Returns pages with new keys and values in their places.

  Args:
    k: [T, K, H].
    v: [T, K, H].
    pages: [L * count, page, 2 K, H], or with more numbers of a head.
    places: int32 [T]; see `Paths.at`.
    first: the layer's first page.
  """
  page, both, dim = pages.shape[1:]
  new = jnp.stack([k, v], axis=2).reshape(-1, both, k.shape[-1])
  new = jnp.pad(new, [(0, 0), (0, 0), (0, dim - k.shape[-1])])
  # Indices of tokens without a place are different too.
  nowhere = len(pages) * page + jnp.arange(len(places))
  at = jnp.where(places < 0, nowhere, first * page + places)

  def put(pages, new, at):
    flat = pages.reshape(-1, both, dim)
    flat = flat.at[at].set(new, mode="drop", unique_indices=True)
    return flat.reshape(pages.shape)

  return move(put, pages, new.astype(pages.dtype), at)
