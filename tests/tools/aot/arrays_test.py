"""Abstract arrays have the shardings of the engine and the trainers."""

import jax
from absl.testing import absltest

from rstar_jax.config.schema import MeshConfig
from rstar_jax.models import sharding
from rstar_jax.models.config import ModelConfig
from rstar_jax.tools.aot import arrays

jax.config.update("jax_num_cpu_devices", 8)

_MODEL = ModelConfig(
  vocab_size=106,
  num_layers=3,
  embed_dim=20,
  num_heads=4,
  num_kv_heads=2,
  head_dim=6,
  mlp_dim=34,
)


def _mesh(**sizes):
  return sharding.make_mesh(MeshConfig(**{"data": 1} | sizes))


class ArraysTest(absltest.TestCase):
  def test_a_pool_is_cut_by_slots_and_by_heads(self):
    pool = arrays.pool_of(_MODEL, 8, 11, _mesh(data=4, tensor=2))
    # Of 8 slots a quarter, of 2 heads one: 3 layers of keys and of values, and
    # the last hidden states, which are whole.
    self.assertEqual(
      arrays.bytes_of(pool), 4 * (2 * 3 * 2 * 1 * 11 * 6 + 2 * 20)
    )

  def test_heads_that_do_not_divide_are_whole(self):
    kept = arrays.candidates_of(_MODEL, (2, 5), 7, _mesh(fsdp=2, tensor=4))
    self.assertEqual(arrays.bytes_of(kept), 4 * 2 * 3 * 1 * 5 * 2 * 7 * 6)

  def test_parameters_are_cut_as_they_are_declared(self):
    mesh = _mesh(fsdp=4, tensor=2)
    _, params = arrays.abstract(_MODEL, "tanh", mesh)
    places = jax.tree.leaves(sharding.shardings(params, mesh))
    found = [each.sharding for each in jax.tree.leaves(params)]
    self.assertEqual(found, places)
    whole = arrays.abstract(_MODEL, "tanh", _mesh(data=8))[1]
    self.assertLess(arrays.bytes_of(params), 0.3 * arrays.bytes_of(whole))

  def test_an_array_without_axes_is_everywhere(self):
    one = arrays.array(_mesh(data=8), (3, 5), "float32")
    self.assertTrue(one.sharding.is_fully_replicated)
    self.assertEqual(arrays.bytes_of(one), 60)


if __name__ == "__main__":
  absltest.main()
