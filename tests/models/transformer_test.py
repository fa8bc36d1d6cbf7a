"""Tests of the decoder: causality, packing, heads, sizes."""

import functools
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized
from flax import nnx

from rstar_jax.data import prefix_trees
from rstar_jax.models.config import RopeScaling
from rstar_jax.models.kernels import build, tree_attention
from rstar_jax.models.transformer import (
  Transformer,
  abstract,
  arrays_in,
  arrays_of,
  outputs,
  ppm_from_policy,
  reconfigured,
)
from rstar_jax.testing import tiny_model
from tests.models import plain
from tests.models.jitted import call as run
from tests.models.kernels.cpu_test import needs_compiler
from tests.models.step_test import KINDS, model_of_kinds


def make(head="lm", **overrides):
  return Transformer(tiny_model(**overrides), head=head, rngs=nnx.Rngs(7))


def tokens(*shape):
  return np.random.default_rng(0).integers(2, 260, shape, np.int32)


def interpreted():
  """Lets a TPU's attention run anywhere."""
  options = functools.partial(tree_attention.Options, interpret=True)
  return mock.patch.object(tree_attention, "Options", options)


@functools.cache
def gradients(**changes):
  """Returns the leaves of a gradient of packed rows."""
  ids = tokens(2, 11)
  ends = np.array([[11] * 11, [4] * 4 + [9] * 5 + [0] * 2])
  graphdef, params = nnx.split(make(qkv_bias=False, **changes))

  def loss(params):
    model = nnx.merge(graphdef, params)
    return jnp.mean(model(ids, ends=ends)[ends > 0] ** 2)

  with interpreted():
    return jax.tree.leaves(jax.jit(jax.grad(loss))(params))


