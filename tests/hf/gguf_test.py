"""Tests of GGUF files: every tensor in its place, or a reason why not."""

import itertools
import pathlib
import sys
from unittest import mock

import gguf
import numpy as np
from absl.testing import absltest, parameterized

from rstar_jax.hf.gguf import GgufFile
from tests import tiny_gguf

KINDS = ("F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q4_K", "Q6_K")
Q = "model.layers.1.self_attn.q_proj.weight"


def whole(file: GgufFile, name: str) -> np.ndarray:
  return file.read(name, (slice(None),) * len(file.shape(name)))


def rotate_halves(heads: np.ndarray, angles: np.ndarray) -> np.ndarray:
  """Rotates (N, H) as `transformers` does: i with i + H / 2."""
  a, b = np.split(heads, 2, axis=1)
  cos, sin = np.cos(angles), np.sin(angles)
  return np.concatenate([a * cos - b * sin, b * cos + a * sin], axis=1)


def rotate_pairs(heads: np.ndarray, angles: np.ndarray) -> np.ndarray:
  """Rotates (N, H) as llama.cpp does: 2i with 2i + 1."""
  a, b = heads[:, 0::2], heads[:, 1::2]
  cos, sin = np.cos(angles), np.sin(angles)
  return np.stack([a * cos - b * sin, b * cos + a * sin], 2).reshape(
    heads.shape
  )


class GgufTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.path = pathlib.Path(self.create_tempdir().full_path) / "tiny.gguf"

  def write(self, *args, **kwargs):
    return tiny_gguf.write(self.path, *args, **kwargs)

  @parameterized.product(architecture=tuple(tiny_gguf.HEAD_DIMS), kind=KINDS)
  def test_every_tensor(self, architecture, kind):
    expected = self.write(architecture, kind)
    file = GgufFile(self.path)
    self.assertEqual(file.names(), sorted(expected))
    for name, value in expected.items():
      read = whole(file, name)
      self.assertEqual(file.shape(name), value.shape)
      self.assertEqual(read.dtype, np.float32)
      # To the bit, but where two scales are multiplied in another order.
      np.testing.assert_allclose(read, value, rtol=1e-6, atol=1e-6)
      if not kind.endswith("_K"):
        np.testing.assert_array_equal(read, value)

  def test_heads_turn_as_in_llama_cpp(self):
    self.write("llama")
    file = GgufFile(self.path)
    rng = np.random.default_rng(1)
    angles = rng.normal(size=32)
    x = rng.normal(size=tiny_gguf.EMBED)
    for name, heads in (("q", tiny_gguf.HEADS), ("k", tiny_gguf.KV_HEADS)):
      ours = whole(file, f"model.layers.0.self_attn.{name}_proj.weight")
      theirs = tiny_gguf.interleave(ours, heads)
      self.assertFalse(np.array_equal(ours, theirs))
      ours = rotate_halves((ours @ x).reshape(heads, 64), angles)
      theirs = rotate_pairs((theirs @ x).reshape(heads, 64), angles)
      np.testing.assert_allclose(
        ours, np.concatenate([theirs[:, 0::2], theirs[:, 1::2]], 1), rtol=1e-9
      )

  def test_biases_of_q_and_k_turn_too(self):
    expected = self.write("llama", bias=True)
    file = GgufFile(self.path)
    self.assertTrue(file.fields["attention_bias"])
    name = "model.layers.0.self_attn.k_proj.bias"
    np.testing.assert_array_equal(whole(file, name), expected[name])
    part = (slice(3, 90),)
    np.testing.assert_array_equal(file.read(name, part), expected[name][part])

  @parameterized.parameters("F32", "Q4_1", "Q6_K")
  def test_a_part_is_the_whole_cut(self, kind):
    self.write("llama", kind)
    file = GgufFile(self.path)
    cuts = (slice(None), slice(5, 6), slice(3, 200), slice(64, None, 7))
    for name in (Q, "model.layers.0.mlp.down_proj.weight"):
      read = whole(file, name)
      for part in itertools.product(cuts, repeat=2):
        np.testing.assert_array_equal(file.read(name, part), read[part])
    norm = whole(file, "model.norm.weight")
    part = (slice(3, 200),)
    np.testing.assert_array_equal(
      file.read("model.norm.weight", part), norm[part]
    )

  def test_only_the_rows_asked_for_are_dequantised(self):
    self.write("llama", "Q8_0")
    file = GgufFile(self.path)
    with mock.patch.object(gguf, "dequantize", wraps=gguf.dequantize) as spy:
      file.read(Q, (slice(10, 13), slice(0, 8)))
    self.assertEqual(spy.call_args.args[0].shape, (3, 256 // 32 * 34))

  def test_tied_embeddings(self):
    self.write("qwen2", tied=True)
    file = GgufFile(self.path)
    self.assertTrue(file.fields["tie_word_embeddings"])
    self.assertNotIn("lm_head.weight", file.names())
    with self.assertRaisesRegex(KeyError, "no tensor lm_head.weight"):
      file.read("lm_head.weight", (slice(None), slice(None)))

  def test_rotary_tables_are_no_weights(self):
    table = np.ones(32, np.float32)
    expected = self.write("llama", extra={"rope_freqs.weight": table})
    file = GgufFile(self.path)
    self.assertEqual(file.names(), sorted(expected))
    self.assertEqual(file.fields["rope_parameters"]["rope_type"], "llama3")

  @parameterized.parameters(
    ({"split.count": 3}, "one of 3 parts"),
    ({"llama.expert_count": 8}, "mixture"),
    ({"llama.block_count": 1}, r"tensors that no llama .*blk\.1\.attn_k"),
    ({"llama.block_count": None}, "llama.block_count=None"),
    # A table of so many layers would fill the memory.
    ({"llama.block_count": 2**32 - 1}, "block_count=4294967295, .* 1 to 10000"),
    ({"llama.block_count": 0}, "block_count=0, which must be a whole number"),
    ({"llama.block_count": 2.0}, "block_count=2.0, which must be a whole"),
    ({"llama.block_count": "2"}, "block_count='2', which must be a whole"),
    ({"llama.attention.head_count": 0}, "head_count=0, which must be a whole"),
    ({"llama.attention.head_count": [4, 4]}, "head_count=.4, 4., which must"),
  )
  def test_models_that_do_not_load(self, metadata, message):
    self.write("llama", metadata=metadata)
    with self.assertRaisesRegex(ValueError, message):
      GgufFile(self.path)

  def test_unknown_tensor(self):
    ones = np.ones(64, np.float32)
    self.write("qwen2", extra={"blk.0.attn_q_norm.weight": ones})
    with self.assertRaisesRegex(ValueError, "blk.0.attn_q_norm.weight"):
      GgufFile(self.path)

  def test_types_that_hold_no_weights(self):
    numbers = np.zeros((24, 256), np.int32)
    self.write("llama", tied=True, extra={"output.weight": numbers})
    with self.assertRaisesRegex(
      ValueError, "lm_head.weight is of the type I32"
    ):
      whole(GgufFile(self.path), "lm_head.weight")

  def test_type_newer_than_the_library(self):
    self.write("llama")
    data = bytearray(self.path.read_bytes())
    name = b"output_norm.weight"
    # A tensor's name, its number of axes, its one size, its type.
    at = data.index(name) + len(name) + 4 + 8
    data[at : at + 4] = (99).to_bytes(4, "little")
    self.path.write_bytes(data)
    with self.assertRaisesRegex(ValueError, "tiny.gguf.*99. is not a valid"):
      GgufFile(self.path)

  def test_files_that_are_no_gguf(self):
    self.write("llama")
    data = self.path.read_bytes()
    package, other = ": the gguf package", " is neither a folder nor a GGUF"
    for bad, why in (
      (b"PK" + data[2:], other),
      (data[:1000], package),
      (data[:-40_000], package),
      (b"", other),
    ):
      self.path.write_bytes(bad)
      with self.assertRaisesRegex(ValueError, f"tiny.gguf{why}"):
        GgufFile(self.path)
    with self.assertRaises(FileNotFoundError):
      GgufFile(self.path.with_name("none.gguf"))

  def test_library_that_is_not_there(self):
    self.write("llama")
    with mock.patch.dict(sys.modules, {"gguf": None}):
      with self.assertRaisesRegex(ImportError, r"rstar_jax\[gguf\]"):
        GgufFile(self.path)


if __name__ == "__main__":
  absltest.main()
