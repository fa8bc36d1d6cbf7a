"""Tests of a mixture of experts, against a loop over tokens and experts."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized
from flax import nnx

from rstar_jax.config.schema import MeshConfig
from rstar_jax.models import experts, int8, meshes, sharding
from rstar_jax.models.config import Mixture, in_turns
from rstar_jax.models.experts import Experts
from rstar_jax.models.transformer import Transformer, arrays_in, reconfigured
from rstar_jax.testing import tiny_model
from tests.models import plain

jax.config.update("jax_num_cpu_devices", 4)

PLAIN = Mixture(experts=8, chosen=3, dim=7)
MIXTURES = {
  "of_all": Mixture(experts=8, chosen=3, dim=7, normalised=False),
  "gpt_oss": Mixture(experts=8, chosen=2, dim=5, bias=True, limit=0.8),
  "one": Mixture(experts=8, chosen=1, dim=7),
}


def build(mixture, dtype="float32", **fields):
  config = tiny_model(
    embed_dim=12, mixture=mixture, dtype=dtype, num_layers=2, **fields
  )
  model = Experts(config, nnx.Rngs(0))
  rng = np.random.default_rng(1)
  for path, variable in nnx.to_flat_state(nnx.state(model)):
    scale = 1.0 if "router" in path[-1] else 0.5
    shape = variable.get_value().shape
    variable.set_value(
      jnp.asarray(scale * rng.standard_normal(shape), "float32")
    )
  return model


def normal(*shape):
  return np.random.default_rng(len(shape)).standard_normal(shape, np.float32)


def by_loops(model, rows):
  arrays = jax.tree.map(lambda x: np.asarray(x, np.float64), params_of(model))
  return plain.experts(rows.astype(np.float64), arrays, model.config.mixture)


def dense(params, rows, mixture):
  """Returns [R, D] by every expert for every token: what is differentiated."""
  with_bias = lambda x, name: (  # noqa: E731
    x + params[f"{name}_bias"] if mixture.bias else x
  )
  logits = with_bias(rows @ params["router"].T, "router")
  best = jnp.argsort(-logits, axis=-1)[:, : mixture.chosen]
  seen = jax.nn.one_hot(best, mixture.experts).sum(1)
  shares = jax.nn.softmax(
    jnp.where(seen > 0, logits, -jnp.inf) if mixture.normalised else logits
  )

  def each(x, name):
    return with_bias(jnp.einsum("rei,eio->reo", x, params[name]), name)

  rows = jnp.broadcast_to(rows[:, None], (len(rows), mixture.experts, 12))
  gate, up = each(rows, "gate"), each(rows, "up")
  if limit := mixture.limit:
    gate, up = jnp.minimum(gate, limit), jnp.clip(up, -limit, limit)
    hidden = gate * jax.nn.sigmoid(1.702 * gate) * (up + 1)
  else:
    hidden = jax.nn.silu(gate) * up
  return jnp.einsum("re,reo->ro", shares * seen, each(hidden, "down"))


def run(model, rows, mesh=None):
  return model(rows, model.logits(rows), mesh)


def compiled(model):
  return jax.jit(functools.partial(run, model))


def params_of(model):
  return {
    path[-1]: each.get_value()
    for path, each in nnx.to_flat_state(nnx.state(model, nnx.Param))
  }


def gradients(model, rows, weights, mesh=None):
  """Returns the gradients of a weighted sum: of parameters, and of rows."""
  graphdef, params = nnx.split(model)
  if mesh is not None:
    params = sharding.place(params, mesh)

  def loss(params, rows):
    return jnp.sum(run(nnx.merge(graphdef, params), rows) * weights)

  with sharding.on(mesh):
    of_params, of_rows = jax.jit(jax.grad(loss, argnums=(0, 1)))(params, rows)
  found = {p[-1]: x.get_value() for p, x in nnx.to_flat_state(of_params)}
  return jax.tree.map(np.asarray, found | {"rows": of_rows})


@functools.cache
def differentiated(name):
  """Returns an MLP of `MIXTURES`, rows, their weights, and the gradients."""
  model, rows = build(MIXTURES[name]), normal(52, 12)
  weights = rows[::-1]
  return model, rows, weights, gradients(model, rows, weights)


class ExpertsTest(parameterized.TestCase):
  @parameterized.parameters(*MIXTURES)
  def test_as_by_loops(self, name):
    model = build(MIXTURES[name])
    # More pairs than a tile, and experts without any.
    rows = normal(5, 17, 12)
    out = compiled(model)(rows)
    wanted = by_loops(model, rows.reshape(-1, 12)).reshape(rows.shape)
    np.testing.assert_allclose(out, wanted, rtol=1e-5, atol=1e-5)
    rounded = build(MIXTURES[name], "bfloat16")
    out = compiled(rounded)(jnp.asarray(rows, "bfloat16"))
    self.assertEqual(out.dtype, "bfloat16")
    error = np.asarray(out, np.float32) - wanted
    # A token whose logits are close may go to another expert.
    self.assertLess(np.median(np.abs(error)), 0.02 * wanted.std())

  @parameterized.parameters("of_all", "gpt_oss")
  def test_gradients_are_those_of_every_expert_for_every_token(self, name):
    mixture = MIXTURES[name]
    model, rows, weights, found = differentiated(name)

    @jax.jit
    @functools.partial(jax.grad, argnums=(0, 1))
    def differentiate(params, rows):
      return jnp.sum(dense(params, rows, mixture) * weights)

    wanted = differentiate(params_of(model), rows)
    wanted = wanted[0] | {"rows": wanted[1]}
    self.assertEqual(found.keys(), wanted.keys())
    for key, each in wanted.items():
      self.assertGreater(np.abs(each).max(), 0.01, key)
      np.testing.assert_allclose(
        found[key], each, rtol=1e-4, atol=1e-4, err_msg=key
      )

  def test_a_mesh_gives_the_same(self):
    mesh = meshes.make(MeshConfig(fsdp=2, tensor=2))
    model, rows, weights, of_one = differentiated("gpt_oss")
    graphdef, params = nnx.split(model)
    placed = sharding.place(params, mesh)
    held = placed["up"].get_value().addressable_shards[0].data.shape
    self.assertEqual(held[:2], (4, 6))
    # A search has no mesh of `jax.set_mesh`, and gives its own.
    out = jax.jit(lambda p, x: run(nnx.merge(graphdef, p), x, mesh))(
      placed, rows
    )
    wanted = compiled(model)(rows)
    np.testing.assert_allclose(out, wanted, rtol=1e-5, atol=1e-5)
    for key, each in gradients(model, rows, weights, mesh).items():
      np.testing.assert_allclose(
        each, of_one[key], rtol=1e-4, atol=1e-4, err_msg=key
      )

  def test_experts_that_do_not_divide_stay_whole(self):
    mesh = meshes.make(MeshConfig(tensor=4))
    model = build(Mixture(experts=6, chosen=2, dim=7, bias=True))
    graphdef, params = nnx.split(model)
    with sharding.on(mesh):
      cut = jax.jit(lambda p, x: run(nnx.merge(graphdef, p), x))
      out = cut(sharding.place(params, mesh), normal(8, 12))
    wanted = compiled(model)(normal(8, 12))
    np.testing.assert_allclose(out, wanted, rtol=1e-5, atol=1e-5)

  @parameterized.parameters(("float32", "gpt_oss"), ("bfloat16", "of_all"))
  def test_bits_of_a_row_do_not_depend_on_others(self, dtype, name):
    model = build(MIXTURES[name], dtype, row_block=32)
    call = compiled(model)
    rows = jnp.asarray(normal(96, 12), dtype)
    whole = np.asarray(call(rows))
    for size in (32, 64):
      np.testing.assert_array_equal(call(rows[:size]), whole[:size])
    mixed = np.random.default_rng(0).permutation(96)
    np.testing.assert_array_equal(call(rows[mixed]), whole[mixed])
    # All tokens want the same experts.
    same = jnp.concatenate([rows[:1]] * 31 + [rows[1:2]])
    np.testing.assert_array_equal(call(same)[-1], whole[1])

  def test_no_such_number_of_experts(self):
    with self.assertRaisesRegex(ValueError, "chosen=9 must be of 8 experts"):
      build(Mixture(experts=8, chosen=9, dim=7))


class ModelTest(absltest.TestCase):
  """A decoder of which every other layer has experts."""

  def test_scanned_recomputed_and_on_a_mesh(self):
    config = tiny_model(
      num_layers=5,
      num_heads=4,
      num_kv_heads=2,
      **in_turns([{"mixture": each} for each in (PLAIN, None, PLAIN)]),
    )
    model = Transformer(config, rngs=nnx.Rngs(0))
    self.assertEqual(
      [layer.mlp is None for layer in model.layers],
      [True, False, True, False, True],
    )
    ids = np.random.default_rng(0).integers(0, 200, (4, 9), np.int32)

    def loss(model, ids):
      return jnp.mean(model(ids) ** 2)

    want = nnx.jit(nnx.value_and_grad(loss))(model, ids)
    other = reconfigured(model, scan=True, remat="elementwise")
    mesh = meshes.make(MeshConfig(fsdp=2, tensor=2))
    graphdef, params = nnx.split(other)
    with sharding.on(mesh):
      run = jax.jit(
        jax.value_and_grad(lambda p, x: loss(nnx.merge(graphdef, p), x))
      )
      found = run(sharding.place(params, mesh), ids)
    np.testing.assert_allclose(found[0], want[0], rtol=1e-5)
    wanted = arrays_in(want[1])
    for path, each in arrays_in(found[1]).items():
      np.testing.assert_allclose(
        each, wanted[path], rtol=1e-3, atol=1e-6, err_msg=str(path)
      )

  def test_is_not_rounded_to_int8(self):
    model = Transformer(tiny_model(mixture=PLAIN), rngs=nnx.Rngs(0))
    with self.assertRaisesRegex(
      ValueError, "engine.weights='int8' is of dense"
    ):
      int8.quantized(nnx.split(model)[1])
    with self.assertRaisesRegex(ValueError, "this one has experts"):
      int8.check(model.config)
    int8.check(tiny_model())


class LoadTest(absltest.TestCase):
  def test_one_expert_has_as_many_tokens_as_all(self):
    one = Mixture(experts=1, chosen=1, dim=7)
    found = experts.load(jnp.zeros((5, 1)), jnp.ones(5, bool), one)
    self.assertEqual((found.peak, found.entropy), (1, 1))

  def test_by_hand(self):
    """Four tokens, one of which is padding; experts with 2 of 3 each."""
    shares = np.array(
      [[[6, 3, 1], [6, 3, 1]], [[1, 3, 6], [3, 6, 1]]], np.float32
    )
    counts = np.array([[True, False], [True, True]])
    mixture = Mixture(experts=3, chosen=2, dim=7)
    found = experts.load(jnp.log(shares / 10), counts, mixture)
    np.testing.assert_array_equal(found.tokens, [2, 3, 1])
    np.testing.assert_allclose(found.shares, [1.0, 1.2, 0.8], rtol=1e-6)
    # 3 of 6 pairs, where the mean is 2.
    self.assertAlmostEqual(float(found.peak), 1.5, places=6)
    parts = np.array([2, 3, 1]) / 6
    entropy = -np.sum(parts * np.log(parts)) / np.log(3)
    self.assertAlmostEqual(float(found.entropy), entropy, places=6)
    # Of two layers: the sums of both.
    both = jax.tree.map(jnp.add, found, found)
    wanted = 3 * (2 / 3 * 1.0 + 3 / 3 * 1.2 + 1 / 3 * 0.8) / 3
    for each in (found, both):
      value = float(experts.imbalance(each, 2))
      self.assertAlmostEqual(value, wanted, places=6)

  def test_no_token_and_no_experts(self):
    mixture = Mixture(experts=3, chosen=2, dim=7)
    found = experts.load(jnp.ones((4, 3)), np.zeros(4, bool), mixture)
    values = *found, experts.imbalance(found, 2)
    self.assertEqual(
      [float(np.sum(each)) for each in values], [0, 0, 0, 0, 1, 0]
    )
    self.assertIsNone(experts.no_load(tiny_model()))


if __name__ == "__main__":
  absltest.main()
