"""The command's rows: the needs of programs against the chips' resources."""

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from jax.sharding import AbstractMesh, Mesh

from rstar_jax.config.schema import Config, MeshConfig
from rstar_jax.inference.sizes import Sizes
from rstar_jax.models import meshes, sharding
from rstar_jax.models.config import ModelConfig
from rstar_jax.tools.aot import compiler, cost, plan, programs
from rstar_jax.tools.aot.chips import Slice
from rstar_jax.tools.aot.compiler import Compiled
from rstar_jax.tools.aot.plan import significant
from rstar_jax.tools.aot.programs import bytes_of
from rstar_jax.tools.aot.traffic import Moved

_MIB, _GIB = 2**20, 2**30


@dataclasses.dataclass(frozen=True)
class Held:
  """The memory of a search on one chip, in bytes.

  Attributes:
    policy, value: parameters of both models.
    pages: pages of both models.
    temporaries: of the program with the most.
    code: of all programs.
  """

  policy: float
  value: float
  pages: float
  temporaries: float = 0.0
  code: float = 0.0

  @property
  def weights(self) -> float:
    return self.policy + self.value

  @property
  def total(self) -> float:
    return self.weights + self.pages + self.temporaries + self.code


def search_rows(
  config: Config, model: ModelConfig, where: Slice, names: Sequence[str]
) -> Iterator[dict[str, Any]]:
  """Compiles programs of the search for a host; adds up a chip's memory.

  Args:
    config: of the run.
    model: of the policy and the PPM.
    where: the slice.
    names: a part of `programs.SEARCH`; without any, no compiler is needed.

  Yields:
    A row for each program, then a row "search" for all together.
  """
  host = where.host
  if names:
    mesh = mesh_of(config.search_mesh, host, "search_mesh")
  else:
    mesh = meshes.abstract(config.search_mesh, host.chips)
  policy, ppm = programs.sizes_of(config, sharding.row_shards(mesh))
  shared = {
    "mesh": dict(mesh.shape),
    "rows": policy.rows,
    "few": policy.few,
    "steps": config.engine.inner_steps,
    "slots": policy.prefill_tokens,
    "paths": policy.prefill_paths,
    "width": policy.path_pages,
    "scored": ppm.path_pages,
    "pages": policy.shard_pages,
  }
  compiled: dict[str, Compiled] = {}
  for name in names:
    program = programs.search_program(name, model, config, mesh)
    compiled[name] = compiler.compile_program(program.lower())
    yield (
      shared
      | _row(name, host, compiled[name])
      | _work(name, model, config, mesh, host)
    )
  held = held_by(model, config, mesh, compiled)
  has = host.chip.usable_bytes
  row = shared | {"program": "search", "topology": host.name}
  row |= {"programs": len(compiled), "code_mib": _mib(held.code)}
  row |= {
    "cpu_seconds": significant(sum(e.cpu_seconds for e in compiled.values())),
    "held_gib": {
      name: _gib(getattr(held, name))
      for name in ("weights", "pages", "temporaries", "code")
    },
  }
  refused = max((each.refused for each in compiled.values()), default=0.0)
  row |= _fit(max(held.total, refused), has)
  if row["fits"]:
    # The largest `engine.pages` that fits.
    row["most_pages"] = _most_pages(held, config.engine.pages, has)
  else:
    row["knobs"] = search_knobs(held, compiled, config, policy, has)
  yield row


def held_by(
  model: ModelConfig,
  config: Config,
  mesh: Mesh | AbstractMesh,
  found: Mapping[str, Compiled],
) -> Held:
  """Adds up a chip's memory in a search: both models and their programs.

  Args:
    model: of the policy and the PPM.
    config: of the run.
    mesh: of the host's chips.
    found: the compiled programs.
  """
  policy, value = (
    bytes_of(
      programs.stacked_shapes(model, head, mesh, config.engine.weights)[1]
    )
    for head in ("lm", config.ppm_head)
  )
  return Held(
    policy=policy,
    value=value,
    pages=2 * bytes_of(programs.pages_shapes(model, config, mesh)),
    temporaries=max((each.own for each in found.values()), default=0.0),
    code=sum(each.code for each in found.values()),
  )


def search_knobs(
  held: Held,
  found: Mapping[str, Compiled],
  config: Config,
  sizes: Sizes,
  has: float,
) -> dict[str, int]:
  """Returns estimates of settings, each of which alone would fit.

  Args:
    held: the memory of a chip.
    found: the compiled programs; a refused one counts without temporaries.
    config: of the run.
    sizes: of the policy's programs.
    has: bytes of a chip's HBM.

  Returns:
    "pages", and "rows" or "prefill_tokens" where reducing a program's
    temporaries is enough; if nothing is, "tensor", the factor on the mesh's
    tensor axis.
  """
  over, result = held.total - has, {}
  pages = _most_pages(held, config.engine.pages, has)
  # A path and a step of each candidate must fit.
  if pages >= 2 * sizes.path_pages:
    result["pages"] = pages
  for name, each in found.items():
    rest = max((e.own for n, e in found.items() if n != name), default=0.0)
    if each.own > rest and each.own - rest >= over:
      knob = "rows" if name in ("decode", "few") else "prefill_tokens"
      now = config.engine.rows if knob == "rows" else sizes.prefill_tokens
      result[knob] = math.floor(now * (1 - over / each.own))
  if not result:
    result["tensor"] = math.ceil((held.total - held.pages) / has) + 1
  return result


