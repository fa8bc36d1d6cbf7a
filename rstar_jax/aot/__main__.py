r"""Compiles a run's device programs for TPUs that are not there.

  pip install 'rstar_jax[aot]'
  python -m rstar_jax.aot --config=configs/qwen2_5_math_7b.py \
    --topology=v5e:4x4

prints a line of JSON for each program: what it needs of a chip's memory, what
it computes, moves and sends, and how long that takes at the published peaks.
"""

import dataclasses
import json
import pathlib
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
from absl import app, flags, logging

from rstar_jax import config_flag
from rstar_jax.aot import (
  analytic,
  chips,
  compiled,
  knobs,
  plan,
  programs,
  report,
)
from rstar_jax.config import Config, MeshConfig
from rstar_jax.io import hf_config, published
from rstar_jax.models import sharding
from rstar_jax.models.config import ModelConfig

_CONFIG = config_flag.define_config()
_TOPOLOGY = flags.DEFINE_list(
  "topology", ["v5e:4x4"], "Slices, such as v5e:4x4,v5p:2x2x4,v6e:4x4."
)
_PROGRAMS = flags.DEFINE_list(
  "programs", list(programs.NAMES), f"Which of {', '.join(programs.NAMES)}."
)
_LAYERS = flags.DEFINE_list(
  "layers",
  [],
  "Two numbers: compile programs of so few layers, and extrapolate to the "
  "model's own. Empty: compile all layers, which takes long.",
)
_REPEATED = flags.DEFINE_bool(
  "repeated",
  False,
  "Also compile decoding with a path for each candidate, as without sharing.",
)
_CACHE = flags.DEFINE_string(
  "cache", None, "Folder of compiled programs, so that none is compiled twice."
)
_ROWS = flags.DEFINE_string(
  "rows", None, "File of lines that were printed before: compiles nothing."
)
_PLAN = flags.DEFINE_bool(
  "plan", False, "Last, a line that prices a reproduction of the paper."
)
_LEAVES = flags.DEFINE_integer("leaves", 16, "Leaves in a call, on one host.")
_CANDIDATES = flags.DEFINE_integer("candidates", 32, "Candidates of each leaf.")
_PATH = flags.DEFINE_integer("path", 1024, "Tokens of a leaf's path.")
_STEP = flags.DEFINE_integer("step", 256, "Tokens of a candidate.")


def model_config(path: str, dtype: str) -> ModelConfig:
  """Returns what a model is, by a folder's config.json or its published name.

  Args:
    path: `policy.path` of a config.
    dtype: of parameters and activations.

  Raises:
    ValueError: neither is known.
  """
  file = pathlib.Path(path) / "config.json"
  if file.is_file():
    fields = json.loads(file.read_text())
  elif path in published.MODELS:
    fields = published.MODELS[path]
  else:
    raise ValueError(
      f"policy.path={path!r} is no folder with a config.json, and its sizes "
      f"are not in io/published.py: known are {sorted(published.MODELS)}"
    )
  found = hf_config.from_fields(fields, path)
  return dataclasses.replace(found, dtype=dtype, param_dtype=dtype)


def tensor_parts(model: ModelConfig, chips_: int) -> int:
  """Returns into how many parts heads can be cut, at most `chips_`."""
  return next(
    parts for parts in range(chips_, 0, -1) if model.num_heads % parts == 0
  )


def rows(
  config: Config, model: ModelConfig, where: chips.Slice, name: str
) -> list[dict[str, Any]]:
  """Compiles one program, and its repeated form if that is asked for."""
  if name in programs.TRAINING:
    return [_training_row(config, model, where, name)]
  forms = [False, True] if name == "expand" and _REPEATED.value else [False]
  return [_search_row(model, config, where.host, name, f) for f in forms]


def search_shapes(config: Config, repeated: bool = False) -> programs.Shapes:
  """Returns the sizes of the search's programs, by the config and the flags."""
  engine = config.engine
  return programs.Shapes(
    leaves=_LEAVES.value,
    candidates=_CANDIDATES.value,
    path=_PATH.value,
    # As `generate/lanes.py` has it.
    room=engine.prefix_buckets[-1]
    + max(engine.tail_buckets[-1], engine.max_step_tokens),
    step=_STEP.value,
    tail=engine.tail_buckets[-1],
    lanes=config.search.groups,
    repeated=repeated,
    attention=engine.attention,
  )


