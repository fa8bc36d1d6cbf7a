"""Compiles programs for TPUs, without a TPU, and counts what came out."""

import dataclasses
import os
import pathlib
import re
import tempfile
import time
from collections.abc import Sequence
from typing import Any

import jax

from rstar_jax.tools.aot import cost, hlo
from rstar_jax.tools.aot.chips import Slice
from rstar_jax.tools.aot.cost import Cost
from rstar_jax.tools.aot.programs import DeviceProgram

# Without these libtpu asks for the machine that it is on, and refuses to be
# loaded by two processes.
_ENVIRONMENT = {"TPU_SKIP_MDS_QUERY": "1", "ALLOW_MULTIPLE_LIBTPU_LOAD": "1"}


@dataclasses.dataclass(frozen=True)
class Compiled:
  """A compiled program, on one chip.

  Attributes:
    arguments: bytes of the arrays that it is given.
    outputs: bytes of its results.
    aliased: bytes of results that are written into arguments.
    temporaries: bytes that it needs besides.
    cost: what one run does.
    seconds: compile time.
    refused: HBM bytes of a program that the compiler refused because the chip
      has fewer; all else is then 0.
  """

  arguments: float = 0.0
  outputs: float = 0.0
  aliased: float = 0.0
  temporaries: float = 0.0
  cost: Cost = dataclasses.field(default_factory=Cost)
  seconds: float = 0.0
  refused: float = 0.0

  @property
  def memory(self) -> float:
    """Bytes of HBM while it runs."""
    if self.refused:
      return self.refused
    return self.arguments + self.outputs - self.aliased + self.temporaries


def devices(where: Slice) -> Sequence[Any]:
  """Returns the devices of a slice that need not exist.

  Raises:
    ValueError: libtpu is not installed.
  """
  for name, value in _ENVIRONMENT.items():
    os.environ.setdefault(name, value)
  from jax.experimental import topologies

  # Without it, each TensorCore of a v4 or v5p is a device of its own.
  options = {"chip_config_name": "megacore"} if where.chip.cores == 2 else {}
  host = where.host.shape
  try:
    found = topologies.get_topology_desc(
      platform="tpu",
      topology_name=where.name,
      chips_per_host_bounds=[*host, *[1] * (3 - len(host))],
      **options,
    )
  except (RuntimeError, ImportError) as error:
    raise ValueError(
      f"there is no compiler: pip install 'rstar_jax[aot]' ({error})"
    ) from None
  return found.devices


def compile_program(program: DeviceProgram) -> Compiled:
  """Compiles a program whose arguments are on `devices`, and counts it.

  The compiler writes the text that is counted: what a newer libtpu makes of
  gathers on SparseCores (v5p, v6e), the XLA that jax was built with cannot
  read.
  """
  lowered, began = program.lower(), time.perf_counter()
  with tempfile.TemporaryDirectory() as folder:
    options = {"xla_dump_to": folder, "xla_dump_hlo_as_text": True}
    try:
      compiled = lowered.compile(compiler_options=options)
    except jax.errors.JaxRuntimeError as error:
      refused = needed_bytes(str(error))
      if refused is None:
        raise
      return Compiled(refused=refused, seconds=time.perf_counter() - began)
    seconds = time.perf_counter() - began
    texts = pathlib.Path(folder).glob("*after_optimizations.txt")
    # A program from JAX's persistent cache is not written.
    text = next((each.read_text() for each in texts), "")
  memory = compiled.memory_analysis()
  counted = cost.count(hlo.parse(text or compiled.as_text()), program.loop_runs)
  return Compiled(
    arguments=memory.argument_size_in_bytes,
    outputs=memory.output_size_in_bytes,
    aliased=memory.alias_size_in_bytes,
    temporaries=memory.temp_size_in_bytes,
    cost=counted,
    seconds=seconds,
  )


def needed_bytes(message: str) -> float | None:
  """Returns the HBM bytes that an error asks for, None for another error."""
  if "RESOURCE_EXHAUSTED" not in message or "HBM" not in message:
    return None
  unit = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
  for pattern in (
    r"Used ([\d.]+)([KMGT]) of [\d.]+[KMGT] hbm",
    r"total memory required.*?\(([\d.]+)([KMGT])\)",
  ):
    found = re.search(pattern, message, re.IGNORECASE | re.DOTALL)
    if found:
      return float(found.group(1)) * unit[found.group(2).upper()]
  return None


def extrapolate(
  low: Compiled, high: Compiled, layers: tuple[int, int, int], growing: bool
) -> Compiled:
  """Extrapolates on a straight line from two depths to a third.

  Args:
    low: the program with layers[0] layers.
    high: the program with layers[1] layers.
    layers: those two depths, and the wanted one.
    growing: whether its temporaries grow with the layers; else the larger of
      the two is taken.
  """
  share = (layers[2] - layers[0]) / (layers[1] - layers[0])
  sizes = {
    name: (1 - share) * getattr(low, name) + share * getattr(high, name)
    for name in ("arguments", "outputs", "aliased", "temporaries")
  }
  if not growing:
    sizes["temporaries"] = max(low.temporaries, high.temporaries)
  found = Cost()
  found.add(low.cost, 1 - share)
  found.add(high.cost, share)
  found.loops = high.cost.loops
  return Compiled(**sizes, cost=found, seconds=low.seconds + high.seconds)
