"""Compiles programs for TPUs that are not there, and keeps what was counted."""

import dataclasses
import gzip
import hashlib
import importlib.metadata
import json
import os
import pathlib
import re
import tempfile
import time
from collections.abc import Sequence
from typing import Any

import jax
from absl import logging

from rstar_jax.tools.aot import cost, hlo
from rstar_jax.tools.aot.chips import Slice
from rstar_jax.tools.aot.programs import DeviceProgram

# Without these libtpu asks for the machine that it is on, and refuses to be
# loaded by two processes.
_ENVIRONMENT = {"TPU_SKIP_MDS_QUERY": "1", "ALLOW_MULTIPLE_LIBTPU_LOAD": "1"}


@dataclasses.dataclass(frozen=True)
class Compiled:
  """What the compiler made of a program, for one chip.

  Attributes:
    arguments: bytes of the arrays that it is given.
    outputs: bytes of its results.
    aliased: bytes of results that are written into arguments.
    temporaries: bytes that it needs besides.
    flops: of matrix products.
    bytes: to and from HBM.
    collectives: kind to (count, bytes, bytes sent).
    loops: (name, runs of the body, whether the compiler knows them).
    xla_flops: of XLA's own analysis, which counts a loop's body once.
    xla_bytes: likewise.
    seconds: that compiling took.
    refused: bytes that it would need, where it was refused for needing more
      HBM than the chip has; all else is then 0.
  """

  arguments: float = 0.0
  outputs: float = 0.0
  aliased: float = 0.0
  temporaries: float = 0.0
  flops: float = 0.0
  bytes: float = 0.0
  collectives: dict[str, tuple[float, float, float]] = dataclasses.field(
    default_factory=dict
  )
  loops: tuple[tuple[str, int, bool], ...] = ()
  xla_flops: float = 0.0
  xla_bytes: float = 0.0
  seconds: float = 0.0
  refused: float = 0.0

  @property
  def memory(self) -> float:
    """Bytes of HBM that must be there while it runs."""
    if self.refused:
      return self.refused
    return self.arguments + self.outputs - self.aliased + self.temporaries

  @property
  def wire(self) -> float:
    """Bytes that one chip sends to others."""
    return sum(sent for _, _, sent in self.collectives.values())


def devices(where: Slice) -> Sequence[Any]:
  """Returns devices of a slice, none of which needs to be there.

  Raises:
    RuntimeError: libtpu is not installed.
  """
  for name, value in _ENVIRONMENT.items():
    os.environ.setdefault(name, value)
  from jax.experimental import topologies

  # Without it, each TensorCore of a v4 or v5p is a device of its own.
  options = {"chip_config_name": "megacore"} if where.chip.cores == 2 else {}
  try:
    found = topologies.get_topology_desc(
      platform="tpu",
      topology_name=where.name,
      chips_per_host_bounds=_bounds(where.host),
      **options,
    )
  except (RuntimeError, ImportError) as error:
    raise RuntimeError(
      f"no compiler for {where.name}: pip install libtpu ({error})"
    ) from error
  return found.devices


def _bounds(host: Slice) -> list[int]:
  return [*host.shape, *[1] * (3 - len(host.shape))]


def compile_program(
  program: DeviceProgram, cache: str | pathlib.Path | None = None
) -> Compiled:
  """Compiles a program and counts it.

  Args:
    program: with arguments on devices of `devices`.
    cache: folder of results; None keeps none. A program is known again by its
      text, its devices and the versions of jax and libtpu.

  Returns:
    What the compiler says.
  """
  lowered = program.lower()
  if cache is None:
    return _read(program, *_compile(lowered))
  stem = pathlib.Path(cache) / f"{program.name}-{_key(lowered, program)}"
  said, text = stem.with_suffix(".json"), stem.with_suffix(".hlo.gz")
  if not said.exists():
    record, compiled = _compile(lowered)
    logging.info("%s: compiled in %.0f s", program.name, record["seconds"])
    stem.parent.mkdir(parents=True, exist_ok=True)
    text.write_bytes(gzip.compress(compiled.encode()))
    said.write_text(json.dumps(record))
  record = json.loads(said.read_text())
  return _read(program, record, gzip.decompress(text.read_bytes()).decode())


