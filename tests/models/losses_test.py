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
    total, count = losses.masked_nll(logits, targets, jnp.array([[1, 1, 0]]))
    self.assertAlmostEqual(float(total), math.log(4) + math.log(2), places=6)
    self.assertEqual(float(count), 2.0)

  def test_masked_nll_is_float32_and_ignores_what_is_masked(self):
    logits = jnp.array([[[1e4, 0.0], [jnp.nan, jnp.inf]]], jnp.bfloat16)
    targets, mask = jnp.array([[1, 0]]), jnp.array([[1, 0]])
    total, count = losses.masked_nll(logits, targets, mask)
    self.assertEqual(total.dtype, jnp.float32)
    np.testing.assert_allclose(total, 1e4, rtol=0.01)
    self.assertEqual(float(count), 1.0)

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
