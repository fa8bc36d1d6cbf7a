"""LoRA: what is trained and what is not, what the sum is, and how it ends."""

import dataclasses
import functools
import pathlib
import shutil

import jax
import numpy as np
from absl.testing import absltest
from flax import nnx

from rstar_jax.config.schema import TrainConfig
from rstar_jax.models import sharding
from rstar_jax.models.config import Mixture
from rstar_jax.models.transformer import (
  Transformer,
  arrays_in,
  arrays_of,
  reconfigured,
)
from rstar_jax.testing import tiny_model
from rstar_jax.training import loop, lora, sft, state
from tests.training import tiny_training
from tests.training.tiny_training import make_mesh, policy

jax.config.update("jax_num_cpu_devices", 8)

CONFIG = TrainConfig(lora_rank=3, lora_alpha=6.0)
CHANGES = dict(lora_rank=3, lora_alpha=6.0, learning_rate=1e-2)


@functools.cache
def base():
  return policy()


def begun(config=CONFIG, seed=5):
  return lora.begin(nnx.split(base())[1], config, seed)


def trained(mesh=None, model=None, **changes):
  """Trains a PPM; returns it, losses, and what LoRA trained."""
  found = []
  model, losses = tiny_training.train(
    *("ppm", mesh, model or base()),
    adapter=lambda arrays, _: found.append(arrays),
    **CHANGES | changes,
  )
  return model, losses, sharding.to_host(found[0])


def on_host(model):
  return sharding.to_host(arrays_of(model))


@functools.cache
def on_one_device():
  """Returns the same, and the folder of the checkpoints."""
  folder = pathlib.Path(absltest.get_default_test_tmpdir(), "lora_test")
  shutil.rmtree(folder, ignore_errors=True)
  model, losses, added = trained(folder=folder)
  return on_host(model), losses, added, folder


class BeginTest(absltest.TestCase):
  def test_the_model_begins_as_it_was(self):
    params = nnx.split(base())[1]
    merged = lora.merge(*lora.begin(params, CONFIG, 5), CONFIG)
    self.assertEqual(jax.tree.structure(merged), jax.tree.structure(params))
    jax.tree.map(np.testing.assert_array_equal, merged, params)

  def test_the_update_by_hand(self):
    params, frozen = begun()
    random = np.random.default_rng(0)
    params = jax.tree.map(
      lambda x: random.normal(size=x.shape).astype(np.float32), params
    )
    merged = arrays_in(lora.merge(params, frozen, CONFIG))
    before, added = arrays_in(frozen), arrays_in(params)
    for name, letters in (
      ("attention/q", "nhr,rd->nhd"),
      ("attention/k", "nhr,rd->nhd"),
      ("attention/v", "nhr,rd->nhd"),
      ("attention/o", "dr,rnh->dnh"),
      ("mlp/gate", "fr,rd->fd"),
      ("mlp/up", "fr,rd->fd"),
      ("mlp/down", "dr,rf->df"),
    ):
      path = ("layers", 0, *name.split("/"))
      b, a = added[*path, "b"], added[*path, "a"]
      # alpha / rank is 2.
      wanted = before[path] + 2 * np.einsum(letters, b, a)
      np.testing.assert_allclose(merged[path], wanted, rtol=1e-4, atol=1e-5)
    self.assertLen(added, 14)
    same = {path for path in merged if merged[path] is before[path]}
    self.assertLen(same, len(merged) - 7)

  def test_a_is_random_by_the_seed_and_the_name_and_b_is_zero(self):
    first, again, other = (arrays_in(begun(seed=seed)[0]) for seed in (5, 5, 6))
    q = ("layers", 0, "attention", "q", "a")
    for path, value in first.items():
      np.testing.assert_array_equal(value, again[path])
      if path[-1] == "b":
        self.assertFalse(np.any(value))
        continue
      self.assertTrue(np.all(value != other[path]))
      inputs = value[0].size
      self.assertBetween(np.abs(value).max(), 0.8 * inputs**-0.5, inputs**-0.5)
    self.assertFalse(np.any(first[q] == first["layers", 0, "mlp", "up", "a"]))

  def test_only_the_matrices_of_the_config(self):
    config = dataclasses.replace(CONFIG, lora_matrices=("v", "down"))
    found = {path[3] for path in arrays_in(begun(config)[0])}
    self.assertEqual(found, {"v", "down"})

  def test_a_scalar_head_is_trained_itself(self):
    params = nnx.split(tiny_training.reward_model(base()))[1]
    found, frozen = lora.begin(params, CONFIG, 5)
    self.assertIn(("score",), arrays_in(found))
    self.assertNotIn(("score",), arrays_in(frozen))

  def test_a_rank_above_a_side(self):
    # k is [2 x 4, 24].
    config = dataclasses.replace(CONFIG, lora_rank=9)
    with self.assertRaisesRegex(
      ValueError, r"lora_rank=9 is above 8, .* layers\.0\.attention\.k: give"
    ):
      begun(config)

  def test_experts_have_none(self):
    mixture = Mixture(experts=3, chosen=1, dim=5)
    model = Transformer(tiny_model(mixture=mixture), rngs=nnx.Rngs(0))
    params = nnx.split(model)[1]
    with self.assertRaisesRegex(
      ValueError, r"lora_matrices: .*'q', 'k', 'v', 'o'"
    ):
      lora.begin(params, CONFIG, 5)
    config = dataclasses.replace(CONFIG, lora_matrices=("q", "k", "v", "o"))
    found, frozen = lora.begin(params, config, 5)
    self.assertEqual({path[2] for path in arrays_in(found)}, {"attention"})
    self.assertIn(("layers", 0, "experts", "up"), arrays_in(frozen))


