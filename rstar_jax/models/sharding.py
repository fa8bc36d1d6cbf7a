"""The mesh, the rules from logical to mesh axes, and host <-> global arrays.

Model code names logical axes only (`nnx.Param(value, axes=("embed", "mlp"))`);
`Rules` is the one place that knows the mesh.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from flax import nnx
from jax.experimental import multihost_utils
from jax.sharding import (
  AbstractMesh,
  AxisType,
  Mesh,
  NamedSharding,
  PartitionSpec,
)

from rstar_jax.config.schema import MeshConfig

AXES = ("data", "fsdp", "tensor")


@dataclasses.dataclass(frozen=True)
class Rules:
  """Mesh axis of each logical axis; None is replicated."""

  vocab: str | None = "tensor"
  embed: str | None = "fsdp"
  heads: str | None = "tensor"
  kv_heads: str | None = "tensor"
  head_dim: str | None = None
  mlp: str | None = "tensor"
  # Rows of a batch, over every axis that holds whole rows.
  batch: tuple[str, ...] = ("data", "fsdp")


def make_mesh(
  config: MeshConfig, devices: Sequence[jax.Device] | None = None
) -> Mesh:
  """Makes a (data, fsdp, tensor) mesh.

  Args:
    config: sizes; at most one is -1 and takes what is left.
    devices: which devices; None takes all of the cluster.

  Returns:
    A mesh of Auto axes: the compiler derives the sharding of activations.

  Raises:
    ValueError: the sizes do not multiply to the number of devices.
  """
  devices = jax.devices() if devices is None else list(devices)
  sizes = mesh_sizes(config, len(devices))
  return jax.make_mesh(
    sizes, AXES, axis_types=(AxisType.Auto,) * len(AXES), devices=devices
  )


def mesh_sizes(config: MeshConfig, devices: int) -> tuple[int, ...]:
  """Returns how many of so many devices are along each of `AXES`.

  Raises:
    ValueError: the sizes do not multiply to the number of devices.
  """
  sizes = [getattr(config, axis) for axis in AXES]
  fixed = math.prod(size for size in sizes if size != -1)
  if sizes.count(-1) > 1 or any(size < 1 and size != -1 for size in sizes):
    raise ValueError(
      f"mesh {dict(zip(AXES, sizes, strict=True))}: sizes are at least 1, and "
      "one of them may be -1"
    )
  sizes = [devices // fixed if size == -1 else size for size in sizes]
  if math.prod(sizes) != devices:
    raise ValueError(
      f"mesh {dict(zip(AXES, sizes, strict=True))} needs {math.prod(sizes)} "
      f"devices (or a multiple of {fixed}) but there are {devices}"
    )
  return tuple(sizes)


def mesh_over(
  config: MeshConfig, devices: Sequence[jax.Device], name: str
) -> Mesh | None:
  """Makes the mesh of a config's field, or none where there is one device.

  Args:
    config: sizes; see `make_mesh`.
    devices: which devices.
    name: of the field, for errors.

  Returns:
    A mesh; None for a single device, on which arrays need no sharding.
  """
  try:
    mesh = make_mesh(config, devices)
  except ValueError as error:
    raise ValueError(f"{name}: {error}") from None
  return mesh if mesh.size > 1 else None


def _is_variable(leaf: Any) -> bool:
  return isinstance(leaf, nnx.Variable)


def _sharding(
  variable: nnx.Variable, mesh: Mesh, rules: Rules
) -> NamedSharding:
  axes = variable.get_metadata().get("axes", ())
  shape = variable.get_value().shape
  if len(axes) != len(shape):
    raise ValueError(f"a parameter of shape {shape} has logical axes {axes}")
  names = []
  for axis, size in zip(axes, shape, strict=True):
    # An axis that does not divide (2 kv heads on 4 devices) is replicated.
    names.append(_divides(getattr(rules, axis), size, mesh))
  return NamedSharding(mesh, PartitionSpec(*names))


def shardings(params: Any, mesh: Mesh, rules: Rules | None = None) -> Any:
  """Derives the shardings of parameters from their declarations.

  Args:
    params: a state of `nnx.split`, of arrays or of `nnx.eval_shape`'s structs.
    mesh: from `make_mesh`.
    rules: None takes the defaults.

  Returns:
    The same tree with a NamedSharding in place of each array; fit for
    `jax.device_put` and for `in_shardings` and `out_shardings` of `jax.jit`.
  """
  rules = rules or Rules()
  return jax.tree.map(
    lambda variable: variable.replace(_sharding(variable, mesh, rules)),
    params,
    is_leaf=_is_variable,
  )


def create(
  build: Callable[[], nnx.Module], mesh: Mesh, rules: Rules | None = None
) -> nnx.Module:
  """Builds a module with each parameter made on the devices that hold it.

  Args:
    build: returns the module; it runs twice, under `jax.jit` the second time.
    mesh: from `make_mesh`.
    rules: None takes the defaults.

  Returns:
    The module; no device held a whole copy at any time.
  """
  graphdef, abstract = nnx.split(nnx.eval_shape(build))
  params = jax.jit(
    lambda: nnx.split(build())[1],
    out_shardings=shardings(abstract, mesh, rules),
  )()
  return nnx.merge(graphdef, params)


def place(params: Any, mesh: Mesh, rules: Rules | None = None) -> Any:
  """Returns parameters moved to where their declarations say."""
  return jax.device_put(params, shardings(params, mesh, rules))


def constrain(x: jax.Array, *axes: str | None) -> jax.Array:
  """Says where an activation is, in a function that runs in `jax.set_mesh`.

  The compiler derives most of it, but would take over the cut of the
  embedding's columns and move activations where it should move weights.

  Args:
    x: any array.
    axes: logical names of its first axes; None, and those left out, are whole.

  Returns:
    The same values. Without a mesh, and on axes that do not divide, this does
    nothing.
  """
  mesh = jax.sharding.get_abstract_mesh()
  if mesh.empty:
    return x
  spec = [
    _divides(getattr(Rules(), axis) if axis else None, size, mesh)
    for axis, size in zip(axes, x.shape, strict=False)
  ]
  return jax.lax.with_sharding_constraint(x, PartitionSpec(*spec))


def _divides(name, size: int, mesh: Mesh | AbstractMesh):
  """Returns mesh axes that can cut an axis of this size, else None."""
  if name is None:
    return None
  names = (name,) if isinstance(name, str) else name
  return None if size % math.prod(mesh.shape[n] for n in names) else name


def row_shards(mesh: Mesh | None, rules: Rules | None = None) -> int:
  """Returns into how many parts the rows of a batch are cut."""
  if mesh is None:
    return 1
  return math.prod(mesh.shape[axis] for axis in (rules or Rules()).batch)


def cache_sharding(
  mesh: Mesh, shape: Sequence[int], rules: Rules | None = None
) -> NamedSharding:
  """Returns the sharding of keys and values, or of hidden states.

  Args:
    mesh: from `make_mesh`.
    shape: [B, ..., K, T, H], or [B, D]; B is cut as the rows of a batch are, K
      as the heads are, where they divide.
    rules: None takes the defaults.
  """
  rules = rules or Rules()
  spec: list[Any] = [None] * len(shape)
  spec[0] = rules.batch
  if len(shape) > 2:
    heads = rules.kv_heads
    divides = heads is not None and shape[-3] % mesh.shape[heads] == 0
    spec[-3] = heads if divides else None
  return NamedSharding(mesh, PartitionSpec(*spec))


def to_global(batch: Any, mesh: Mesh, rules: Rules | None = None) -> Any:
  """Puts the rows of a batch onto the devices that work on them.

  Args:
    batch: a tree of numpy arrays [B, ...], B a multiple of `row_shards`. Every
      process gives the same whole batch, and puts down its own rows of it.
    mesh: from `make_mesh`.
    rules: None takes the defaults.

  Returns:
    The same tree of global arrays, cut by rows over the data axes and copied
    along the others.
  """
  sharding = NamedSharding(mesh, PartitionSpec((rules or Rules()).batch))
  return jax.tree.map(
    lambda rows: jax.make_array_from_callback(
      rows.shape, sharding, rows.__getitem__
    ),
    batch,
  )


def spread(tree: Any, mesh: Mesh) -> Any:
  """Copies what is on one device alone, such as a counter, to all of a mesh.

  Args:
    tree: of arrays; those on the mesh stay as they are. Every process has the
      same values.
    mesh: from `make_mesh`.
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
    # Of a second array on the same buffers: jax keeps a copy on the host for
    # as long as the array lives that it was asked of.
    parts = [shard.data for shard in array.addressable_shards]
    return np.asarray(
      jax.make_array_from_single_device_arrays(
        array.shape, array.sharding, parts
      )
    )

  return jax.tree.map(fetch, tree)
