"""Abstract arrays: shapes, dtypes and shardings, no memory."""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from rstar_jax.models import cache, sharding
from rstar_jax.models.config import ModelConfig
from rstar_jax.models.transformer import Transformer


def array(
  mesh: Mesh, shape: tuple[int, ...], dtype: Any = jnp.int32, *axes: Any
) -> jax.ShapeDtypeStruct:
  """Returns an abstract array; without axes every device has all of it."""
  place = NamedSharding(mesh, PartitionSpec(*axes))
  return jax.ShapeDtypeStruct(shape, dtype, sharding=place)


def placed(of: Any, place: NamedSharding) -> jax.ShapeDtypeStruct:
  """Returns an abstract array like another, with a sharding."""
  return jax.ShapeDtypeStruct(of.shape, of.dtype, sharding=place)


def abstract(
  model: ModelConfig, head: str, mesh: Mesh
) -> tuple[nnx.GraphDef, Any]:
  """Returns a module's definition, and its parameters' shapes and places."""
  graphdef, params = _shapes(model, head)
  places = sharding.shardings(params, mesh)
  return graphdef, jax.tree.map(placed, params, places)


def pool_of(
  model: ModelConfig, slots: int, length: int, mesh: Mesh
) -> cache.Pool:
  """Returns the abstract paths of a prefix cache, sharded as in the engine."""
  shapes = jax.eval_shape(
    functools.partial(cache.empty_pool, model, slots, length)
  )
  return jax.tree.map(functools.partial(_cached, mesh), shapes)


def candidates_of(
  model: ModelConfig, rows: tuple[int, ...], length: int, mesh: Mesh
) -> cache.KeyValues:
  """Returns the abstract keys and values of a call's candidates."""
  shapes = jax.eval_shape(functools.partial(cache.empty, model, rows, length))
  return jax.tree.map(functools.partial(_cached, mesh), shapes)


def bytes_of(tree: Any) -> float:
  """Returns the bytes of abstract arrays on one device, without padding.

  A TPU lays keys and values out with that axis last which needs least of it.
  """

  def size(one: jax.ShapeDtypeStruct) -> int:
    shape = one.sharding.shard_shape(one.shape)
    return math.prod(shape) * one.dtype.itemsize

  return float(sum(map(size, jax.tree.leaves(tree))))


@functools.lru_cache(maxsize=16)
def _shapes(model: ModelConfig, head: str) -> tuple[nnx.GraphDef, Any]:
  """Traces a module's constructor, which takes seconds for a deep one."""
  return nnx.split(
    nnx.eval_shape(lambda: Transformer(model, head=head, rngs=nnx.Rngs(0)))
  )


def _cached(mesh: Mesh, one: Any) -> jax.ShapeDtypeStruct:
  return placed(one, sharding.cache_sharding(mesh, one.shape))
