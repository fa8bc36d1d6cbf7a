"""Checks what fits on a run's chips, without TPU or compiler.

Meshes, memory, checkpoints and the price, by the arithmetic of `tools/aot/`.
"""

import dataclasses
import math

from jax.sharding import AbstractMesh

from rstar_jax import outside
from rstar_jax.config.schema import Config, TrainConfig
from rstar_jax.inference.paged_model import kernels_for
from rstar_jax.models import meshes, sharding
from rstar_jax.models.config import ModelConfig
from rstar_jax.pipeline import models
from rstar_jax.tools.aot import memory, plan, programs, report
from rstar_jax.tools.aot.chips import Slice
from rstar_jax.tools.preflight.findings import Finding, Findings

# Assumed bytes per second that a host writes to a bucket.
WRITE_RATE = 0.5e9
_GIB = 2**30


def of_chips(config: Config, where: Slice, grace: float) -> Findings:
  """Yields the findings that depend on the number and kind of chips."""
  yield Finding(
    "ok",
    "chips",
    f"{where.name}: {where.chips} chips of {where.chip.usable_bytes / _GIB:g} "
    f"GiB on {_hosts(where)}",
  )
  try:
    model = programs.model_config(str(models.base(config)), config.policy.dtype)
  except (OSError, ValueError) as error:
    yield Finding("warning", "model", outside.one_line(error))
    return
  made: dict[str, AbstractMesh] = {}
  for name, chip in (("search_mesh", where.host), ("train_mesh", where)):
    try:
      mesh = meshes.abstract(getattr(config, name), chip.chips, chip.slices)
    except ValueError as error:
      yield Finding("error", name, f"config.{name}: {error}")
      continue
    made[name] = mesh
    yield _divides(name, model, mesh)
  if mesh := made.get("search_mesh"):
    try:
      if any(programs.loaded(config)):
        kernels_for(config.engine, model, mesh, "tpu")
    except ValueError as error:
      yield Finding("error", "engine", outside.one_line(error))
    else:
      yield _search_memory(config, model, where, mesh)
      yield from _compared(config, model, where, mesh)
  if mesh := made.get("train_mesh"):
    for name in _trainings(config):
      yield from _training(config, model, where, mesh, name, grace)
    yield from _price(config, model, where)


def _divides(name: str, model: ModelConfig, mesh: AbstractMesh) -> Finding:
  """Reports the parts of a model that a mesh cannot shard."""
  shape, rules = dict(mesh.shape), sharding.RULES
  whole = [
    f"{word} ({size}) over {axis}={shape[axis]}"
    for word, size, axis in (
      ("heads", model.num_heads, rules.heads),
      ("key/value heads", model.num_kv_heads, rules.kv_heads),
      ("the MLP", model.mlp_dim, rules.mlp),
      ("the vocabulary", model.vocab_size, rules.vocab),
      ("the width", model.embed_dim, rules.embed),
    )
    if axis and size % shape[axis]
  ]
  mesh_text = " x ".join(f"{axis}={size}" for axis, size in shape.items())
  if whole:
    return Finding(
      "warning",
      name,
      f"{mesh_text} does not cut {', '.join(whole)}: each chip has all of it; "
      "choose a divisor",
    )
  return Finding("ok", name, mesh_text)


def _search_memory(
  config: Config, model: ModelConfig, where: Slice, mesh: AbstractMesh
) -> Finding:
  """Checks that weights, pages and programs of the models here fit."""
  about, has = "search memory", where.chip.usable_bytes
  here = sum(programs.loaded(config))
  if not here:
    return Finding("ok", about, "no engine is here: servers have the models")
  if not config.engine.pages:
    return Finding(
      "warning",
      about,
      "config.engine.pages=0 leaves their number to the engine, and it is not "
      "counted: give one for a TPU",
    )
  held = memory.search(model, config, mesh)
  parts = (
    f"{held.weights / _GIB:.1f} GiB of weights, {held.pages / _GIB:.1f} of "
    f"pages, {(held.temporaries + held.code) / _GIB:.1f} of programs on a chip"
  )
  # If they fit already, the advice is a number that surely does.
  limit = has if held.total > has else has / (1 + memory.MARGIN)
  room = limit - (held.total - held.pages)
  pages = math.floor(config.engine.pages * room / held.pages)
  advice = f"set config.engine.pages={max(pages, 0)}"
  sizes, _ = programs.sizes_of(config, sharding.row_shards(mesh))
  if pages < 2 * sizes.path_pages:
    whose = "two models leave" if here > 1 else "the model leaves"
    advice = f"{whose} no room for pages: raise config.search_mesh.tensor"
    if config.engine.weights == "float" and not model.experts():
      advice += ", or set config.engine.weights=int8"
  return _fit(about, held.total, has, parts, advice)


def _compared(
  config: Config, model: ModelConfig, where: Slice, mesh: AbstractMesh
) -> Findings:
  """Checks that a model to compare with its servers' fits, whole on a chip."""
  servers = config.servers
  if not (servers.compare and (servers.policy or servers.ppm)):
    return
  needs, has = memory.whole(model), where.chip.usable_bytes
  parts = "a model, whole, to compare with its servers'"
  # The PPM is loaded last.
  if servers.ppm and programs.loaded(config)[0] and config.engine.pages:
    needs += memory.search(model, config, mesh).total
    parts += ", beside the policy"
  advice = "set config.servers.compare=false, and no model is compared"
  yield _fit("compared model", needs, has, parts, advice)


