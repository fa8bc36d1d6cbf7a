"""The rules from logical to mesh axes, and moves of arrays to a mesh.

Model code names logical axes (`nnx.Param(value, axes=("embed", "mlp"))`); only
`RULES` maps them to mesh axes.
"""

import contextlib
import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from flax import nnx
from jax.experimental import multihost_utils
from jax.sharding import (
  AbstractMesh,
  Mesh,
  NamedSharding,
  PartitionSpec,
)


@dataclasses.dataclass(frozen=True)
class Rules:
  """The mesh axis of each logical axis; None replicates it."""

  vocab: str | None = "tensor"
  embed: str | None = "fsdp"
  heads: str | None = "tensor"
  kv_heads: str | None = "tensor"
  head_dim: str | None = None
  mlp: str | None = "tensor"
  # A mixture is cut into whole experts, since the width of one is small.
  experts: str | None = "tensor"
  width: str | None = None
  router: str | None = None
  # Of an update of low rank; see `training/lora.py`.
  rank: str | None = None
  # Rows of a batch.
  batch: tuple[str, ...] = ("data", "fsdp")


RULES = Rules()


def on(mesh: Mesh | None) -> contextlib.AbstractContextManager:
  """Returns a context whose computations are cut over a mesh, if there is one.

  A model needs it for whole rows: `constrain` and a TPU's attention use the
  context's mesh.
  """
  return contextlib.nullcontext() if mesh is None else jax.set_mesh(mesh)


def _is_variable(leaf: Any) -> bool:
  return isinstance(leaf, nnx.Variable)


def _sharding(variable: nnx.Variable, mesh: Mesh) -> NamedSharding:
  axes = variable.get_metadata().get("axes", ())
  shape = variable.get_value().shape
  if len(axes) != len(shape):
    raise ValueError(f"a parameter of shape {shape} has logical axes {axes}")
  return NamedSharding(mesh, spec(shape, axes, mesh))


def shardings(params: Any, mesh: Mesh) -> Any:
  """Derives the shardings of parameters from their declarations.

  Args:
    params: a state of `nnx.split`, of arrays or of `nnx.eval_shape`'s structs.
    mesh: from `meshes.make`.

  Returns:
    The same tree with a NamedSharding for each array, as `jax.device_put` and
    the `in_shardings` and `out_shardings` of `jax.jit` take it.
  """
  return jax.tree.map(
    lambda variable: variable.replace(_sharding(variable, mesh)),
    params,
    is_leaf=_is_variable,
  )


def place(params: Any, mesh: Mesh) -> Any:
  """Returns parameters moved to their declared shardings."""
  return jax.device_put(params, shardings(params, mesh))


def copied(params: Any, mesh: Mesh | None, dtype: Any) -> Any:
  """Returns a copy of parameters on a mesh of this process.

  Args:
    params: on any mesh; every process of it calls this.
    mesh: the mesh of the copy; None is one device.
    dtype: of the copy.
  """

  def copy(variable: nnx.Variable) -> nnx.Variable:
    # One by one, so that only one array at a time is whole on the host.
    array = variable.get_value().astype(dtype, copy=True)
    if not array.is_fully_addressable:
      array = to_host(array)
    place = jax.local_devices()[0]
    if mesh is not None:
      place = _sharding(variable, mesh)
    return variable.replace(jax.device_put(array, place))

  return jax.tree.map(copy, params, is_leaf=_is_variable)


def constrain(x: jax.Array, *axes: str | None) -> jax.Array:
  """Constrains the sharding of an activation, under `jax.set_mesh`.

  The compiler derives most shardings. Unconstrained, it would take that of the
  embedding's columns, and move activations instead of weights.

  Args:
    x: any array.
    axes: logical names of its first axes; None, and missing ones, are not
      sharded.

  Returns:
    The same values. Without a mesh, and on axes that do not divide, there is no
    constraint.
  """
  mesh = jax.sharding.get_abstract_mesh()
  if mesh.empty:
    return x
  return jax.lax.with_sharding_constraint(x, spec(x.shape, axes, mesh))


