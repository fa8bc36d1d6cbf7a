"""TPU chips and slices: published peaks, and names of topologies.

Peaks are those of https://cloud.google.com/tpu/docs, the pages "TPU v4", "TPU
v5e", "TPU v5p" and "TPU v6e". Where a page gives a pod's network bandwidth, a
chip gets its share.
"""

import dataclasses
import math
import re

_GIB = 2**30


@dataclasses.dataclass(frozen=True)
class Chip:
  """A kind of chip.

  Attributes:
    name: prefix of its topologies, e.g. "v5e".
    flops: bf16 FLOP/s.
    usable_bytes: bytes of HBM for programs and arrays, as the compiler (libtpu
      0.0.52) reports when a program needs more.
    hbm_rate: bytes/s to and from HBM.
    ici_rate: bytes/s that all links of a chip send together, one way.
    links: number of ICI links of a chip, two for each axis of its torus.
    dcn_rate: bytes/s to other slices over the data centre's network; 0 if none
      is published.
    host: the grid of one host's chips, e.g. "2x2", in slices of several hosts.
    cores: number of TensorCores. With two, one program runs on both, and names
      such as v5p-8 count cores instead of chips.
    most: number of chips of the largest slice.
    alone: most chips of a host that is a slice by itself.
  """

  name: str
  flops: float
  usable_bytes: float
  hbm_rate: float
  ici_rate: float
  links: int
  dcn_rate: float
  host: str
  cores: int
  most: int
  alone: int = 4

  @property
  def link_rate(self) -> float:
    """Bytes/s that one link sends, one way."""
    return self.ici_rate / self.links


CHIPS = {
  name: Chip(name, flops, usable * _GIB, *rest)
  for name, flops, usable, *rest in (
    ("v4", 275e12, 30.75, 1200e9, 2400e9 / 8, 6, 0, "2x2x1", 2, 2048),
    ("v5e", 197e12, 15.75, 819e9, 1600e9 / 8, 4, 25e9 / 8, "2x2", 1, 256, 8),
    ("v5p", 459e12, 95.73, 2765e9, 4800e9 / 8, 6, 50e9 / 8, "2x2x1", 2, 6144),
    # ICI is published for both directions together: 800 GB/s.
    ("v6e", 918e12, 31.24, 1638e9, 400e9, 4, 100e9 / 8, "2x2", 1, 256, 8),
  )
}


# Chips of a cube of 4x4x4, of which large slices of v4 and v5p are made.
_CUBE = 64
# Cloud's names of chips in accelerator types.
_KINDS = {"v5litepod": "v5e"}


@dataclasses.dataclass(frozen=True)
class Slice:
  """The chips of a run.

  Attributes:
    chip: kind of the chips.
    shape: grid of one slice.
    slices: number of such slices, which communicate over the data centre's
      network.
  """

  chip: Chip
  shape: tuple[int, ...]
  slices: int = 1

  @property
  def topology(self) -> str:
    """The name of one of the slices for libtpu, e.g. "v5e:4x4"."""
    return f"{self.chip.name}:{'x'.join(map(str, self.shape))}"

  @property
  def name(self) -> str:
    """The name that `parse` reads: "v5e:4x4", or "2x v5e:4x4"."""
    times = f"{self.slices}x " if self.slices > 1 else ""
    return times + self.topology

  @property
  def chips(self) -> int:
    return math.prod(self.shape) * self.slices

  @property
  def hosts(self) -> int:
    return self.chips // self.host.chips

  @property
  def host(self) -> "Slice":
    """The chips of one host, which may be all of a slice."""
    one = dataclasses.replace(self, slices=1)
    if one.chips <= self.chip.alone:
      return one
    return parse(f"{self.chip.name}:{self.chip.host}")

  @property
  def ici_rate(self) -> float:
    """Bytes/s that a chip of the slice sends over its links.

    On an axis of two chips each has one link, on a longer axis two (its ends
    are joined, or counted as if they were).
    """
    links = sum(min(size - 1, 2) for size in self.shape)
    return min(links, self.chip.links) * self.chip.link_rate


