"""C++ kernels for CPUs, as functions of JAX arrays inside `jax.jit`.

With the few rows of a decode step, XLA on a CPU uses little of the processor:
attention runs on one core, and products leave cores idle. Measurements are in
docs/results/engine.md. The kernels need `build.load()`, run on one device, have
no gradient, and give the same bits on every run on one kind of machine.

Letters: R rows, I inputs, O outputs, B leaves, C candidates, N query heads, K
key/value heads, H head, T path, S own tokens.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

# Query heads of a key/value head that fit in one product: three vectors of
# sixteen lanes (`tiles.h`).
_MOST_HEADS = 48
# The width of a head is a multiple of this: two vectors.
_HEAD = 32


def can_multiply(x: jax.Array) -> bool:
  """Says whether the products support rows [R, I].

  With an odd number of bfloat16 two rows would share a word.
  """
  return x.dtype == jnp.float32 or (
    x.dtype == jnp.bfloat16 and x.shape[-1] % 2 == 0
  )


def can_attend(q: jax.Array, kv_heads: int) -> bool:
  """Says whether `attend` supports queries [B, C, N, H]."""
  heads, width = q.shape[-2:]
  known = q.dtype in (jnp.float32, jnp.bfloat16)
  return known and width % _HEAD == 0 and heads // kv_heads <= _MOST_HEADS


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
  """Caches a token of each candidate, and attends to its path and its own.

  Args:
    q: float32 or bfloat16 [B, C, N, H].
    new: the token's key and value, [B, C, K, H] in q's dtype.
    path: keys and values, [B, K, T, H] in q's dtype.
    lengths: int32 [B], tokens of each path; clipped to [0, T].
    own: keys and values of candidates, [B, C, K, S, H] in q's dtype.
    index: int32 scalar, the token's position in S; clipped to [0, S - 1].
    window: tokens that a token attends to, itself included; 0 is no limit.

  Returns:
    [B, C, N, H], and `own` with the token, updated in place if the compiler
    can reuse its memory.

  Raises:
    ValueError: shapes or dtypes do not fit.
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
  """Refuses arrays that C++ would read past their end."""
  if x.dtype != dtype or x.shape != tuple(shape):
    raise ValueError(
      f"{name} is {x.dtype}{x.shape} and must be {jnp.dtype(dtype)}{shape}"
    )
