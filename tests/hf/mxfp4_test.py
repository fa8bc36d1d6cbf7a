"""Tests of MXFP4, against the format's numbers one by one."""

import itertools

import numpy as np
from absl.testing import absltest

from rstar_jax.hf import mxfp4


class Arrays:
  """`Tensors` in memory."""

  def __init__(self, **arrays):
    self.arrays = arrays

  def names(self):
    return sorted(self.arrays)

  def shape(self, name):
    return self.arrays[name].shape

  def read(self, name, index):
    return self.arrays[name][index]


def number(bits):
  """Returns an element by its bits: s eemm, where ee=0 is subnormal."""
  sign = -1.0 if bits & 8 else 1.0
  exponent, fraction = bits >> 1 & 3, bits & 1
  if exponent == 0:
    return sign * fraction / 2
  return sign * 2.0 ** (exponent - 1) * (1 + fraction / 2)


class Mxfp4Test(absltest.TestCase):
  def setUp(self):
    super().setUp()
    rng = np.random.default_rng(0)
    # 2 experts, 5 outputs, 96 inputs.
    self.blocks = rng.integers(0, 256, (2, 5, 3, 16), np.uint8)
    self.blocks[0, 0, 0] = np.arange(16) * 17
    self.scales = rng.integers(100, 150, (2, 5, 3), np.uint8)
    self.scales[1, 1] = 0, 252, 127
    self.scales[1, 2, 2] = 255
    self.bias = rng.normal(size=(2, 5))
    self.tensors = mxfp4.Dequantized(
      Arrays(up_blocks=self.blocks, up_scales=self.scales, up_bias=self.bias)
    )

  def test_as_the_format_says(self):
    self.assertEqual(self.tensors.names(), ["up", "up_bias"])
    self.assertEqual(self.tensors.shape("up"), (2, 96, 5))
    self.assertEqual(self.tensors.shape("up_bias"), (2, 5))
    found = self.tensors.read("up", (slice(None),) * 3)
    self.assertEqual((found.dtype, found.shape), ("float32", (2, 96, 5)))
    for expert, i, out in np.ndindex(found.shape):
      byte = int(self.blocks[expert, out, i // 32, i % 32 // 2])
      scale = int(self.scales[expert, out, i // 32])
      wanted = number(byte >> 4 if i % 2 else byte & 15) * 2.0 ** (scale - 127)
      if scale == 255:
        wanted = np.nan
      np.testing.assert_equal(found[expert, i, out], np.float32(wanted))

  def test_any_block_is_that_of_the_whole(self):
    whole = self.tensors.read("up", (slice(None),) * 3)
    parts = (
      (slice(1, 2), slice(None)),
      (slice(0, 32), slice(7, 64), slice(40, 41), slice(64, 96)),
      (slice(2, 4), slice(None)),
    )
    for index in itertools.product(*parts):
      np.testing.assert_array_equal(
        self.tensors.read("up", index), whole[index]
      )
    bias = (slice(0, 1), slice(2, 3))
    np.testing.assert_array_equal(
      self.tensors.read("up_bias", bias), self.bias[bias]
    )

  def test_blocks_without_scales_stay_blocks(self):
    tensors = mxfp4.Dequantized(Arrays(up_blocks=self.blocks))
    self.assertEqual(tensors.names(), ["up_blocks"])


if __name__ == "__main__":
  absltest.main()
