"""What is read of compilers' answers; `live.py` compiles for real."""

from unittest import mock

import jax
from absl.testing import absltest

from rstar_jax.config.schema import MeshConfig
from rstar_jax.models import sharding
from rstar_jax.tools.aot import compiler, cost, hlo
from rstar_jax.tools.aot.compiler import Compiled
from rstar_jax.tools.aot.cost import Cost, Traffic
from rstar_jax.tools.aot.programs import DeviceProgram


class NeededTest(absltest.TestCase):
  def test_forms_of_the_message(self):
    # As libtpu says it of temporaries alone, and of a whole program.
    message = (
      "RESOURCE_EXHAUSTED: E1000: CompileTimeHbmOom: Ran out of memory on HBM, "
      "the total memory required for HLO temporaries (256.00G) exceeds "
      "available HBM (15.75G)."
    )
    self.assertEqual(compiler.needed_bytes(message), 256 * 2**30)
    message = (
      "RESOURCE_EXHAUSTED: XLA:TPU compile permanent error. Ran out of memory "
      "in memory space hbm. Used 21.20G of 15.75G hbm. HBM exceeded by 5.45G."
    )
    self.assertEqual(compiler.needed_bytes(message), 21.2 * 2**30)
    self.assertIsNone(compiler.needed_bytes("INTERNAL: RET_CHECK failure"))


class ExtrapolateTest(absltest.TestCase):
  def test_a_straight_line(self):
    low = Compiled(
      arguments=10,
      cost=Cost(flops=100, collectives={"all-reduce": Traffic(2, 8, 16)}),
    )
    kinds = {"all-reduce": Traffic(4, 12, 24), "all-gather": Traffic(2, 2, 2)}
    high = Compiled(arguments=14, cost=Cost(flops=300, collectives=kinds))
    found = compiler.extrapolate(low, high, (1, 3, 28), growing=True)
    self.assertEqual((found.arguments, found.memory), (64, 64))
    self.assertEqual(found.cost.flops, 100 + 100 * 27)
    self.assertEqual(
      found.cost.collectives,
      {"all-reduce": Traffic(29, 62, 124), "all-gather": Traffic(27, 27, 27)},
    )
    self.assertEqual(found.cost.wire, 124 + 27)

  def test_temporaries_that_do_not_grow(self):
    low, high = Compiled(temporaries=7, outputs=1), Compiled(temporaries=5)
    found = compiler.extrapolate(low, high, (1, 2, 28), growing=False)
    self.assertEqual((found.temporaries, found.outputs), (7, -26))


class CompileTest(absltest.TestCase):
  def test_the_text_is_the_compilers_own(self):
    program = _product()
    error = jax.errors.JaxRuntimeError("INTERNAL: RET_CHECK failure")
    with mock.patch.object(jax.stages.Compiled, "as_text", side_effect=error):
      found = compiler.compile_program(program)
    text = program.lower().compile().as_text()
    counted = cost.count(hlo.parse(text), program.loop_runs)
    self.assertEqual((found.cost.flops, found.arguments), (2 * 27, 2 * 36))
    self.assertGreater(found.cost.bytes, 0)
    self.assertEqual(
      (found.cost.flops, found.cost.bytes), (counted.flops, counted.bytes)
    )


def _product() -> DeviceProgram:
  """Of the CPU, whose text is read as well as a TPU's."""
  mesh = sharding.make_mesh(MeshConfig(data=1), jax.devices()[:1])
  place = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
  array = jax.ShapeDtypeStruct((3, 3), "float32", sharding=place)
  return DeviceProgram("expand", lambda a, b: a @ b, (array, array), (), (), 1)


if __name__ == "__main__":
  absltest.main()
