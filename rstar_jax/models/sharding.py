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
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from rstar_jax.config import MeshConfig

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
  sizes = [getattr(config, axis) for axis in AXES]
  fixed = math.prod(size for size in sizes if size != -1)
  if sizes.count(-1) > 1 or any(size < 1 and size != -1 for size in sizes):
    raise ValueError(
      f"mesh {dict(zip(AXES, sizes, strict=True))}: sizes are at least 1, and "
      "one of them may be -1"
    )
  sizes = [len(devices) // fixed if size == -1 else size for size in sizes]
  if math.prod(sizes) != len(devices):
    raise ValueError(
      f"mesh {dict(zip(AXES, sizes, strict=True))} needs {math.prod(sizes)} "
      f"devices (or a multiple of {fixed}) but there are {len(devices)}"
    )
  return jax.make_mesh(
    sizes, AXES, axis_types=(AxisType.Auto,) * len(AXES), devices=devices
  )


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
    name = getattr(rules, axis)
    # An axis that does not divide (2 kv heads on 4 devices) is replicated.
    divides = name is not None and size % mesh.shape[name] == 0
    names.append(name if divides else None)
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


def batch_sharding(mesh: Mesh, rules: Rules | None = None) -> NamedSharding:
  """Returns the sharding of a batch: rows over the data axes."""
  return NamedSharding(mesh, PartitionSpec((rules or Rules()).batch))


def row_shards(mesh: Mesh, rules: Rules | None = None) -> int:
  """Returns into how many parts the rows of a batch are cut."""
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
  """Makes global arrays of this process's rows.

  Args:
    batch: a tree of numpy arrays [B_local, ...]; each process gives its own
      rows, the same number on each.
    mesh: from `make_mesh`.
    rules: None takes the defaults.

  Returns:
    The same tree of arrays [B_local * processes, ...], sharded by rows.
  """
  sharding = batch_sharding(mesh, rules)
  return jax.tree.map(
    lambda rows: jax.make_array_from_process_local_data(sharding, rows), batch
  )


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
