"""Tests of the decoder's parts, against plain numpy."""

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest
from flax import nnx
from jax import export

from rstar_jax.models import layers
from rstar_jax.testing import tiny_model


def naive_attention(q, k, v, allowed):
  """Attention by loops. q [T,N,H], k and v [S,K,H], allowed [T,S]."""
  queries, heads, dim = q.shape
  out = np.zeros_like(q)
  for t in range(queries):
    for n in range(heads):
      kv = n * k.shape[1] // heads
      scores = np.array([q[t, n] @ row for row in k[:, kv]]) / np.sqrt(dim)
      weights = np.where(allowed[t], np.exp(scores), 0)
      out[t, n] = weights @ v[:, kv] / weights.sum()
  return out


def normal(seed, *shape):
  return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


class LayersTest(absltest.TestCase):
  def test_attention_matches_loops(self):
    q, k, v = (
      normal(0, 3, 5, 6, 4),
      normal(1, 3, 7, 2, 4),
      normal(2, 3, 7, 2, 4),
    )
    mask = np.random.default_rng(3).random((3, 5, 7)) < 0.6
    mask[:, :, 0] = True
    arrays = tuple(map(jnp.asarray, (q, k, v, mask)))
    out = layers.attend(*arrays)
    for block in range(1, q.shape[1] + 2):
      some = layers.attend(*arrays, block)
      np.testing.assert_allclose(some, out, atol=1e-6)
    for b in range(3):
      np.testing.assert_allclose(
        out[b], naive_attention(q[b], k[b], v[b], mask[b]), atol=2e-6
      )

  def test_product_of_few_rows_and_of_many(self):
    weights = normal(0, 7, 5)
    for rows in (1, 128, 129):
      x, weight = normal(1, rows, 5), normal(2, rows, 7)

      def total(x, weights, weight=weight):
        return jnp.sum(weight * layers.product(x, weights))

      np.testing.assert_allclose(
        jax.jit(layers.product)(x, weights), x @ weights.T, atol=1e-5
      )
      by_x, by_weights = jax.jit(jax.grad(total, (0, 1)))(x, weights)
      np.testing.assert_allclose(by_x, weight @ weights, atol=1e-5)
      np.testing.assert_allclose(by_weights, weight.T @ x, atol=5e-5)

  def test_product_accumulates_in_float32(self):
    x = jnp.ones((3, 1031), jnp.bfloat16)
    out = layers.product(x, jnp.ones((2, 1031), jnp.bfloat16))
    self.assertEqual(out.dtype, jnp.float32)
    # Not a bfloat16, which has 8 bits.
    np.testing.assert_array_equal(out, np.full((3, 2), 1031))

  def test_product_is_turned_on_a_cpu_only(self):
    def program(platform, rows):
      shapes = [
        jax.ShapeDtypeStruct(shape, jnp.float32)
        for shape in ((rows, 5), (7, 5))
      ]
      product = jax.jit(layers.product)
      return export.export(product, platforms=[platform])(*shapes).mlir_module()

    self.assertIn("tensor<7x128xf32>", program("cpu", 128))
    for platform, rows in (("cpu", 129), ("tpu", 128), ("tpu", 129)):
      self.assertNotIn(f"tensor<7x{rows}xf32>", program(platform, rows))

  def test_causal_mask(self):
    positions = jnp.array([[0, 1, 2, 1, 2]])
    np.testing.assert_array_equal(
      layers.causal_mask(positions)[0], np.tril(np.ones((5, 5)))
    )
    # A window counts positions: columns 3 and 4 go on after column 0.
    np.testing.assert_array_equal(
      layers.causal_mask(positions, 2)[0],
      [
        [1, 0, 0, 0, 0],
        [1, 1, 0, 0, 0],
        [0, 1, 1, 0, 0],
        [1, 1, 1, 1, 0],
        [0, 1, 1, 1, 1],
      ],
    )

  def test_norm_and_mlp(self):
    config = tiny_model()
    x = normal(0, 5, config.embed_dim) * 3
    norm = layers.RMSNorm(config, config.embed_dim, "embed")
    expected = x / np.sqrt((x**2).mean(-1, keepdims=True) + config.rms_eps)
    np.testing.assert_allclose(norm(jnp.asarray(x)), expected, rtol=1e-5)
    mlp = layers.Mlp(config, nnx.Rngs(0))
    gate, up, down = (
      np.asarray(w.get_value()) for w in (mlp.gate, mlp.up, mlp.down)
    )
    hidden = x @ gate.T
    expected = (hidden / (1 + np.exp(-hidden)) * (x @ up.T)) @ down.T
    np.testing.assert_allclose(mlp(jnp.asarray(x)), expected, atol=1e-6)

  def test_norm_is_float32_inside_bfloat16(self):
    x = jnp.full((1, 24), 300.0, jnp.bfloat16)
    out = layers.RMSNorm(tiny_model(), 24, "embed")(x)
    self.assertEqual(out.dtype, jnp.bfloat16)
    np.testing.assert_array_equal(out, jnp.ones_like(x))


if __name__ == "__main__":
  jax.config.update("jax_default_matmul_precision", "float32")
  absltest.main()
