"""Counting on programs compiled for the CPU, against counts made by hand."""

import jax
import jax.numpy as jnp
from absl.testing import absltest
from jax.sharding import NamedSharding, PartitionSpec

from rstar_jax.config.schema import MeshConfig
from rstar_jax.models import sharding
from rstar_jax.tools.aot import cost, hlo

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

  def test_a_batch_of_products(self):
    found = _counted(
      lambda a, b: jnp.einsum("bij,bkj->bik", a, b),
      _array(11, 3, 5),
      _array(11, 7, 5),
    )
    self.assertEqual(found.flops, 2 * 11 * 3 * 5 * 7)

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


if __name__ == "__main__":
  absltest.main()
