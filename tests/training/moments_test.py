"""Rounded moments against exact ones: optax's Adam, and AdamW of a model."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl.testing import absltest, parameterized
from flax import nnx

from rstar_jax.config.schema import TrainConfig
from rstar_jax.models import sharding
from rstar_jax.training import moments, state
from tests.training import tiny_training

jax.config.update("jax_num_cpu_devices", 8)


def gradients(steps: int, seed: int = 0):
  """Yields gradients whose sizes differ by four orders within a row."""
  rng = np.random.default_rng(seed)
  scale = np.exp(1.5 * rng.normal(size=(1, 256)) + rng.normal(size=(32, 1)))
  for _ in range(steps):
    noise = rng.normal(size=(32, 256)) + 0.3
    yield {"w": jnp.asarray(scale * noise, jnp.float32), "b": jnp.ones(5)}


def run(tx, steps: int = 60):
  """Returns the updates of the last steps, and the state."""
  opt_state = tx.init(next(gradients(1)))
  update, found = jax.jit(tx.update), []
  for grads in gradients(steps):
    updates, opt_state = update(grads, opt_state)
    found.append(np.asarray(updates["w"]))
  return np.stack(found[-20:]), opt_state


class MomentsTest(parameterized.TestCase):
  @parameterized.parameters(0.95, 0.999)
  def test_updates_are_adam_s_but_for_noise(self, b2):
    exact, _ = run(optax.scale_by_adam(0.9, b2))
    found, _ = run(moments.scale_by_adam(0.9, b2))
    noise = found - exact
    size = np.sqrt(np.mean(exact**2))
    self.assertLess(np.sqrt(np.mean(noise**2)), 0.15 * size)
    self.assertGreater(np.corrcoef(found.ravel(), exact.ravel())[0, 1], 0.97)
    # Neither longer nor shorter on the whole, and no element runs away.
    np.testing.assert_allclose(found.mean(), exact.mean(), rtol=0.02)
    self.assertLess(np.abs(found).max(), 2 * np.abs(exact).max())

  def test_the_first_update_is_exact(self):
    grads = next(gradients(1))
    found, expected = (
      jax.jit(tx.update)(grads, tx.init(grads))[0]
      for tx in (
        moments.scale_by_adam(0.9, 0.95),
        optax.scale_by_adam(0.9, 0.95),
      )
    )
    jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), found, expected
    )

  def test_no_gradient_no_update(self):
    zeros = {"w": jnp.zeros((3, 4))}
    tx = moments.scale_by_adam(0.9, 0.95)
    updates, opt_state = jax.jit(tx.update)(zeros, tx.init(zeros))
    # Without a NaN on the way, whose integer a device may choose.
    with jax.debug_nans(True):
      moments._encode(zeros["w"], 1, jnp.int8, *moments._FIRST)
    np.testing.assert_array_equal(updates["w"], 0)
    self.assertTrue(np.all(np.isfinite(opt_state.second["w"].scales)))

  def test_rounding_is_right_on_average_and_keeps_the_sign(self):
    values = jnp.asarray([[1.0, -0.5, 0.1, -1e-3, 1e-4, 0.0]])

    @jax.jit
    def rounded(salt):
      moment = moments._encode(values, salt, jnp.int8, *moments._FIRST)
      return moments._decode(moment, *moments._FIRST)

    found = np.mean([rounded(n) for n in range(400)], axis=0)
    np.testing.assert_allclose(found, values, rtol=0.03, atol=1e-8)

  def test_random_numbers_are_even_and_unlike_their_neighbours(self):
    uniform = jax.jit(lambda salt: moments._uniform((64, 128), salt))
    found = np.stack([uniform(n) for n in range(8)])
    self.assertBetween(found.min(), 0, 1e-3)
    self.assertBetween(found.max(), 1 - 1e-3, 1 - 1e-8)
    counts = np.histogram(found, 16, (0, 1))[0] / found.size
    np.testing.assert_allclose(counts, 1 / 16, rtol=0.05)
    # Of the next update, row and column.
    for axis in range(3):
      pairs = np.delete(found, 0, axis), np.delete(found, -1, axis)
      self.assertLess(abs(np.corrcoef(*map(np.ravel, pairs))[0, 1]), 0.02)

  def test_the_same_each_time(self):
    (first, _), (again, _) = (
      run(moments.scale_by_adam(0.9, 0.95), 21) for _ in range(2)
    )
    np.testing.assert_array_equal(first, again)

  def test_what_is_divided_by_is_never_rounded_to_nothing(self):
    values = jnp.asarray([[1.0, 1e-30, 0.0]])
    code = moments._encode(values, 0, jnp.uint8, 255, 8).codes
    np.testing.assert_array_equal(code, [[255, 1, 0]])


class OptimizersTest(parameterized.TestCase):
  def bytes_of(self, optimizer: str, params) -> float:
    """Returns bytes a parameter of a fresh state."""
    config = TrainConfig(optimizer=optimizer)
    fresh = state.init(params, state.optimizer(config, 3)).opt_state
    count = sum(x.size for x in jax.tree.leaves(params))
    return sum(x.nbytes for x in jax.tree.leaves(fresh)) / count

  def test_bytes_a_parameter(self):
    params = {
      "layers": {"up": jnp.zeros((512, 256)), "q": jnp.zeros((8, 32, 256))}
    }
    found = {
      name: self.bytes_of(name, params)
      for name in ("adamw", "adamw_8bit", "adafactor", "muon")
    }
    self.assertBetween(found["adamw"], 8, 8.001)
    # Two scales in a row of 256.
    self.assertBetween(found["adamw_8bit"], 2 + 8 / 256, 2.04)
    self.assertLess(found["adafactor"], 0.2)
    self.assertBetween(found["muon"], 4, 4.001)

  def test_integers_are_cut_as_their_parameters(self):
    mesh = tiny_training.make_mesh((2, 2, 2))
    params = sharding.place(nnx.split(tiny_training.policy())[1], mesh)
    tx = state.optimizer(TrainConfig(optimizer="adamw_8bit"), 3)
    fresh = state.init(params, tx, mesh)
    cut = {
      array.addressable_shards[0].data.shape
      for array in jax.tree.leaves(fresh)
      if array.dtype in (jnp.int8, jnp.uint8) and array.shape == (40, 24)
    }
    self.assertEqual(cut, {(20, 12)})

  def test_a_model_learns_as_with_adamw(self):
    rng = np.random.default_rng(3)
    x = jnp.asarray(rng.normal(size=(64, 16)), jnp.float32)
    teacher = rng.normal(size=(16,)).astype(np.float32)
    batch = {"x": x, "y": jnp.tanh(x @ teacher)}
    start = {
      "in": jnp.asarray(0.3 * rng.normal(size=(16, 32)), jnp.float32),
      "out": jnp.asarray(0.3 * rng.normal(size=(32, 16)), jnp.float32),
    }

    def loss(params, batch):
      out = jnp.sum(jnp.tanh(batch["x"] @ params["in"]) @ params["out"], -1)
      return jnp.sum((out - batch["y"]) ** 2), {"count": jnp.float32(64)}

    def losses(optimizer):
      config = TrainConfig(
        optimizer=optimizer, learning_rate=3e-3, weight_decay=0.0, clip=1e9
      )
      tx = state.optimizer(config, 100)
      step = state.make_step(loss, tx)
      found = jax.lax.scan(
        lambda now, _: step(now, batch), state.init(start, tx), length=100
      )[1]
      return np.asarray(found["loss"])

    exact = losses("adamw")
    self.assertLess(exact[-1], 0.05 * exact[0])
    for optimizer, bound in (("adamw_8bit", 0.005), ("adafactor", 0.05)):
      with self.subTest(optimizer):
        apart = np.abs(losses(optimizer) - exact).mean()
        self.assertLess(apart, bound * exact[0])


if __name__ == "__main__":
  absltest.main()
