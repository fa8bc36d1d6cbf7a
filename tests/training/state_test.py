import dataclasses
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized
from flax import nnx

from rstar_jax import testing
from rstar_jax.config.schema import TrainConfig
from rstar_jax.models.transformer import Transformer, abstract, arrays_in
from rstar_jax.training import state

# Norms over all heads, with scales [N, H] and [K, H].
_OLMO2 = {"family": "olmo2", "qk_norm": "all", "norms": "post"}


def _config(**changes) -> TrainConfig:
  base = TrainConfig(learning_rate=0.5, warmup=0.0, weight_decay=0.0)
  return dataclasses.replace(base, **changes)


def _loss(params, batch):
  """Weighted squared error of a linear model; the weights may be 0."""
  error = batch["x"] @ params["w"] + params["b"] - batch["y"]
  return jnp.sum(batch["m"] * error**2), {"count": jnp.sum(batch["m"])}


def _batch(rows: int):
  rng = np.random.default_rng(7)
  return {
    "x": rng.normal(size=(rows, 3)).astype(np.float32),
    "y": rng.normal(size=rows).astype(np.float32),
    "m": (np.arange(rows) % 5 < 2).astype(np.float32),
  }


def _params():
  return {"w": jnp.array([0.5, -1.0, 2.0]), "b": jnp.array(0.25)}


class ScheduleTest(parameterized.TestCase):
  @parameterized.parameters(
    ("linear", [1.0, 0.9, 0.8, 0.5, 0.0]),
    ("constant", [1.0, 1.0, 1.0, 1.0, 1.0]),
    (
      "cosine",
      [0.5 + 0.5 * np.cos(np.pi * t / 10) for t in (0, 1, 2, 5, 10)],
    ),
  )
  def test_shapes(self, schedule, expected):
    rate = state.learning_rate(
      _config(schedule=schedule, learning_rate=1.0), 10
    )
    got = [float(rate(k)) for k in (0, 1, 2, 5, 10)]
    np.testing.assert_allclose(got, expected, atol=1e-6)

  def test_warmup(self):
    rate = state.learning_rate(_config(warmup=0.25, learning_rate=1.0), 20)
    got = [float(rate(k)) for k in (0, 1, 4, 5, 8, 20)]
    np.testing.assert_allclose(got, [0.2, 0.4, 1.0, 1.0, 0.8, 0.0], atol=1e-6)

  @parameterized.parameters(
    # Of 10 updates: one of warm-up, which is at the peak; all of them; a share
    # that is rounded to 3.
    (0.1, {0: 1.0, 1: 1.0, 2: 8 / 9, 10: 0.0}),
    (1.0, {0: 0.1, 1: 0.2, 8: 0.9, 9: 1.0}),
    (0.26, {0: 1 / 3, 1: 2 / 3, 2: 1.0, 3: 1.0, 4: 6 / 7}),
    (0.04, {0: 1.0, 1: 0.9}),
  )
  def test_warmup_rises_to_the_peak_at_its_last_update(self, share, expected):
    rate = state.learning_rate(_config(warmup=share, learning_rate=1.0), 10)
    for k, value in expected.items():
      self.assertAlmostEqual(float(rate(k)), value, places=6)

  def test_the_number_of_updates_may_be_a_value_of_the_program(self):
    config = _config(warmup=0.26, schedule="cosine", learning_rate=1.0)
    traced = jax.jit(lambda steps, k: state.learning_rate(config, steps)(k))
    for steps in (7, 10):
      rate = state.learning_rate(config, steps)
      for k in range(steps):
        self.assertAlmostEqual(
          float(traced(steps, k)), float(rate(k)), places=6
        )

  def test_unknown(self):
    with self.assertRaisesRegex(ValueError, "schedule='cubic'"):
      state.learning_rate(_config(schedule="cubic"), 10)
    with self.assertRaisesRegex(ValueError, "optimizer='sgd'"):
      state.optimizer(_config(optimizer="sgd"), 10)


