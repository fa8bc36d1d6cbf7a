"""Tests of shardings, on 8 fake devices."""

import tracemalloc

import jax
import numpy as np
from absl.testing import absltest, parameterized
from flax import nnx

from rstar_jax.config.schema import MeshConfig
from rstar_jax.models import meshes, sharding
from rstar_jax.models.transformer import Transformer
from rstar_jax.testing import tiny_model
from tests.models import jitted

jax.config.update("jax_num_cpu_devices", 8)


def build(head="lm"):
  config = tiny_model(
    num_layers=1,
    num_heads=8,
    mlp_dim=40,
    vocab_size=268,
    tied_embeddings=False,
  )
  return Transformer(config, head=head, rngs=nnx.Rngs(7))


class ShardingTest(parameterized.TestCase):
  @parameterized.parameters(
    dict(data=8, fsdp=1, tensor=1),
    dict(data=-1, fsdp=2, tensor=2),
    # 2 kv heads do not divide by 4 and stay whole.
    dict(data=1, fsdp=2, tensor=4),
  )
  def test_forward_equals_one_device(self, **sizes):
    mesh = meshes.make(MeshConfig(**sizes))
    ids = np.random.default_rng(0).integers(2, 260, (8, 11), np.int32)
    expected = jitted.call(build(), ids)
    graphdef, params = nnx.split(build())
    params = placed = sharding.place(params, mesh)
    batch = sharding.to_global({"ids": ids}, mesh)["ids"]
    out = jax.jit(lambda p, x: nnx.merge(graphdef, p)(x))(params, batch)
    np.testing.assert_allclose(sharding.to_host(out), expected, atol=1e-5)
    up = placed["layers"][0]["mlp"]["up"].get_value()
    shape = up.addressable_shards[0].data.shape
    self.assertEqual(
      shape, (40 // mesh.shape["tensor"], 24 // mesh.shape["fsdp"])
    )
    key = placed["layers"][0]["attention"]["k"].get_value()
    held = 2 if mesh.shape["tensor"] == 4 else 2 // mesh.shape["tensor"]
    self.assertEqual(key.addressable_shards[0].data.shape[0], held)

  @parameterized.product(
    source=(None, (2, 2, 2)),
    target=(None, (4, 1, 2)),
    dtype=("float32", "bfloat16"),
  )
  def test_a_copy_on_another_mesh(self, source, target, dtype):
    def mesh(sizes):
      names = dict(zip(meshes.AXES, sizes, strict=True))
      return meshes.make(MeshConfig(**names))

    source, target = (sizes and mesh(sizes) for sizes in (source, target))
    params = nnx.split(build())[1]
    expected = jax.tree.map(lambda x: np.asarray(x.astype(dtype)), params)
    if source:
      params = sharding.place(params, source)
    copies = sharding.copied(params, target, dtype)
    # What a training donates is no part of it.
    jax.tree.map(lambda x: x.delete(), params)
    wanted = jax.tree.map(jax.numpy.asarray, expected)
    if target:
      wanted = sharding.place(wanted, target)
    for found, each in zip(
      jax.tree.leaves(copies), jax.tree.leaves(wanted), strict=True
    ):
      np.testing.assert_array_equal(sharding.to_host(found), each)
      self.assertEqual(found.dtype, each.dtype)
      self.assertEqual(found.sharding, each.sharding)

  def test_the_host_keeps_no_copy(self):
    mesh = meshes.make(MeshConfig(data=2, fsdp=2, tensor=2))
    value = np.random.default_rng(0).normal(size=(1024, 256)).astype(np.float32)
    for spec in (("fsdp", "tensor"), (None, "tensor"), ()):
      place = jax.NamedSharding(mesh, jax.P(*spec))
      array = jax.device_put(value, place)
      tracemalloc.start()
      np.testing.assert_array_equal(sharding.to_host(array), value)
      kept = tracemalloc.get_traced_memory()[0]
      tracemalloc.stop()
      self.assertLess(kept, value.nbytes / 2)

  def test_every_parameter_has_axes(self):
    for head in ("lm", "tanh"):
      model = nnx.eval_shape(lambda head=head: build(head))
      mesh = meshes.make(MeshConfig())
      params = nnx.split(model)[1]
      derived = sharding.shardings(params, mesh)
      self.assertEqual(jax.tree.structure(derived), jax.tree.structure(params))

  def test_rows_are_put_where_they_are_worked_on(self):
    mesh = meshes.make(MeshConfig(data=2, fsdp=2, tensor=2))
    self.assertEqual(sharding.row_shards(mesh), 4)
    self.assertEqual(sharding.row_shards(None), 1)
    rows = np.arange(24.0).reshape(8, 3)
    array = sharding.to_global({"rows": rows}, mesh)["rows"]
    np.testing.assert_array_equal(array, rows)
    held = {}
    for shard in array.addressable_shards:
      held.setdefault(shard.index[0].start or 0, []).append(shard.data)
    # Pairs of devices share rows: those of one tensor group.
    self.assertEqual(
      {k: len(v) for k, v in held.items()}, dict.fromkeys((0, 2, 4, 6), 2)
    )
    for start, parts in held.items():
      for part in parts:
        np.testing.assert_array_equal(part, rows[start : start + 2])

  def test_what_is_on_one_device_goes_to_all(self):
    mesh = meshes.make(MeshConfig(data=8))
    placed = sharding.to_global(np.arange(8), mesh)
    tree = {"count": jax.numpy.zeros((), np.int32), "rows": placed}
    found = sharding.replicate(tree, mesh)
    self.assertIs(found["rows"], placed)
    self.assertLen(found["count"].sharding.device_set, 8)
    self.assertTrue(found["count"].is_fully_replicated)

  def test_activations_are_held_where_a_mesh_is_set(self):
    x = np.zeros((8, 6, 4), np.float32)
    hold = jax.jit(lambda x: sharding.constrain(x, "batch", "mlp"))
    self.assertLen(hold(x).sharding.device_set, 1)
    with sharding.on(meshes.make(MeshConfig(fsdp=2, tensor=4))):
      held = hold(x).addressable_shards
      # Cut in 2 by rows; 6 is no multiple of 4.
      self.assertEqual({s.data.shape for s in held}, {(4, 6, 4)})
      self.assertLen(held, 8)

  def test_on_no_mesh(self):
    with sharding.on(None):
      self.assertTrue(jax.sharding.get_abstract_mesh().empty)

  @parameterized.parameters(
    # Parts of rows, rows, micro-batches, and what the message proposes.
    (4, 128, 16, None),
    (16, 128, 16, "multiple of 256, or accumulate=8$"),
    (8, 12, 1, "multiple of 8$"),
    (6, 36, 4, "multiple of 24, or accumulate=3$"),
  )
  def test_rows_of_a_batch(self, parts, rows, accumulate, expected):
    mesh = jax.sharding.AbstractMesh((1, parts, 2), meshes.AXES)
    if expected is None:
      sharding.check_rows("sft", rows, accumulate, mesh)
      return
    with self.assertRaisesRegex(ValueError, expected):
      sharding.check_rows("sft", rows, accumulate, mesh)


if __name__ == "__main__":
  absltest.main()
