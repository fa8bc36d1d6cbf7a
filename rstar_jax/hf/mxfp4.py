"""Reads tensors in MXFP4, such as GPT-OSS's experts, as floats.

32 inputs of an output form a block: 16 bytes, each with two elements in e2m1,
the first in the low bits; and a scale in e8m0, the power of two 2^(byte - 127)
(OCP Microscaling Formats, version 1.0).
"""

import numpy as np

from rstar_jax.hf.tensors import PACKED, Index, Tensors

BLOCK = 32
_BLOCKS, _SCALES = PACKED
# Values of e2m1 by its bits: a sign, two of exponent and one of fraction.
_HALF = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
_VALUES = np.array([*_HALF, *(-each for each in _HALF)], np.float32)


class Dequantized:
  """`Tensors` that present each pair X_blocks, X_scales as a float tensor X.

  The blocks of X [E, I, O] are uint8 [E, O, I / 32, 16], and its scales
  [E, O, I / 32]. Other tensors are unchanged.
  """

  def __init__(self, tensors: Tensors):
    self._tensors = tensors
    names = tensors.names()
    self._packed = {
      name
      for name in (each.removesuffix(_BLOCKS) for each in names)
      if {name + _BLOCKS, name + _SCALES} <= set(names)
    }

  def names(self) -> list[str]:
    parts = {
      name + part for name in self._packed for part in (_BLOCKS, _SCALES)
    }
    return sorted({*self._tensors.names()} - parts | self._packed)

  def shape(self, name: str) -> tuple[int, ...]:
    if name not in self._packed:
      return self._tensors.shape(name)
    experts, outputs, blocks, _ = self._tensors.shape(name + _BLOCKS)
    return experts, blocks * BLOCK, outputs

  def read(self, name: str, index: Index) -> np.ndarray:
    """Returns a block of a tensor; float32 for a packed one.

    Raises:
      ValueError: a value is NaN.
    """
    if name not in self._packed:
      return self._tensors.read(name, index)
    shape = self.shape(name)
    experts, inputs, outputs = (
      slice(*part.indices(size)[:2])
      for part, size in zip(index, shape, strict=True)
    )
    first = inputs.start // BLOCK
    blocks = slice(first, -(-inputs.stop // BLOCK))
    packed = self._tensors.read(
      name + _BLOCKS, (experts, outputs, blocks, slice(None))
    )
    scales = self._tensors.read(name + _SCALES, (experts, outputs, blocks))
    values = np.stack([_VALUES[packed & 15], _VALUES[packed >> 4]], -1)
    values = values.reshape(*scales.shape, BLOCK)
    if np.any(scales == 255):
      raise ValueError(
        f"the tensor {name}{_SCALES} has a scale that is NaN: take another copy"
      )
    values *= np.exp2(scales - 127.0).astype(np.float32)[..., None]
    values = np.swapaxes(values.reshape(*scales.shape[:2], -1), 1, 2)
    skipped = first * BLOCK
    return values[:, inputs.start - skipped : inputs.stop - skipped]
