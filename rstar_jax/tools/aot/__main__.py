r"""Compiles a run's device programs for TPUs, without a TPU.

  pip install 'rstar_jax[aot]'
  python -m rstar_jax.tools.aot --config=configs/qwen2_5_math_7b.py \
    --topology=v5e:4x4

prints a line of JSON for each program: its memory on a chip and whether that
fits, what it computes, moves and sends, and how long that takes at the
published peaks. With --plan it needs no compiler, and prints one line that
prices the config's rounds at the paper's number of problems.
"""

import dataclasses
import json
import pathlib
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import jax
from absl import app, flags, logging

from rstar_jax.config import flag as config_flag
from rstar_jax.config.schema import Config
from rstar_jax.hf import model_config as hf_config
from rstar_jax.hf import published
from rstar_jax.models.config import ModelConfig
from rstar_jax.tools.aot import chips, plan, programs, report, shapes

_NAMES = (report.SIZES, *programs.NAMES)

_CONFIG = config_flag.define_config()
_TOPOLOGY = flags.DEFINE_list(
  "topology", ["v5e:4x4"], "Slices, such as v5e:4x4,v5p:2x2x4,v6e:4x4."
)
_PROGRAMS = flags.DEFINE_list(
  "programs",
  [*_NAMES],
  f"Which of {', '.join(_NAMES)}; the first adds up the search's memory and "
  "needs no compiler.",
)
_LAYERS = flags.DEFINE_list(
  "layers",
  [],
  "Two depths, such as 1,2: compile programs of so few layers, and extrapolate "
  "to the model's own. Empty: compile all layers, which takes long.",
)
_STAGES = flags.DEFINE_list(
  "stage",
  ["rollout", "evaluation"],
  f"The search's stages, of {', '.join(shapes.STAGES)}.",
)
_PATH = flags.DEFINE_integer(
  "path", None, "Tokens of a leaf's path; by default the longest of the run."
)
_PLAN = flags.DEFINE_bool(
  "plan",
  False,
  "Compile nothing: print the chip-hours of the rounds, by lower bounds.",
)


def model_config(path: str, dtype: str) -> ModelConfig:
  """Returns a model's sizes, from its config.json or its published name.

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
      f"are not in hf/published.py: known are {sorted(published.MODELS)}"
    )
  found = hf_config.from_fields(fields, path)
  return dataclasses.replace(found, dtype=dtype, param_dtype=dtype)


def rows(config: Config) -> Iterator[dict[str, Any]]:
  """Compiles what the flags ask for, and yields a row for each program."""
  layers = [int(each) for each in _LAYERS.value]
  model = model_config(config.policy.path, config.policy.dtype)
  for where in [chips.parse(each) for each in _TOPOLOGY.value]:
    for name, stage in _wanted():
      logging.info("%s of %s for %s", name, stage, where.name)
      try:
        if name == report.SIZES:
          row = report.sizes_row(config, model, where, stage)
        elif name in programs.TRAINING:
          row = report.training_row(config, model, where, name, layers)
        else:
          row = report.search_row(
            config, model, where, stage, name, _PATH.value, layers
          )
      except ValueError as error:
        raise ValueError(f"{where.name}: {error}") from error
      yield (
        {"model": config.policy.path, "slice": where.name}
        | row
        | {"extrapolated_from_layers": layers}
      )


def price(config: Config) -> dict[str, Any]:
  """Returns the plan of the config's rounds, on each topology of the flags."""
  model = model_config(config.policy.path, config.policy.dtype)
  rates = {}
  for where in [chips.parse(each) for each in _TOPOLOGY.value]:
    try:
      rates[where.name] = plan.rates(config, model, where, _PATH.value)
    except ValueError as error:
      raise ValueError(f"{where.name}: {error}") from error
  return plan.table(config.rounds, rates, plan.Assumptions())


def _wanted() -> list[tuple[str, str]]:
  """Returns (program, stage) of what the flags ask for."""
  named = _PROGRAMS.value
  found = [
    (name, stage)
    for stage in _STAGES.value
    for name in (report.SIZES, *programs.SEARCH)
    # The PPM scores a block step by step, with the programs of a search.
    if name in named and (stage, name) != ("blocks", "score")
  ]
  return found + [
    (name, "training") for name in programs.TRAINING if name in named
  ]


def main(argv: Sequence[str]) -> None:
  del argv
  for flag, known in ((_PROGRAMS, _NAMES), (_STAGES, shapes.STAGES)):
    unknown = sorted(set(flag.value) - set(known))
    if unknown:
      raise app.UsageError(f"--{flag.name}: {unknown} are none of {known}")
  layers = _LAYERS.value
  if layers and not (
    len(layers) == 2
    and all(each.isdecimal() for each in layers)
    and 0 < int(layers[0]) < int(layers[1])
  ):
    raise app.UsageError(f"--layers={','.join(layers)}: want two, such as 1,2")
  # No device is used; libtpu would look for one.
  jax.config.update("jax_platforms", "cpu")
  try:
    config = _CONFIG.value
    for row in [price(config)] if _PLAN.value else rows(config):
      print(json.dumps(row), flush=True)
  except ValueError as error:
    sys.exit(f"{error}")


if __name__ == "__main__":
  flags.mark_flags_as_required(["config"])
  sys.exit(app.run(main, flags_parser=config_flag.parse_flags))
