r"""Compiles a run's device programs for TPUs, without a TPU.

  pip install 'rstar_jax[aot]'
  python -m rstar_jax.tools.aot --config=configs/qwen2_5_math_7b.py \
    --topology=v5e:4x4

prints a line of JSON for each program, with all its layers: its memory and code
on a chip, the time to compile it, and a step's cost by the model of `cost.py`;
and a line with the memory of a search, and whether it fits. With an empty
--programs it needs no compiler, and leaves out the compiler's figures. With
--plan it prints one line with the price of the config's rounds, at the paper's
number of problems.
"""

import json
from collections.abc import Iterator, Sequence
from typing import Any

import jax
from absl import app, flags, logging

from rstar_jax import outside
from rstar_jax.config import flag
from rstar_jax.config.schema import Config
from rstar_jax.pipeline import models
from rstar_jax.tools.aot import chips, plan, programs, report


def rows(
  config: Config, topologies: Sequence[str], named: Sequence[str]
) -> Iterator[dict[str, Any]]:
  """Compiles programs for each topology, and yields a row for each."""
  base = str(models.base(config))
  model = programs.model_config(base, config.policy.dtype)
  for where in [chips.parse(each) for each in topologies]:
    common = {"model": base, "slice": where.name}
    search = [each for each in programs.SEARCH if each in named]
    training = [each for each in programs.TRAINING if each in named]
    logging.info("%s for %s", ", ".join(named), where.name)
    try:
      # Programs of training alone give no figures of a search.
      if search or not training:
        for row in report.search_rows(config, model, where, search):
          yield common | row
      for name in training:
        yield common | report.training_row(config, model, where, name)
    except ValueError as error:
      raise ValueError(f"{where.name}: {error}") from error


def price(config: Config, topologies: Sequence[str]) -> dict[str, Any]:
  """Returns the plan of the config's rounds, on each topology."""
  base = str(models.base(config))
  model = programs.model_config(base, config.policy.dtype)
  assumed, rates = plan.Assumptions(), {}
  for where in [chips.parse(each) for each in topologies]:
    try:
      rates[where.name] = plan.rates(config, model, where, assumed)
    except ValueError as error:
      raise ValueError(f"{where.name}: {error}") from error
  return plan.table(config, rates, assumed)


def define_flags() -> None:
  """Defines the flags; not at import, since `main.py` has flags of its own."""
  flag.define_config()
  flags.DEFINE_list(
    "topology", ["v5e:4x4"], "TPU slices, such as v5e:4x4,v5p:2x2x4,v6e:4x4."
  )
  flags.DEFINE_list(
    "programs",
    [*programs.SEARCH],
    f"Programs to compile, of {', '.join(programs.NAMES)}. Those of training "
    "take minutes of a core each.",
  )
  flags.DEFINE_bool(
    "plan", False, "Only print the rounds' chip-hours; compile nothing."
  )
  flags.mark_flags_as_required(["config"])


def main(argv: list[str]) -> None:
  if len(argv) > 1:
    raise ValueError(f"{argv[1]!r} is no flag; the slice is --topology=v5e:4x4")
  given = flags.FLAGS
  unknown = sorted(set(given.programs) - set(programs.NAMES))
  if unknown:
    raise ValueError(f"--programs: {unknown} are none of {programs.NAMES}")
  # No device is used, and libtpu would look for one.
  jax.config.update("jax_platforms", "cpu")
  found = rows(given.config, given.topology, given.programs)
  if given.plan:
    found = [price(given.config, given.topology)]
  for row in found:
    outside.say(json.dumps(row))


if __name__ == "__main__":
  define_flags()
  with outside.program("rstar_jax.tools.aot"):
    app.run(main, flags_parser=flag.parse_flags)
