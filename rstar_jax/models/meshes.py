"""Makes meshes of devices: (data, fsdp, tensor)."""

import math
from collections.abc import Sequence

import jax
from jax.experimental import mesh_utils
from jax.sharding import AbstractMesh, AxisType, Mesh

from rstar_jax.config.schema import MeshConfig

AXES = ("data", "fsdp", "tensor")


def make(
  config: MeshConfig, devices: Sequence[jax.Device] | None = None
) -> Mesh:
  """Makes a (data, fsdp, tensor) mesh.

  Args:
    config: sizes; at most one is -1, and takes the remaining devices.
    devices: None takes all devices of the cluster.

  Returns:
    A mesh of Auto axes: the compiler derives the sharding of activations.

  Raises:
    ValueError: the sizes do not multiply to the number of devices.
  """
  devices = jax.devices() if devices is None else list(devices)
  slices = len({getattr(each, "slice_index", 0) for each in devices})
  sizes = sizes_of(config, len(devices), slices)
  types = (AxisType.Auto,) * len(AXES)
  if slices == 1:
    return jax.make_mesh(sizes, AXES, axis_types=types, devices=devices)
  # Only the data axis goes over slices: it moves a sum of gradients in each
  # micro-batch, and the other axes weights and activations in each layer.
  between = (slices, *(1 for _ in AXES[1:]))
  within = (sizes[0] // slices, *sizes[1:])
  grid = mesh_utils.create_hybrid_device_mesh(within, between, devices)
  return Mesh(grid, AXES, axis_types=types)


def sizes_of(
  config: MeshConfig, devices: int, slices: int = 1
) -> tuple[int, ...]:
  """Returns the number of devices along each of `AXES`.

  Args:
    config: sizes; at most one is -1, and takes the remaining devices.
    devices: how many there are.
    slices: number of TPU slices that they are in; the data axis goes over all.

  Raises:
    ValueError: the sizes do not multiply to the number of devices, or the data
      axis does not divide into the slices.
  """
  sizes = [getattr(config, axis) for axis in AXES]
  fixed = math.prod(size for size in sizes if size != -1)
  if sizes.count(-1) > 1 or any(size < 1 and size != -1 for size in sizes):
    raise ValueError(
      f"mesh {dict(zip(AXES, sizes, strict=True))}: sizes are at least 1, and "
      "one of them may be -1"
    )
  shape = dict(zip(AXES, sizes, strict=True))
  if devices % fixed or (-1 not in sizes and devices != fixed):
    needed = f"a multiple of {fixed}" if -1 in sizes else fixed
    raise ValueError(
      f"mesh {shape} needs {needed} devices, and there are {devices}"
    )
  sizes = [devices // fixed if size == -1 else size for size in sizes]
  if sizes[0] % slices:
    shape = dict(zip(AXES, sizes, strict=True))
    raise ValueError(
      f"mesh {shape}: data must be a multiple of the {slices} slices, between "
      f"which it alone goes: set data={slices}"
    )
  return tuple(sizes)


def abstract(config: MeshConfig, devices: int, slices: int = 1) -> AbstractMesh:
  """Returns a mesh of devices that are not here; see `sizes_of`."""
  return AbstractMesh(sizes_of(config, devices, slices), AXES)


def of_field(
  config: MeshConfig, devices: Sequence[jax.Device], name: str
) -> Mesh | None:
  """Makes the mesh of a config's field.

  Args:
    config: sizes; see `make`.
    devices: the devices of the mesh.
    name: the field's name, for errors.

  Returns:
    A mesh; None for a single device, where arrays need no sharding.

  Raises:
    ValueError: the sizes do not multiply to the number of devices.
  """
  try:
    mesh = make(config, devices)
  except ValueError as error:
    raise ValueError(f"{name}: {error}") from None
  return mesh if mesh.size > 1 else None
