"""Training on 8 fake devices: as on one, to the last bits of floats."""

import functools
import pathlib
import re
import shutil

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized
from flax import nnx

from rstar_jax.data import sides
from rstar_jax.hf import saving
from rstar_jax.models import sharding
from rstar_jax.models.transformer import arrays_of
from rstar_jax.training import loop, ppm, sft, state
from tests.training import tiny_training
from tests.training.tiny_training import (
  PAIRS,
  SFT,
  TOKENIZER,
  make_mesh,
  policy,
)

jax.config.update("jax_num_cpu_devices", 8)


def train(kind: str, *arguments, **options):
  """Returns numpy: parameters by path, and loss and norm of each update."""
  model, losses = tiny_training.train(kind, *arguments, **options)
  return sharding.to_host(arrays_of(model)), losses


@functools.cache
def on_one_device(kind: str):
  return train(kind)


class MeshTest(parameterized.TestCase):
  def assert_as_on_one_device(self, kind, found):
    (arrays, losses), (wanted, expected) = found, on_one_device(kind)
    self.assertLen(expected, 4)
    np.testing.assert_allclose(losses, expected, rtol=1e-4)
    for path, array in arrays.items():
      # 4 updates of up to 1e-3 each.
      np.testing.assert_allclose(array, wanted[path], atol=2e-5, err_msg=path)

  @parameterized.parameters(
    ("sft", (2, 2, 2)),
    ("sft", (1, 8, 1)),
    ("sft", (2, 1, 4)),
    ("ppm", (2, 2, 2)),
    ("ppm", (1, 1, 8)),
  )
  def test_any_mesh(self, kind, sizes):
    self.assert_as_on_one_device(kind, train(kind, make_mesh(sizes)))

  @parameterized.parameters(
    ("sft", dict(accumulate=4)), ("ppm", dict(accumulate=2, remat="layer"))
  )
  def test_accumulated_and_recomputed(self, kind, changes):
    model = policy(remat=changes.get("remat", "none"))
    found = train(kind, make_mesh((2, 2, 2)), model=model, **changes)
    self.assert_as_on_one_device(kind, found)

  def test_resumed_on_the_same_mesh_to_the_bit(self):
    mesh = make_mesh((2, 2, 2))
    folder = pathlib.Path(self.create_tempdir().full_path)
    options = dict(optimizer="muon", folder=folder)
    straight, _ = train("sft", mesh, **options)
    # Of four updates those after the second are made again.
    shutil.rmtree(folder / "4")
    resumed, losses = train("sft", mesh, **options)
    self.assertLen(losses, 2)
    for path, array in resumed.items():
      np.testing.assert_array_equal(array, straight[path])

  def test_what_each_device_holds(self):
    mesh = make_mesh((2, 2, 2))
    model, _ = tiny_training.train("sft", mesh, epochs=1)
    held = {
      path: array.addressable_shards[0].data.shape
      for path, array in arrays_of(model).items()
    }
    # [F, D] is [40, 24], [K, H, D] is [2, 4, 24]; 267 rows do not divide.
    self.assertEqual(held["layers", 0, "mlp", "up"], (20, 12))
    self.assertEqual(held["layers", 0, "attention", "k"], (1, 4, 12))
    self.assertEqual(held["embedding",], (267, 12))
    params = sharding.place(nnx.split(model)[1], mesh)
    fresh = state.init(params, state.optimizer(SFT, 3), mesh)
    sizes = {array.shape: set() for array in jax.tree.leaves(fresh)}
    for array in jax.tree.leaves(fresh):
      sizes[array.shape].add(array.addressable_shards[0].data.shape)
    # Both moments are cut as their parameters are.
    self.assertEqual(sizes[40, 24], {(20, 12)})
    self.assertEqual(sizes[()], {()})

    with self.subTest("written as from one device"):
      folders = [
        pathlib.Path(self.create_tempdir().full_path) for _ in range(2)
      ]
      saving.save_policy(model, folders[0])
      values = jax.device_put(sharding.to_host(nnx.split(model)[1]))
      saving.save_policy(nnx.merge(nnx.split(model)[0], values), folders[1])
      name = "model.safetensors"
      self.assertEqual(*((each / name).read_bytes() for each in folders))

  def test_weights_are_moved_and_not_activations(self):
    mesh = make_mesh((1, 8, 1))
    model = policy()
    graphdef, params = nnx.split(model)
    tx = state.optimizer(SFT, 3)
    begin = state.init(sharding.place(params, mesh), tx, mesh)
    shape = 16, SFT.length
    batch = {
      name: np.ones(shape, np.int32)
      for name in ("tokens", "positions", "parents", "ends", "weights")
    }

    def loss(params, batch):
      return sft.sft_loss(nnx.merge(graphdef, params), batch)

    with jax.set_mesh(mesh):
      step = loop.jitted(state.make_step(loss, tx), begin, mesh)
      text = step.lower(begin, sharding.to_global(batch, mesh)).compile()
    moved = [
      line
      for line in text.as_text().splitlines()
      if " all-gather(" in line or " all-to-all(" in line
    ]
    self.assertNotEmpty(moved)
    for line in moved:
      shape = line.partition("=")[2].partition("(")[0]
      # 131 tokens, of one row, two or sixteen, are in no weight.
      large = {"131", "262", "2096"}
      self.assertFalse(
        "f32" in shape and large & set(re.findall(r"\d+", shape)), line
      )

  def test_pairs_are_measured_each_once(self):
    model = tiny_training.reward_model()
    pairs = sides.encode_pairs(TOKENIZER, PAIRS, 128)
    options = dict(length=128, batch_size=5)
    expected = ppm.pair_accuracy(model, pairs, **options)
    mesh = make_mesh((4, 1, 2))
    graphdef, params = nnx.split(model)
    placed = nnx.merge(graphdef, sharding.place(params, mesh))
    found = ppm.pair_accuracy(placed, pairs, mesh=mesh, **options)
    self.assertEqual(found["pairs"], 27)
    self.assertEqual(found["accuracy"], expected["accuracy"])
    self.assertAlmostEqual(found["margin"], expected["margin"], places=6)

  def test_rows_that_cannot_be_cut(self):
    with self.assertRaisesRegex(
      ValueError,
      "sft: a batch of 16 rows in 4 micro-batches cannot be cut into 8 parts",
    ):
      train("sft", make_mesh((8, 1, 1)), accumulate=4)