class TransformerTest(parameterized.TestCase):
  @needs_compiler
  def test_logits_are_the_same_by_kernels(self):
    build.load()
    model, ids = make(), tokens(3, 11)
    other = reconfigured(model, native=True)
    self.assertTrue(other.layers[0].mlp.config.native)
    self.assertFalse(model.config.native)
    np.testing.assert_allclose(run(other, ids), run(model, ids), atol=1e-5)
    self.assertIs(other.embedding.get_value(), model.embedding.get_value())

  def test_is_causal(self):
    model, ids = make(), tokens(3, 11)
    changed = ids.copy()
    changed[:, 7:] = 5
    first, second = run(model, ids), run(model, changed)
    np.testing.assert_array_equal(first[:, :7], second[:, :7])
    self.assertGreater(np.abs(first[:, 7:] - second[:, 7:]).min(-1).max(), 0)

  def test_packed_rows_equal_separate_rows(self):
    model = make()
    first, second = tokens(1, 5), tokens(1, 7) + 1
    packed = np.concatenate([first, second, np.zeros((1, 1), np.int32)], 1)
    ends = np.array([[5] * 5 + [12] * 7 + [0]])
    out = run(model, packed, ends=ends)
    np.testing.assert_allclose(out[:, :5], run(model, first), atol=1e-5)
    np.testing.assert_allclose(out[:, 5:12], run(model, second), atol=1e-5)
    self.assertTrue(np.isfinite(out).all())
    restarted = np.array([[*range(5), *range(7), 0]])
    again = run(model, packed, ends=ends, positions=restarted)
    np.testing.assert_allclose(again[:, :12], out[:, :12], atol=1e-5)

  @parameterized.parameters(0, 3)
  def test_a_tree_equals_its_rows(self, window):
    model = make(sliding_window=window)
    rows = [[4, 9, 2, 7, 7, 1], [4, 9, 2, 5], [4, 3, 3, 3], [8, 4]]
    tree = prefix_trees.join([np.asarray(row, np.int32) for row in rows])
    self.assertLen(tree.tokens, 12)
    where = {"positions": tree.positions[None], "ends": tree.ends[None]}
    out = run(model, tree.tokens[None], **where)
    for row, places in zip(rows, tree.places, strict=True):
      alone = run(model, np.array([row]))
      np.testing.assert_allclose(out[:, places], alone, atol=1e-5)

  def test_positions_matter(self):
    model, ids = make(), tokens(1, 5)
    spread = run(model, ids, positions=3 * np.arange(5)[None])
    self.assertGreater(np.abs(spread - run(model, ids)).max(), 1e-6)

  def test_outputs_of_rows_are_those_of_each_alone(self):
    # LongRoPE chooses by a row's length, which padding is no part of.
    rope = RopeScaling(
      kind="longrope",
      original_length=4,
      short_factor=(1.0, 1.0),
      long_factor=(9.0, 9.0),
    )
    rows = [[5], [7, 8, 9, 10, 11], [3, 4, 5]]
    model = Transformer(tiny_model(rope=rope, vocab_size=64), rngs=nnx.Rngs(0))
    found = outputs(model, rows, multiple=8)
    self.assertEqual(found.shape, (3, 8, 64))
    for row, ids in zip(found, rows, strict=True):
      alone = run(model, np.array([ids]))[0]
      np.testing.assert_allclose(row[: len(ids)], alone, atol=2e-5)

  def test_initial_scale(self):
    model = make(mlp_dim=211)
    block = model.layers[1]
    self.assertAlmostEqual(block.mlp.up.get_value().std(), 0.02, delta=1e-3)
    self.assertAlmostEqual(block.mlp.down.get_value().std(), 0.01, delta=1e-3)
    self.assertAlmostEqual(
      block.attention.o.get_value().std(), 0.01, delta=1e-3
    )

  @parameterized.parameters(
    dict(remat="layer"),
    dict(attention_block=1),
    dict(remat="mlp", attention_block=3),
    dict(scan=True),
    dict(scan=True, remat="layer"),
    dict(scan=True, remat="elementwise", attention="pallas"),
    dict(attention="pallas", sliding_window=3),
  )
  def test_how_it_is_computed_changes_no_gradient(self, **options):
    plain = gradients(sliding_window=options.get("sliding_window", 0))
    for first, second in zip(plain, gradients(**options), strict=True):
      np.testing.assert_allclose(first, second, atol=1e-7)

  def test_kinds_of_layers_by_loops_and_kernels(self):
    options = {"scan": True, "remat": "mlp", "attention": "pallas"}
    ids, model = tokens(2, 11), model_of_kinds()
    want = np.stack([plain.Decoder(model).logits(each) for each in ids])
    found = []
    for changes in ({}, options):
      graphdef, params = nnx.split(reconfigured(model, **changes))

      def loss(params, graphdef=graphdef):
        logits = nnx.merge(graphdef, params)(ids)
        return jnp.mean(logits**2), logits

      with interpreted():
        run = jax.jit(jax.grad(loss, has_aux=True))
        grads, logits = run(params)
      np.testing.assert_allclose(logits, want, atol=2e-5)
      found.append(jax.tree.leaves(grads))
    for first, second in zip(*found, strict=True):
      np.testing.assert_allclose(first, second, atol=1e-6)

  def test_a_loop_over_periods_does_not_grow(self):
    def products(num_layers, scan):
      config = tiny_model(**KINDS | {"num_layers": num_layers, "scan": scan})
      model = nnx.eval_shape(lambda: Transformer(config, rngs=nnx.Rngs(0)))
      graphdef, params = nnx.split(model)
      run = lambda params: nnx.merge(graphdef, params)(tokens(1, 3))  # noqa: E731
      return str(jax.make_jaxpr(run)(params)).count("dot_general")

    # A period of two, and one layer that is left.
    self.assertEqual(products(5, True), products(3, False))
    self.assertEqual(products(9, True), products(5, True))
    self.assertGreater(products(5, False), products(5, True))

  def test_shapes_are_those_of_a_model_whatever_a_caller_makes_of_them(self):
    config = tiny_model()
    for layers in (2, 2, 3):
      config.num_layers = layers
      graphdef, params = abstract(config, "tanh")
      for each in jax.tree.leaves(params):
        self.assertIsInstance(each, jax.ShapeDtypeStruct)
      arrays = arrays_of(make("tanh", num_layers=layers))
      self.assertEqual(
        {path: (x.shape, x.dtype) for path, x in arrays_in(params).items()},
        {path: (x.shape, x.dtype) for path, x in arrays.items()},
      )
      for path, variable in nnx.to_flat_state(params):
        variable.set_value(2 * arrays[path])
      model = nnx.merge(graphdef, params)
      self.assertEqual(model.config, config)
      self.assertEqual(model.head, "tanh")

  def test_bfloat16_stays_near_float32(self):
    ids = tokens(2, 11)
    exact, rounded = run(make(), ids), run(make(dtype="bfloat16"), ids)
    self.assertEqual(rounded.dtype, jnp.float32)
    np.testing.assert_allclose(rounded, exact, atol=0.02)
    self.assertGreater(np.abs(rounded - exact).max(), 0)

  def test_ppm_keeps_the_trunk(self):
    policy, ids = make(tied_embeddings=False), tokens(3, 7)
    for head, scale in (("tanh", 1), ("logit", 5)):
      ppm = ppm_from_policy(policy, head, rngs=nnx.Rngs(1))
      hidden, kept = (
        np.asarray(run(each, ids, name="hidden")) for each in (ppm, policy)
      )
      np.testing.assert_array_equal(hidden, kept)
      raw = hidden @ np.asarray(ppm.score.get_value())
      values = run(ppm, ids)
      self.assertEqual(values.shape, (3, 7))
      np.testing.assert_allclose(values, np.tanh(raw / scale), atol=1e-6)
      np.testing.assert_allclose(ppm.raw_values(hidden), raw, atol=1e-6)
      self.assertBetween(raw.std(), 0.03, 0.3)
      self.assertNotIn("lm_head", nnx.to_pure_dict(nnx.split(ppm)[1]))
      with self.assertRaisesRegex(ValueError, "no LM head"):
        ppm.logits(hidden)
    with self.assertRaisesRegex(ValueError, "no scalar head"):
      policy.raw_values(hidden)

  def test_ppm_copies_arrays(self):
    policy = make()
    ppm = ppm_from_policy(policy, rngs=nnx.Rngs(1))
    ppm.embedding.get_value().delete()
    self.assertFalse(policy.embedding.get_value().is_deleted())

  def test_heads_must_divide(self):
    with self.assertRaisesRegex(ValueError, "num_kv_heads=4 must divide"):
      make(num_kv_heads=4)


if __name__ == "__main__":
  absltest.main()
