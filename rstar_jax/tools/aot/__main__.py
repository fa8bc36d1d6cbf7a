r"""Compiles a run's device programs for TPUs that are not there.

  pip install 'rstar_jax[aot]'
  python -m rstar_jax.tools.aot --config=configs/qwen2_5_math_7b.py \
    --topology=v5e:4x4

prints a line of JSON for each program: what it needs of a chip's memory, what
it computes, moves and sends, and how long that takes at the published peaks.
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
from rstar_jax.tools.aot import (
  chips,
  least,
  plan,
  programs,
  report,
  rows,
  shapes,
)

_NAMES = (rows.SIZES, *programs.NAMES)

_CONFIG = config_flag.define_config()
_TOPOLOGY = flags.DEFINE_list(
  "topology", ["v5e:4x4"], "Slices, such as v5e:4x4,v5p:2x2x4,v6e:4x4."
)
_PROGRAMS = flags.DEFINE_list(
  "programs",
  [*_NAMES],
  f"Which of {', '.join(_NAMES)}; the first compiles nothing and adds up what "
  "a search holds.",
)
_LAYERS = flags.DEFINE_list(
  "layers",
  [],
  "Two numbers: compile programs of so few layers, and extrapolate to the "
  "model's own; from 0 and 1, no memory is told. Empty: compile all layers, "
  "which takes long.",
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
_STAGES = flags.DEFINE_list(
  "stage",
  ["rollout", "evaluation"],
  f"Whose calls the search's programs are of: {', '.join(shapes.STAGES)}.",
)
_PATH = flags.DEFINE_integer(
  "path", None, "Tokens of a leaf's path; by default the longest of the run."
)


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
      f"are not in hf/published.py: known are {sorted(published.MODELS)}"
    )
  found = hf_config.from_fields(fields, path)
  return dataclasses.replace(found, dtype=dtype, param_dtype=dtype)


def rates(
  found: Sequence[dict[str, Any]], least_rates: dict[str, dict[str, float]]
) -> dict[str, dict[str, float]]:
  """Returns tokens per second and chip, by slice and program, for the plan.

  Args:
    found: rows as printed; those of evaluation and of the repeated form are
      left out.
    least_rates: by slice and program, for programs that were not compiled.
  """
  result = {name: dict(each) for name, each in least_rates.items()}
  for row in found:
    rate = row.get("tokens_per_second_per_chip")
    counts = row.get("stage") in ("rollout", "training")
    if rate and counts and row["slice"] in result and not row.get("repeated"):
      result[row["slice"]][row["program"]] = rate
  return result


def compile_rows(config: Config) -> Iterator[dict[str, Any]]:
  """Compiles what the flags ask for, and yields a row for each program."""
  # No device is used; libtpu would look for one.
  jax.config.update("jax_platforms", "cpu")
  model = model_config(config.policy.path, config.policy.dtype)
  options = rows.Options(
    layers=tuple(map(int, _LAYERS.value)),
    cache=_CACHE.value,
    path=_PATH.value,
  )
  named = {"model": config.policy.path}
  extrapolated = {"extrapolated_from_layers": list(options.layers)}
  for topology in _TOPOLOGY.value:
    where = chips.parse(topology)
    for name, stage, repeated in _wanted():
      logging.info("%s of %s for %s", name, stage, where.name)
      if name == rows.SIZES:
        row = rows.sizes_row(config, model, where, stage)
      elif name in programs.TRAINING:
        row = rows.training_row(config, model, where, name, options)
      else:
        each = dataclasses.replace(options, repeated=repeated)
        row = rows.search_row(config, model, where, stage, name, each)
      if 0 in options.layers and name != rows.SIZES:
        row = report.without_memory(row)
      yield named | {"slice": where.name} | row | extrapolated


def _wanted() -> list[tuple[str, str, bool]]:
  """Returns what the flags ask for: program, stage, and whether repeated."""
  found = [
    (name, stage, False)
    for stage in _STAGES.value
    for name in (rows.SIZES, *programs.SEARCH)
    # The PPM scores a block step by step, with the programs of a search.
    if name in _PROGRAMS.value and (stage, name) != ("blocks", "score")
  ]
  if _REPEATED.value:
    found += [
      (name, stage, True) for name, stage, _ in found if name == "expand"
    ]
  training = [name for name in programs.TRAINING if name in _PROGRAMS.value]
  return found + [(name, "training", False) for name in training]


def main(argv: Sequence[str]) -> None:
  del argv
  for flag, known in ((_PROGRAMS, _NAMES), (_STAGES, shapes.STAGES)):
    unknown = sorted(set(flag.value) - set(known))
    if unknown:
      raise app.UsageError(f"--{flag.name}: {unknown} are none of {known}")
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
    least_ = {
      each.name: least.rates(config, model, each, _PATH.value)
      for each in slices
    }
    priced = plan.table(config.rounds, rates(found, least_), plan.Assumptions())
    print(json.dumps(priced), flush=True)


if __name__ == "__main__":
  flags.mark_flags_as_required(["config"])
  sys.exit(app.run(main, flags_parser=config_flag.parse_flags))
