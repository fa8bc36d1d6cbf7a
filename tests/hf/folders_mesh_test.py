"""Tests of models read onto a mesh of 8 fake devices, block by block."""

import pathlib
from unittest import mock

import jax
import numpy as np
from absl.testing import absltest, parameterized
from flax import nnx

from rstar_jax.config.schema import MeshConfig
from rstar_jax.hf import folders as hf
from rstar_jax.hf import tensors
from rstar_jax.models import sharding

jax.config.update("jax_num_cpu_devices", 8)

GOLDEN = pathlib.Path(__file__).parents[1] / "golden"
MESHES = ((1, 1, 8), (1, 8, 1), (2, 2, 2), (4, 1, 2))


def make_mesh(sizes):
  axes = dict(zip(("data", "fsdp", "tensor"), sizes, strict=True))
  return sharding.make_mesh(MeshConfig(**axes))


class HfMeshTest(parameterized.TestCase):
  @parameterized.parameters("qwen2", "phi3", "qwen3_bias_tied", "llama_bias")
  def test_any_sharding_gives_the_same_logits(self, name):
    ids = np.arange(1, 15, dtype=np.int32)[None].repeat(8, 0)
    want = hf.load_policy(GOLDEN / name)(ids)
    for sizes in MESHES:
      model = hf.load_policy(GOLDEN / name, mesh=make_mesh(sizes))
      graphdef, params = nnx.split(model)
      run = jax.jit(lambda p, g=graphdef: nnx.merge(g, p)(ids))
      np.testing.assert_allclose(run(params), want, atol=1e-4)

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
    hf.save_policy(model, folders[0])
    hf.save_policy(hf.load_policy(GOLDEN / "llama_bias"), folders[1])
    for name in ("model.safetensors", "config.json", "README.md"):
      self.assertEqual(*((folder / name).read_bytes() for folder in folders))


if __name__ == "__main__":
  absltest.main()
