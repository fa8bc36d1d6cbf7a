"""Tests of the kernels for CPUs against sums that are written out."""

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized

from rstar_jax.models.kernels import build, cpu
from tests.models.kernels.branch_test import brute, case

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

  @parameterized.product(
    dtype=["float32", "bfloat16"],
    # Leaves, candidates, tokens, key/value heads, query heads of each, head.
    sizes=[
      ((3, 8, 1, 3, 3, 64), dict(path=67, own=11, index=4)),
      # Query heads in three vectors, in three chunks of candidates.
      ((1, 13, 1, 2, 7, 32), dict(path=31, own=17, index=16)),
      # More query heads than are taken together, and the first token.
      ((2, 1, 1, 1, 11, 32), dict(path=5, own=1, index=0)),
      # A window: inside the path, and inside a candidate's own tokens.
      ((2, 5, 1, 2, 1, 96), dict(path=67, own=37, index=20, window=29)),
      ((2, 5, 1, 2, 2, 32), dict(path=67, own=37, index=20, window=7)),
    ],
  )
  def test_attend(self, dtype, sizes):
    shape, rest = sizes
    index, window = rest["index"], rest.get("window", 0)
    args = case(5, shape=shape, path=rest["path"], own=rest["own"], dtype=dtype)
    q, path, own = args["q"], args["path"], args["own"]
    new = tuple(
      normal(i, dtype, *shape[:2], shape[3], shape[5]) for i in (1, 2)
    )
    run = jax.jit(lambda *args: cpu.attend(*args, window=window))
    before = [wide(x) for x in own]
    mixed, kept = run(
      q[:, :, 0], new, path, args["lengths"], own, jnp.int32(index)
    )
    args["own"] = tuple(
      x.at[:, :, :, index].set(y) for x, y in zip(own, new, strict=True)
    )
    for got, want in zip(kept, args["own"], strict=True):
      np.testing.assert_array_equal(wide(got), wide(want))
    # What it was given is there still.
    for got, want in zip(own, before, strict=True):
      np.testing.assert_array_equal(wide(got), want)
    want = brute(**args, index=index, window=window)[:, :, 0]
    np.testing.assert_allclose(wide(mixed), want, atol=_CLOSE[dtype])

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

  def test_attention_is_rounded_to_the_nearest_and_ties_to_even(self):
    # Two tokens of equal score, whose values are neighbours or equal.
    values = 1 + np.arange(64) / 128
    even = values + (np.arange(64) % 2) / 128
    shape = 1, 1, 1, 64
    q = jnp.zeros(shape, "bfloat16")
    new, path = (
      (jnp.zeros(shape, "bfloat16"), jnp.asarray(each, "bfloat16"))
      for each in (
        (values + 1 / 128).reshape(shape),
        values.reshape(shape),
      )
    )
    own = (jnp.zeros((1, 1, 1, 3, 64), "bfloat16"),) * 2
    mixed, _ = jax.jit(cpu.attend)(
      q, new, path, jnp.ones(1, jnp.int32), own, jnp.int32(0)
    )
    np.testing.assert_array_equal(wide(mixed)[0, 0, 0], even)

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

  def test_places_are_cut_to_what_there_is(self):
    args = case(5, shape=(2, 3, 1, 2, 3, 32), path=7, own=5)
    q, path, own = args["q"][:, :, 0], args["path"], args["own"]
    new = tuple(normal(i, "float32", 2, 3, 2, 32) for i in (1, 2))
    run = jax.jit(cpu.attend)
    for far, near in (((9, 70), (4, 7)), ((-3, -1), (0, 0))):
      got, want = (
        run(q, new, path, jnp.full(2, length, jnp.int32), own, jnp.int32(index))
        for index, length in (far, near)
      )
      jax.tree.map(np.testing.assert_array_equal, got, want)

  def test_wants_shapes_that_fit(self):
    x, weight = normal(1, "float32", 3, 4), normal(2, "float32", 7, 4)
    with self.assertRaisesRegex(ValueError, r"weights is .*\(7, 3\) and must"):
      cpu.products(x, [weight[:, :3]], "float32")
    with self.assertRaisesRegex(ValueError, r"float32\(3, 4\) gives bfloat16"):
      cpu.products(x, [weight], "bfloat16")
    with self.assertRaisesRegex(ValueError, r"up is bfloat16\(7, 4\) and must"):
      cpu.gated(x, weight, weight.astype("bfloat16"))
    args = case(5, shape=(2, 3, 1, 2, 3, 32), path=7, own=5)
    q, path, own = args["q"][:, :, 0], args["path"], args["own"]
    new = (own[0][:, :, :, 0],) * 2
    rest = args["lengths"], own, jnp.int32(0)
    with self.assertRaisesRegex(ValueError, "path is .* and must be float32"):
      cpu.attend(q, new, (path[0], path[1][:, :, :5]), *rest)
    with self.assertRaisesRegex(ValueError, "no attention of .* to 2 heads"):
      cpu.attend(q[..., :16], new, path, *rest)

  def test_says_what_it_is_for(self):
    self.assertTrue(cpu.can_multiply(jnp.ones((2, 3))))
    self.assertTrue(cpu.can_multiply(jnp.ones((2, 4), jnp.bfloat16)))
    self.assertFalse(cpu.can_multiply(jnp.ones((2, 3), jnp.bfloat16)))
    self.assertFalse(cpu.can_multiply(jnp.ones((2, 4), jnp.float16)))
    self.assertTrue(cpu.can_attend(jnp.ones((1, 1, 6, 64)), 2))
    self.assertFalse(cpu.can_attend(jnp.ones((1, 1, 6, 48)), 2))
    self.assertFalse(cpu.can_attend(jnp.ones((1, 1, 98, 64)), 2))


if __name__ == "__main__":
  absltest.main()