class DtypeTest(absltest.TestCase):
  def test_bfloat16_computes_and_float32_is_kept(self):
    model = policy(dtype="bfloat16")
    graphdef, params = nnx.split(model)
    tx = state.optimizer(SFT, 3)
    begin = state.init(params, tx)
    # So many rows that there is one way to multiply them.
    ones = np.ones((2, 67), np.int32)
    batch = {
      name: ones
      for name in ("tokens", "positions", "parents", "ends", "weights")
    }

    def loss(params, batch):
      return sft.sft_loss(nnx.merge(graphdef, params), batch)

    step = state.make_step(loss, tx)
    after, _ = jax.eval_shape(step, begin, batch)
    kept = {x.dtype for x in jax.tree.leaves(after)}
    self.assertEqual(kept, {jnp.dtype("float32"), jnp.dtype("int32")})
    grads = jax.eval_shape(jax.grad(lambda p: loss(p, batch)[0]), params)
    found = {x.dtype for x in jax.tree.leaves(grads)}
    self.assertEqual(found, {jnp.dtype("float32")})
    products = []

    def walk(jaxpr):
      for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
          products.append({str(v.aval.dtype) for v in equation.invars})
        for value in jax.tree.leaves(
          equation.params, is_leaf=lambda x: hasattr(x, "eqns")
        ):
          inner = getattr(value, "jaxpr", value)
          if hasattr(inner, "eqns"):
            walk(inner)

    walk(jax.make_jaxpr(lambda p: loss(p, batch)[0])(params).jaxpr)
    # 4 projections, 2 of attention, 3 of the MLP, and the logits.
    self.assertLen(products, 10)
    for dtypes in products:
      self.assertEqual(dtypes, {"bfloat16"})


if __name__ == "__main__":
  absltest.main()
