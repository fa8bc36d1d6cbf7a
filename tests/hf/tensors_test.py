"""Tests of safetensors folders: shards, blocks, what is broken."""

import json
import pathlib
import tracemalloc

import ml_dtypes
import numpy as np
import safetensors.numpy
from absl.testing import absltest

from rstar_jax.hf import tensors

VALUES = {
  name: np.random.default_rng(i).normal(size=shape).astype(np.float32)
  for i, (name, shape) in enumerate(
    {"a": (7, 3), "b": (5,), "c": (11, 2), "d": (3, 3)}.items()
  )
}


def specs_of(values):
  return {
    name: tensors.Spec(value.dtype, value.shape)
    for name, value in values.items()
  }


class TensorsTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    self.folder = pathlib.Path(self.create_tempdir().full_path)

  def write(self, shard_bytes, values=VALUES):
    tensors.write(self.folder, specs_of(values), values.values(), shard_bytes)
    return sorted(file.name for file in self.folder.iterdir())

  def test_one_file(self):
    self.assertEqual(self.write(10_000), ["model.safetensors"])
    opened = tensors.SafetensorsFolder(self.folder)
    self.assertEqual(opened.names(), ["a", "b", "c", "d"])
    self.assertEqual(opened.shape("c"), (11, 2))
    for name, value in VALUES.items():
      block = (slice(1, 3), *(slice(0, n) for n in value.shape[1:]))
      np.testing.assert_array_equal(opened.read(name, block), value[block])

  def test_shards(self):
    # 84 + 20 bytes, 88 bytes, 36 bytes: the third does not fit beside c.
    names = self.write(110)
    self.assertEqual(
      names,
      [f"model-0000{i}-of-00003.safetensors" for i in (1, 2, 3)]
      + [tensors.INDEX],
    )
    index = json.loads((self.folder / tensors.INDEX).read_text())
    self.assertEqual(index["metadata"]["total_size"], 84 + 20 + 88 + 36)
    self.assertEqual(index["weight_map"]["b"], names[0])
    found = safetensors.numpy.load_file(self.folder / names[0])
    np.testing.assert_array_equal(found["b"], VALUES["b"])
    opened = tensors.SafetensorsFolder(self.folder)
    for name, value in VALUES.items():
      whole = tuple(slice(0, n) for n in value.shape)
      np.testing.assert_array_equal(opened.read(name, whole), value)

  def test_a_file_is_that_of_safetensors(self):
    library = self.folder / "library"
    for dtype in (np.float32, np.float16, ml_dtypes.bfloat16):
      values = {name: each.astype(dtype) for name, each in VALUES.items()}
      self.write(10_000, values)
      safetensors.numpy.save_file(values, library, metadata={"format": "pt"})
      self.assertEqual(
        (self.folder / "model.safetensors").read_bytes(), library.read_bytes()
      )

  def test_parts_of_a_tensor(self):
    rows = [row[None] for row in VALUES["c"]]
    parts = [VALUES["a"], VALUES["b"][:2], VALUES["b"][2:], *rows, VALUES["d"]]
    tensors.write(self.folder, specs_of(VALUES), parts, 10_000)
    found = safetensors.numpy.load_file(self.folder / "model.safetensors")
    for name, value in VALUES.items():
      np.testing.assert_array_equal(found[name], value)

  def test_parts_that_do_not_fit(self):
    specs = specs_of({"a": VALUES["a"]})
    for parts in (
      [],
      [VALUES["a"][:3]],
      [VALUES["a"][:3], VALUES["a"]],
      [VALUES["a"].astype(np.float16)],
    ):
      with self.assertRaisesRegex(ValueError, "parts of a do not make up"):
        tensors.write(self.folder, specs, parts, 100)
    # Nothing that a reader would take for a file is left.
    self.assertEmpty(list(self.folder.glob("*.safetensors")))

  def test_one_part_is_in_memory_at_a_time(self):
    size = 1_000_000
    specs = {
      f"t{i}": tensors.Spec(np.dtype(np.float32), (size,)) for i in range(8)
    }
    tracemalloc.start()
    parts = (np.full(size, i, np.float32) for i in range(8))
    tensors.write(self.folder, specs, parts, 10**9)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    self.assertLess(peak, 1.5 * 4 * size)

  def test_a_smaller_model_leaves_nothing_of_a_larger_one(self):
    self.write(40)
    self.assertEqual(self.write(10_000), ["model.safetensors"])
    self.assertLen(self.write(110), 4)

  def test_the_index_says_which_files_count(self):
    self.write(110)
    safetensors.numpy.save_file(
      {"a": VALUES["a"]}, self.folder / "stray.safetensors"
    )
    self.assertLen(tensors.SafetensorsFolder(self.folder).names(), 4)
    (self.folder / "model-00002-of-00003.safetensors").unlink()
    with self.assertRaisesRegex(FileNotFoundError, "names model-00002"):
      tensors.SafetensorsFolder(self.folder)
    (self.folder / tensors.INDEX).unlink()
    with self.assertRaisesRegex(ValueError, r"\['a'\] are in another file"):
      tensors.SafetensorsFolder(self.folder)

  def test_a_cut_file_is_named(self):
    self.write(10_000)
    file = self.folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-5])
    with self.assertRaisesRegex(ValueError, "model.safetensors cannot be read"):
      tensors.SafetensorsFolder(self.folder)

  def test_bfloat16(self):
    value = VALUES["a"].astype(ml_dtypes.bfloat16)
    self.write(100, {"a": value})
    block = tensors.SafetensorsFolder(self.folder).read(
      "a", (slice(2, 5), slice(1, 2))
    )
    self.assertEqual(block.dtype, ml_dtypes.bfloat16)
    np.testing.assert_array_equal(block, value[2:5, 1:2])


if __name__ == "__main__":
  absltest.main()