def spec(
  shape: Sequence[int],
  axes: Sequence[str | None],
  mesh: Mesh | AbstractMesh,
) -> PartitionSpec:
  """Returns how an array is cut; see `constrain`."""
  names = (
    _divides(getattr(RULES, axis) if axis else None, size, mesh)
    for axis, size in zip(axes, shape, strict=False)
  )
  return PartitionSpec(*names)


def _divides(name, size: int, mesh: Mesh | AbstractMesh):
  """Returns the mesh axes if they divide an axis of this size, else None.

  An axis that does not divide (2 kv heads, 4 devices) is replicated.
  """
  if name is None:
    return None
  names = (name,) if isinstance(name, str) else name
  return None if size % math.prod(mesh.shape[n] for n in names) else name


def row_shards(mesh: Mesh | AbstractMesh | None) -> int:
  """Returns the number of data shards: parts of the rows of a batch."""
  if mesh is None:
    return 1
  return math.prod(mesh.shape[axis] for axis in RULES.batch)


def check_rows(
  name: str, rows: int, accumulate: int, mesh: Mesh | AbstractMesh
) -> None:
  """Checks that the rows of a batch can be cut over a mesh.

  Args:
    name: the training's, for errors.
    rows: of a batch.
    accumulate: its micro-batches.
    mesh: of the training.

  Raises:
    ValueError: they cannot be cut; the message says which could.
  """
  parts = row_shards(mesh)
  if rows % (accumulate * parts):
    fewer = [n for n in range(1, accumulate) if rows % (n * parts) == 0]
    raise ValueError(
      f"{name}: a batch of {rows} rows in {accumulate} micro-batches cannot be "
      f"cut into {parts} parts, the data x fsdp of {dict(mesh.shape)}: in "
      "another --workdir give a batch_size that is a multiple of "
      f"{accumulate * parts}"
      f"{f', or accumulate={fewer[-1]}' if fewer else ''}"
    )


def to_global(batch: Any, mesh: Mesh) -> Any:
  """Puts the rows of a batch onto their devices.

  Args:
    batch: a tree of numpy arrays [B, ...], B a multiple of `row_shards`. Every
      process passes the same whole batch, and transfers its own rows.
    mesh: from `meshes.make`.

  Returns:
    The same tree of global arrays, sharded by rows over the data axes and
    replicated over the others.
  """
  sharding = NamedSharding(mesh, PartitionSpec(RULES.batch))
  return jax.tree.map(
    lambda rows: jax.make_array_from_callback(
      rows.shape, sharding, rows.__getitem__
    ),
    batch,
  )


def replicate(tree: Any, mesh: Mesh) -> Any:
  """Replicates arrays of one device, such as counters, over a mesh.

  Args:
    tree: arrays, the same on every process; those on the mesh stay as they are.
    mesh: from `meshes.make`.
  """
  everywhere = NamedSharding(mesh, PartitionSpec())

  def move(array: jax.Array) -> jax.Array:
    if array.sharding.device_set == set(mesh.devices.flat):
      return array
    value = np.asarray(array)
    return jax.make_array_from_callback(
      value.shape, everywhere, value.__getitem__
    )

  return jax.tree.map(move, tree)


def to_host(tree: Any) -> Any:
  """Returns global arrays as whole numpy arrays, on every process."""

  def fetch(array: jax.Array) -> np.ndarray:
    if not (array.is_fully_addressable or array.is_fully_replicated):
      return np.asarray(multihost_utils.process_allgather(array, tiled=True))
    # A second array on the same buffers is fetched, since jax keeps the host
    # copy of an array for as long as the array lives.
    parts = [shard.data for shard in array.addressable_shards]
    return np.asarray(
      jax.make_array_from_single_device_arrays(
        array.shape, array.sharding, parts
      )
    )

  return jax.tree.map(fetch, tree)
