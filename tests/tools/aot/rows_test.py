"""Rows of sizes alone, and meshes that cannot be."""

import jax
from absl.testing import absltest, parameterized

from configs import phi3_mini, qwen2_5_math_1_5b, qwen2_5_math_7b
from rstar_jax.config.schema import MeshConfig
from rstar_jax.tools.aot import __main__ as command
from rstar_jax.tools.aot import chips, rows, shapes


class SizesTest(parameterized.TestCase):
  @parameterized.product(
    module=(qwen2_5_math_7b, qwen2_5_math_1_5b, phi3_mini),
    stage=shapes.STAGES,
  )
  def test_every_shipped_config_fits_a_host_of_v5e(self, module, stage):
    config = module.get_config()
    model = command.model_config(config.policy.path, "bfloat16")
    row = rows.sizes_row(config, model, chips.parse("v5e:4x4"), stage)
    self.assertTrue(row["fits"], row)
    self.assertNotIn("knobs", row)
    self.assertGreater(row["hbm_needed_gib"], row["hbm_beside_gib"])

  def test_what_does_not_fit_names_what_would_do(self):
    config = qwen2_5_math_7b.get_config()
    # 28 layers of 4 heads of 128, keys and values of two bytes, cut in four:
    # 14,336 bytes a token and chip; 65 slots of 3,328 tokens in four lanes.
    config.search.slots = 65
    model = command.model_config(config.policy.path, "bfloat16")
    row = rows.sizes_row(config, model, chips.parse("v5e:4x4"), "rollout")
    pools = 4 * 65 * 3328 * 14336 / 2**30
    self.assertAlmostEqual(row["held_gib"]["pools"], pools, delta=0.01)
    self.assertFalse(row["fits"])
    self.assertBetween(row["knobs"]["slots"], 8, 64)


class MeshTest(absltest.TestCase):
  def test_one_device_has_a_mesh_too(self):
    where = chips.parse("v5e:1x1")
    mesh = rows.mesh_of(MeshConfig(), where, jax.devices()[:1], "search_mesh")
    self.assertEqual(mesh.size, 1)

  def test_a_mesh_that_the_chips_do_not_make(self):
    where = chips.parse("v5e:1x1")
    with self.assertRaisesRegex(
      ValueError, r"v5e:1x1: config.search_mesh: .*'tensor': 4"
    ):
      rows.mesh_of(
        MeshConfig(tensor=4), where, jax.devices()[:1], "search_mesh"
      )


if __name__ == "__main__":
  absltest.main()
