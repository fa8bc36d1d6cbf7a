"""FLOPs of dots, and of the convolutions that a TPU makes of them."""

import jax
import jax.numpy as jnp
from absl.testing import absltest

from rstar_jax.tools.aot import cost, hlo


def _counted(fn, *arguments, **options):
  text = jax.jit(fn, **options).lower(*arguments).compile().as_text()
  return cost.count(hlo.parse(text))


def _array(*shape, dtype=jnp.float32):
  return jax.ShapeDtypeStruct(shape, dtype)


class DotTest(absltest.TestCase):
  def test_sums_over_every_contracted_axis(self):
    found = _counted(
      lambda a, b: jnp.einsum("bijk,jkl->bil", a, b),
      _array(11, 3, 5, 2),
      _array(5, 2, 7),
    )
    self.assertEqual(found.flops, 2 * 11 * 3 * 5 * 2 * 7)

  def test_other_arithmetic_is_not_counted(self):
    found = _counted(lambda a: jnp.tanh(a) * 2, _array(30, 50))
    self.assertEqual(found.flops, 0)


class ConvolutionTest(absltest.TestCase):
  """What a TPU's compiler makes of dots, from its own texts."""

  def flops(self, left, right, out, attributes):
    line = (
      f"HloModule m\n\nENTRY %e (a: f32[1]) -> f32[1] {{\n"
      f"  %a = f32[{left}]{{0}} parameter(0)\n"
      f"  %b = f32[{right}]{{0}} parameter(1)\n"
      f"  ROOT %c = f32[{out}]{{0}} convolution(%a, %b), {attributes}\n}}\n"
    )
    return cost.count(hlo.parse(line)).flops

  def test_a_plain_product(self):
    found = self.flops("16,35", "38,35", "16,38", "dim_labels=bf_oi->bf")
    self.assertEqual(found, 2 * 16 * 35 * 38)

  def test_batches_by_dilation(self):
    # bcqkgh,bkth->bkcqgt: 16 leaves, 32 candidates, 7 heads, 1024 keys, H=128.
    found = self.flops(
      "16,32,7,128",
      "16,1024,128,1",
      "16,32,7,1024",
      "window={size=16x1 stride=15x1 lhs_dilate=16x1}, "
      "dim_labels=0b1f_0oi1->0b1f",
    )
    self.assertEqual(found, 2 * 16 * 32 * 7 * 128 * 1024)

  def test_heads_by_padding(self):
    # ...d,dnh->...nh of 16 x 32 rows, D=35, 7 heads of 128.
    found = self.flops(
      "16,32,35,1",
      "35,7,128,1",
      "16,32,7,128",
      "window={size=1x7 pad=0_0x6_6 rhs_reversal=0x1}, "
      "dim_labels=0bf1_i1o0->0b1f",
    )
    self.assertEqual(found, 2 * 16 * 32 * 35 * 7 * 128)

  def test_a_true_convolution(self):
    # 5 positions, of which the ends see 2 of 3 inputs: 2 + 3 + 3 + 3 + 2.
    found = self.flops(
      "1,5,11",
      "3,11,7",
      "1,5,7",
      "window={size=3 pad=1_1}, dim_labels=b0f_0io->b0f",
    )
    self.assertEqual(found, 2 * 13 * 11 * 7)


if __name__ == "__main__":
  absltest.main()
