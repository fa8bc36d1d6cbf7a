"""A row of the report for each program of a config, on a slice."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from jax.sharding import Mesh

from rstar_jax.config.schema import Config, MeshConfig
from rstar_jax.models import sharding
from rstar_jax.models.config import ModelConfig
from rstar_jax.tools.aot import (
  chips,
  compiled,
  described,
  held,
  knobs,
  least,
  programs,
  report,
  shapes,
)

# The name of rows for which nothing is compiled.
SIZES = "sizes"


@dataclasses.dataclass(frozen=True)
class Options:
  """How programs are compiled.

  Attributes:
    layers: two depths to extrapolate from; empty compiles all layers.
    cache: folder of compiled programs; None keeps none.
    path: tokens of the search's paths; None is the largest bucket.
    repeated: a path for each candidate that is sampled, as without sharing.
  """

  layers: tuple[int, ...] = ()
  cache: str | None = None
  path: int | None = None
  repeated: bool = False


def mesh_of(
  config: MeshConfig, where: chips.Slice, devices: Sequence[Any], name: str
) -> Mesh:
  """Returns the mesh that a run has on a slice.

  Args:
    config: `search_mesh`, for the chips of a host, or `train_mesh`, for all.
    where: the slice, or its host.
    devices: of it.
    name: of the field, for errors.

  Raises:
    ValueError: the mesh cannot be made of so many chips.
  """
  try:
    mesh = sharding.mesh_over(config, devices, f"config.{name}")
  except ValueError as error:
    raise ValueError(f"{where.name}: {error}") from None
  # One device: the run has no mesh, but arrays here have to say where they are.
  return mesh or sharding.make_mesh(MeshConfig(data=1), devices)


def sizes_row(
  config: Config, model: ModelConfig, where: chips.Slice, stage: shapes.Stage
) -> dict[str, Any]:
  """Returns what a stage of the search takes by sizes alone.

  Nothing is compiled, and no compiler is needed; programs take more.

  Args:
    config: of the run.
    model: of the policy and the PPM.
    where: the slice.
    stage: of `shapes.STAGES`.
  """
  host = where.host
  mesh = least.sizes_mesh(config, host)
  sizes = shapes.of_config(config, model, mesh, stage)
  holds = held.of_shapes(sizes, model, mesh)
  calls = held.sampling(sizes, model, mesh)
  needs, has = holds.total + calls, host.chip.usable_bytes
  return (
    {"stage": stage, "mesh": dict(mesh.shape)}
    | dataclasses.asdict(sizes)
    | {"program": SIZES, "topology": host.name, "chips": host.chips}
    | report.memory(needs, holds.total, has)
    | _held(config, sizes, holds, needs, has)
  )


def search_row(
  config: Config,
  model: ModelConfig,
  where: chips.Slice,
  stage: shapes.Stage,
  name: str,
  options: Options,
) -> dict[str, Any]:
  """Compiles a program of the search, on one host.

  Args:
    config: of the run.
    model: of the policy and the PPM.
    where: the slice.
    stage: of `shapes.STAGES`.
    name: of `programs.SEARCH`.
    options: see there.
  """
  host = where.host
  mesh = mesh_of(
    config.search_mesh, host, compiled.devices(host), "search_mesh"
  )
  sizes = shapes.of_config(config, model, mesh, stage, options.path)
  sizes = dataclasses.replace(sizes, repeated=options.repeated)
  found, program = _compiled(
    model,
    lambda m: programs.search_program(name, m, sizes, mesh),
    options,
  )
  holds = held.of_shapes(sizes, model, mesh)
  beside = holds.beside(name, sizes)
  row = {"stage": stage, "mesh": dict(mesh.shape)} | dataclasses.asdict(sizes)
  row |= report.row(
    program=name,
    where=host,
    compiled=found,
    least=least.of_search(name, model, sizes, sharding.row_shards(mesh)),
    tokens=program.tokens,
    beside=beside,
  )
  needs, has = found.memory + beside, host.chip.usable_bytes
  return row | _held(config, sizes, holds, needs, has)


def _held(
  config: Config,
  sizes: shapes.Shapes,
  holds: held.Held,
  needs: float,
  has: float,
) -> dict[str, Any]:
  """Says what is held, and what would do where that is too much."""
  found: dict[str, Any] = {
    "held_gib": {
      "weights": report.gib(holds.weights),
      "pools": report.gib(holds.pools),
      "kept": report.gib(holds.kept),
    }
  }
  if needs > has:
    found["knobs"] = knobs.search(
      slots=sizes.slots,
      most_tokens=config.engine.most_tokens,
      room=sizes.room,
      weights=holds.weights,
      pools=holds.pools,
      calls=needs - holds.weights - holds.pools,
      needs=needs,
      has=has,
    )
  return found


def training_row(
  config: Config,
  model: ModelConfig,
  where: chips.Slice,
  name: str,
  options: Options,
) -> dict[str, Any]:
  """Compiles the update of a training, on a whole slice.

  Args:
    config: of the run.
    model: of the policy and the PPM.
    where: the slice.
    name: of `programs.TRAINING`.
    options: see there.
  """
  training = getattr(config, name)
  mesh = mesh_of(
    config.train_mesh, where, compiled.devices(where), "train_mesh"
  )
  parts = sharding.row_shards(mesh)
  sizes = {
    key: getattr(training, key)
    for key in "batch_size length accumulate remat attention_block".split()
  }
  row = {"stage": "training", "mesh": dict(mesh.shape)} | sizes
  if training.batch_size % (parts * training.accumulate):
    raise ValueError(
      f"{where.name}: {training.accumulate} micro-batches of config.{name}'s "
      f"{training.batch_size} rows do not divide into the mesh's {parts} parts "
      f"of rows: give an accumulate of at most {training.batch_size // parts}"
    )
  model = dataclasses.replace(model, **training.of_model)
  found, program = _compiled(
    model,
    lambda m: programs.training_program(name, m, config, mesh),
    options,
  )
  row |= report.row(
    program=name,
    where=where,
    compiled=found,
    least=least.of_training(config, model, name),
    tokens=program.tokens,
  )
  if not row["fits"]:
    begun, batch = program.arguments
    row["knobs"] = knobs.training(
      batch_size=training.batch_size,
      accumulate=training.accumulate,
      parts=parts,
      state=described.bytes_of((begun, batch)),
      gradients=described.bytes_of(begun.params),
      needs=found.memory,
      has=where.chip.usable_bytes,
    )
  return row


def _compiled(
  model: ModelConfig,
  build: Callable[[ModelConfig], programs.DeviceProgram],
  options: Options,
) -> tuple[compiled.Compiled, programs.DeviceProgram]:
  """Compiles at full depth, or at two small ones to extrapolate from."""
  if not options.layers:
    program = build(model)
    return compiled.compile_program(program, options.cache), program
  made = [
    build(dataclasses.replace(model, num_layers=n)) for n in options.layers
  ]
  found = [compiled.compile_program(each, options.cache) for each in made]
  full, program = (*options.layers, model.num_layers), build(model)
  holds = program.name in programs.HOLDING
  return compiled.between(*found, full, holds), program
