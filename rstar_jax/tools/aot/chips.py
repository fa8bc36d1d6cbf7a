"""TPU chips and slices: published peaks, and what a topology's name means.

Peaks are those of https://cloud.google.com/tpu/docs, the pages "TPU v4", "TPU
v5e", "TPU v5p" and "TPU v6e". Where they give the network of a pod, a chip has
its share.
"""

import dataclasses
import math
import re

_GIB = 2**30


@dataclasses.dataclass(frozen=True)
class Chip:
  """One chip of a kind.

  Attributes:
    name: as topologies begin: "v5e".
    flops: bf16 FLOP/s.
    usable_bytes: of HBM that programs and their arrays can have, as the
      compiler (libtpu 0.0.52) says when a program needs more.
    hbm_rate: bytes/s to and from HBM.
    ici_rate: bytes/s that all links of a chip send together, one way.
    links: that a chip has: two for each axis of its torus.
    dcn_rate: bytes/s that it sends to other slices over the data centre's
      network; 0 where none is published.
    host: the shape of the chips of one host, as a topology.
    cores: TensorCores. Where they are two, one program runs on both, and names
      such as v5p-8 count them and not chips.
    most: chips of the largest slice.
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

  @property
  def link_rate(self) -> float:
    """Bytes/s that one link sends, one way."""
    return self.ici_rate / self.links


CHIPS = {
  name: Chip(name, flops, usable * _GIB, *rest)
  for name, flops, usable, *rest in (
    ("v4", 275e12, 30.75, 1200e9, 2400e9 / 8, 6, 0, "2x2x1", 2, 2048),
    ("v5e", 197e12, 15.75, 819e9, 1600e9 / 8, 4, 25e9 / 8, "2x2", 1, 256),
    ("v5p", 459e12, 95.73, 2765e9, 4800e9 / 8, 6, 50e9 / 8, "2x2x1", 2, 4096),
    # ICI is published for both ways together: 800 GB/s.
    ("v6e", 918e12, 31.24, 1638e9, 400e9, 4, 100e9 / 8, "2x2", 1, 256),
  )
}


# As Cloud calls a kind of chip in an accelerator's type.
_KINDS = {"v5litepod": "v5e"}


@dataclasses.dataclass(frozen=True)
class Slice:
  """Chips that one run has.

  Attributes:
    chip: their kind.
    shape: of the grid that they are.
    slices: grids of that shape. Those of several send to each other over the
      data centre's network.
  """

  chip: Chip
  shape: tuple[int, ...]
  slices: int = 1

  @property
  def topology(self) -> str:
    """The name of one of the slices, as libtpu knows it: "v5e:4x4"."""
    return f"{self.chip.name}:{'x'.join(map(str, self.shape))}"

  @property
  def name(self) -> str:
    """What `parse` reads: "v5e:4x4", or "2x v5e:4x4"."""
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
    """The chips of one host: of a smaller slice, all of them."""
    one = dataclasses.replace(self, slices=1)
    host = parse(f"{self.chip.name}:{self.chip.host}")
    return one if one.chips <= host.chips else host

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
    name: a grid as libtpu calls it, "v5e:4x4" or "v5p:2x2x4"; or a slice as
      Cloud calls it, "v5e-16", "v5litepod-16" or "v5p-32", which is 16 chips:
      names of v4 and v5p count cores. Several are "2x v5e-16".

  Raises:
    ValueError: an unknown chip, or a grid that the chip does not make.
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
  shape = (_grid if mark == ":" else _usual_grid)(size, chip)
  if shape is None:
    axes, largest = chip.links // 2, chip.most * chip.cores
    raise ValueError(
      f"topology {name!r}: {kind} wants a grid of {axes} sizes, such as "
      f"{kind}:{chip.host}, or a power of two from {kind}-{4 * chip.cores} to "
      f"{kind}-{largest}"
    )
  return Slice(chip, shape, int(slices or 1))


def _grid(size: str, chip: Chip) -> tuple[int, ...] | None:
  """Reads "4x4"; None if that is no grid of this chip."""
  sizes = size.split("x")
  if len(sizes) != chip.links // 2 or not all(map(str.isdecimal, sizes)):
    return None
  shape = tuple(map(int, sizes))
  return shape if 0 < math.prod(shape) <= chip.most else None


def _usual_grid(size: str, chip: Chip) -> tuple[int, ...] | None:
  """Returns the grid that Cloud makes of so many: as square as can be."""
  chips, rest = divmod(int(size) if size.isdecimal() else 0, chip.cores)
  bits = chips.bit_length() - 1
  if rest or chips < 1 or chips > chip.most or chips != 1 << bits:
    return None
  # One chip alone is a machine of v5e and v6e; none has two.
  if chips < 4 and (chips == 2 or chip.cores == 2):
    return None
  axes = chip.links // 2
  shape = [1 << (bits + axis) // axes for axis in range(axes)]
  # A host's four chips are 2x2x1.
  return tuple(sorted(shape, reverse=1 in shape))