def parse(name: str) -> Slice:
  """Reads a topology's name.

  Args:
    name: libtpu's name of a grid, "v5e:4x4" or "v5p:2x2x4"; or Cloud's name of
      a slice, "v5e-16", "v5litepod-16" or "v5p-32", which has 16 chips: names
      of v4 and v5p count cores. Several slices are "2x v5e-16".

  Raises:
    ValueError: the chip is unknown, or has no such grid.
  """
  slices, one = re.fullmatch(r"(?:(\d+) ?x ?)?(.*)", name).groups()
  kind, mark, size = re.fullmatch(r"([^:-]*)([:-]?)(.*)", one).groups()
  kind = _KINDS.get(kind, kind)
  if kind not in CHIPS or not mark:
    raise ValueError(
      f"topology {name!r}: want one of {', '.join(CHIPS)}, and a size: v5e-16, "
      "or v5e:4x4; 2x v5e-16 are two slices"
    )
  if slices is not None and int(slices) < 1:
    raise ValueError(f"topology {name!r}: want at least one slice")
  chip = CHIPS[kind]
  shape = (_grid if mark == ":" else _grid_of)(size, chip)
  if shape is None:
    axes, largest = chip.links // 2, chip.most * chip.cores
    more = f" or a multiple of {_CUBE * chip.cores}" if axes == 3 else ""
    raise ValueError(
      f"topology {name!r}: {kind} wants one of Cloud's grids of {axes} sizes, "
      f"such as {kind}:{chip.host}, or a power of two{more} from "
      f"{kind}-{4 * chip.cores} to {kind}-{largest}"
    )
  return Slice(chip, shape, int(slices or 1))


def _grid(size: str, chip: Chip) -> tuple[int, ...] | None:
  """Parses a grid such as "4x4"; None if this chip has no such grid."""
  sizes = size.split("x")
  if len(sizes) != chip.links // 2 or not all(map(str.isdecimal, sizes)):
    return None
  shape = tuple(map(int, sizes))
  chips = math.prod(shape)
  # Of cubes of 4x4x4 any cuboid can be made, its shortest side first.
  cubes = len(shape) == 3 and not any(each % 4 for each in shape)
  if cubes and 0 < chips <= chip.most and shape == tuple(sorted(shape)):
    return shape
  return shape if shape == _usual_grid(chips, chip) else None


def _grid_of(size: str, chip: Chip) -> tuple[int, ...] | None:
  """Returns the grid of a number of chips, or of cores; None without one."""
  chips, rest = divmod(int(size) if size.isdecimal() else 0, chip.cores)
  return None if rest else _usual_grid(chips, chip)


def _usual_grid(chips: int, chip: Chip) -> tuple[int, ...] | None:
  """Returns Cloud's grid of that many chips: as square as possible."""
  bits = chips.bit_length() - 1
  if not 1 <= chips <= chip.most:
    return None
  if chip.links == 6 and chips % _CUBE == 0:
    return _cuboid(chips // _CUBE)
  if chips != 1 << bits:
    return None
  # Only v5e and v6e have machines of one chip; none has two.
  if chips < 4 and (chips == 2 or chip.cores == 2):
    return None
  axes = chip.links // 2
  shape = [1 << (bits + axis) // axes for axis in range(axes)]
  # A host's four chips are 2x2x1.
  return tuple(sorted(shape, reverse=1 in shape))


def _cuboid(cubes: int) -> tuple[int, ...]:
  """Returns the grid of 4x4x4 cubes with the shortest sides."""
  grids = [
    (one, other, cubes // (one * other))
    for one in range(1, cubes + 1)
    for other in range(1, cubes + 1)
    if cubes % (one * other) == 0
  ]
  return tuple(4 * side for side in sorted(min(grids, key=sum)))
