"""The table of chips, and the names of slices."""

from absl.testing import absltest, parameterized

from rstar_jax.tools.aot import chips


class ChipsTest(parameterized.TestCase):
  @parameterized.parameters(*chips.CHIPS.values())
  def test_is_sane(self, chip):
    # No chip computes less than 100 or more than 1000 FLOPs a byte of HBM, nor
    # sends to others as much as it reads.
    self.assertBetween(chip.flops / chip.hbm_rate, 100, 1000)
    self.assertLess(chip.ici_rate, chip.hbm_rate)
    self.assertLess(chip.dcn_rate, chip.link_rate)
    self.assertEqual(chips.parse(f"{chip.name}:{chip.host}").chips, 4)

  def test_v5e_as_published(self):
    chip = chips.CHIPS["v5e"]
    # 197 TFLOPs, 819 GB/s; 1600 Gbit/s over 4 links.
    self.assertEqual(chip.flops, 1.97e14)
    self.assertEqual(chip.hbm_rate, 8.19e11)
    self.assertEqual(chip.link_rate, 50e9)


class SliceTest(parameterized.TestCase):
  @parameterized.parameters(
    ("v5e:4x4", 16, 4, "v5e:2x2"),
    ("v5p:2x2x4", 16, 4, "v5p:2x2x1"),
    ("v6e:1x1", 1, 1, "v6e:1x1"),
    # One machine of eight chips, as no larger slice has.
    ("v5e:2x4", 8, 1, "v5e:2x4"),
    ("v6e:2x4", 8, 1, "v6e:2x4"),
    ("v5p:2x2x2", 8, 2, "v5p:2x2x1"),
    ("v5p:4x4x12", 192, 48, "v5p:2x2x1"),
    ("v4:2x2x1", 4, 1, "v4:2x2x1"),
  )
  def test_hosts(self, name, count, hosts, host):
    where = chips.parse(name)
    self.assertEqual((where.name, where.topology), (name, name))
    self.assertEqual(where.chips, count)
    self.assertEqual(where.hosts, hosts)
    self.assertEqual(where.host.name, host)

  def test_links_that_there_are(self):
    rate = chips.CHIPS["v5e"].link_rate
    self.assertEqual(chips.parse("v5e:2x2").ici_rate, 2 * rate)
    self.assertEqual(chips.parse("v5e:2x4").ici_rate, 3 * rate)
    self.assertEqual(chips.parse("v5e:16x16").ici_rate, 4 * rate)
    self.assertEqual(
      chips.parse("v5p:4x4x4").ici_rate, chips.CHIPS["v5p"].ici_rate
    )

  @parameterized.parameters(
    ("v5e-1", "v5e:1x1"),
    ("v5e-4", "v5e:2x2"),
    ("v5e-8", "v5e:2x4"),
    ("v5litepod-16", "v5e:4x4"),
    ("v6e-256", "v6e:16x16"),
    # They count two cores a chip.
    ("v4-8", "v4:2x2x1"),
    ("v5p-16", "v5p:2x2x2"),
    ("v5p-32", "v5p:2x2x4"),
    ("v5p-64", "v5p:2x4x4"),
    ("v5p-128", "v5p:4x4x4"),
    # Cloud's page of v5p has these, and no larger one.
    ("v5p-384", "v5p:4x4x12"),
    ("v5p-512", "v5p:4x8x8"),
    ("v5p-2048", "v5p:8x8x16"),
    ("v5p-8192", "v5p:16x16x16"),
    ("v5p-12288", "v5p:16x16x24"),
    ("2x v5e-16", "2x v5e:4x4"),
    ("2xv5e-16", "2x v5e:4x4"),
    ("1x v5e-16", "v5e:4x4"),
    ("4x v5p:2x2x2", "4x v5p:2x2x2"),
  )
  def test_names(self, name, grid):
    self.assertEqual(chips.parse(name), chips.parse(grid))
    self.assertEqual(chips.parse(name).name, grid)

  def test_several_slices(self):
    where = chips.parse("2x v5e-16")
    self.assertEqual((where.chips, where.hosts), (32, 8))
    self.assertEqual(where.host, chips.parse("v5e-4"))
    self.assertEqual(where.topology, "v5e:4x4")
    self.assertEqual(chips.parse("2x v5e-8").hosts, 2)
    small = chips.parse("3x v5e-1")
    self.assertEqual((small.chips, small.hosts, small.host.chips), (3, 3, 1))

  @parameterized.parameters(
    *("v5e", "v5e:4", "v5e:4xa", "v5p:4x4", "h100:2x2", "", "v5e-", "v5e-2"),
    *("v5e-12", "v5e-512", "v5p-4", "v5p-9", "v5e:32x32", "v5e:0x4", "v7-8"),
    *("v5e:3x3", "v5e:4x2", "v5e:2x8", "v5e:1x2", "v6e:1x4", "v5e:16x32"),
    *("v5p:2x2x8", "v5p:4x4x6", "v5p:8x4x4", "v5p:0x4x4", "v4:1x1x1"),
    *("v5p-96", "v5p-12290", "v5p-16384", "v4-8192"),
    *("0x v5e-16", "v5e--16", "v5e:4x-4", "2x", "x v5e-16"),
  )
  def test_wrong_names(self, name):
    with self.assertRaisesRegex(ValueError, f"topology '{name}'"):
      chips.parse(name)


if __name__ == "__main__":
  absltest.main()
