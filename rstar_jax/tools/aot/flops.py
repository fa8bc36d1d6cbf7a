"""FLOPs of the matrix products of a compiled program: two for each product."""

import math
import re
from collections.abc import Mapping

from rstar_jax.tools.aot.hlo import Instruction


def dot(one: Instruction, there: Mapping[str, Instruction]) -> float:
  """Counts the FLOPs of a dot."""
  left = there[one.operands[0]].buffers[0].dims
  axes = re.search(r"lhs_contracting_dims=\{([\d,]*)\}", one.attributes)
  summed = [int(axis) for axis in axes.group(1).split(",") if axis]
  return 2.0 * one.buffers[0].elements * math.prod(left[i] for i in summed)


def convolution(one: Instruction, there: Mapping[str, Instruction]) -> float:
  """Counts the FLOPs of a convolution, which is what a TPU makes of a dot.

  A batch axis of the dot is then a spatial one with dilation or padding, of
  whose positions only some meet: those are counted.
  """
  labels = re.search(r"dim_labels=(\w+)_(\w+)->(\w+)", one.attributes).groups()
  left = there[one.operands[0]].buffers[0].dims
  right = there[one.operands[1]].buffers[0].dims
  out = one.buffers[0].dims
  window = re.search(r"window=\{(.*?)\}", one.attributes)
  window = dict(
    part.split("=") for part in (window.group(1) if window else "").split()
  )
  spatial = [label for label in labels[1] if label.isdigit()]
  pairs = 1
  for label in spatial:
    axis = int(label)

    def field(name, default, axis=axis):
      return window[name].split("x")[axis] if name in window else default

    low, _, high = field("pad", "0_0").partition("_")
    pairs *= _meetings(
      size=left[labels[0].index(label)],
      kernel=right[labels[1].index(label)],
      out=out[labels[2].index(label)],
      low=int(low),
      stride=int(field("stride", "1")),
      left_dilation=int(field("lhs_dilate", "1")),
      right_dilation=int(field("rhs_dilate", "1")),
    )
  groups = re.search(r"batch_group_count=(\d+)", one.attributes)
  batch = left[labels[0].index("b")] // (int(groups.group(1)) if groups else 1)
  features = out[labels[2].index("f")]
  return 2.0 * batch * features * right[labels[1].index("i")] * pairs


def _meetings(
  *,
  size: int,
  kernel: int,
  out: int,
  low: int,
  stride: int,
  left_dilation: int,
  right_dilation: int,
) -> int:
  """Counts pairs of an output and a kernel position that meet an input."""
  total = 0
  for position in range(out):
    for at in range(kernel):
      place = position * stride + at * right_dilation - low
      if place % left_dilation == 0 and 0 <= place // left_dilation < size:
        total += 1
  return total
