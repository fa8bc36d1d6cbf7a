"""Tests of safetensors folders: shards, blocks, what is broken."""

import json
import pathlib
import tracemalloc

import ml_dtypes
import numpy as np
import safetensors.numpy
from absl.testing import absltest, parameterized

from rstar_jax.hf import tensors
from tests import full_disk

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


class TensorsTest(parameterized.TestCase):
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

  def test_a_full_disk_is_said_with_the_file(self):
    whole = "model.safetensors"
    with (
      self.assertRaisesRegex(OSError, f"{whole} cannot be written .File too"),
      full_disk.full(),
    ):
      self.write(10_000)
    self.assertFalse((self.folder / whole).exists())

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
    with self.assertRaisesRegex(
      FileNotFoundError, "json names model-00002.* not there: copy it to"
    ):
      tensors.SafetensorsFolder(self.folder)
    (self.folder / "model-00001-of-00003.safetensors").unlink()
    with self.assertRaisesRegex(FileNotFoundError, "00001.*, and 1 more: copy"):
      tensors.SafetensorsFolder(self.folder)
    self.write(110)
    safetensors.numpy.save_file(
      {"a": VALUES["a"]}, self.folder / "stray.safetensors"
    )
    (self.folder / tensors.INDEX).unlink()
    with self.assertRaisesRegex(ValueError, r"\['a'\] are in another file"):
      tensors.SafetensorsFolder(self.folder)

  @parameterized.parameters(
    (
      '{"weight_map": {\n"a": }',
      "is not JSON .Expecting value in line 2.: copy",
    ),
    ("[]", "holds no JSON object: copy it again"),
    ("{}", "has no weight_map of names of files: copy it again"),
    ('{"weight_map": {"a": 1}}', "has no weight_map"),
    ('{"weight_map": {"a": "../b.safetensors"}}', "has no weight_map"),
  )
  def test_a_broken_index_is_named(self, text, reason):
    self.write(110)
    file = self.folder / tensors.INDEX
    file.write_text(text)
    with self.assertRaisesRegex(ValueError, f"^{file} {reason}"):
      tensors.SafetensorsFolder(self.folder)

  @parameterized.parameters(
    ("int8", "I8"), ("uint8", "U8"), ("int32", "I32"), ("float8_e4m3fn", "F8_")
  )
  def test_weights_that_are_quantised_are_refused(self, dtype, kind):
    values = {"a": VALUES["a"].astype(dtype), "b": VALUES["b"]}
    file = self.folder / "model.safetensors"
    safetensors.numpy.save_file(values, file)
    opened = tensors.SafetensorsFolder(self.folder)
    self.assertEqual(opened.shape("b"), (5,))
    with self.assertRaisesRegex(
      ValueError, f"^{file}: the tensor a is of the type {kind}.*: the weights"
    ):
      opened.shape("a")

  @parameterized.product(
    dtype=["float16", "bfloat16", "float32", "float64"],
    value=[np.nan, -np.nan, np.inf, -np.inf],
  )
  def test_values_that_are_no_numbers_are_refused(self, dtype, value):
    values = np.zeros((700, 801), dtype)
    # The largest and the smallest that are numbers.
    info = ml_dtypes.finfo(dtype)
    values[0, :3] = info.max, info.min, info.smallest_subnormal
    file = pathlib.Path("f")
    tensors.check_finite(values, file, "a")
    tensors.check_finite(values[:, :0], file, "a")
    tensors.check_finite(values[0, 0], file, "a")
    for place in ((0, 0), (650, 800)):
      changed = values.copy()
      changed[place] = value
      for block in (changed, changed.T):
        with self.assertRaisesRegex(ValueError, "^f: the tensor a has values"):
          tensors.check_finite(block, file, "a")

  def test_a_read_looks_for_them(self):
    values = {"a": VALUES["a"].copy(), "b": VALUES["b"]}
    values["a"][5, 1] = np.nan
    file = self.folder / "model.safetensors"
    safetensors.numpy.save_file(values, file)
    opened = tensors.SafetensorsFolder(self.folder)
    opened.read("b", (slice(None),))
    opened.read("a", (slice(0, 5), slice(None)))
    with self.assertRaisesRegex(
      ValueError, f"^{file}: the tensor a has .*or an"
    ):
      opened.read("a", (slice(5, 7), slice(None)))

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