def needed_bytes(message: str) -> float | None:
  """Reads from an error how much HBM a program would need, None if not that."""
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


def between(
  low: Compiled,
  high: Compiled,
  layers: tuple[int, int, int],
  holds: bool = True,
) -> Compiled:
  """Extrapolates from two depths to a third, on a straight line.

  Args:
    low: of the program with layers[0] layers.
    high: of that with layers[1].
    layers: those two depths, and the one that is wanted.
    holds: whether its temporaries have something of every layer at once. Of a
      program that has not, they are the larger of the two.

  Returns:
    What a program of layers[2] layers would be; nothing in it is measured.
  """
  share = (layers[2] - layers[0]) / (layers[1] - layers[0])

  def line(a, b):
    return a + (b - a) * share

  kinds = sorted({*low.collectives, *high.collectives})
  none = (0.0, 0.0, 0.0)
  numbers = (
    "arguments outputs aliased temporaries flops bytes xla_flops xla_bytes"
  ).split()
  found = {
    name: line(getattr(low, name), getattr(high, name)) for name in numbers
  }
  if not holds:
    found["temporaries"] = max(low.temporaries, high.temporaries)
  return Compiled(
    **found,
    collectives={
      kind: tuple(
        line(a, b)
        for a, b in zip(
          low.collectives.get(kind, none),
          high.collectives.get(kind, none),
          strict=True,
        )
      )
      for kind in kinds
    },
    loops=high.loops,
    seconds=low.seconds + high.seconds,
  )


def _compile(lowered: jax.stages.Lowered) -> tuple[dict[str, float], str]:
  """Returns what the compiler says of a program, and the program's text.

  The compiler writes the text itself. jax reads programs with the XLA that it
  was built with, and what a newer libtpu makes of gathers that SparseCores do
  (v5p, v6e) that one cannot read.
  """
  began = time.perf_counter()
  with tempfile.TemporaryDirectory() as folder:
    options = {"xla_dump_to": folder, "xla_dump_hlo_as_text": True}
    try:
      compiled = lowered.compile(compiler_options=options)
    except jax.errors.JaxRuntimeError as error:
      refused = needed_bytes(str(error))
      if refused is None:
        raise
      return {"refused": refused, "seconds": time.perf_counter() - began}, ""
    seconds = time.perf_counter() - began
    texts = pathlib.Path(folder).glob("*after_optimizations.txt")
    written = [each.read_text() for each in texts]
  memory = compiled.memory_analysis()
  said = compiled.cost_analysis()
  return {
    "arguments": memory.argument_size_in_bytes,
    "outputs": memory.output_size_in_bytes,
    "aliased": memory.alias_size_in_bytes,
    "temporaries": memory.temp_size_in_bytes,
    "xla_flops": said.get("flops", 0.0),
    "xla_bytes": said.get("bytes accessed", 0.0),
    "seconds": seconds,
    # One that comes from JAX's persistent cache was not written.
  }, written[0] if written else compiled.as_text()


def _read(
  program: DeviceProgram, record: dict[str, float], text: str
) -> Compiled:
  if not text:
    return Compiled(**record)
  counted = cost.count(hlo.parse(text), program.loop_runs)
  return Compiled(
    **record,
    flops=counted.flops,
    bytes=counted.bytes,
    collectives={
      kind: (each.count, each.bytes, each.wire)
      for kind, each in sorted(counted.collectives.items())
    },
    loops=tuple(counted.loops),
  )


def _key(lowered: jax.stages.Lowered, program: DeviceProgram) -> str:
  """Names a program by its text, its chips and its compiler."""
  versions = [_version(name) for name in ("jax", "libtpu")]
  leaf = jax.tree.leaves(program.arguments)[0]
  kind = next(iter(leaf.sharding.device_set)).device_kind
  text = repr((versions, kind)) + lowered.as_text()
  return hashlib.sha256(text.encode()).hexdigest()[:20]


def _version(package: str) -> str:
  try:
    return importlib.metadata.version(package)
  except importlib.metadata.PackageNotFoundError:
    return ""