class OptimizerTest(parameterized.TestCase):
  def test_first_adamw_update_by_hand(self):
    # With bias correction the first step is lr * sign(gradient); the decay is
    # lr * weight_decay * w, on matrices only.
    config = _config(weight_decay=0.1, clip=1e9, schedule="constant")
    tx = state.optimizer(config, 10)
    params = {"kernel": jnp.array([[2.0]]), "bias": jnp.array([2.0])}
    grads = {"kernel": jnp.array([[3.0]]), "bias": jnp.array([-3.0])}
    updates, _ = jax.jit(tx.update)(grads, tx.init(params), params)
    np.testing.assert_allclose(updates["kernel"], -0.5 - 0.1, rtol=1e-5)
    np.testing.assert_allclose(updates["bias"], [0.5], rtol=1e-5)

  def test_adamw_by_a_loop_in_float64(self):
    config = _config(
      b1=0.7, b2=0.9, weight_decay=0.05, clip=1e9, learning_rate=0.25
    )
    tx, rng = state.optimizer(config, 8), np.random.default_rng(1)
    params = {"kernel": rng.normal(size=(2, 3)), "bias": rng.normal(size=3)}
    expected = dict(params)
    params = jax.tree.map(np.float32, params)
    moments, opt_state, update = {}, tx.init(params), jax.jit(tx.update)
    for t in range(1, 5):
      grads = {name: rng.normal(size=x.shape) for name, x in expected.items()}
      updates, opt_state = update(
        jax.tree.map(np.float32, grads), opt_state, params
      )
      params = jax.tree.map(np.add, params, updates)
      rate = 0.25 * (1 - (t - 1) / 8)
      for name, g in grads.items():
        m, v = moments.get(name, (0.0, 0.0))
        m, v = 0.7 * m + 0.3 * g, 0.9 * v + 0.1 * g**2
        moments[name] = m, v
        step = (m / (1 - 0.7**t)) / np.sqrt(v / (1 - 0.9**t))
        decay = 0.05 * expected[name] if name == "kernel" else 0.0
        expected[name] = expected[name] - rate * (step + decay)
    for name, value in expected.items():
      np.testing.assert_allclose(params[name], value, rtol=1e-4, atol=1e-5)

  def test_clip_bounds_what_the_optimiser_sees(self):
    tx = state.optimizer(_config(clip=1.0), 10)
    params = {"w": jnp.zeros(2)}
    grads = {"w": jnp.array([3.0, 4.0])}
    _, opt_state = jax.jit(tx.update)(grads, tx.init(params), params)
    (first_moment,) = [
      x for x in jax.tree.leaves(opt_state) if x.shape == (2,) and x[0] > 0.05
    ]
    np.testing.assert_allclose(first_moment, 0.1 * np.array([0.6, 0.8]))

  @parameterized.parameters({}, _OLMO2)
  def test_decay_spares_biases_and_norms(self, **family):
    config = testing.tiny_model(num_layers=1, **family)
    model = Transformer(config, rngs=nnx.Rngs(0))
    params = nnx.split(model)[1]
    tx = state.optimizer(_config(weight_decay=0.1, schedule="constant"), 10)
    zeros = jax.tree.map(jnp.zeros_like, params)
    ones = jax.tree.map(jnp.ones_like, params)
    updates, _ = jax.jit(tx.update)(zeros, jax.jit(tx.init)(ones), ones)
    decayed = {
      jax.tree_util.keystr(path)
      for path, x in jax.tree_util.tree_flatten_with_path(updates)[0]
      if np.any(x != 0)
    }
    self.assertTrue(any("embedding" in name for name in decayed))
    self.assertTrue(any("'down'" in name for name in decayed))
    self.assertTrue(any("'q'" in name for name in decayed))
    self.assertFalse([n for n in decayed if "bias" in n or "norm" in n])

  def test_muon_orthogonalises_the_layers(self):
    model = Transformer(testing.tiny_model(num_layers=1), rngs=nnx.Rngs(0))
    params = nnx.split(model)[1]
    config = _config(
      optimizer="muon", learning_rate=1.0, schedule="constant", clip=1e9
    )
    tx = state.optimizer(config, 10)
    rng = np.random.default_rng(3)
    grads = jax.tree.map(
      lambda x: rng.normal(size=x.shape).astype(np.float32), params
    )
    updates, _ = jax.jit(lambda g: tx.update(g, tx.init(params), params))(grads)
    update = nnx.to_pure_dict(updates)
    layer = update["layers"][0]
    q, o = layer["attention"]["q"], layer["attention"]["o"]
    # Heads are one axis: [N x H, D] and [D, N x H].
    q, o = q.reshape(-1, q.shape[-1]), o.reshape(o.shape[0], -1)
    for matrix in (layer["mlp"]["gate"], q, o):
      singular = np.linalg.svd(matrix, compute_uv=False)
      # Newton-Schulz brings all singular values near one size.
      self.assertLess(singular.max() / singular.min(), 2.5)
      self.assertBetween(np.sqrt(np.mean(matrix**2)), 0.1, 0.3)
    # The embedding is AdamW's, with Nesterov: the first step is the sign of the
    # gradient times 1 + b1 (1 - b1) / (1 - b1^2).
    sign = np.sign(nnx.to_pure_dict(grads)["embedding"])
    np.testing.assert_allclose(
      update["embedding"], -sign * (1 + 0.09 / 0.19), atol=1e-3
    )

  def test_muon_decays_the_layers_and_has_the_moments_of_the_config(self):
    config = _config(
      optimizer="muon",
      **{"weight_decay": 0.1, "b1": 0.7, "b2": 0.9, "schedule": "constant"},
      clip=1e9,
    )
    tx = state.optimizer(config, 10)
    params = {
      "layers": {"up": np.full((3, 5), 2.0, np.float32)},
      "embedding": np.ones(4, np.float32),
    }
    opt_state, update = tx.init(params), jax.jit(tx.update)
    still, _ = update(jax.tree.map(np.zeros_like, params), opt_state, params)
    # Without a gradient a weight loses rate x decay of itself.
    np.testing.assert_allclose(
      still["layers"]["up"], -0.5 * 0.1 * 2.0, rtol=1e-5
    )
    # What is not of the layers is Adam's, with Nesterov (Dozat 2016).
    m = v = 0.0
    for t, size in enumerate((0.5, -0.25), 1):
      grads = jax.tree.map(lambda x, size=size: x * 0 + size, params)
      updates, opt_state = update(grads, opt_state, params)
      m, v = 0.7 * m + 0.3 * size, 0.9 * v + 0.1 * size**2
      ahead = 0.7 * m / (1 - 0.7 ** (t + 1)) + 0.3 * size / (1 - 0.7**t)
      step = -0.5 * ahead / np.sqrt(v / (1 - 0.9**t))
      np.testing.assert_allclose(updates["embedding"], [step] * 4, rtol=1e-3)

  def test_muon_takes_the_weights_of_layers_alone(self):
    params = {
      "embedding": np.ones((5, 3)),
      "layers": {
        "norm": np.ones(3),
        "down": np.ones((3, 7)),
        "q": np.ones((2, 4, 3)),
        "o": np.ones((3, 2, 4)),
        "q_bias": np.ones((2, 4)),
        "experts": {"up": np.ones((5, 3, 7))},
      },
    }
    found = state._muon_dimensions(params)
    self.assertIsNone(found["embedding"])
    layers = found["layers"]
    layers |= layers.pop("experts")
    self.assertIsNone(layers["norm"])
    self.assertIsNone(layers["q_bias"])
    for name, inner, outer in (
      ("down", 1, 0),
      ("q", 2, (0, 1)),
      ("o", (1, 2), 0),
      ("up", 1, 2),
    ):
      with self.subTest(name):
        self.assertEqual(layers[name].reduction_axis, inner)
        self.assertEqual(layers[name].output_axis, outer)

  def test_muon_leaves_norms_of_all_heads_to_adam(self):
    config = testing.tiny_model(num_layers=1, **_OLMO2)
    _, params = abstract(config, "lm")
    found = nnx.to_pure_dict(state._muon_dimensions(params))
    layer = found["layers"][0]["attention"]
    for name in ("q_norm", "k_norm"):
      self.assertEqual(layer.pop(name), {"scale": None})
    self.assertEqual(
      set(layer), {"q", "k", "v", "o"} | {"q_bias", "k_bias", "v_bias"}
    )
    self.assertNotIn(None, [layer[name] for name in "qkvo"])

  def test_what_is_not_a_matrix_is_not_decayed(self):
    found = state._decayed(
      {"w": np.ones((2, 3)), "q_bias": np.ones((2, 3)), "norm": np.ones(3)}
    )
    self.assertEqual(found, {"w": True, "q_bias": False, "norm": False})


