"""The command's rows: what a program takes, against what the chips have."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from jax.sharding import AbstractMesh, Mesh

from rstar_jax.config.schema import Config, MeshConfig
from rstar_jax.models import sharding
from rstar_jax.models.config import ModelConfig
from rstar_jax.tools.aot import (
  compiler,
  lower_bound,
  memory,
  programs,
  shapes,
)
from rstar_jax.tools.aot.arrays import bytes_of
from rstar_jax.tools.aot.chips import Slice
from rstar_jax.tools.aot.compiler import Compiled
from rstar_jax.tools.aot.lower_bound import LowerBound

# The name of rows for which nothing is compiled.
SIZES = "sizes"


def sizes_row(
  config: Config, model: ModelConfig, where: Slice, stage: shapes.Stage
) -> dict[str, Any]:
  """Returns the memory of a stage of the search, by sizes alone.

  Needs no compiler; compiled programs take more.

  Args:
    config: of the run.
    model: of the policy and the PPM.
    where: the slice.
    stage: of `shapes.STAGES`.
  """
  host = where.host
  mesh = abstract_mesh(config.search_mesh, host)
  sizes = shapes.of_config(config, model, mesh, stage)
  found = memory.resident(sizes, model, mesh)
  needs = found.total + memory.sampling(sizes, model, mesh)
  return (
    {"stage": stage, "mesh": dict(mesh.shape)}
    | dataclasses.asdict(sizes)
    | {"program": SIZES, "topology": host.name, "chips": host.chips}
    | _fit(needs, found.total, host.chip.usable_bytes)
    | _resident(config, sizes, found, needs, host.chip.usable_bytes)
  )


def search_row(
  config: Config,
  model: ModelConfig,
  where: Slice,
  stage: shapes.Stage,
  name: str,
  path: int | None,
  layers: Sequence[int],
) -> dict[str, Any]:
  """Compiles a program of the search, on one host.

  Args:
    config: of the run.
    model: of the policy and the PPM.
    where: the slice.
    stage: of `shapes.STAGES`.
    name: of `programs.SEARCH`.
    path: tokens of the paths; None is the largest bucket.
    layers: two depths to extrapolate from; none compiles all layers.
  """
  host = where.host
  mesh = mesh_of(config.search_mesh, host, "search_mesh")
  sizes = shapes.of_config(config, model, mesh, stage, path)
  found, program = _compiled(
    model, lambda m: programs.search_program(name, m, sizes, mesh), layers
  )
  resident = memory.resident(sizes, model, mesh)
  beside = resident.beside(name, sizes)
  bound = lower_bound.search(name, model, sizes, sharding.row_shards(mesh))
  needs, has = found.memory + beside, host.chip.usable_bytes
  return (
    {"stage": stage, "mesh": dict(mesh.shape)}
    | dataclasses.asdict(sizes)
    | row(name, host, found, bound, program.tokens, beside)
    | _resident(config, sizes, resident, needs, has)
  )


def training_row(
  config: Config,
  model: ModelConfig,
  where: Slice,
  name: str,
  layers: Sequence[int],
) -> dict[str, Any]:
  """Compiles the update of a training, on a whole slice.

  Args:
    config: of the run.
    model: of the policy and the PPM.
    where: the slice.
    name: of `programs.TRAINING`.
    layers: two depths to extrapolate from; none compiles all layers.

  Raises:
    ValueError: the rows do not divide into the mesh and the micro-batches.
  """
  training = getattr(config, name)
  mesh = mesh_of(config.train_mesh, where, "train_mesh")
  parts = sharding.row_shards(mesh)
  if training.batch_size % (parts * training.accumulate):
    raise ValueError(
      f"{training.accumulate} micro-batches of config.{name}'s "
      f"{training.batch_size} rows do not divide into the mesh's {parts} parts "
      f"of rows: give an accumulate of at most {training.batch_size // parts}"
    )
  found, program = _compiled(
    dataclasses.replace(model, **training.of_model),
    lambda m: programs.training_program(name, m, config, mesh),
    layers,
  )
  bound = lower_bound.training(
    model, rows=training.batch_size, length=training.length, head=name == "sft"
  )
  fields = "batch_size length accumulate remat attention_block".split()
  result = (
    {"stage": "training", "mesh": dict(mesh.shape)}
    | {key: getattr(training, key) for key in fields}
    | row(name, where, found, bound, program.tokens)
  )
  if not result["fits"]:
    begun, _ = program.arguments
    result["knobs"] = memory.suggest_training(
      batch_size=training.batch_size,
      accumulate=training.accumulate,
      parts=parts,
      fixed=bytes_of((program.arguments, begun.params)),
      needs=found.memory,
      has=where.chip.usable_bytes,
    )
  return result


def abstract_mesh(config: MeshConfig, where: Slice) -> AbstractMesh:
  """Returns the mesh of a run on a slice, without devices or a compiler.

  Args:
    config: `search_mesh`, for the chips of a host.
    where: the host.

  Raises:
    ValueError: the mesh cannot be made of so many chips.
  """
  return AbstractMesh(sharding.mesh_sizes(config, where.chips), sharding.AXES)


def mesh_of(config: MeshConfig, where: Slice, name: str) -> Mesh:
  """Returns the mesh of a run on a slice.

  Args:
    config: `search_mesh`, for the chips of a host, or `train_mesh`, for all.
    where: the slice, or its host.
    name: of the field, for errors.

  Raises:
    ValueError: the mesh cannot be made of so many chips, or libtpu is not
      installed.
  """
  devices = compiler.devices(where)
  mesh = sharding.mesh_over(config, devices, f"config.{name}")
  # A run on one device has no mesh, but arrays here must have a sharding.
  return mesh or sharding.make_mesh(MeshConfig(data=1), devices)


def row(
  program: str,
  where: Slice,
  compiled: Compiled,
  bound: LowerBound,
  tokens: int,
  beside: float = 0.0,
) -> dict[str, Any]:
  """Makes the row of one compiled program.

  Args:
    program: its name.
    where: the chips that run it.
    compiled: the program on one chip.
    bound: on its work, all chips together.
    tokens: of one run, all chips together.
    beside: bytes resident on each chip besides.

  Returns:
    Bytes, FLOPs and seconds of one run on one chip, fit for JSON.
  """
  needs, has = compiled.memory + beside, where.chip.usable_bytes
  result: dict[str, Any] = {
    "program": program,
    "topology": where.name,
    "chips": where.chips,
  } | _fit(needs, beside, has)
  if compiled.refused:
    return result | {"limit": "memory", "compile_seconds": compiled.seconds}
  chip, each, cost = where.chip, 1 / where.chips, compiled.cost
  # At the published peaks, if each were all that a run did.
  seconds = {
    "compute": cost.flops / chip.flops,
    "hbm": cost.bytes / chip.hbm_rate,
    "ici": cost.wire / where.ici_rate if cost.wire else 0.0,
  }
  limit = max(seconds, key=seconds.get)
  longest = seconds[limit]
  return result | {
    "flops": cost.flops,
    "bytes": cost.bytes,
    "wire_bytes": cost.wire,
    "collectives": {
      kind: {"count": sent.count, "bytes": sent.bytes, "wire_bytes": sent.wire}
      for kind, sent in sorted(cost.collectives.items())
    },
    "loops": [list(loop) for loop in cost.loops],
    "seconds": {name: significant(value) for name, value in seconds.items()},
    "bound_seconds": significant(longest),
    "limit": limit if needs <= has else "memory",
    "tokens": tokens,
    "tokens_per_second_per_chip": significant(tokens / longest * each),
    "bytes_per_token": significant(cost.bytes * where.chips / tokens),
    "least_flops_share": significant(
      bound.flops * each / cost.flops if cost.flops else 1.0
    ),
    "least_bytes_share": significant(bound.bytes * each / cost.bytes),
    "roofline_share": significant(bound.seconds(where) / longest),
    "compile_seconds": significant(compiled.seconds),
  }


def _compiled(
  model: ModelConfig,
  build: Callable[[ModelConfig], programs.DeviceProgram],
  layers: Sequence[int],
) -> tuple[Compiled, programs.DeviceProgram]:
  """Compiles at full depth, or at two small ones to extrapolate from."""
  program = build(model)
  if not layers:
    return compiler.compile_program(program), program
  low, high = (
    compiler.compile_program(build(dataclasses.replace(model, num_layers=n)))
    for n in layers
  )
  return compiler.extrapolate(
    low,
    high,
    (*layers, model.num_layers),
    growing=program.name in programs.GROWING,
  ), program


def _fit(needs: float, beside: float, has: float) -> dict[str, Any]:
  return {
    "hbm_needed_gib": _gib(needs),
    "hbm_beside_gib": _gib(beside),
    "hbm_chip_gib": _gib(has),
    "fits": needs <= has,
    "over_gib": _gib(max(needs - has, 0.0)),
  }


def _resident(
  config: Config,
  sizes: shapes.Shapes,
  found: memory.Resident,
  needs: float,
  has: float,
) -> dict[str, Any]:
  """Returns what is resident, and suggestions where that is too much."""
  result: dict[str, Any] = {
    "held_gib": {
      "weights": _gib(found.weights),
      "pools": _gib(found.pools),
      "kept": _gib(found.kept),
    }
  }
  if needs > has:
    result["knobs"] = memory.suggest_search(
      found, sizes, config.engine.most_tokens, needs, has
    )
  return result


def _gib(size: float) -> float:
  return significant(size / 2**30)


def significant(value: float) -> float:
  """Keeps four significant digits of a number, so that a line can be read."""
  return float(f"{value:.4g}")
