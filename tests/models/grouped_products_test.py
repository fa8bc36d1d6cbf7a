"""Tests of products of groups of rows, against loops."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized

from rstar_jax.models import grouped_products


def normal(*shape):
  return np.random.default_rng(len(shape)).standard_normal(shape, np.float32)


by_kernel = jax.jit(
  functools.partial(grouped_products.gradients_by_kernel, interpret=True)
)


@jax.jit
def differentiated(x, weights, counts, grad):
  """Returns [64, 10], and the gradients of rows and of weights."""
  out, back = jax.vjp(
    lambda x, w: grouped_products.grouped(x, w, counts), x, weights
  )
  return out, *back(grad)


class GroupedTest(parameterized.TestCase):
  SIZES = (
    (5, 0, 40, 1),
    (0, 0, 0, 0),
    (0, 64, 0, 0),
    (13, 17, 0, 34),
  )

  def arrays(self, sizes):
    arrays = normal(64, 6), normal(4, 6, 10), np.int32(sizes), normal(64, 10)
    return tuple(map(jnp.asarray, arrays))

  def by_loops(self, x, weights, sizes, grad):
    out, of_x = np.zeros((64, 10)), np.zeros((64, 6))
    of_weights, row = np.zeros(weights.shape), 0
    for group, size in enumerate(sizes):
      for i in range(row, row + size):
        out[i] = x[i] @ weights[group]
        of_x[i] = weights[group] @ grad[i]
        of_weights[group] += np.outer(x[i], grad[i])
      row += size
    return out, of_x, of_weights

  @parameterized.parameters(*SIZES)
  def test_as_by_loops(self, *sizes):
    x, weights, counts, grad = self.arrays(sizes)
    wanted = self.by_loops(x, weights, sizes, grad)
    for found, each in zip(
      differentiated(x, weights, counts, grad), wanted, strict=True
    ):
      np.testing.assert_allclose(found, each, rtol=0, atol=1e-5)

  @parameterized.parameters(*SIZES)
  def test_kernels_of_a_tpu(self, *sizes):
    x, weights, counts, grad = self.arrays(sizes)
    out, of_x, of_weights = self.by_loops(x, weights, sizes, grad)
    used = sum(sizes)
    found = by_kernel(x, weights, counts, grad)
    np.testing.assert_allclose(found[0][:used], of_x[:used], rtol=0, atol=1e-5)
    np.testing.assert_allclose(found[1], of_weights, rtol=0, atol=1e-5)
    ragged = jax.lax.ragged_dot(x, weights, counts)
    np.testing.assert_allclose(ragged[:used], out[:used], rtol=0, atol=1e-5)


if __name__ == "__main__":
  absltest.main()
