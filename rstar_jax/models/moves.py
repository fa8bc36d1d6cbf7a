"""Gathers and scatters, which move elements without arithmetic."""

from collections.abc import Callable

import jax
import jax.numpy as jnp


def move(function: Callable[..., jax.Array], *arrays: jax.Array) -> jax.Array:
  """Calls a function that moves elements of arrays without arithmetic.

  XLA on a CPU converts whole operands of 16-bit gathers and scatters to
  float32. There elements are moved as integers, and a barrier keeps the
  compiler from converting a whole array once for all turns of a loop.

  Args:
    function: returns an array of the first array's dtype.
    *arrays: its arguments.
  """
  dtype = arrays[0].dtype
  if dtype.itemsize != 2:
    return function(*arrays)

  def by_bits(*arrays):
    cast = jax.lax.bitcast_convert_type
    arrays = jax.lax.optimization_barrier(arrays)
    moved = function(
      *(cast(x, jnp.uint16) if x.dtype == dtype else x for x in arrays)
    )
    return cast(moved, dtype)

  return jax.lax.platform_dependent(*arrays, cpu=by_bits, default=function)


@jax.custom_jvp
def lookup(table: jax.Array, ids: jax.Array) -> jax.Array:
  """Returns rows [..., D] of a table [V, D] by int32 ids [...]."""
  return move(lambda table, ids: table[ids], table, ids)


@lookup.defjvp
def _(primals, tangents):
  # The bitcast has no derivative, but a lookup is linear.
  table, ids = primals
  return lookup(table, ids), tangents[0][ids]
