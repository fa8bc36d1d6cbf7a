"""Tests of MXFP4, against the format's numbers one by one."""

import itertools
import json
import pathlib

import numpy as np
import safetensors.numpy
from absl.testing import absltest
from flax import nnx

from rstar_jax.hf import folders, mxfp4, saving
from rstar_jax.models.config import Mixture
from rstar_jax.models.transformer import Transformer
from rstar_jax.testing import tiny_model


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

  def test_a_scale_that_is_no_number(self):
    self.scales[1, 2, 2] = 255
    one = slice(0, 1)
    self.tensors.read("up", (slice(None), slice(None), one))
    with self.assertRaisesRegex(ValueError, "up_scales has a scale that is"):
      self.tensors.read("up", (slice(1, 2), slice(64, 96), slice(2, 3)))

  def test_a_folder(self):
    """GPT-OSS as it is published loads as the numbers that it stands for."""
    folder = pathlib.Path(self.create_tempdir().full_path)
    config = tiny_model(
      family="gpt_oss",
      embed_dim=32,
      mixture=Mixture(experts=2, chosen=1, dim=32, bias=True, limit=7.0),
      **dict(mlp_dim=32, num_layers=1, rope_theta=1e4, rms_eps=1e-5),
      **dict(o_bias=True, sinks=True, norm_form="wide"),
    )
    model = Transformer(config, rngs=nnx.Rngs(0))
    saving.save_policy(model, folder)
    file = folder / "model.safetensors"
    arrays = safetensors.numpy.load_file(file)
    for name, outputs in (("gate_up_proj", 64), ("down_proj", 32)):
      name = f"model.layers.0.mlp.experts.{name}"
      del arrays[name]
      arrays |= {
        f"{name}_blocks": np.repeat(self.blocks[:, :1, :1], outputs, 1),
        f"{name}_scales": np.repeat(self.scales[:, :1, :1], outputs, 1),
      }
      arrays[f"{name}_blocks"][:, 1::2] += 1
    safetensors.numpy.save_file(arrays, file)
    said = json.loads((folder / "config.json").read_text())
    said["quantization_config"] = {"quant_method": "mxfp4"}
    (folder / "config.json").write_text(json.dumps(said))
    loaded = folders.load_policy(folder).layers[0].experts
    read = self.tensors.read("up", (slice(None), slice(0, 32), slice(0, 1)))
    found = loaded.gate.get_value()
    np.testing.assert_array_equal(found, np.repeat(read, 32, 2))
    self.assertFalse(np.array_equal(found, loaded.up.get_value()))
    np.testing.assert_array_equal(
      loaded.down.get_value(),
      np.where(np.arange(32) % 2, loaded.up.get_value(), found),
    )
    said["quantization_config"] = {"quant_method": "gptq"}
    (folder / "config.json").write_text(json.dumps(said))
    with self.assertRaisesRegex(ValueError, "quantization_config"):
      folders.load_policy(folder)

  def test_blocks_without_scales_stay_blocks(self):
    tensors = mxfp4.Dequantized(Arrays(up_blocks=self.blocks))
    self.assertEqual(tensors.names(), ["up_blocks"])


if __name__ == "__main__":
  absltest.main()
