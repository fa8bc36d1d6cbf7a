"""TPU chips and slices: published peaks, and what a topology's name means.

Peaks are those of https://cloud.google.com/tpu/docs, the pages "TPU v4", "TPU
v5e", "TPU v5p" and "TPU v6e".
"""

import dataclasses
import math

_GIB = 2**30


@dataclasses.dataclass(frozen=True)
class Chip:
  """One chip of a kind.

  Attributes:
    name: as topologies begin: "v5e".
    flops: bf16 FLOP/s.
    hbm_bytes: of HBM, as published.
    usable_bytes: of HBM that programs and their arrays can have, as the
      compiler (libtpu 0.0.52) says when a program needs more.
    hbm_rate: bytes/s to and from HBM.
    ici_rate: bytes/s that all links of a chip send together, one way.
    links: that a chip has: two for each axis of its torus.
    host: the shape of the chips of one host, as a topology.
    cores: TensorCores. Where they are two, one program runs on both.
  """

  name: str
  flops: float
  hbm_bytes: float
  usable_bytes: float
  hbm_rate: float
  ici_rate: float
  links: int
  host: str
  cores: int

  @property
  def link_rate(self) -> float:
    """Bytes/s that one link sends, one way."""
    return self.ici_rate / self.links


CHIPS = {
  name: Chip(name, flops, hbm * _GIB, usable * _GIB, *rest)
  for name, flops, hbm, usable, *rest in (
    ("v4", 275e12, 32, 30.75, 1200e9, 2400e9 / 8, 6, "2x2x1", 2),
    ("v5e", 197e12, 16, 15.75, 819e9, 1600e9 / 8, 4, "2x2", 1),
    ("v5p", 459e12, 95, 95.73, 2765e9, 4800e9 / 8, 6, "2x2x1", 2),
    # ICI is published for both ways together: 800 GB/s.
    ("v6e", 918e12, 32, 31.24, 1638e9, 400e9, 4, "2x2", 1),
  )
}


@dataclasses.dataclass(frozen=True)
class Slice:
  """Chips that one run has.

  Attributes:
    chip: their kind.
    shape: of the grid that they are.
  """

  chip: Chip
  shape: tuple[int, ...]

  @property
  def name(self) -> str:
    """The topology's name, as libtpu knows it: "v5e:4x4"."""
    return f"{self.chip.name}:{'x'.join(map(str, self.shape))}"

  @property
  def chips(self) -> int:
    return math.prod(self.shape)

  @property
  def hosts(self) -> int:
    return max(self.chips // self.host.chips, 1) if self.chips > 1 else 1

  @property
  def host(self) -> "Slice":
    """The chips of one host: of a smaller slice, all of them."""
    host = parse(f"{self.chip.name}:{self.chip.host}")
    return self if self.chips <= host.chips else host

  @property
  def ici_rate(self) -> float:
    """Bytes/s that a chip of the slice sends over the links that it has.

    An axis of two chips has one link between them, a longer one two to each
    chip (its ends are joined, or counted as if they were).
    """
    links = sum(min(size - 1, 2) for size in self.shape)
    return min(links, self.chip.links) * self.chip.link_rate


def parse(name: str) -> Slice:
  """Reads a topology's name.

  Args:
    name: "v5e:4x4", "v5p:2x2x4".

  Raises:
    ValueError: an unknown chip, or a grid that the chip does not make.
  """
  kind, _, grid = name.partition(":")
  if kind not in CHIPS:
    raise ValueError(
      f"topology {name!r}: want one of {', '.join(CHIPS)} before the colon"
    )
  chip = CHIPS[kind]
  try:
    shape = tuple(int(size) for size in grid.split("x"))
  except ValueError:
    shape = ()
  if len(shape) != chip.links // 2 or min(shape, default=0) < 1:
    raise ValueError(
      f"topology {name!r}: {kind} wants a grid of {chip.links // 2} sizes, "
      f"such as {kind}:{chip.host}"
    )
  return Slice(chip, shape)
