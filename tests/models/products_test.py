"""Tests of products, against numpy's."""

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized
from jax import export

from rstar_jax.models import products
from tests.models.arrays import normal


class ProductsTest(parameterized.TestCase):
  @parameterized.product(
    dtype=(jnp.float32, jnp.bfloat16), rows=(3, products._FEW_ROWS + 5)
  )
  def test_gradients_of_a_product(self, dtype, rows):
    x, w, g = normal(0, rows, 7), normal(1, 11, 7), normal(2, rows, 11)
    # What bfloat16 holds, so that float64 has nothing to round.
    x, w, g = (jnp.asarray(each, jnp.bfloat16) for each in (x, w, g))
    out, back = jax.vjp(products.product, x.astype(dtype), w.astype(dtype))
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

  def test_product_of_few_rows_and_of_many(self):
    weights = normal(0, 7, 5)
    for rows in (1, 128, 129):
      x, weight = normal(1, rows, 5), normal(2, rows, 7)

      def total(x, weights, weight=weight):
        return jnp.sum(weight * products.product(x, weights))

      np.testing.assert_allclose(
        jax.jit(products.product)(x, weights), x @ weights.T, atol=1e-5
      )
      by_x, by_weights = jax.jit(jax.grad(total, (0, 1)))(x, weights)
      np.testing.assert_allclose(by_x, weight @ weights, atol=1e-5)
      np.testing.assert_allclose(by_weights, weight.T @ x, atol=5e-5)

  def test_product_accumulates_in_float32(self):
    x = jnp.ones((3, 1031), jnp.bfloat16)
    out = products.product(x, jnp.ones((2, 1031), jnp.bfloat16))
    self.assertEqual(out.dtype, jnp.float32)
    # Not a bfloat16, which has 8 bits.
    np.testing.assert_array_equal(out, np.full((3, 2), 1031))

  def test_product_is_turned_on_a_cpu_only(self):
    def program(platform, rows):
      shapes = [
        jax.ShapeDtypeStruct(shape, jnp.float32)
        for shape in ((rows, 5), (7, 5))
      ]
      product = jax.jit(products.product)
      return export.export(product, platforms=[platform])(*shapes).mlir_module()

    self.assertIn("tensor<7x128xf32>", program("cpu", 128))
    for platform, rows in (("cpu", 129), ("tpu", 128), ("tpu", 129)):
      self.assertNotIn(f"tensor<7x{rows}xf32>", program(platform, rows))


if __name__ == "__main__":
  jax.config.update("jax_default_matmul_precision", "float32")
  absltest.main()