def _trainings(config: Config) -> list[str]:
  """Returns the members of `programs.TRAINING` that the rounds run."""
  kinds = {each.algorithm for each in config.rounds}
  reinforces = ["reinforce"] * (kinds != {"sft"})
  return ["sft"] * ("sft" in kinds) + ["ppm"] + reinforces


def _training(
  config: Config,
  model: ModelConfig,
  where: Slice,
  mesh: AbstractMesh,
  name: str,
  grace: float,
) -> Findings:
  """Checks an update's rows and memory, and the time of its checkpoint."""
  field = f"config.{programs.field_of(name)}"
  train = programs.training_of(name, config, sharding.row_shards(mesh))
  try:
    sharding.check_rows(field, train.batch_size, train.accumulate, mesh)
  except ValueError as error:
    yield Finding("error", f"{name} rows", outside.one_line(error))
    return
  head = programs.head_of(name, config)
  needs = memory.training(head, model, train, mesh)
  has = where.chip.usable_bytes
  rows = train.batch_size // train.accumulate
  parts = f"{train.accumulate} micro-batches of {rows} rows"
  advice = (
    "share it by a larger config.train_mesh.fsdp or tensor, of more chips if "
    f"need be, or train less with {field}.lora_rank"
  )
  if smaller := _smaller(head, model, train, mesh, has):
    settings = []
    if smaller.remat != train.remat:
      settings.append(f"{field}.remat={smaller.remat}")
    if smaller.accumulate != train.accumulate:
      # The batch of reinforcement is that of a micro-batch.
      fewer = f"batch_size={smaller.batch_size // smaller.accumulate}"
      count = f"accumulate={smaller.accumulate}"
      settings.append(f"{field}.{fewer if name == 'reinforce' else count}")
    advice = f"set {' and '.join(settings)}"
  yield _fit(f"{name} memory", needs.chip, has, parts, advice)
  seconds = needs.state / (where.hosts * WRITE_RATE)
  about = f"{name} checkpoint"
  text = (
    f"{needs.state / 1e9:.3g} GB, which {_hosts(where)} can write in "
    f"{seconds:.3g} s at {WRITE_RATE / 1e9:g} GB/s each (assumed)"
  )
  if seconds < grace:
    yield Finding("ok", about, f"{text}, within the grace of {grace:g} s")
    return
  rate = _rates(config, model, where)
  lost = f"{train.checkpoint_every} updates"
  if rate:
    tokens = train.batch_size * train.length / (rate[name] * where.chips)
    lost += f" or {train.checkpoint_every * tokens / 60:.0f} minutes"
  yield Finding(
    "warning",
    about,
    f"{text}, more than the grace of {grace:g} s: what a preemption loses is "
    f"the updates since the last one, at most {lost}; a smaller "
    f"{field}.checkpoint_every loses less, and checkpoints are written while "
    "updates go on",
  )


def _smaller(
  head: str,
  model: ModelConfig,
  train: TrainConfig,
  mesh: AbstractMesh,
  has: float,
) -> TrainConfig | None:
  """Returns a training in smaller parts that surely fits, None without one."""
  shards = sharding.row_shards(mesh)
  more = report.finer(train.batch_size, train.accumulate, shards)
  for remat in dict.fromkeys((train.remat, "layer")):
    for count in (train.accumulate, *more):
      tried = dataclasses.replace(train, remat=remat, accumulate=count)
      needs = memory.training(head, model, tried, mesh).chip
      if needs * (1 + memory.MARGIN) <= has:
        return tried
  return None


def _hosts(where: Slice) -> str:
  return f"{where.hosts} hosts" if where.hosts > 1 else "1 host"


def _fit(
  about: str, needs: float, has: float, parts: str, advice: str
) -> Finding:
  text = f"{needs / _GIB:.1f} of {has / _GIB:.1f} GiB ({parts})"
  if needs > has:
    return Finding("error", about, f"{text}: {advice}")
  if needs * (1 + memory.MARGIN) > has:
    return Finding(
      "warning",
      about,
      f"{text}, as near as this estimate is: compile it with `python -m "
      f"rstar_jax.tools.aot`, or {advice}",
    )
  return Finding("ok", about, text)


def _rates(
  config: Config, model: ModelConfig, where: Slice
) -> dict[str, float] | None:
  """Returns tokens per second and chip; None where they are unknown."""
  try:
    return plan.rates(config, model, where, plan.Assumptions())
  except ValueError:
    return None


def _price(config: Config, model: ModelConfig, where: Slice) -> Findings:
  """Estimates the price of the rounds."""
  rates = _rates(config, model, where)
  if rates is None:
    yield Finding("warning", "price", "not counted, for want of the above")
    return
  known = config.train.count
  assumed = plan.Assumptions()
  if known:
    assumed = dataclasses.replace(assumed, problems=known)
  totals = dict.fromkeys(plan.STAGES, 0.0)
  for stage in plan.stages(config, assumed):
    totals[stage.stage] += plan.chip_hours(stage, rates)
  total = sum(totals.values())
  parts = ", ".join(
    f"{name} {hours:,.0f}" for name, hours in totals.items() if hours
  )
  others = ""
  if not all(programs.loaded(config)):
    others = ", without what servers or plugins compute"
  elif config.remote.url:
    others = ", without the servers of round 1"
  yield Finding(
    "ok",
    "price",
    f"about {total:,.0f} chip-hours, {total / where.chips:,.0f} hours of "
    f"{where.name}: {parts}; for {assumed.problems:,} problems"
    f"{'' if known else ', as the paper has (config.train.count is 0)'}"
    f"{others}, the paper's tests, half of the chips' peaks"
    f"{', as if slices were one' if where.slices > 1 else ''}: an estimate, in "
    "proportion to the problems (docs/results/aot.md)",
  )
