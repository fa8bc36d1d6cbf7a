"""Tests of the kernels for CPUs against sums that are written out."""

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized

from rstar_jax.models.kernels import build, cpu

needs_compiler = absltest.skipUnless(build.compiler(), "no C++ compiler")

# How far results may be, of numbers of about 1: bfloat16 has eight bits.
_CLOSE = {"float32": 3e-6, "bfloat16": 1e-2}


def normal(seed: int, dtype: str, *shape: int) -> jax.Array:
  numbers = np.random.default_rng(seed).normal(size=shape)
  return jnp.asarray(numbers, dtype)


def wide(x: jax.Array) -> np.ndarray:
  return np.asarray(x, np.float64)


@needs_compiler
class KernelsTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    build.load()

  @parameterized.product(
    dtype=["float32", "bfloat16"],
    # The last three: less than a vector, no whole tile, several chunks.
    shape=[
      (32, 64, (48, 16, 61)),
      (1, 2, (1,)),
      (37, 94, (53, 3)),
      (113, 34, (101,)),
    ],
    wide_result=[False, True],
  )
  def test_products(self, dtype, shape, wide_result):
    rows, inner, outs = shape
    result = "float32" if wide_result else dtype
    x = normal(1, dtype, rows, inner)
    weights = [normal(i, dtype, out, inner) for i, out in enumerate(outs, 2)]
    got = jax.jit(lambda x, w: cpu.products(x, w, result))(x, weights)
    for each, weight in zip(got, weights, strict=True):
      self.assertEqual(each.dtype, result)
      want = wide(x) @ wide(weight).T
      close = _CLOSE[str(each.dtype)] * np.sqrt(inner)
      np.testing.assert_allclose(wide(each), want, rtol=0.004, atol=close)

  @parameterized.parameters("float32", "bfloat16")
  def test_gated(self, dtype):
    # The last rows are far from 0, where silu is its argument, or nothing.
    x = (
      normal(1, dtype, 19, 32)
      * jnp.geomspace(0.1, 40, 19, dtype=dtype)[:, None]
    )
    gate, up = normal(2, dtype, 59, 32), normal(3, dtype, 59, 32)
    got = jax.jit(cpu.gated)(x, gate, up)
    each = wide(x) @ wide(gate).T
    want = each / (1 + np.exp(-each)) * (wide(x) @ wide(up).T)
    size = np.abs(want).max(axis=1, keepdims=True)
    np.testing.assert_allclose(
      wide(got) / size, want / size, atol=_CLOSE[dtype]
    )

  @parameterized.parameters((0, 0), (2**-14, 1), (-(2**-14), -1))
  def test_products_are_rounded_to_the_nearest_and_ties_to_even(
    self, beside, where
  ):
    # A bfloat16 has 7 bits of mantissa: between 1 and 2 they are 1/128 apart.
    below = 1 + np.arange(40) / 128
    odd = np.arange(40) % 2
    # x is (1, 1/256, `beside`): a sum is a tie, or just above or below it.
    weights = np.stack([below, np.ones(40), np.ones(40), np.zeros(40)], axis=1)
    x = np.array([[1, 1 / 256, beside, 0], [-1, -1 / 256, -beside, 0]])
    got = jax.jit(lambda x, w: cpu.products(x, [w], "bfloat16"))(
      jnp.asarray(x, "bfloat16"), jnp.asarray(weights, "bfloat16")
    )
    up = {0: odd, 1: 1, -1: 0}[where]
    want = below + up / 128
    np.testing.assert_array_equal(wide(got[0]), [want, -want])

  def test_is_the_same_to_the_bit_whoever_takes_which_part(self):
    x, weight = normal(1, "float32", 29, 512), normal(2, "float32", 997, 512)
    run = jax.jit(lambda x, weight: cpu.products(x, [weight] * 3, "float32"))
    first = [np.asarray(each) for each in run(x, weight)]
    for _ in range(20):
      for each in run(x, weight):
        np.testing.assert_array_equal(each, first[0])

  @parameterized.product(
    dtype=["float32", "bfloat16"],
    # The first of which has whole blocks of weights, the last words to spare.
    shape=[(64, 96), (70, 61)],
  )
  def test_a_row_has_the_same_bits_with_any_other_rows(self, dtype, shape):
    inner, outs = shape
    x = normal(1, dtype, 512, inner)
    weight, up = normal(2, dtype, outs, inner), normal(3, dtype, outs, inner)
    run = jax.jit(
      lambda x: (
        *cpu.products(x, [weight, up], dtype),
        *cpu.products(x, [weight], "float32"),
        cpu.gated(x, weight, up),
      )
    )
    want = [wide(each) for each in run(x)]
    for rows in (1, 2, 15, 16, 17, 32, 33, 48, 49, 96, 97, 128, 255, 400):
      for start in {0, 512 - rows}:
        found = run(x[start : start + rows])
        for got, each in zip(found, want, strict=True):
          np.testing.assert_array_equal(wide(got), each[start : start + rows])

  def test_wants_shapes_that_fit(self):
    x, weight = normal(1, "float32", 3, 4), normal(2, "float32", 7, 4)
    with self.assertRaisesRegex(ValueError, r"weights is .*\(7, 3\) and must"):
      cpu.products(x, [weight[:, :3]], "float32")
    with self.assertRaisesRegex(ValueError, r"float32\(3, 4\) gives bfloat16"):
      cpu.products(x, [weight], "bfloat16")
    with self.assertRaisesRegex(ValueError, r"up is bfloat16\(7, 4\) and must"):
      cpu.gated(x, weight, weight.astype("bfloat16"))

  def test_says_what_it_is_for(self):
    self.assertTrue(cpu.can_multiply(jnp.ones((2, 3))))
    self.assertTrue(cpu.can_multiply(jnp.ones((2, 4), jnp.bfloat16)))
    self.assertFalse(cpu.can_multiply(jnp.ones((2, 3), jnp.bfloat16)))
    self.assertFalse(cpu.can_multiply(jnp.ones((2, 4), jnp.float16)))


if __name__ == "__main__":
  absltest.main()
