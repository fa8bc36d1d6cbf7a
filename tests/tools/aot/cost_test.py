"""Counts of programs compiled for the CPU, and of a TPU's own texts."""

import jax
import jax.numpy as jnp
from absl.testing import absltest
from jax.sharding import NamedSharding, PartitionSpec

from rstar_jax.config.schema import MeshConfig
from rstar_jax.models import sharding
from rstar_jax.tools.aot import cost, hlo

# ruff: noqa: E501 (a compiler's lines)

# 8 devices on which nothing runs: programs are only compiled.
jax.config.update("jax_num_cpu_devices", 8)


def _counted(fn, *arguments, runs=(), **options):
  text = jax.jit(fn, **options).lower(*arguments).compile().as_text()
  return cost.count(hlo.parse(text), runs)


def _array(*shape, dtype=jnp.float32, sharding=None):
  return jax.ShapeDtypeStruct(shape, dtype, sharding=sharding)


class FlopsTest(absltest.TestCase):
  def test_a_product(self):
    found = _counted(jnp.matmul, _array(3, 5), _array(5, 7))
    self.assertEqual(found.flops, 2 * 3 * 5 * 7)
    self.assertEmpty(found.collectives)

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

  def test_a_loop_counts_as_often_as_it_runs(self):
    def run(x, w):
      return jax.lax.scan(lambda x, _: (x @ w, None), x, None, length=13)[0]

    found = _counted(run, _array(3, 5), _array(5, 5))
    self.assertEqual(found.flops, 13 * 2 * 3 * 5 * 5)
    self.assertEqual([loop[1:] for loop in found.loops], [(13, True)])

  def test_loops_in_loops(self):
    def inner(x, w):
      return jax.lax.scan(lambda x, _: (x @ w, None), x, None, length=3)[0]

    def run(x, w):
      step = lambda x, _: (inner(x, w) + 1, None)  # noqa: E731
      return jax.lax.scan(step, x, None, length=11)[0] @ w

    found = _counted(run, _array(7, 5), _array(5, 5))
    self.assertEqual(found.flops, (11 * 3 + 1) * 2 * 7 * 5 * 5)

  def test_a_loop_that_the_data_ends(self):
    def run(x, w):
      return jax.lax.while_loop(
        lambda state: (state[0] < 17) & (state[1][0, 0] < 1e3),
        lambda state: (state[0] + 1, state[1] @ w),
        (0, x),
      )[1]

    arguments = _array(3, 5), _array(5, 5)
    found = _counted(run, *arguments, runs=(17,))
    self.assertEqual(found.flops, 17 * 2 * 3 * 5 * 5)
    self.assertEqual([loop[1:] for loop in found.loops], [(17, False)])
    with self.assertRaisesRegex(ValueError, "say how often"):
      _counted(run, *arguments)
    with self.assertRaisesRegex(ValueError, "the data ends 1 loops"):
      _counted(run, *arguments, runs=(17, 3))

  def test_a_branch_counts_as_the_dearest(self):
    def run(x, w):
      return jax.lax.cond(x[0, 0] > 0, lambda: x @ w @ w, lambda: x @ w)

    found = _counted(run, _array(3, 5), _array(5, 5))
    self.assertEqual(found.flops, 2 * 2 * 3 * 5 * 5)


