"""Compiles programs for TPUs, without a TPU, and counts their memory."""

import dataclasses
import os
import re
import time
from collections.abc import Sequence
from typing import Any

import jax

from rstar_jax.tools.aot.chips import Slice
from rstar_jax.tools.aot.traffic import Moved, moved

# Without these libtpu queries the machine's metadata, and refuses to be loaded
# by two processes.
_ENVIRONMENT = {"TPU_SKIP_MDS_QUERY": "1", "ALLOW_MULTIPLE_LIBTPU_LOAD": "1"}


@dataclasses.dataclass(frozen=True)
class Compiled:
  """The figures of a compiled program, per chip.

  Attributes:
    arguments: bytes of its arguments.
    outputs: bytes of its results, except those written into arguments.
    temporaries: bytes of further memory.
    peak: bytes of arguments, outputs and temporaries when most are allocated.
      (`temporaries` includes gaps between them.)
    code: bytes of its instructions.
    seconds: wall time of the compiler.
    cpu_seconds: CPU time of the compiler's threads.
    refused: HBM bytes that a program needs which the compiler refused, since
      the chip has fewer; all other fields are then 0.
    moved: bytes that a run moves; None if not counted.
  """

  arguments: float = 0.0
  outputs: float = 0.0
  temporaries: float = 0.0
  peak: float = 0.0
  code: float = 0.0
  seconds: float = 0.0
  cpu_seconds: float = 0.0
  refused: float = 0.0
  moved: Moved | None = None

  @property
  def own(self) -> float:
    """Bytes of HBM while it runs, without its arguments and code."""
    return self.outputs + self.temporaries


def devices(where: Slice) -> Sequence[Any]:
  """Returns the devices of a slice, which need not exist.

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
    topology = topologies.get_topology_desc(
      platform="tpu",
      topology_name=where.topology,
      num_slices=where.slices,
      chips_per_host_bounds=[*host, *[1] * (3 - len(host))],
      **options,
    )
  except (RuntimeError, ImportError) as error:
    raise ValueError(
      f"there is no compiler: pip install 'rstar_jax[aot]' ({error})"
    ) from None
  return topology.devices


def compile_program(
  lowered: jax.stages.Lowered, turns: int | None = None
) -> Compiled:
  """Compiles a program that was lowered for the devices of `devices`.

  Args:
    lowered: the program.
    turns: trip count of its loop with a computed count; None counts no bytes.

  Raises:
    ValueError: its kernels need more scalar memory than there is.
  """
  began, cpu = time.perf_counter(), time.process_time()
  try:
    compiled, refused = lowered.compile(), None
  except jax.errors.JaxRuntimeError as error:
    if "memory space smem" in str(error):
      raise ValueError(
        "the scalar memory does not hold what a call reads: lower "
        "config.engine.max_prefix_tokens in another --workdir"
      ) from error
    refused = needed_bytes(str(error))
    if refused is None:
      raise
  took = {
    "seconds": time.perf_counter() - began,
    "cpu_seconds": time.process_time() - cpu,
  }
  if refused is not None:
    return Compiled(refused=refused, **took)
  memory = compiled.memory_analysis()
  return Compiled(
    arguments=memory.argument_size_in_bytes,
    outputs=memory.output_size_in_bytes - memory.alias_size_in_bytes,
    temporaries=memory.temp_size_in_bytes,
    peak=memory.peak_memory_in_bytes,
    code=memory.generated_code_size_in_bytes,
    moved=None if turns is None else moved(compiled.as_text(), turns),
    **took,
  )


def needed_bytes(message: str) -> float | None:
  """Returns the HBM bytes that an error names, None for another error."""
  if "RESOURCE_EXHAUSTED" not in message or "HBM" not in message:
    return None
  unit = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
  for pattern in (
    r"Used ([\d.]+)([KMGT]) of [\d.]+[KMGT] hbm",
    r"total memory required.*?\(([\d.]+)([KMGT])\)",
  ):
    match = re.search(pattern, message, re.IGNORECASE | re.DOTALL)
    if match:
      return float(match.group(1)) * unit[match.group(2).upper()]
  return None
