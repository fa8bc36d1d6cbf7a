"""Products of rows and weights, accumulated in float32.

Letters: R rows, I inputs, O outputs. A weight [*O, *I] has `param_dtype` and is
cast to `dtype` where it is used.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from rstar_jax.models.config import ModelConfig
from rstar_jax.models.int8 import Int8
from rstar_jax.models.kernels import cpu

# Up to this many rows, XLA on a CPU mostly multiplies faster with the weights
# on the left (docs/results/cpu.md).
_FEW_ROWS = 128


def project(
  x: jax.Array,
  params: Sequence[nnx.Param],
  config: ModelConfig,
  axes: int = 1,
) -> list[jax.Array]:
  """Multiplies by weights, accumulating in float32; results in config.dtype.

  Args:
    x: [..., *I].
    params: [*O, *I] each.
    config: gives the dtype and the kernels.
    axes: number of axes of I.

  Returns:
    [..., *O] for each of the params.
  """
  size = math.prod(x.shape[x.ndim - axes :])
  rows = x.reshape(-1, size)
  shapes = [
    (*x.shape[: x.ndim - axes], *p.shape[: p.ndim - axes]) for p in params
  ]
  weights = [matrix(p.get_value(), size, config.dtype) for p in params]
  outs = products(rows, weights, config, config.dtype)
  return [out.reshape(shape) for out, shape in zip(outs, shapes, strict=True)]


def matrix(weight: jax.Array | Int8, size: int, dtype: str) -> jax.Array | Int8:
  """Returns a weight [*O, *I] as [O, I] for `products`, for the size of I."""
  if isinstance(weight, Int8):
    return Int8(weight.values.reshape(-1, size), weight.scales.reshape(-1))
  return weight.astype(dtype).reshape(-1, size)


def by_kernel(x: jax.Array, config: ModelConfig) -> bool:
  """Returns whether a CPU kernel multiplies rows [R, I]."""
  return config.native and cpu.can_multiply(x)


def products(
  x: jax.Array,
  weights: Sequence[jax.Array] | Sequence[Int8],
  config: ModelConfig,
  dtype: str,
) -> list[jax.Array]:
  """Returns rows [R, I] times each of weights [O, I], as [R, O] in `dtype`."""
  if isinstance(weights[0], Int8):
    # Exact in x's dtype; a TPU converts tiles on their way to the product. Sums
    # are rounded before they are scaled, since devices add up unscaled sums.
    plain = [each.values.astype(x.dtype) for each in weights]
    return [
      (out.astype(jnp.float32) * each.scales).astype(dtype)
      for out, each in zip(
        products(x, plain, config, dtype), weights, strict=True
      )
    ]
  if by_kernel(x, config):
    return cpu.products(x, weights, dtype)
  return in_blocks(
    lambda x: [product(x, each).astype(dtype) for each in weights],
    config.row_block,
    x,
  )


def in_blocks(
  function: Callable[..., Any], size: int, *arrays: jax.Array
) -> Any:
  """Calls a function of rows for `size` rows at a time.

  On a CPU, the order in which XLA adds up a row depends on the number of rows,
  and so do the bits of products, norms and sums, unless that number is fixed.

  Args:
    function: of arrays [R, ...]; returns arrays [R, ...], row by row.
    size: rows of a block; 0 is all of them.
    *arrays: its arguments.
  """
  if not size:
    return function(*arrays)
  rows = arrays[0].shape[0]
  count = -(-rows // size)
  arrays = [
    jnp.pad(x, [(0, count * size - rows)] + [(0, 0)] * (x.ndim - 1))
    for x in arrays
  ]

  def call(index):
    return function(
      *(jax.lax.dynamic_slice_in_dim(x, index * size, size) for x in arrays)
    )

  def put(index, outs):
    return jax.tree.map(
      lambda out, new: jax.lax.dynamic_update_slice_in_dim(
        out, new, index * size, axis=0
      ),
      outs,
      call(index),
    )

  outs = jax.tree.map(
    lambda x: jnp.zeros((count * size, *x.shape[1:]), x.dtype),
    jax.eval_shape(call, 0),
  )
  # The compiler would remove a loop that it knows to have a single turn.
  outs = jax.lax.fori_loop(0, jax.lax.optimization_barrier(count), put, outs)
  return jax.tree.map(lambda x: x[:rows], outs)


@jax.custom_vjp
def product(x: jax.Array, weights: jax.Array) -> jax.Array:
  """Returns rows [R, I] times weights [O, I], as float32 [R, O].

  The order of the operands depends on the platform. The gradient of the result
  is rounded to the operands' dtype.
  """

  def plain(x, weights):
    # Both operands contract their last axis, so neither is transposed.
    return dot(x, weights, 1, 1)

  def turned(x, weights):
    # Without the barrier the compiler would undo the transposition.
    return jax.lax.optimization_barrier(plain(weights, x)).T

  if x.shape[0] > _FEW_ROWS:
    return plain(x, weights)
  return jax.lax.platform_dependent(x, weights, cpu=turned, default=plain)


def _product_forward(x, weights):
  return product(x, weights), (x, weights)


def _product_backward(saved, grad):
  x, weights = saved
  grad = grad.astype(x.dtype)

  def plain(grad, x):
    return dot(grad, x, 0, 0)

  def turned(grad, x):
    # XLA on a CPU multiplies 16-bit operands as float32, at half the rate, if
    # one is transposed; the result of a loop does not count as transposed.
    once = jax.lax.optimization_barrier(1)
    zeros = jnp.zeros(grad.shape[::-1], grad.dtype)
    grad = jax.lax.fori_loop(0, once, lambda *_: grad.T, zeros)
    return jax.lax.optimization_barrier(dot(grad, x, 1, 0))

  if x.dtype.itemsize == 2:
    of_weights = jax.lax.platform_dependent(grad, x, cpu=turned, default=plain)
  else:
    of_weights = plain(grad, x)
  of_x = dot(grad, weights, 1, 0)
  return of_x.astype(x.dtype), of_weights.astype(weights.dtype)


product.defvjp(_product_forward, _product_backward)


def dot(x: jax.Array, y: jax.Array, of_x: int, of_y: int) -> jax.Array:
  """Contracts an axis of each matrix, accumulating in float32."""
  return jax.lax.dot_general(
    x, y, (((of_x,), (of_y,)), ((), ())), preferred_element_type=jnp.float32
  )
