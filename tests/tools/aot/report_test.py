"""Rows of reports, worked out by hand."""

from unittest import mock

import jax
from absl.testing import absltest, parameterized

from configs import phi3_mini, qwen2_5_math_1_5b, qwen2_5_math_7b
from rstar_jax.config.schema import MeshConfig
from rstar_jax.tools.aot import __main__ as command
from rstar_jax.tools.aot import chips, compiler, report, shapes
from rstar_jax.tools.aot.compiler import Compiled
from rstar_jax.tools.aot.cost import Cost, Traffic
from rstar_jax.tools.aot.lower_bound import LowerBound

_GIB = 2**30


def _row(**changes):
  compiled = Compiled(
    arguments=5 * _GIB,
    outputs=3 * _GIB,
    aliased=2 * _GIB,
    temporaries=1 * _GIB,
    cost=Cost(
      flops=197e12 * 2,
      bytes=819e9 * 5,
      collectives={"all-reduce": Traffic(28.0, 1e9, 100e9 * 3)},
    ),
  )
  return report.row(
    program="expand",
    where=chips.parse("v5e:2x2"),
    compiled=compiled,
    bound=LowerBound(flops=4 * 197e12, bytes=4 * 819e9 * 2),
    tokens=4000,
    **changes,
  )


class RowTest(absltest.TestCase):
  def test_roofline(self):
    found = _row()
    # 2 s of products, 5 s of HBM, and 3 s over two links of 50 GB/s.
    self.assertEqual(found["seconds"], {"compute": 2, "hbm": 5, "ici": 3})
    self.assertEqual(found["bound_seconds"], 5)
    self.assertEqual(found["limit"], "hbm")
    self.assertEqual(found["tokens_per_second_per_chip"], 4000 / 5 / 4)
    self.assertAlmostEqual(found["bytes_per_token"], 819e9 * 5 * 4 / 4000)

  def test_shares_of_the_least(self):
    found = _row()
    self.assertEqual(found["least_flops_share"], 0.5)
    self.assertEqual(found["least_bytes_share"], 0.4)
    # At the least it would take 2 s, of HBM.
    self.assertEqual(found["roofline_share"], 0.4)

  def test_memory(self):
    found = _row()
    self.assertEqual(found["hbm_needed_gib"], 7)
    self.assertTrue(found["fits"])
    self.assertEqual(found["over_gib"], 0)

  def test_memory_that_others_hold_counts(self):
    found = _row(beside=9 * _GIB)
    self.assertEqual(found["hbm_needed_gib"], 16)
    self.assertFalse(found["fits"])
    self.assertEqual(found["over_gib"], 0.25)
    self.assertEqual(found["limit"], "memory")

  def test_one_chip_sends_nothing(self):
    found = report.row(
      "fork",
      chips.parse("v5e:1x1"),
      Compiled(cost=Cost(bytes=819e9)),
      LowerBound(0, 819e9),
      tokens=7,
    )
    self.assertEqual(found["seconds"], {"compute": 0, "hbm": 1, "ici": 0})
    self.assertEqual(found["tokens_per_second_per_chip"], 7)

  def test_what_the_compiler_refused(self):
    found = report.row(
      program="sft",
      where=chips.parse("v5e:4x4"),
      compiled=Compiled(refused=20 * _GIB),
      bound=LowerBound(1, 1),
      tokens=7,
    )
    self.assertFalse(found["fits"])
    self.assertEqual(found["over_gib"], 4.25)
    self.assertEqual(found["limit"], "memory")


class SizesTest(parameterized.TestCase):
  @parameterized.product(
    module=(qwen2_5_math_7b, qwen2_5_math_1_5b, phi3_mini),
    stage=shapes.STAGES,
  )
  def test_every_shipped_config_fits_a_host_of_v5e(self, module, stage):
    config = module.get_config()
    model = command.model_config(config.policy.path, "bfloat16")
    row = report.sizes_row(config, model, chips.parse("v5e:4x4"), stage)
    self.assertTrue(row["fits"], row)
    self.assertNotIn("knobs", row)
    self.assertGreater(row["hbm_needed_gib"], row["hbm_beside_gib"])

  def test_what_does_not_fit_names_what_would_do(self):
    config = qwen2_5_math_7b.get_config()
    # 28 layers of 4 heads of 128, keys and values of two bytes, cut in four:
    # 14,336 bytes a token and chip; 130 slots of 3,328 tokens in two lanes.
    config.search.in_flight = 130
    model = command.model_config(config.policy.path, "bfloat16")
    row = report.sizes_row(config, model, chips.parse("v5e:4x4"), "rollout")
    pools = 2 * 130 * 3328 * 14336 / 2**30
    self.assertAlmostEqual(row["held_gib"]["pools"], pools, delta=0.01)
    self.assertFalse(row["fits"])
    self.assertBetween(row["knobs"]["slots"], 16, 128)


class MeshTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    self.enter_context(
      mock.patch.object(
        compiler, "devices", lambda where: jax.devices()[: where.chips]
      )
    )

  def test_one_device_has_a_mesh_too(self):
    where = chips.parse("v5e:1x1")
    mesh = report.mesh_of(MeshConfig(), where, "search_mesh")
    self.assertEqual(mesh.size, 1)

  def test_a_mesh_that_the_chips_do_not_make(self):
    where = chips.parse("v5e:1x1")
    with self.assertRaisesRegex(
      ValueError, r"^config.search_mesh: .*'tensor': 4"
    ):
      report.mesh_of(MeshConfig(tensor=4), where, "search_mesh")


if __name__ == "__main__":
  absltest.main()
