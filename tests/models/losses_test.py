import math

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest

from rstar_jax.models import losses


def _log_sigmoid(x: float) -> float:
  return -math.log(1 + math.exp(-x))


class LossesTest(absltest.TestCase):
  def test_masked_nll_by_hand(self):
    # Odds 1:2:5 and 3:1:4, so the probabilities are 1/4 and 4/8.
    logits = jnp.log(jnp.array([[[1.0, 2, 5], [3, 1, 4], [7, 7, 7]]]))
    targets = jnp.array([[1, 2, 0]])
    total, count = losses.masked_nll(
      losses.logprobs(logits, targets), jnp.array([[1, 1, 0]])
    )
    self.assertAlmostEqual(float(total), math.log(4) + math.log(2), places=6)
    self.assertEqual(float(count), 2.0)

  def test_masked_nll_is_float32_and_ignores_what_is_masked(self):
    logits = jnp.array([[[1e4, 0.0], [jnp.nan, jnp.inf]]], jnp.bfloat16)
    targets, mask = jnp.array([[1, 0]]), jnp.array([[1, 0]])
    total, count = losses.masked_nll(losses.logprobs(logits, targets), mask)
    self.assertEqual(total.dtype, jnp.float32)
    np.testing.assert_allclose(total, 1e4, rtol=0.01)
    self.assertEqual(float(count), 1.0)

  def test_sums_are_those_of_float64_to_the_last_bits_of_float32(self):
    """Of numbers, weights of 1/12 too, that bfloat16 does not have."""
    rng = np.random.default_rng(5)
    a, b = rng.uniform(-1, 1, (2, 97)).astype(np.float32)
    share = rng.random(97).astype(np.float32)
    weight = np.where(np.arange(97) % 3, np.float32(1 / 12), np.float32(0))
    real = weight > 0
    x, y, p, w = (
      each[real].astype(np.float64) for each in (a, b, share, weight)
    )
    sums = {
      "bradley_terry": (
        losses.bradley_terry(a, b, jnp.asarray(weight)),
        np.sum(w * np.log1p(np.exp(y - x))),
      ),
      "orm": (
        losses.orm(jnp.asarray(a), jnp.asarray(share), jnp.asarray(weight)),
        np.sum(w * (p * np.log1p(np.exp(-x)) + (1 - p) * np.log1p(np.exp(x)))),
      ),
      "pqm": (
        losses.pqm(a, b, jnp.asarray(weight)),
        np.sum(w * (x - y) ** 2),
      ),
    }
    for name, ((total, count), expected) in sums.items():
      with self.subTest(name):
        np.testing.assert_allclose(total, expected, rtol=2e-6)
        self.assertEqual(float(count), 64.0)
        self.assertEqual((total.dtype, count.dtype), ("float32", "float32"))

  def test_a_mask_weights_the_terms(self):
    rng = np.random.default_rng(6)
    logits = rng.normal(size=(2, 5, 11)).astype(np.float32)
    targets = rng.integers(0, 11, (2, 5))
    mask = np.array([[1, 0, 0.3, 0, 1], [0, 0.7, 1, 1, 0]], np.float32)
    total, count = losses.masked_nll(
      losses.logprobs(jnp.asarray(logits), jnp.asarray(targets)),
      jnp.asarray(mask),
    )
    wide = logits.astype(np.float64)
    nll = np.log(np.exp(wide).sum(-1)) - np.take_along_axis(
      wide, targets[..., None], -1
    ).squeeze(-1)
    np.testing.assert_allclose(total, np.sum(mask * nll), rtol=2e-6)
    np.testing.assert_allclose(count, 5.0, rtol=1e-6)

  def test_masked_nll_of_bfloat16_is_exact(self):
    # Of many words that are about as likely: a bfloat16 has 8 bits.
    rng = np.random.default_rng(0)
    logits = jnp.asarray(30 + rng.standard_normal((2, 3, 997)), jnp.bfloat16)
    targets = rng.integers(0, 997, (2, 3))
    mask = np.array([[1, 1, 0], [1, 0.5, 1]])
    wide = np.asarray(logits, np.float64)
    picked = np.take_along_axis(wide, targets[..., None], -1)[..., 0]
    expected = np.log(np.exp(wide).sum(-1)) - picked
    total, _ = losses.masked_nll(
      losses.logprobs(logits, jnp.asarray(targets)), jnp.asarray(mask)
    )
    np.testing.assert_allclose(total, (mask * expected).sum(), rtol=1e-6)

  def test_gradient_of_logprobs(self):
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(3, 2, 5)).astype(np.float32)
    targets, weights = rng.integers(0, 5, (3, 2)), rng.normal(size=(3, 2))
    shares = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    right = weights[..., None] * (np.eye(5)[targets] - shares)
    for dtype, near in ((jnp.float32, 1e-6), (jnp.bfloat16, 2e-2)):
      found = jax.grad(
        lambda x: jnp.sum(losses.logprobs(x, jnp.asarray(targets)) * weights)
      )(jnp.asarray(logits, dtype))
      self.assertEqual(found.dtype, dtype)
      np.testing.assert_allclose(found.astype(np.float32), right, atol=near)

  def test_bradley_terry_by_hand(self):
    chosen = jnp.array([0.5, -0.25, 0.9, 3.0])
    rejected = jnp.array([-0.5, 0.25, 0.9, -4.0])
    weight = jnp.array([0.25, 0.5, 1.0, 0.0])
    total, count = losses.bradley_terry(chosen, rejected, weight)
    expected = -(
      0.25 * _log_sigmoid(1.0)
      + 0.5 * _log_sigmoid(-0.5)
      + 1.0 * _log_sigmoid(0.0)
    )
    self.assertAlmostEqual(float(total), expected, places=6)
    self.assertEqual(float(count), 3.0)

  def test_bradley_terry_equals_equation_4_for_one_step(self):
    # -1/(2x2) E over the 2 x 2 pairs of one step.
    good, bad = np.array([0.7, 0.1]), np.array([-0.3, 0.2])
    pairs = [(g, b) for g in good for b in bad]
    expected = -0.25 * np.mean([_log_sigmoid(g - b) for g, b in pairs])
    total, count = losses.bradley_terry(
      jnp.array([g for g, _ in pairs]),
      jnp.array([b for _, b in pairs]),
      jnp.full((4,), 0.25),
    )
    self.assertAlmostEqual(float(total / count), expected, places=6)

  def test_bradley_terry_gradient(self):
    def mean(chosen):
      total, _ = losses.bradley_terry(chosen, jnp.zeros(1), jnp.full(1, 0.5))
      return total

    # d/dx -w log sigmoid(x) = -w (1 - sigmoid(x)).
    grad = jax.grad(mean)(jnp.array([2.0]))
    np.testing.assert_allclose(grad, -0.5 / (1 + math.exp(2)), rtol=1e-5)

  def test_orm_by_hand(self):
    total, count = losses.orm(
      jnp.array([2.0, -1.0, 5.0]),
      jnp.array([1.0, 0.0, 1.0]),
      jnp.array([1.0, 1.0, 0.0]),
    )
    expected = -_log_sigmoid(2.0) - _log_sigmoid(1.0)
    self.assertAlmostEqual(float(total), expected, places=6)
    self.assertEqual(float(count), 2.0)

  def test_pqm_by_hand(self):
    total, count = losses.pqm(
      jnp.array([0.5, -1.0, 9.0]),
      jnp.array([0.0, 0.5, 0.0]),
      jnp.array([1.0, 2.0, 0.0]),
    )
    self.assertAlmostEqual(float(total), 0.25 + 2 * 2.25, places=6)
    self.assertEqual(float(count), 2.0)


if __name__ == "__main__":
  absltest.main()
