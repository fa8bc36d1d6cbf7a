"""Tests of the tables of names: layouts, parts, blocks, and what is wrong."""

import itertools
import math
from unittest import mock

import numpy as np
from absl.testing import absltest, parameterized

from rstar_jax.hf import families
from rstar_jax.hf.families import Entry, Row
from rstar_jax.testing import tiny_model

SIZES = {"V": 7, "D": 5, "N": 6, "K": 2, "H": 4, "F": 3, "O": 8, "1": 1}
SIZES |= {"E": 4, "W": 8, "g": 2, "u": 2}


def whole(rank):
  return (slice(None),) * rank


class FamiliesTest(parameterized.TestCase):
  def test_layout_by_hand(self):
    row = Row("q", "NH D", "q", "D N H")
    disk = np.arange(6 * 4 * 5).reshape(24, 5)
    entry = Entry("q", ("q",), row, 0, SIZES)
    here = families.from_disk(disk, entry, whole(3))
    self.assertEqual(here.shape, (5, 6, 4))
    # Row n * H + h of the file is head n, dimension h.
    self.assertEqual(here[3, 5, 2], disk[5 * 4 + 2, 3])
    np.testing.assert_array_equal(families.to_disk(here, entry), disk)

  @parameterized.parameters(
    *{(row.disk, row.here) for t in families.FAMILIES.values() for row in t}
  )
  def test_any_block_is_that_of_the_whole(self, disk, here):
    """What is read for a block, for all blocks, against cutting the whole."""
    entry = Entry("t", ("t",), Row("t", disk, "t", here), 11, SIZES)
    letters = here.split()
    shape = [SIZES[x] for x in letters]
    value = np.random.default_rng(0).normal(size=shape)
    if own := "E" in letters and "E" not in disk:
      # A tensor of one expert, the third.
      part = families.to_disk(value[2], entry)
    else:
      part = families.to_disk(value, entry)
    if families.take_turns(entry.row):
      turns = [part, np.full(part.shape, np.nan)]
      axis = families.turning_axis(entry.row)
      part = np.stack(turns if "g" in disk else turns[::-1], axis)
      axes = [[SIZES[x] for x in each] for each in disk.split()]
      part = part.reshape([math.prod(each) for each in axes])
    padding = np.full((11, *part.shape[1:]), np.nan)
    tensor = np.concatenate([padding, part])
    ranges = [
      [slice(None), slice(0, (n + 1) // 2), slice((n + 1) // 2, n)]
      for n in shape
    ]
    for index in itertools.product(*ranges):
      where = families.disk_index(entry, index)
      block = families.from_disk(tensor[where], entry, index)
      wanted = value[2][index[1:]] if own else value[index]
      np.testing.assert_array_equal(block, wanted)

  def test_parts_follow_one_another(self):
    paths = {("layers", 0, "attention", name) for name in ("q", "k", "v")} | {
      ("layers", 0, "mlp", "gate"),
      ("layers", 0, "mlp", "up"),
    }
    config = tiny_model(family="phi3", num_layers=1)
    found = families.entries(config, paths)
    self.assertEqual(
      [(each.name.split(".")[-2], each.path[-1], each.start) for each in found],
      [
        ("qkv_proj", "q", 0),
        ("qkv_proj", "k", 24),
        ("qkv_proj", "v", 32),
        ("gate_up_proj", "gate", 0),
        ("gate_up_proj", "up", 37),
      ],
    )
    shapes = families.disk_shapes(found)
    self.assertEqual(sorted(shapes.values()), [(40, 24), (74, 24)])

  def test_tables_that_do_not_fit_raise(self):
    config = tiny_model()
    with self.assertRaisesRegex(ValueError, "no tensor.*'attention', 'gate'"):
      families.entries(config, {("layers", 0, "attention", "gate")})
    twice = families.FAMILIES["qwen2"] + (Row("other", "D", "norm.scale", "D"),)
    with mock.patch.dict(families.FAMILIES, {"qwen2": twice}):
      with self.assertRaisesRegex(ValueError, "both model.norm.weight and oth"):
        families.entries(config, {("norm", "scale")})


if __name__ == "__main__":
  absltest.main()
