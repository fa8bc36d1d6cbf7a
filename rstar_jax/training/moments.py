"""Adam with 8-bit moments: 2 bytes per parameter instead of 8.

After Dettmers et al. 2022, "8-bit Optimizers via Block-wise Quantization". Here
a block is a row, along the last axis, with one float32 scale; so the integers
have the shape and the sharding of their parameter. Codes are denser near 0: an
integer q of n stands for scale x (q / n)^4 in the first moment and for scale x
(q / n)^8, whose square root Adam divides by, in the second. Rounding is
stochastic, so that changes of less than a code add up.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

# Largest integer n and power, of the first and the second moment.
_FIRST, _SECOND = (127, 4), (255, 8)


class Moment(NamedTuple):
  """A moment of one parameter.

  Attributes:
    codes: int8 or uint8, in the parameter's shape.
    scales: float32, the largest magnitude in each row; the last axis is 1.
  """

  codes: jax.Array
  scales: jax.Array


class State(NamedTuple):
  """The optimiser's state: number of updates so far, and both moments."""

  count: jax.Array
  first: Any
  second: Any


def scale_by_adam(
  b1: float, b2: float, eps: float = 1e-8
) -> optax.GradientTransformation:
  """Returns `optax.scale_by_adam` with quantised moments.

  A parameter of one axis, such as the scale of a norm, has a single block.
  """

  def init(params):
    def zeros(dtype):
      return jax.tree.map(
        lambda x: Moment(
          jnp.zeros_like(x, dtype), jnp.zeros((*x.shape[:-1], 1), jnp.float32)
        ),
        params,
      )

    return State(jnp.zeros((), jnp.int32), zeros(jnp.int8), zeros(jnp.uint8))

  def update(grads, state, params=None):
    del params
    count = state.count + 1
    leaves, tree = jax.tree.flatten(grads)
    moments = zip(
      tree.flatten_up_to(state.first),
      tree.flatten_up_to(state.second),
      strict=True,
    )
    updates, first, second = [], [], []
    for number, (grad, (m, v)) in enumerate(zip(leaves, moments, strict=True)):
      grad = grad.astype(jnp.float32)
      mean = b1 * _decode(m, *_FIRST) + (1 - b1) * grad
      square = b2 * _decode(v, *_SECOND) + (1 - b2) * jnp.square(grad)
      updates.append(
        (mean / (1 - b1**count)) / (jnp.sqrt(square / (1 - b2**count)) + eps)
      )
      # One salt for each array and update.
      salt = (count * len(leaves) + number) * 2
      first.append(_encode(mean, salt, jnp.int8, *_FIRST))
      second.append(_encode(square, salt + 1, jnp.uint8, *_SECOND))
    state = State(count, tree.unflatten(first), tree.unflatten(second))
    return tree.unflatten(updates), state

  return optax.GradientTransformation(init, update)


def _decode(moment: Moment, most: int, power: int) -> jax.Array:
  share = moment.codes.astype(jnp.float32) / most
  return jnp.sign(share) * jnp.abs(share) ** power * moment.scales


def _encode(
  values: jax.Array, salt: jax.Array | int, dtype: Any, most: int, power: int
) -> Moment:
  sizes = jnp.abs(values)
  scales = jnp.max(sizes, axis=-1, keepdims=True)
  # The least normal number, since devices take a smaller one for 0.
  least = jnp.finfo(jnp.float32).tiny
  exact = most * (sizes / jnp.maximum(scales, least)) ** (1 / power)
  codes = jnp.floor(exact + _uniform(values.shape, salt))
  if dtype == jnp.uint8:
    # A nonzero denominator is not rounded to zero.
    codes = jnp.where(sizes > 0, jnp.maximum(codes, 1), 0)
  codes = jnp.minimum(codes, most) * jnp.sign(values)
  return Moment(codes.astype(dtype), scales)


def _uniform(shape: tuple[int, ...], salt: jax.Array | int) -> jax.Array:
  """Returns float32 in [0, 1) that depend on the index and the salt alone.

  A hash of the index (the finaliser of MurmurHash3): a few operations that fuse
  with their consumer, and need no communication on a mesh.
  """
  index = jnp.zeros(shape, jnp.uint32)
  for axis, size in enumerate(shape):
    index = index * size + jax.lax.broadcasted_iota(jnp.uint32, shape, axis)
  # The salt is spread over all bits before it meets the index.
  x = _mixed(index ^ _mixed(jnp.asarray(salt).astype(jnp.uint32)))
  return (x >> 8).astype(jnp.float32) * 2.0**-24


def _mixed(x: jax.Array) -> jax.Array:
  x = (x ^ (x >> 16)) * jnp.uint32(0x85EBCA6B)
  x = (x ^ (x >> 13)) * jnp.uint32(0xC2B2AE35)
  return x ^ (x >> 16)