class CollectivesTest(absltest.TestCase):
  """On 8 devices: 4 along "fsdp" and 2 along "tensor"."""

  def setUp(self):
    super().setUp()
    self.mesh = sharding.make_mesh(MeshConfig(data=1, fsdp=4, tensor=2))

  def place(self, *axes):
    return NamedSharding(self.mesh, PartitionSpec(*axes))

  def counted(self, fn, *arguments, out, **options):
    return _counted(fn, *arguments, out_shardings=out, **options)

  def test_an_all_reduce(self):
    found = self.counted(
      jnp.matmul,
      _array(6, 10, sharding=self.place(None, "tensor")),
      _array(10, 14, sharding=self.place("tensor", None)),
      out=self.place(),
    )
    self.assertEqual(set(found.collectives), {"all-reduce"})
    reduced = found.collectives["all-reduce"]
    self.assertEqual(reduced.count, 1)
    self.assertEqual(reduced.bytes, 4 * 6 * 14)
    # A ring of 2 sends each half twice: (2 - 1) / 2 * 2 of it.
    self.assertEqual(reduced.wire, 4 * 6 * 14)
    self.assertEqual(found.flops, 2 * 6 * 5 * 14)

  def test_an_all_gather(self):
    found = self.counted(
      lambda x: x + 1,
      _array(8, 3, sharding=self.place("fsdp")),
      out=self.place(),
    )
    self.assertEqual(set(found.collectives), {"all-gather"})
    gathered = found.collectives["all-gather"]
    self.assertEqual(gathered.bytes, 4 * 8 * 3)
    self.assertEqual(gathered.wire, 3 / 4 * 4 * 8 * 3)

  def test_a_collective_in_a_loop(self):
    def run(x, w):
      step = lambda x, _: (jnp.tanh(x @ w), None)  # noqa: E731
      return jax.lax.scan(step, x, None, length=13)[0]

    found = self.counted(
      run,
      _array(6, 10, sharding=self.place(None, "tensor")),
      _array(10, 10, sharding=self.place("tensor", None)),
      out=self.place(None, "tensor"),
    )
    runs = sum(each.count for each in found.collectives.values())
    self.assertGreaterEqual(runs, 13)
    self.assertEqual(runs % 13, 0)

  def test_a_permutation(self):
    def run(x):
      pairs = [(i, (i + 1) % 4) for i in range(4)]
      return jax.lax.ppermute(x, "fsdp", pairs)

    shifted = jax.shard_map(
      run,
      mesh=self.mesh,
      in_specs=PartitionSpec("fsdp"),
      out_specs=PartitionSpec("fsdp"),
    )
    found = self.counted(
      shifted,
      _array(8, 3, sharding=self.place("fsdp")),
      out=self.place("fsdp"),
    )
    self.assertEqual(found.collectives["collective-permute"].wire, 4 * 2 * 3)

  def test_an_exchange(self):
    def run(x):
      return jax.lax.all_to_all(x, "fsdp", 1, 0, tiled=True)

    exchanged = jax.shard_map(
      run,
      mesh=self.mesh,
      in_specs=PartitionSpec("fsdp"),
      out_specs=PartitionSpec("fsdp"),
    )
    found = self.counted(
      exchanged,
      _array(8, 12, sharding=self.place("fsdp")),
      out=self.place("fsdp"),
    )
    self.assertAlmostEqual(
      found.collectives["all-to-all"].wire, 3 / 4 * 4 * 2 * 12
    )


class GroupsTest(absltest.TestCase):
  """How many devices take part, in each way that it is written."""

  def wire(self, groups):
    text = (
      "HloModule m, num_partitions=8\n\n"
      "%add (x: f32[], y: f32[]) -> f32[] {\n"
      "  %x = f32[] parameter(0)\n"
      "  %y = f32[] parameter(1)\n"
      "  ROOT %z = f32[] add(%x, %y)\n}\n\n"
      "ENTRY %e (a: f32[8]) -> f32[8] {\n"
      "  %a = f32[8]{0} parameter(0)\n"
      f"  ROOT %b = f32[8]{{0}} all-reduce(%a), channel_id=1, "
      f"replica_groups={groups}, to_apply=%add\n}}\n"
    )
    return cost.count(hlo.parse(text)).wire

  def test_forms(self):
    self.assertEqual(self.wire("{{0,1,2,3},{4,5,6,7}}"), 2 * 3 / 4 * 32)
    self.assertEqual(self.wire("[4,2]<=[8]"), 2 * 1 / 2 * 32)
    self.assertEqual(self.wire("[4,2]<=[2,4]T(1,0)"), 2 * 1 / 2 * 32)
    self.assertEqual(self.wire("{}"), 2 * 7 / 8 * 32)
    named = "mesh['a'=2,'b'=4] {'b'}"
    self.assertEqual(self.wire(named), 2 * 3 / 4 * 32)
    placed = "mesh['a'=2,'b'=4], device_ids=([4,2]T(1,0)) {'b'}"
    self.assertEqual(self.wire(placed), 2 * 3 / 4 * 32)
    parts = "mesh['a'=2,'b'=4] {'b':(1)2}"
    self.assertEqual(self.wire(parts), 2 * 1 / 2 * 32)


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