def training_row(
  config: Config, model: ModelConfig, where: Slice, name: str
) -> dict[str, Any]:
  """Compiles the update of a training for a whole slice.

  Args:
    config: of the run.
    model: of the policy and the PPM.
    where: the slice.
    name: one of `programs.TRAINING`.
  """
  mesh = mesh_of(config.train_mesh, where, "train_mesh")
  training = programs.training_of(name, config, sharding.row_shards(mesh))
  program = programs.training_program(name, model, config, mesh)
  compiled = compiler.compile_program(program.lower(), training.accumulate)
  fields = "batch_size length accumulate remat".split()
  needs = compiled.refused or compiled.peak + compiled.code
  has = where.chip.usable_bytes
  result = (
    {"mesh": dict(mesh.shape)}
    | {key: getattr(training, key) for key in fields}
    | _row(name, where, compiled)
    | _fit(needs, has)
    | _work(name, model, config, mesh, where, compiled.moved)
  )
  if compiled.moved is not None:
    # The share of the peak if only the slowest resource took time.
    needed = cost.useful(
      model,
      rows=training.batch_size,
      length=training.length,
      head=name != "ppm",
    )
    seconds = needed / where.chips / where.chip.flops
    result["share_of_peak"] = significant(
      seconds / max(result["seconds"].values())
    )
  if not result["fits"]:
    begun = program.arguments[0]
    knobs = training_knobs(
      batch_size=training.batch_size,
      accumulate=training.accumulate,
      parts=sharding.row_shards(mesh),
      fixed=bytes_of((program.arguments, begun.params)),
      needs=needs,
      has=has,
    )
    if name == "reinforce" and "accumulate" in knobs:
      # Its `batch_size` is that of a micro-batch.
      knobs = {"batch_size": training.batch_size // knobs["accumulate"]}
    result["knobs"] = knobs
  return result


def training_knobs(
  *,
  batch_size: int,
  accumulate: int,
  parts: int,
  fixed: float,
  needs: float,
  has: float,
) -> dict[str, int]:
  """Returns an estimate of the setting that makes a training fit.

  Args:
    batch_size: rows of an update.
    accumulate: the config's number of micro-batches.
    parts: number of devices with different rows; each takes at least one row at
      a time.
    fixed: bytes per chip of the state, the batch and the summed gradients.
    needs: bytes per chip in all.
    has: bytes of a chip's HBM.

  Returns:
    "accumulate", if that can help; else "times_chips", the factor on the number
    of chips that share the state.
  """
  growing = (needs - fixed) * accumulate
  for count in finer(batch_size, accumulate, parts):
    if fixed + growing / count <= has:
      return {"accumulate": count}
  least = fixed + growing * parts / batch_size
  return {"times_chips": math.ceil(least / has)}


def finer(batch_size: int, accumulate: int, parts: int) -> list[int]:
  """Returns the larger numbers of micro-batches that a batch can be cut into.

  Args:
    batch_size: rows of an update.
    accumulate: the config's number of micro-batches.
    parts: data shards, which take equally many rows of each.
  """
  return [
    count
    for count in range(accumulate + 1, batch_size // parts + 1)
    if batch_size % (count * parts) == 0
  ]


def mesh_of(config: MeshConfig, where: Slice, name: str) -> Mesh:
  """Returns the mesh of a run on a slice.

  Args:
    config: `search_mesh`, for a host's chips, or `train_mesh`, for all.
    where: the slice, or its host.
    name: the config field, for error messages.

  Raises:
    ValueError: that many chips cannot form the mesh, or libtpu is not
      installed.
  """
  devices = compiler.devices(where)
  mesh = meshes.of_field(config, devices, f"config.{name}")
  # A run on one device has no mesh, but arrays here need a sharding.
  return mesh or meshes.make(MeshConfig(data=1), devices)


def _row(name: str, where: Slice, compiled: Compiled) -> dict[str, Any]:
  row = {"program": name, "topology": where.name}
  if compiled.refused:
    return row | {"refused_gib": _gib(compiled.refused)}
  return row | {
    "arguments_gib": _gib(compiled.arguments),
    "temporaries_gib": _gib(compiled.own),
    "code_mib": _mib(compiled.code),
    "compile_seconds": significant(compiled.seconds),
    "cpu_seconds": significant(compiled.cpu_seconds),
  }


def _work(
  name: str,
  model: ModelConfig,
  config: Config,
  mesh: Mesh,
  where: Slice,
  moved: Moved | None = None,
) -> dict[str, Any]:
  """Returns a step's cost on a chip, with the plan's lengths of paths.

  Bytes are those of `moved`, if given.
  """
  tokens, work = plan.step_of(
    name, model, config, dict(mesh.shape), plan.Assumptions()
  )
  if moved is not None:
    work = dataclasses.replace(
      work, bytes=moved.hbm, wire=moved.wire, between=moved.between
    )
  seconds = work.seconds(where)
  return {
    "tokens": tokens,
    **{key: significant(each) for key, each in vars(work).items()},
    "seconds": {
      key: significant(each) for key, each in work.parts(where).items()
    },
    "step_seconds": significant(seconds),
    "tokens_per_second_per_chip": significant(tokens / seconds / where.chips),
  }


def _fit(needs: float, has: float) -> dict[str, Any]:
  return {
    "hbm_needed_gib": _gib(needs),
    "hbm_chip_gib": _gib(has),
    "fits": needs <= has,
    "over_gib": _gib(max(needs - has, 0.0)),
  }


def _most_pages(held: Held, pages: int, has: float) -> int:
  """Returns the most pages that fit."""
  room = has - (held.total - held.pages)
  return max(0, math.floor(pages * room / held.pages))


def _gib(size: float) -> float:
  return significant(size / _GIB)


def _mib(size: float) -> float:
  return significant(size / _MIB)