class CompilerTest(absltest.TestCase):
  def test_a_tpu_gathers_weights_before_it_multiplies(self):
    meshes = {
      name: mock.Mock(devices=np.array([[mock.Mock(platform=name)]]))
      for name in ("tpu", "cpu")
    }
    self.assertLen(state.compiler_options(meshes["tpu"]), 1)
    # No other compiler knows its options.
    self.assertEmpty(state.compiler_options(meshes["cpu"]))
    self.assertEmpty(state.compiler_options(None))


class StepTest(parameterized.TestCase):
  @parameterized.parameters(2, 3, 6)
  def test_accumulation_equals_one_big_batch(self, parts):
    tx = state.optimizer(_config(), 10)
    one = jax.jit(state.make_step(_loss, tx))
    many = jax.jit(state.make_step(_loss, tx, parts))
    a = b = state.init(_params(), tx)
    for _ in range(3):
      a, metrics_a = one(a, _batch(12))
      b, metrics_b = many(b, _batch(12))
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
      np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6)
    self.assertEqual(metrics_a.keys(), metrics_b.keys())
    for key in metrics_a:
      np.testing.assert_allclose(metrics_a[key], metrics_b[key], rtol=1e-5)

  def test_metrics_by_hand(self):
    tx = state.optimizer(_config(), 10)
    batch = {
      "x": jnp.zeros((2, 3)),
      "y": jnp.array([1.25, 5.0]),
      "m": jnp.array([1.0, 0.0]),
    }
    after, metrics = jax.jit(state.make_step(_loss, tx))(
      state.init(_params(), tx), batch
    )
    # (0.25 - 1.25)^2, whose gradient by b is -2.
    self.assertAlmostEqual(float(metrics["loss"]), 1.0)
    self.assertAlmostEqual(float(metrics["grad_norm"]), 2.0)
    self.assertEqual(int(after.step), 1)
    self.assertAlmostEqual(float(after.params["b"]), 0.25 + 0.5, places=5)

  def test_the_norms_of_groups_make_up_the_whole(self):
    model = Transformer(
      testing.tiny_model(num_layers=2, tied_embeddings=False, qk_norm="head"),
      rngs=nnx.Rngs(0),
    )
    graphdef, params = nnx.split(model)

    def loss(params, batch):
      out = nnx.merge(graphdef, params)(batch["ids"])
      return jnp.sum(out * jnp.sin(out)), {"count": jnp.float32(2)}

    batch = {"ids": jnp.arange(8).reshape(2, 4)}
    tx = state.optimizer(_config(), 10)
    metrics = jax.jit(state.make_step(loss, tx))(state.init(params, tx), batch)[
      1
    ]
    plain = jax.jit(jax.grad(lambda params: loss(params, batch)[0] / 2))(params)
    squares: dict[str, float] = {}
    for path, grad in arrays_in(plain).items():
      group = {"layers": path[2:3], "norm": ("norms",), "lm_head": ("head",)}
      (group,) = group.get(path[0], path)
      if "norm" in str(path):
        group = "norms"
      squares[group] = squares.get(group, 0.0) + float(np.sum(grad**2))
    self.assertEqual(
      set(squares), {"embedding", "attention", "mlp", "norms", "head"}
    )
    for group, square in squares.items():
      np.testing.assert_allclose(
        metrics[f"grad_norm_{group}"], np.sqrt(square), rtol=1e-4
      )
    np.testing.assert_allclose(
      metrics["grad_norm"], np.sqrt(sum(squares.values())), rtol=1e-4
    )

  def test_a_count_below_one_divides_by_one(self):
    tx = state.optimizer(_config(), 10)
    batch = {
      "x": jnp.zeros((2, 3)),
      "y": jnp.array([1.25, 5.0]),
      "m": jnp.array([0.5, 0.0]),
    }
    step = jax.jit(state.make_step(_loss, tx))
    _, metrics = step(state.init(_params(), tx), batch)
    self.assertAlmostEqual(float(metrics["loss"]), 0.5)
    self.assertAlmostEqual(float(metrics["count"]), 0.5)

  def test_padding_only_batch_changes_nothing(self):
    tx = state.optimizer(_config(), 10)
    batch = _batch(4) | {"m": np.zeros(4, np.float32)}
    before = state.init(_params(), tx)
    after, metrics = jax.jit(state.make_step(_loss, tx))(before, batch)
    np.testing.assert_array_equal(after.params["w"], before.params["w"])
    self.assertEqual(float(metrics["loss"]), 0.0)


if __name__ == "__main__":
  absltest.main()
