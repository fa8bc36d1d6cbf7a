"""Tests of attention in whole rows, against loops and derivatives by hand."""

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized

from rstar_jax.models import attention
from tests.models.arrays import normal


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


def near_scores(length):
  """Returns bfloat16 q [1, T, 2, 64], k and v [1, T, 1, 64], and a mask.

  Scores are about 40 with differences below 1, and a bfloat16 between 32 and 64
  is a multiple of 1/4.
  """
  rng = np.random.default_rng(length)
  q = 2.3 + 0.05 * rng.standard_normal((1, length, 2, 64))
  k = 2.2 + 0.15 * rng.standard_normal((1, length, 1, 64))
  v = np.sign(rng.standard_normal((1, length, 1, 64)))
  mask = attention.causal_mask(jnp.arange(length)[None], 5)
  return *(jnp.asarray(each, jnp.bfloat16) for each in (q, k, v)), mask


class AttentionTest(parameterized.TestCase):
  def test_attention_matches_loops(self):
    q, k, v = (
      normal(0, 3, 5, 6, 4),
      normal(1, 3, 7, 2, 4),
      normal(2, 3, 7, 2, 4),
    )
    mask = np.random.default_rng(3).random((3, 5, 7)) < 0.6
    mask[:, :, 0] = True
    attend = jax.jit(attention.attend, static_argnames="block")
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
    length = attention._PARTED + 3
    q, k, v = (normal(i, 1, length, n, 4) for i, n in enumerate((4, 2, 2)))
    mask = np.random.default_rng(3).random((1, length, length)) < 0.6
    mask = np.tril(mask | np.eye(length, dtype=bool))
    out = jax.jit(attention.attend)(q, k, v, mask)
    np.testing.assert_allclose(
      out[0], naive_attention(q[0], k[0], v[0], mask[0]), atol=2e-6
    )

  @parameterized.parameters(19, attention._PARTED + 3)
  def test_gradients_of_attention_by_hand(self, length):
    q, k, v = (normal(i, 2, length, n, 4) for i, n in enumerate((6, 2, 2)))
    mask = np.random.default_rng(3).random((2, length, length)) < 0.6
    mask = np.tril(mask | np.eye(length, dtype=bool))
    weight = normal(3, *q.shape)
    found = jax.jit(
      jax.grad(
        lambda *args: jnp.sum(weight * attention.attend(*args, mask)), (0, 1, 2)
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

  @parameterized.parameters("all", "blocks")
  def test_softmax_is_float32_inside_bfloat16(self, way):
    q, k, v, mask = near_scores(300)
    out = {
      "all": lambda: attention.attend(q, k, v, mask),
      "blocks": lambda: attention.attend(q, k, v, mask, block=97),
    }[way]()
    self.assertEqual(out.dtype, jnp.bfloat16)
    exact = naive_attention(
      *(np.asarray(each[0], np.float64) for each in (q, k, v)), mask[0]
    )
    np.testing.assert_allclose(
      np.asarray(out[0], np.float64), exact, rtol=0, atol=0.02
    )

  def test_causal_mask(self):
    positions = jnp.array([[0, 1, 2, 1, 2]])
    np.testing.assert_array_equal(
      attention.causal_mask(positions)[0], np.tril(np.ones((5, 5)))
    )
    # A window counts positions: columns 3 and 4 go on after column 0.
    np.testing.assert_array_equal(
      attention.causal_mask(positions, 2)[0],
      [
        [1, 0, 0, 0, 0],
        [1, 1, 0, 0, 0],
        [0, 1, 1, 0, 0],
        [1, 1, 1, 1, 0],
        [0, 1, 1, 1, 1],
      ],
    )


if __name__ == "__main__":
  jax.config.update("jax_default_matmul_precision", "float32")
  absltest.main()