def _search_row(
  model: ModelConfig,
  config: Config,
  where: chips.Slice,
  name: str,
  repeated: bool,
) -> dict[str, Any]:
  shapes = search_shapes(config, repeated)
  tensor = tensor_parts(model, where.chips)
  mesh = sharding.make_mesh(
    MeshConfig(data=-1, tensor=tensor), compiled.devices(where)
  )
  found, program = _compiled(
    model, lambda m: programs.search_program(name, m, shapes, mesh)
  )
  held = programs.beside(name, model, shapes, mesh)
  sizes = {"mesh": dict(mesh.shape), **dataclasses.asdict(shapes)}
  row = sizes | report.row(
    program=name,
    where=where,
    compiled=found,
    least=least(name, model, shapes, where.chips // tensor),
    tokens=program.tokens,
    beside=held,
  )
  if not row["fits"]:
    weights = sum(
      programs.bytes_of(programs.abstract(model, head, mesh)[1])
      for head in ("lm", "tanh")
    )
    pool = programs.pool_of(model, shapes.rows[0], shapes.room, mesh)
    row["knobs"] = knobs.search(
      leaves=shapes.leaves,
      room=shapes.room,
      weights=weights,
      pools=2 * shapes.lanes * programs.bytes_of(pool),
      needs=found.memory + held,
      has=where.chip.usable_bytes,
    )
  return row


def least(
  name: str, model: ModelConfig, shapes: programs.Shapes, replicas: int
) -> analytic.Least:
  """Returns the least that a program of the search does.

  Args:
    name: of `programs.SEARCH`.
    model: whose program it is.
    shapes: sizes.
    replicas: copies of the weights on the host.
  """
  paths, candidates = shapes.rows
  if name == "expand":
    return analytic.decode(
      model,
      leaves=shapes.leaves,
      candidates=shapes.candidates,
      path=shapes.path,
      step=shapes.step,
      repeated=shapes.repeated,
      replicas=replicas,
    )
  if name == "commit":
    moved = paths * (shapes.step - 1) * analytic.cache_bytes(model)
    return analytic.Least(0.0, 2 * moved)
  tails = name == "advance"
  return analytic.forward(
    model,
    rows=paths if tails else shapes.scored * shapes.candidates,
    length=shapes.tail if tails else shapes.step,
    before=shapes.path,
    shared=1 if tails else candidates,
    replicas=replicas,
  )


def _training_row(
  config: Config, model: ModelConfig, where: chips.Slice, name: str
) -> dict[str, Any]:
  training = getattr(config, name)
  mesh = sharding.make_mesh(
    MeshConfig(data=1, fsdp=-1, tensor=tensor_parts(model, 4)),
    compiled.devices(where),
  )
  model = dataclasses.replace(model, remat=True)
  found, program = _compiled(
    model, lambda m: programs.training_program(name, m, config, mesh)
  )
  needed = analytic.training(
    model, rows=training.batch_size, length=training.length, head=name == "sft"
  )
  shapes = {
    key: getattr(training, key)
    for key in ("batch_size", "length", "accumulate")
  }
  sizes = {"mesh": dict(mesh.shape), "remat": model.remat, **shapes}
  row = sizes | report.row(
    program=name,
    where=where,
    compiled=found,
    least=needed,
    tokens=program.tokens,
  )
  if not row["fits"]:
    begun, batch = program.arguments
    row["knobs"] = knobs.training(
      batch_size=training.batch_size,
      accumulate=training.accumulate,
      parts=sharding.row_shards(mesh),
      state=programs.bytes_of((begun, batch)),
      gradients=programs.bytes_of(begun.params),
      needs=found.memory,
      has=where.chip.usable_bytes,
    )
  return row


def _compiled(
  model: ModelConfig,
  build: Callable[[ModelConfig], programs.DeviceProgram],
) -> tuple[compiled.Compiled, programs.DeviceProgram]:
  """Compiles at full depth, or at two small ones to extrapolate from."""
  if not _LAYERS.value:
    program = build(model)
    return compiled.compile_program(program, _CACHE.value), program
  depths = [int(each) for each in _LAYERS.value]
  made = [build(dataclasses.replace(model, num_layers=n)) for n in depths]
  found = [compiled.compile_program(each, _CACHE.value) for each in made]
  full = (*depths, model.num_layers)
  return compiled.between(*found, full), build(model)


def rates(
  found: Sequence[dict[str, Any]], least_rates: dict[str, dict[str, float]]
) -> dict[str, dict[str, float]]:
  """Returns tokens per second and chip, by slice and program, for the plan.

  Args:
    found: rows as printed; those of the repeated form are left out.
    least_rates: by slice and program, for programs that were not compiled.
  """
  result = {name: dict(each) for name, each in least_rates.items()}
  for row in found:
    rate = row.get("tokens_per_second_per_chip")
    if rate and row["slice"] in result and not row.get("repeated"):
      result[row["slice"]][row["program"]] = rate
  return result


def least_rates(
  config: Config, model: ModelConfig, where: chips.Slice
) -> dict[str, float]:
  """Returns tokens per second and chip if programs did the least there is.

  Args:
    config: of the run.
    model: of the policy and the PPM.
    where: the slice.
  """
  shapes, host = search_shapes(config), where.host
  paths, candidates = shapes.rows
  replicas = host.chips // tensor_parts(model, host.chips)
  tokens = {
    "advance": paths * shapes.tail,
    "expand": paths * candidates * shapes.step,
    "score": shapes.scored * candidates * shapes.step,
  }
  result = {}
  for name, count in tokens.items():
    work = least(name, model, shapes, replicas)
    bound = report.roofline(
      host, work.flops / host.chips, work.bytes / host.chips
    )
    result[name] = count / bound.seconds / host.chips
  for name in programs.TRAINING:
    training = getattr(config, name)
    work = analytic.training(
      model,
      rows=training.batch_size,
      length=training.length,
      head=name == "sft",
    )
    bound = report.roofline(
      where, work.flops / where.chips, work.bytes / where.chips
    )
    count = training.batch_size * training.length
    result[name] = count / bound.seconds / where.chips
  return result


def compile_rows(config: Config) -> Iterator[dict[str, Any]]:
  """Compiles what the flags ask for, and yields a row for each program."""
  # No device is used; libtpu would look for one.
  jax.config.update("jax_platforms", "cpu")
  model = model_config(config.policy.path, config.policy.dtype)
  for topology in _TOPOLOGY.value:
    where = chips.parse(topology)
    for name in _PROGRAMS.value:
      logging.info("compiling %s for %s", name, where.name)
      for row in rows(config, model, where, name):
        named = {"model": config.policy.path, "slice": where.name}
        yield named | row | {"extrapolated_from_layers": _LAYERS.value}


def main(argv: Sequence[str]) -> None:
  del argv
  unknown = set(_PROGRAMS.value) - set(programs.NAMES)
  if unknown:
    raise app.UsageError(f"--programs: {unknown} are none of {programs.NAMES}")
  config = _CONFIG.value
  found = []
  if _ROWS.value:
    lines = pathlib.Path(_ROWS.value).read_text().splitlines()
    found = [json.loads(line) for line in lines]
  else:
    for row in compile_rows(config):
      print(json.dumps(row), flush=True)
      found.append(row)
  if _PLAN.value:
    model = model_config(config.policy.path, config.policy.dtype)
    slices = [chips.parse(each) for each in _TOPOLOGY.value]
    least_ = {each.name: least_rates(config, model, each) for each in slices}
    priced = plan.table(config.rounds, rates(found, least_), plan.Assumptions())
    print(json.dumps(priced), flush=True)


if __name__ == "__main__":
  flags.mark_flags_as_required(["config"])
  sys.exit(app.run(main, flags_parser=config_flag.parse_flags))