class TrainingTest(absltest.TestCase):
  def test_the_model_is_the_base_and_the_update(self):
    before = on_host(base())
    arrays, losses, added, _ = on_one_device()
    added = dict(added)
    self.assertLess(losses[-1][0], losses[0][0])
    moved = 0
    for path, value in arrays.items():
      if path == ("score",):
        np.testing.assert_array_equal(value, added[path])
        self.assertTrue(np.any(added.pop(path)))
      elif (*path, "a") in added:
        a, b = added.pop((*path, "a")), added.pop((*path, "b"))
        self.assertTrue(np.all(np.any(b != 0, axis=-1)), path)
        wanted = before[path] + 2 * np.tensordot(b, a, 1)
        np.testing.assert_allclose(value, wanted, rtol=1e-5, atol=1e-6)
        moved += 1
      else:
        np.testing.assert_array_equal(value, before[path], err_msg=path)
    self.assertEqual(moved, 7)
    self.assertEmpty(added)

  def test_the_gradient_is_that_of_the_whole_model_by_the_chain_rule(self):
    """dA = s B^T dW and dB = s dW A^T, of the gradient of plain training."""
    graphdef, params = nnx.split(base())
    batch = _batch()

    def loss(params):
      return sft.sft_loss(nnx.merge(graphdef, params), batch)[0]

    params, frozen = lora.begin(params, CONFIG, 5)
    random = np.random.default_rng(0)
    params = jax.tree.map(
      lambda x: 0.1 * random.normal(size=x.shape).astype(np.float32), params
    )
    whole = lora.merge(params, frozen, CONFIG)

    @jax.jit
    def both(whole, params):
      return jax.grad(loss)(whole), jax.grad(
        lambda params: loss(lora.merge(params, frozen, CONFIG))
      )(params)

    plain, found = both(whole, params)
    plain = arrays_in(plain)
    found = arrays_in(found)
    for name in ("q", "k", "v", "o"):
      path = ("layers", 0, "attention", name)
      a, b = (arrays_in(params)[*path, each] for each in "ab")
      rank = len(a)
      d = np.reshape(plain[path], (-1, a[0].size))
      a, b = a.reshape(rank, -1), b.reshape(-1, rank)
      np.testing.assert_allclose(
        found[*path, "a"].reshape(rank, -1), 2 * b.T @ d, rtol=1e-3, atol=1e-4
      )
      np.testing.assert_allclose(
        found[*path, "b"].reshape(-1, rank), 2 * d @ a.T, rtol=1e-3, atol=1e-4
      )

  def test_moments_are_of_the_updates_alone(self):
    params, _ = begun()
    count = sum(x.size for x in jax.tree.leaves(params))
    fresh = state.init(params, state.optimizer(CONFIG, 3))
    moments = sum(x.size for x in jax.tree.leaves(fresh.opt_state))
    self.assertBetween(moments, 2 * count, 2 * count + 3)
    whole = sum(x.size for x in jax.tree.leaves(nnx.split(base())[1]))
    self.assertLess(4 * count, whole)

  def test_on_a_mesh_accumulated_and_recomputed(self):
    wanted, losses, *_ = on_one_device()
    mesh = make_mesh((2, 2, 2))
    model, others, added = trained(
      mesh, reconfigured(base(), remat="layer"), accumulate=2
    )
    np.testing.assert_allclose(others, losses, rtol=1e-3)
    for path, array in on_host(model).items():
      np.testing.assert_allclose(array, wanted[path], atol=2e-4, err_msg=path)
    self.assertIn(("layers", 0, "mlp", "up", "a"), added)
    up = arrays_of(model)["layers", 0, "mlp", "up"]
    self.assertEqual(up.addressable_shards[0].data.shape, (20, 12))
    held = {
      path[2:]: array.addressable_shards[0].data.shape
      for path, array in arrays_in(sharding.place(begun()[0], mesh)).items()
    }
    # Cut as the sides of [F, D] = [40, 24] are, and whole along the rank.
    self.assertEqual(held["mlp", "up", "a"], (3, 12))
    self.assertEqual(held["mlp", "up", "b"], (20, 3))
    self.assertEqual(held["attention", "o", "a"], (3, 2, 4))

  def test_resumed_to_the_bit(self):
    straight, _, adapter, saved = on_one_device()
    folder = pathlib.Path(self.create_tempdir().full_path)
    shutil.copytree(saved, folder, dirs_exist_ok=True)
    # Of four updates those after the second are made again.
    shutil.rmtree(folder / "4")
    resumed, losses, again = trained(folder=folder)
    self.assertLen(losses, 2)
    arrays = on_host(resumed)
    for path, array in straight.items():
      np.testing.assert_array_equal(arrays[path], array)
    for path, array in adapter.items():
      np.testing.assert_array_equal(again[path], array)

  def test_who_looks_before_an_update_sees_the_whole_model(self):
    """And what is not trained has the dtype of activations."""
    seen, added = [], []
    model = reconfigured(base(), dtype="bfloat16")
    before = on_host(model)

    def look(k, params):
      seen.append(sharding.to_host(arrays_in(params)))

    loop.fit_model(
      *(model, sft.sft_loss, lambda k: _batch(), 2),
      dataclasses.replace(CONFIG, learning_rate=1e-2, schedule="constant"),
      loop.Session(
        "sft",
        progress=False,
        adapter=lambda arrays, _: added.append(arrays),
      ),
      before=look,
    )
    q = ("layers", 0, "attention", "q")
    self.assertEqual(seen[0].keys(), before.keys())
    np.testing.assert_array_equal(seen[0][q], before[q].astype("bfloat16"))
    self.assertTrue(np.any(seen[1][q] != seen[0][q]))
    for found in (seen[1], on_host(model)):
      self.assertEqual({x.dtype.name for x in found.values()}, {"bfloat16"})
    dtypes = {x.dtype.name for x in added[0].values()}
    self.assertEqual(dtypes, {"float32"})


def _batch():
  tokens = np.random.default_rng(1).integers(1, 200, (2, 13), dtype=np.int32)
  where = np.broadcast_to(np.arange(13, dtype=np.int32), (2, 13))
  return {
    "tokens": tokens,
    "positions": where,
    "parents": np.maximum(where - 1, 0),
    "ends": np.full((2, 13), 13, np.int32),
    "weights": (where > 0).astype(np.float32),
  }


if __name__ == "__main__":
  absltest.main()
