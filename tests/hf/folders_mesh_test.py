"""Tests of models read onto a mesh of 8 fake devices, block by block."""

import pathlib
from unittest import mock

import jax
import numpy as np
from absl.testing import absltest, parameterized

from rstar_jax.config.schema import MeshConfig
from rstar_jax.hf import folders as hf
from rstar_jax.hf import saving, tensors
from rstar_jax.models import meshes
from rstar_jax.models.transformer import arrays_of

jax.config.update("jax_num_cpu_devices", 8)

GOLDEN = pathlib.Path(__file__).parents[1] / "golden"
MESHES = ((1, 1, 8), (1, 8, 1), (2, 2, 2), (4, 1, 2))


def make_mesh(sizes):
  axes = dict(zip(("data", "fsdp", "tensor"), sizes, strict=True))
  return meshes.make(MeshConfig(**axes))


class HfMeshTest(parameterized.TestCase):
  @parameterized.parameters("qwen2", "phi3", "qwen3_bias_tied", "llama_bias")
  def test_any_sharding_gives_the_same_arrays(self, name):
    want = arrays_of(hf.load_policy(GOLDEN / name))
    for sizes in MESHES:
      found = arrays_of(hf.load_policy(GOLDEN / name, mesh=make_mesh(sizes)))
      self.assertEqual(found.keys(), want.keys())
      for path, each in found.items():
        np.testing.assert_array_equal(each, want[path])

  def test_each_device_has_its_block_and_no_more_is_read(self):
    read = {}
    original = tensors.SafetensorsFolder.read

    def reading(self, name, index):
      block = original(self, name, index)
      read[name] = read.get(name, 0) + block.size
      return block

    with mock.patch.object(tensors.SafetensorsFolder, "read", reading):
      model = hf.load_policy(GOLDEN / "phi3", mesh=make_mesh((2, 2, 2)))
    # [D, F] is cut in two on both axes; 37 does not divide, so D alone is.
    down = model.layers[0].mlp.down.get_value()
    self.assertEqual(
      {s.data.shape for s in down.addressable_shards}, {(12, 37)}
    )
    # [N, H, D]: both are.
    q = model.layers[1].attention.q.get_value()
    self.assertEqual({s.data.shape for s in q.addressable_shards}, {(3, 4, 12)})
    # Every number of the file is read once, though devices hold copies.
    folder = tensors.SafetensorsFolder(GOLDEN / "phi3")
    self.assertEqual(
      read, {n: int(np.prod(folder.shape(n))) for n in folder.names()}
    )

  def test_a_model_on_a_mesh_is_written_as_any_other(self):
    model = hf.load_policy(GOLDEN / "llama_bias", mesh=make_mesh((2, 2, 2)))
    folders = [pathlib.Path(self.create_tempdir().full_path) for _ in range(2)]
    saving.save_policy(model, folders[0])
    saving.save_policy(hf.load_policy(GOLDEN / "llama_bias"), folders[1])
    for name in ("model.safetensors", "config.json", "README.md"):
      self.assertEqual(*((folder / name).read_bytes() for folder in folders))


if __name__ == "__main__":
  absltest.main()
