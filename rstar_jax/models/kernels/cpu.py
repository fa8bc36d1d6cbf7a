"""C++ kernels for CPUs, as functions of JAX arrays inside `jax.jit`.

With the few rows of a decode step, XLA on a CPU uses little of the processor:
attention runs on one core, and products leave cores idle. Measurements are in
docs/results/cpu.md. The kernels need `build.load()`, run on one device, have
no gradient, and give the same bits on every run on one kind of machine.

Letters: R rows, I inputs, O outputs; of pages, T tokens, R rows of tables, P
columns, N query heads, K key/value heads, H head.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from rstar_jax.models.config import PAGE, ModelConfig
from rstar_jax.models.paths import Layer, Paths

# The width of a head is a multiple of this: two vectors.
_HEAD = 32


def can_multiply(x: jax.Array) -> bool:
  """Returns whether the products support rows [R, I].

  With an odd number of bfloat16 two rows would share a word.
  """
  return x.dtype == jnp.float32 or (
    x.dtype == jnp.bfloat16 and x.shape[-1] % 2 == 0
  )


def products(
  x: jax.Array, weights: Sequence[jax.Array], dtype: str
) -> list[jax.Array]:
  """Multiplies rows by several weights, accumulating in float32.

  Args:
    x: float32 or bfloat16 [R, I].
    weights: [O_i, I] each, of the same dtype.
    dtype: the dtype of the results: x's or float32.

  Returns:
    [R, O_i] each.

  Raises:
    ValueError: shapes or dtypes do not fit.
  """
  for each in weights:
    _check("weights", each, x.dtype, (each.shape[0], x.shape[1]))
  if dtype not in (x.dtype, "float32") or not can_multiply(x):
    raise ValueError(f"no product of {x.dtype}{x.shape} gives {dtype}")
  shape = lambda w: jax.ShapeDtypeStruct(  # noqa: E731
    (x.shape[0], w.shape[0]), dtype
  )
  return jax.ffi.ffi_call("rstar_products", [shape(w) for w in weights])(
    x, *weights
  )


def gated(x: jax.Array, gate: jax.Array, up: jax.Array) -> jax.Array:
  """Returns silu(x . gate) * (x . up), computed in float32.

  Args:
    x: float32 or bfloat16 [R, I].
    gate: [O, I], of the same dtype.
    up: [O, I], likewise.

  Returns:
    [R, O] in x's dtype.

  Raises:
    ValueError: shapes or dtypes do not fit.
  """
  if not can_multiply(x):
    raise ValueError(f"no product of {x.dtype}{x.shape}")
  _check("gate", gate, x.dtype, (gate.shape[0], x.shape[1]))
  _check("up", up, x.dtype, gate.shape)
  out = jax.ShapeDtypeStruct((x.shape[0], gate.shape[0]), x.dtype)
  return jax.ffi.ffi_call("rstar_gated", out)(x, gate, up)


def supports(config: ModelConfig) -> bool:
  """Returns whether the kernels support a model."""
  known = config.dtype in ("float32", "bfloat16")
  plain = not any(
    x.attention_softcap or x.sinks or x.head_dim != config.head_dim
    for x in config.layers()
  )
  return known and plain and config.head_dim % _HEAD == 0


def can_attend_pages(q: jax.Array) -> bool:
  """Returns whether `attend_pages` supports queries [T, N, H]."""
  known = q.dtype in (jnp.float32, jnp.bfloat16)
  return known and q.shape[-1] % _HEAD == 0


def empty_pages(count: int, kv_heads: int, width: int, dtype: str) -> jax.Array:
  """Returns `count` pages for `attend_pages`, all zeros.

  Args:
    count: pages of all layers.
    kv_heads: K.
    width: H.
    dtype: of keys and values, float32 or bfloat16.

  Returns:
    [count, K, 2, 16 * H]: the keys and the values of 16 tokens, in the order
    that `pages.h` says.
  """
  return jnp.zeros((count, kv_heads, 2, PAGE * width), dtype)


def copy_pages(
  pages: jax.Array, sources: jax.Array, targets: jax.Array, layers: int
) -> jax.Array:
  """Copies whole pages in every layer, in place; see `pages.copy`.

  Args:
    pages: as `empty_pages` has them, [layers * count, ...].
    sources: int32 [M], in [0, count).
    targets: int32 [M]; outside of [0, count) there is nothing to copy.
    layers: L.
  """
  if not layers or pages.shape[0] % layers or not pages.size:
    raise ValueError(f"{pages.shape[0]} pages are not those of {layers} layers")
  _check("sources", sources, jnp.int32, (sources.shape[0],))
  _check("targets", targets, jnp.int32, sources.shape)
  out = jax.ShapeDtypeStruct(pages.shape, pages.dtype)
  return jax.ffi.ffi_call("rstar_copy_pages", out, input_output_aliases={0: 0})(
    pages, sources, targets, count=np.int64(pages.shape[0] // layers)
  )


def attend_pages(
  q: jax.Array,
  k: jax.Array,
  v: jax.Array,
  pages: jax.Array,
  paths: Paths,
  layer: Layer,
) -> tuple[jax.Array, jax.Array]:
  """Writes tokens to pages of a layer, then attends from each to its path.

  The token at position p of a row has page tables[row, p // 16], and attends
  to the row's positions up to p. Its result has the same bits whatever else is
  in the call, and whichever pages its path lies in. Where neighbours' tables
  begin alike, a page is read once for all of them.

  Args:
    q: float32 or bfloat16 [T, N, H].
    k: keys [T, K, H], in q's dtype.
    v: values [T, K, H], likewise.
    pages: as `empty_pages` has them, [layers * count, ...] in q's dtype.
    paths: of the T slots. At a position of -1, as everywhere outside of the
      tables, a slot is empty: nothing is written and the result is 0.
    layer: without softcap and sinks; its index is clipped to what there is.

  Returns:
    [T, N, H], and `pages` with the tokens, updated in place if the compiler
    can reuse their memory. Nothing is written to a page outside of [0, count);
    the nearest is read for it.

  Raises:
    ValueError: shapes or dtypes do not fit.
  """
  tokens, heads, width = q.shape
  kv_heads, count, window = k.shape[1], layer.count, paths.window
  tables, rows, positions = paths.tables, paths.rows, paths.positions
  if not can_attend_pages(q) or heads % kv_heads:
    raise ValueError(f"no attention of {q.dtype}{q.shape} to {kv_heads} heads")
  _check("k", k, q.dtype, (tokens, kv_heads, width))
  _check("v", v, q.dtype, k.shape)
  _check("pages", pages, q.dtype, (pages.shape[0], kv_heads, 2, PAGE * width))
  if layer.softcap or layer.sinks is not None:
    raise ValueError("no attention with softcap or sinks here: use XLA's")
  if count < 1 or pages.shape[0] % count or not pages.size:
    raise ValueError(f"{pages.shape[0]} pages are not layers of {count}")
  if window < 0:
    raise ValueError(f"window is {window} and must not be negative")
  _check("tables", tables, jnp.int32, (tables.shape[0], tables.shape[1]))
  _check("rows", rows, jnp.int32, (tokens,))
  _check("positions", positions, jnp.int32, (tokens,))
  index = jnp.reshape(layer.index, (1,)).astype(jnp.int32)
  out = [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in (q, pages)]
  return tuple(
    jax.ffi.ffi_call("rstar_attend_pages", out, input_output_aliases={3: 1})(
      *(q, k, v, pages, tables, rows, positions, index),
      count=np.int64(count),
      window=np.int64(window),
    )
  )


def _check(name: str, x: jax.Array, dtype: str, shape: Sequence[int]) -> None:
  """Raises ValueError for an array that C++ would read past its end."""
  if x.dtype != dtype or x.shape != tuple(shape):
    raise ValueError(
      f"{name} is {x.dtype}{x.shape} and must be {jnp.dtype(dtype)}{shape}"
    )
