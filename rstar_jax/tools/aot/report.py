"""Sets what a program takes against what the chips have: one row a program."""

import dataclasses
from typing import Any

from rstar_jax.tools.aot.analytic import Least
from rstar_jax.tools.aot.chips import Slice
from rstar_jax.tools.aot.compiled import Compiled


@dataclasses.dataclass(frozen=True)
class Roofline:
  """Seconds that a run takes at the published peaks, were each all it did.

  Attributes:
    compute: of its matrix products.
    hbm: of its bytes to and from HBM.
    ici: of its bytes between chips.
  """

  compute: float
  hbm: float
  ici: float

  @property
  def seconds(self) -> float:
    """The bound: no run is quicker, where all three go on at once."""
    return max(self.compute, self.hbm, self.ici)

  @property
  def limit(self) -> str:
    """Which of the three is the bound."""
    return max(("compute", "hbm", "ici"), key=lambda name: getattr(self, name))


def roofline(
  where: Slice, flops: float, hbm: float, wire: float = 0.0
) -> Roofline:
  """Returns the bounds of one chip's FLOPs, HBM bytes and bytes sent."""
  return Roofline(
    compute=flops / where.chip.flops,
    hbm=hbm / where.chip.hbm_rate,
    ici=wire / where.ici_rate,
  )


def row(
  *,
  program: str,
  where: Slice,
  compiled: Compiled,
  least: Least,
  tokens: int,
  beside: float = 0.0,
) -> dict[str, Any]:
  """Makes the row of one program.

  Args:
    program: its name.
    where: the chips that run it.
    compiled: what the compiler made of it, for one chip.
    least: what it must do, all chips together.
    tokens: that one run generates, reads or trains on.
    beside: bytes of HBM on each chip that others hold while it runs.

  Returns:
    Numbers for one line of JSON; bytes and seconds, of one run on one chip.
  """
  needs, has = compiled.memory + beside, where.chip.usable_bytes
  result: dict[str, Any] = {
    "program": program,
    "topology": where.name,
    "chips": where.chips,
  } | memory(needs, beside, has)
  if compiled.refused:
    return result | {"limit": "memory", "compile_seconds": compiled.seconds}
  bound = roofline(where, compiled.flops, compiled.bytes, compiled.wire)
  ideal = roofline(where, least.flops / where.chips, least.bytes / where.chips)
  return result | {
    "flops": compiled.flops,
    "bytes": compiled.bytes,
    "wire_bytes": compiled.wire,
    "collectives": {
      kind: {"count": count, "bytes": size, "wire_bytes": sent}
      for kind, (count, size, sent) in compiled.collectives.items()
    },
    "loops": [list(loop) for loop in compiled.loops],
    "seconds": {
      "compute": _round(bound.compute),
      "hbm": _round(bound.hbm),
      "ici": _round(bound.ici),
    },
    "bound_seconds": _round(bound.seconds),
    "limit": bound.limit if needs <= has else "memory",
    "tokens": tokens,
    "tokens_per_second_per_chip": _round(tokens / bound.seconds / where.chips),
    "bytes_per_token": _round(compiled.bytes * where.chips / tokens),
    "least_flops_share": _round(
      least.flops / where.chips / compiled.flops if compiled.flops else 1.0
    ),
    "least_bytes_share": _round(least.bytes / where.chips / compiled.bytes),
    "roofline_share": _round(ideal.seconds / bound.seconds),
    "xla_flops": compiled.xla_flops,
    "xla_bytes": compiled.xla_bytes,
    "compile_seconds": _round(compiled.seconds),
  }


def memory(needs: float, beside: float, has: float) -> dict[str, Any]:
  """Sets bytes that are needed against those that there are.

  Args:
    needs: on a chip, in all.
    beside: those of them that others hold.
    has: of a chip.
  """
  return {
    "hbm_needed_gib": gib(needs),
    "hbm_beside_gib": gib(beside),
    "hbm_chip_gib": gib(has),
    "fits": needs <= has,
    "over_gib": gib(max(needs - has, 0.0)),
  }


def without_memory(row: dict[str, Any]) -> dict[str, Any]:
  """Returns a row of which it is not known what it needs."""
  unknown = {*memory(0, 0, 0), "held_gib", "knobs"}
  known = {name: value for name, value in row.items() if name not in unknown}
  return known | {"limit": max(row["seconds"], key=row["seconds"].get)}


def gib(size: float) -> float:
  """Returns bytes as GiB, fit to be read."""
  return _round(size / 2**30)


def _round(value: float) -> float:
  """Keeps four significant digits, so that a line can be read."""
  return float(f"{value:.4g}")
