"""Kernels in C++ for CPUs, as functions of JAX arrays to call inside `jax.jit`.

For a decode step's few rows XLA's CPU leaves much of the processor unused:
attention runs on one core, and products keep neither busy. What these pay is in
docs/results/engine.md. They are for one device, after `build.load()`; they have
no gradient, and give the same bits each time on one kind of machine.

Letters: R rows, I inputs, O outputs, B leaves, C candidates, N query heads, K
key/value heads, H head, T path, S own tokens.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

# Query heads of a key/value head that fit in the vectors of one product: three
# of sixteen lanes (`tiles.h`).
_MOST_HEADS = 48
# A head's width is a multiple of this: two vectors.
_HEAD = 32


def can_multiply(x: jax.Array) -> bool:
  """Says whether products are for such rows [R, I].

  An odd number of bfloat16 would share a word with the next row.
  """
  return x.dtype == jnp.float32 or (
    x.dtype == jnp.bfloat16 and x.shape[-1] % 2 == 0
  )


def can_attend(q: jax.Array, kv_heads: int) -> bool:
  """Says whether `attend` is for such queries [B, C, N, H]."""
  heads, width = q.shape[-2:]
  known = q.dtype in (jnp.float32, jnp.bfloat16)
  return known and width % _HEAD == 0 and heads // kv_heads <= _MOST_HEADS


def products(
  x: jax.Array, weights: Sequence[jax.Array], dtype: str
) -> list[jax.Array]:
  """Multiplies rows by several weights, summed in float32.

  Args:
    x: float32 or bfloat16 [R, I].
    weights: [O_i, I] each, of the same dtype.
    dtype: of the results: x's or float32.

  Returns:
    [R, O_i] each.

  Raises:
    ValueError: they are of other shapes or dtypes.
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
  """Returns silu(x . gate) * (x . up), in float32 but for the result.

  Args:
    x: float32 or bfloat16 [R, I].
    gate: [O, I], of the same dtype.
    up: [O, I], likewise.

  Returns:
    [R, O] in x's dtype.

  Raises:
    ValueError: they are of other shapes or dtypes.
  """
  if not can_multiply(x):
    raise ValueError(f"no product of {x.dtype}{x.shape}")
  _check("gate", gate, x.dtype, (gate.shape[0], x.shape[1]))
  _check("up", up, x.dtype, gate.shape)
  out = jax.ShapeDtypeStruct((x.shape[0], gate.shape[0]), x.dtype)
  return jax.ffi.ffi_call("rstar_gated", out)(x, gate, up)


def attend(
  q: jax.Array,
  new: tuple[jax.Array, jax.Array],
  path: tuple[jax.Array, jax.Array],
  lengths: jax.Array,
  own: tuple[jax.Array, jax.Array],
  index: jax.Array,
  *,
  window: int = 0,
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
  """Writes a token of each candidate, and attends to its path and its own.

  Args:
    q: float32 or bfloat16 [B, C, N, H], as are all that follow.
    new: the token's key and value, [B, C, K, H].
    path: keys and values, [B, K, T, H].
    lengths: int32 [B], tokens of each path; cut to 0 to T.
    own: keys and values of candidates, [B, C, K, S, H].
    index: int32 scalar, the token's place in S; cut to 0 to S - 1.
    window: tokens that one attends to, itself included; 0 is all before it.

  Returns:
    [B, C, N, H], and `own` with the token, in the same memory where nothing
    else needs what was there.

  Raises:
    ValueError: they are of other shapes or dtypes.
  """
  leaves, candidates, _, width = q.shape
  kv_heads, length, size = *path[0].shape[1:3], own[0].shape[3]
  if not can_attend(q, kv_heads):
    raise ValueError(f"no attention of {q.dtype}{q.shape} to {kv_heads} heads")
  row = leaves, candidates, kv_heads
  for name, pair, shape in (
    ("new", new, (*row, width)),
    ("path", path, (leaves, kv_heads, length, width)),
    ("own", own, (*row, size, width)),
  ):
    for each in pair:
      _check(name, each, q.dtype, shape)
  _check("lengths", lengths, jnp.int32, (leaves,))
  out = [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in (q, *own)]
  index = jnp.reshape(index, (1,)).astype(jnp.int32)
  mixed, *own = jax.ffi.ffi_call(
    "rstar_attend", out, input_output_aliases={7: 1, 8: 2}
  )(q, *new, *path, lengths, index, *own, window=np.int64(window))
  return mixed, tuple(own)


def _check(name: str, x: jax.Array, dtype: str, shape: Sequence[int]) -> None:
  """Refuses what C++ would read past its end."""
  if x.dtype != dtype or x.shape != tuple(shape):
    raise ValueError(
      f"{name} is {x.dtype}{x.shape} and must be {jnp.dtype(dtype)}{shape}"
    )
