"""Bytes to and from memory, of programs compiled here and of a TPU's texts."""

import jax
import jax.numpy as jnp
from absl.testing import absltest

from rstar_jax.tools.aot import cost, hlo

# ruff: noqa: E501 (a compiler's lines)


def _counted(fn, *arguments, **options):
  text = jax.jit(fn, **options).lower(*arguments).compile().as_text()
  return cost.count(hlo.parse(text))


def _array(*shape, dtype=jnp.float32):
  return jax.ShapeDtypeStruct(shape, dtype)


class BytesTest(absltest.TestCase):
  def test_a_product_reads_and_writes_each_once(self):
    found = _counted(jnp.matmul, _array(30, 50), _array(50, 70))
    self.assertEqual(found.bytes, 4 * (30 * 50 + 50 * 70 + 30 * 70))

  def test_a_slice_reads_no_more_than_it_gives(self):
    def run(x, at):
      return jax.lax.dynamic_slice_in_dim(x, at, 3) * 2

    found = _counted(run, _array(1000, 7), _array(dtype=jnp.int32))
    self.assertLess(found.bytes, 4 * 5 * 3 * 7 + 100)
    self.assertGreaterEqual(found.bytes, 4 * 2 * 3 * 7)

  def test_an_update_in_place_writes_the_update(self):
    def run(x, new, at):
      return jax.lax.dynamic_update_slice_in_dim(x, new, at, 0)

    found = _counted(
      run,
      _array(1000, 7),
      _array(3, 7),
      _array(dtype=jnp.int32),
      donate_argnums=0,
    )
    self.assertLess(found.bytes, 4 * 4 * 3 * 7 + 100)

  def test_loops_multiply_bytes(self):
    def run(x, w):
      return jax.lax.scan(lambda x, _: (x @ w, None), x, None, length=13)[0]

    one = _counted(jnp.matmul, _array(30, 50), _array(50, 50)).bytes
    found = _counted(run, _array(30, 50), _array(50, 50))
    self.assertGreaterEqual(found.bytes, 13 * one)
    self.assertLess(found.bytes, 13 * one * 2)

  def test_what_stays_on_chip_is_not_counted(self):
    text = (
      "HloModule m\n\nENTRY %e (a: f32[8]) -> f32[8] {\n"
      "  %a = f32[8]{0} parameter(0)\n"
      "  %b = f32[8]{0:T(128)S(1)} negate(%a)\n"
      "  ROOT %c = f32[8]{0} negate(%b)\n}\n"
    )
    self.assertEqual(cost.count(hlo.parse(text)).bytes, 4 * (8 + 8))


class ChainTest(absltest.TestCase):
  """A gather that a TPU spreads over fusions, as libtpu writes it."""

  TEXT = """HloModule m, num_partitions=4

%start (p0: bf16[4,8]) -> (bf16[4,8], bf16[16,8], s32[2]) {
  %p0 = bf16[4,8]{1,0} parameter(0)
  %g.1 = bf16[16,8]{1,0} all-gather(%p0), channel_id=6, replica_groups=[1,4]<=[4], dimensions={0}, frontend_attributes={chain_id="0"}
  ROOT %c = (bf16[4,8]{1,0}, bf16[16,8]{1,0}, s32[2]{0:S(4)}) custom-call(%g.1), custom_call_target="AsyncCollectiveStart"
}

%go_on (p0: bf16[4,8], p1: bf16[16,8], p2: f32[6]) -> (f32[6], bf16[4,8], bf16[16,8], bf16[16,8]) {
  %p0 = bf16[4,8]{1,0} parameter(0)
  %p1 = bf16[16,8]{1,0} parameter(1)
  %p2 = f32[6]{0} parameter(2)
  %n = f32[6]{0} negate(%p2)
  %g.2 = bf16[16,8]{1,0} all-gather(%p0), channel_id=6, replica_groups=[1,4]<=[4], dimensions={0}, frontend_attributes={chain_id="0"}
  ROOT %t = (f32[6]{0}, bf16[4,8]{1,0}, bf16[16,8]{1,0}, bf16[16,8]{1,0}) tuple(%n, %p0, %p1, %g.2)
}

%done (p0: bf16[4,8], p1: bf16[16,8]) -> bf16[16,8] {
  %p0 = bf16[4,8]{1,0} parameter(0)
  %p1 = bf16[16,8]{1,0} parameter(1)
  %g.3 = bf16[16,8]{1,0} all-gather(%p0), channel_id=6, replica_groups=[1,4]<=[4], dimensions={0}, frontend_attributes={chain_id="0"}
  ROOT %c = bf16[16,8]{1,0} custom-call(%p0, %p1, %g.3), custom_call_target="AsyncCollectiveDone"
}

ENTRY %e (a: bf16[4,8], b: f32[6]) -> bf16[16,8] {
  %a = bf16[4,8]{1,0} parameter(0)
  %b = f32[6]{0} parameter(1)
  %f.1 = (bf16[4,8]{1,0}, bf16[16,8]{1,0}, s32[2]{0:S(4)}) fusion(%a), kind=kCustom, calls=%start
  %x = bf16[4,8]{1,0} get-tuple-element(%f.1), index=0
  %y = bf16[16,8]{1,0} get-tuple-element(%f.1), index=1
  %f.2 = (f32[6]{0}, bf16[4,8]{1,0}, bf16[16,8]{1,0}, bf16[16,8]{1,0}) fusion(%x, %y, %b), kind=kOutput, calls=%go_on
  %z = bf16[16,8]{1,0} get-tuple-element(%f.2), index=2
  ROOT %f.3 = bf16[16,8]{1,0} fusion(%x, %z), kind=kCustom, calls=%done
}
"""

  def test_is_one_collective(self):
    found = cost.count(hlo.parse(self.TEXT))
    gathered = found.collectives["all-gather"]
    self.assertEqual(gathered.count, 1)
    self.assertEqual(gathered.wire, 3 / 4 * 2 * 16 * 8)

  def test_its_arrays_are_moved_once(self):
    found = cost.count(hlo.parse(self.TEXT))
    # What is given and what is gathered; and the 6 numbers, there and back.
    self.assertEqual(found.bytes, 2 * 4 * 8 + 2 * 16 * 8 + 2 * 4 * 6)


class PrefetchTest(absltest.TestCase):
  def test_a_copy_into_vmem_reads_hbm_once(self):
    text = (
      "HloModule m\n\nENTRY %e (a: f32[8,4]) -> f32[2,4] {\n"
      "  %a = f32[8,4]{1,0} parameter(0)\n"
      "  %s = ((f32[8,4]{1,0}), f32[2,4]{1,0:S(1)}, u32[]{:S(2)}) "
      "slice-start(%a), slice={[0:2], [0:4]}\n"
      "  %d = f32[2,4]{1,0:S(1)} slice-done(%s)\n"
      "  ROOT %r = f32[2,4]{1,0:S(1)} negate(%d)\n}\n"
    )
    self.assertEqual(cost.count(hlo.parse(text)).bytes, 4 * 2 * 4)


if __name__ == "__main__":
  absltest.main()
