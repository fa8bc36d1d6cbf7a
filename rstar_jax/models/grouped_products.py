"""Products of groups of rows, each group with a matrix of its own.

Letters: P rows, E groups, I inputs, O outputs.
"""

import importlib

import jax
import jax.numpy as jnp

from rstar_jax.models.moves import move
from rstar_jax.models.products import dot

# Rows that a CPU multiplies at once. The number is always the same, so that the
# bits of a row do not depend on how many its group has.
_TILE = 32
# Most rows, inputs and outputs of a tile of the gradients' kernels on a TPU.
_TILING = 512, 1024, 1024


@jax.custom_vjp
def grouped(x: jax.Array, weights: jax.Array, sizes: jax.Array) -> jax.Array:
  """Multiplies each group of rows by a matrix of its own.

  A CPU goes through tiles of a group's rows, since XLA there would multiply
  every row by every matrix. Elsewhere it is `jax.lax.ragged_dot`, which on a
  TPU is a kernel that reads the matrices of groups with rows, and only those.

  Args:
    x: [P, I], group by group.
    weights: [E, I, O], in x's dtype.
    sizes: int32 [E], rows of each group; their sum is at most P.

  Returns:
    [P, O] in x's dtype, accumulated in float32; 0 in rows of no group.
  """
  return _of_groups(
    jax.lax.platform_dependent(
      *(x, weights, sizes), cpu=_by_tiles, default=_ragged
    ),
    sizes,
  )


def _grouped_forward(x, weights, sizes):
  return grouped(x, weights, sizes), (x, weights, sizes)


def _grouped_backward(saved, grad):
  x, weights, sizes = saved
  of_x, of_weights = jax.lax.platform_dependent(
    *(x, weights, sizes, grad),
    cpu=_gradients_by_tiles,
    tpu=gradients_by_kernel,
    default=lambda x, weights, sizes, grad: jax.vjp(
      lambda x, weights: _ragged(x, weights, sizes), x, weights
    )[1](grad),
  )
  return _of_groups(of_x, sizes), of_weights, None


grouped.defvjp(_grouped_forward, _grouped_backward)


def _of_groups(out: jax.Array, sizes: jax.Array) -> jax.Array:
  """Sets rows of no group to 0, which kernels do not write."""
  return jnp.where(jnp.arange(len(out))[:, None] < jnp.sum(sizes), out, 0)


def _ragged(x: jax.Array, weights: jax.Array, sizes: jax.Array) -> jax.Array:
  out = jax.lax.ragged_dot(
    x, weights, sizes, preferred_element_type=jnp.float32
  )
  return out.astype(x.dtype)


def gradients_by_kernel(
  x: jax.Array,
  weights: jax.Array,
  sizes: jax.Array,
  grad: jax.Array,
  *,
  interpret: bool = False,
) -> tuple[jax.Array, jax.Array]:
  """Returns the gradients of x and weights of `grouped`, by TPU kernels.

  Those of `ragged_dot` copy the weights to transpose them, and multiply every
  row by every group's (docs/results/aot.md).

  Args:
    x: [P, I].
    weights: [E, I, O].
    sizes: int32 [E].
    grad: [P, O].
    interpret: runs on any device, slowly; see `pl.pallas_call`.
  """
  # The package has a function of the module's name.
  kernels = importlib.import_module(
    "jax.experimental.pallas.ops.tpu.megablox.gmm"
  )
  rows, inputs, outputs = _TILING
  more = -len(x) % rows
  x, grad = (jnp.pad(each, ((0, more), (0, 0))) for each in (x, grad))
  of_x = kernels.gmm(
    *(grad, weights, sizes, x.dtype, (rows, outputs, inputs)),
    transpose_rhs=True,
    interpret=interpret,
  )
  of_weights = kernels.tgmm(
    *(x.T, grad, sizes, weights.dtype, (rows, inputs, outputs)),
    interpret=interpret,
  )
  return of_x[: len(of_x) - more], of_weights


def _by_tiles(x: jax.Array, weights: jax.Array, sizes: jax.Array) -> jax.Array:
  wide = jnp.pad(x, ((0, _TILE), (0, 0)))

  def put(tile, out):
    group, start, _ = tile
    rows = jax.lax.dynamic_slice_in_dim(wide, start, _TILE)
    new = dot(rows, _matrix_of(weights, group), 1, 0).astype(x.dtype)
    # Rows of later groups are overwritten with theirs.
    return jax.lax.dynamic_update_slice_in_dim(out, new, start, 0)

  out = jnp.zeros((len(wide), weights.shape[2]), x.dtype)
  return _over_tiles(sizes, put, out)[: len(x)]


def _gradients_by_tiles(
  x: jax.Array, weights: jax.Array, sizes: jax.Array, grad: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """Returns the gradients of `_by_tiles`: of x, and of weights."""
  wide, wide_grad = (jnp.pad(each, ((0, _TILE), (0, 0))) for each in (x, grad))

  def put(tile, outs):
    of_x, of_weights = outs
    group, start, count = tile
    rows, its = (
      jax.lax.dynamic_slice_in_dim(each, start, _TILE)
      for each in (wide, wide_grad)
    )
    new = dot(its, _matrix_of(weights, group), 1, 1).astype(x.dtype)
    of_x = jax.lax.dynamic_update_slice_in_dim(of_x, new, start, 0)
    its = jnp.where(jnp.arange(_TILE)[:, None] < count, its, 0)
    return of_x, of_weights.at[group].add(dot(rows, its, 0, 0))

  outs = jnp.zeros_like(wide), jnp.zeros(weights.shape, jnp.float32)
  of_x, of_weights = _over_tiles(sizes, put, outs)
  return of_x[: len(x)], of_weights.astype(weights.dtype)


def _over_tiles(sizes, put, outs):
  """Calls put((group, first row, rows left of the group), outs) for tiles."""
  tiles = -(-sizes // _TILE)
  last, starts = jnp.cumsum(tiles), jnp.cumsum(sizes) - sizes

  def call(tile, outs):
    group = jnp.sum(last <= tile)
    done = (tile - (last - tiles)[group]) * _TILE
    return put((group, starts[group] + done, sizes[group] - done), outs)

  return jax.lax.fori_loop(0, last[-1], call, outs)


def _matrix_of(weights: jax.Array, group: jax.Array) -> jax.Array:
  return move(lambda all_, group: all_[group], weights, group)
