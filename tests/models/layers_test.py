"""Tests of the decoder's parts, against plain numpy."""

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized
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


def near_scores(length):
  """Returns bfloat16 q [1, T, 2, 64], k and v [1, T, 1, 64], and a mask.

  Scores are about 40 with differences below 1, and a bfloat16 between 32 and 64
  is a multiple of 1/4.
  """
  rng = np.random.default_rng(length)
  q = 2.3 + 0.05 * rng.standard_normal((1, length, 2, 64))
  k = 2.2 + 0.15 * rng.standard_normal((1, length, 1, 64))
  v = np.sign(rng.standard_normal((1, length, 1, 64)))
  mask = layers.causal_mask(jnp.arange(length)[None], 5)
  return *(jnp.asarray(each, jnp.bfloat16) for each in (q, k, v)), mask


class LayersTest(parameterized.TestCase):
  def test_attention_matches_loops(self):
    q, k, v = (
      normal(0, 3, 5, 6, 4),
      normal(1, 3, 7, 2, 4),
      normal(2, 3, 7, 2, 4),
    )
    mask = np.random.default_rng(3).random((3, 5, 7)) < 0.6
    mask[:, :, 0] = True
    attend = jax.jit(layers.attend, static_argnames="block")
    out = attend(q, k, v, mask)
    for block in range(1, q.shape[1] + 2):
      some = attend(q, k, v, mask, block=block)
      np.testing.assert_allclose(some, out, atol=1e-6)
    for b in range(3):
      np.testing.assert_allclose(
        out[b], naive_attention(q[b], k[b], v[b], mask[b]), atol=2e-6
      )

  def test_attention_in_parts_matches_loops(self):
    # Longer than one part, and no multiple of the parts.
    length = layers._PARTED + 3
    q, k, v = (normal(i, 1, length, n, 4) for i, n in enumerate((4, 2, 2)))
    mask = np.random.default_rng(3).random((1, length, length)) < 0.6
    mask = np.tril(mask | np.eye(length, dtype=bool))
    out = jax.jit(layers.attend)(q, k, v, mask)
    np.testing.assert_allclose(
      out[0], naive_attention(q[0], k[0], v[0], mask[0]), atol=2e-6
    )

  @parameterized.parameters(19, layers._PARTED + 3)
  def test_gradients_of_attention_by_hand(self, length):
    q, k, v = (normal(i, 2, length, n, 4) for i, n in enumerate((6, 2, 2)))
    mask = np.random.default_rng(3).random((2, length, length)) < 0.6
    mask = np.tril(mask | np.eye(length, dtype=bool))
    weight = normal(3, *q.shape)
    found = jax.jit(
      jax.grad(
        lambda *args: jnp.sum(weight * layers.attend(*args, mask)), (0, 1, 2)
      )
    )(q, k, v)
    wanted = [np.zeros_like(each) for each in (q, k, v)]
    for b, n in np.ndindex(2, 6):
      one, keys, values = q[b, :, n], k[b, :, n // 3], v[b, :, n // 3]
      scores = np.where(mask[b], one @ keys.T / 2, -np.inf)
      shares = np.exp(scores) / np.exp(scores).sum(-1, keepdims=True)
      of_shares = weight[b, :, n] @ values.T
      mean = np.sum(of_shares * shares, axis=-1, keepdims=True)
      of_scores = shares * (of_shares - mean) / 2
      wanted[0][b, :, n] = of_scores @ keys
      wanted[1][b, :, n // 3] += of_scores.T @ one
      wanted[2][b, :, n // 3] += shares.T @ weight[b, :, n]
    for each, by_hand in zip(found, wanted, strict=True):
      np.testing.assert_allclose(each, by_hand, atol=1e-5)

  @parameterized.product(
    dtype=(jnp.float32, jnp.bfloat16), rows=(3, layers._FEW_ROWS + 5)
  )
  def test_gradients_of_a_product(self, dtype, rows):
    x, w, g = normal(0, rows, 7), normal(1, 11, 7), normal(2, rows, 11)
    # What bfloat16 holds, so that float64 has nothing to round.
    x, w, g = (jnp.asarray(each, jnp.bfloat16) for each in (x, w, g))
    out, back = jax.vjp(layers.product, x.astype(dtype), w.astype(dtype))
    self.assertEqual(out.dtype, jnp.float32)
    of_x, of_w = jax.jit(back)(g.astype(jnp.float32))
    self.assertEqual((of_x.dtype, of_w.dtype), (dtype, dtype))
    x, w, g = (np.asarray(each, np.float64) for each in (x, w, g))
    near = (
      {"rtol": 2**-8, "atol": 1e-2}
      if dtype == jnp.bfloat16
      else {"rtol": 1e-5, "atol": 1e-5}
    )
    for found, right in ((out, x @ w.T), (of_x, g @ w), (of_w, g.T @ x)):
      np.testing.assert_allclose(np.asarray(found, np.float64), right, **near)

  @parameterized.parameters(jnp.float32, jnp.bfloat16, jnp.float16)
  def test_lookup_moves_bits_and_has_a_derivative(self, dtype):
    table = jnp.asarray(normal(0, 7, 5), dtype)
    table = table.at[1, 2].set(jnp.nan).at[2, 3].set(-0.0)
    ids = jnp.asarray([[1, 6], [2, 1]])
    found = jax.jit(layers.lookup)(table, ids)
    self.assertEqual(found.dtype, dtype)
    self.assertEqual(found.tobytes(), table[ids].tobytes())
    weight = jnp.asarray(normal(1, 2, 2, 5), dtype)
    expected = np.zeros((7, 5), np.float32)
    np.add.at(expected, ids, np.asarray(weight, np.float32))
    by_table = jax.grad(lambda x: jnp.sum(weight * layers.lookup(x, ids)))(
      jnp.nan_to_num(table)
    )
    np.testing.assert_allclose(
      np.asarray(by_table, np.float32), expected, rtol=1e-2
    )

  @parameterized.parameters(jnp.float32, jnp.bfloat16)
  def test_moves_go_as_integers_on_a_cpu_only(self, dtype):
    table = jax.ShapeDtypeStruct((7, 5), dtype)
    ids = jax.ShapeDtypeStruct((3,), jnp.int32)

    def program(platform):
      lookup = jax.jit(layers.lookup)
      return export.export(lookup, platforms=[platform])(
        table, ids
      ).mlir_module()

    self.assertEqual("ui16" in program("cpu"), dtype == jnp.bfloat16)
    self.assertNotIn("ui16", program("tpu"))

  def test_a_loop_of_lookups_makes_no_other_table(self):
    table = jnp.ones((5000, 8), jnp.bfloat16)

    def run(table, ids):
      def turn(_, ids):
        return layers.lookup(table, ids)[:, 0].astype(jnp.int32) + ids

      return jax.lax.fori_loop(0, 9, turn, ids)

    made = jax.jit(run).lower(table, jnp.arange(4)).compile()
    temporaries = made.memory_analysis().temp_size_in_bytes
    self.assertLess(temporaries, table.nbytes / 9)

  @parameterized.parameters("all", "blocks")
  def test_softmax_is_float32_inside_bfloat16(self, way):
    q, k, v, mask = near_scores(300)
    out = {
      "all": lambda: layers.attend(q, k, v, mask),
      "blocks": lambda: layers.attend(q, k, v, mask, block=97),
    }[way]()
    self.assertEqual(out.dtype, jnp.bfloat16)
    exact = naive_attention(
      *(np.asarray(each[0], np.float64) for each in (q, k, v)), mask[0]
    )
    np.testing.assert_allclose(
      np.asarray(out[0], np.float64), exact, rtol=0, atol=0.02
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
    norm = layers.RMSNorm(config, (config.embed_dim,), "embed")
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
    out = layers.RMSNorm(tiny_model(), (24,), "embed")(x)
    self.assertEqual(out.dtype, jnp.bfloat16)
    np.testing.assert_array_equal(out, jnp.ones_like(x))


if __name__ == "__main__":
  jax.config.update("jax_default_matmul_precision", "float32")
  absltest.main()
