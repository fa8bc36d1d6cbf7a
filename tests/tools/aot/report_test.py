"""Rows of reports, worked out by hand."""

from absl.testing import absltest

from rstar_jax.tools.aot import chips, report
from rstar_jax.tools.aot.analytic import Least
from rstar_jax.tools.aot.compiled import Compiled

_GIB = 2**30


def _row(**changes):
  compiled = Compiled(
    arguments=5 * _GIB,
    outputs=3 * _GIB,
    aliased=2 * _GIB,
    temporaries=1 * _GIB,
    flops=197e12 * 2,
    bytes=819e9 * 5,
    collectives={"all-reduce": (28.0, 1e9, 100e9 * 3)},
  )
  return report.row(
    program="expand",
    where=chips.parse("v5e:2x2"),
    compiled=compiled,
    least=Least(flops=4 * 197e12, bytes=4 * 819e9 * 2),
    tokens=4000,
    **changes,
  )


class ReportTest(absltest.TestCase):
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

  def test_without_memory(self):
    row = _row(beside=9 * _GIB) | {"knobs": {"slots": 2}, "held_gib": {}}
    found = report.without_memory(row)
    self.assertEqual(found["limit"], "hbm")
    for name in ("fits", "over_gib", "hbm_needed_gib", "knobs", "held_gib"):
      self.assertNotIn(name, found)

  def test_what_the_compiler_refused(self):
    found = report.row(
      program="sft",
      where=chips.parse("v5e:4x4"),
      compiled=Compiled(refused=20 * _GIB),
      least=Least(1, 1),
      tokens=7,
    )
    self.assertFalse(found["fits"])
    self.assertEqual(found["over_gib"], 4.25)
    self.assertEqual(found["limit"], "memory")


if __name__ == "__main__":
  absltest.main()
