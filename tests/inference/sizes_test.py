"""Tests of the sizes of programs, and of the number of pages."""

import dataclasses

from absl.testing import absltest, parameterized

from rstar_jax.config.schema import EngineConfig
from rstar_jax.inference.sizes import Sizes, pages_for


def make(shards=1, **config):
  engine = EngineConfig(
    **{"rows": 32, "prefill_tokens": 64, "max_prefix_tokens": 30} | config
  )
  return Sizes.of(engine, shards, 9)


class SizesTest(parameterized.TestCase):
  @parameterized.parameters(
    (0, 0), (1, 1), (15, 1), (16, 1), (17, 2), (32, 2), (33, 3)
  )
  def test_pages_for(self, tokens, pages):
    self.assertEqual(pages_for(tokens), pages)

  @parameterized.parameters(
    (1, 1, 32),
    (32, 1, 32),
    (33, 1, 64),
    (100, 1, 128),
    (1, 4, 128),
    (129, 2, 192),
  )
  def test_slots_are_whole_blocks_of_each_shard(self, asked, shards, slots):
    sizes = make(shards, rows=asked, prefill_tokens=asked)
    self.assertEqual((sizes.rows, sizes.prefill_tokens), (slots, slots))

  @parameterized.parameters(
    (32, 1, 32), (128, 1, 32), (129, 1, 64), (256, 2, 64)
  )
  def test_few_slots_are_a_quarter_in_blocks(self, rows, shards, few):
    self.assertEqual(make(shards, rows=rows).few, few)

  @parameterized.parameters((64, 1, 16), (64, 2, 16), (100, 1, 32))
  def test_a_fourth_as_many_paths_as_slots(self, tokens, shards, paths):
    self.assertEqual(make(shards, prefill_tokens=tokens).prefill_paths, paths)

  def test_as_many_pages_as_rows_need(self):
    sizes = make()
    # 39 tokens of a path, and a step over the border of a page.
    self.assertEqual((sizes.path_pages, sizes.step_pages), (3, 2))
    self.assertEqual(sizes.shard_pages, 3 + 2 + 8 * 3 + 2 * 32 * 2)
    # Two shards have half of the rows each.
    two = make(shards=2, rows=64)
    self.assertEqual(two.shard_pages, sizes.shard_pages)

  def test_pages_of_the_config_are_those_of_all_shards(self):
    self.assertEqual(make(pages=40).shard_pages, 40)
    self.assertEqual(make(shards=2, pages=40).shard_pages, 20)
    # A path and a step need some.
    self.assertEqual(make(pages=1).shard_pages, 3 + 2)
    more = dataclasses.replace(make(pages=1), least=9)
    self.assertEqual(more.shard_pages, 9)
    longer = dataclasses.replace(make(pages=1), longest=200)
    self.assertEqual(longer.shard_pages, 13 + 2)


if __name__ == "__main__":
  absltest.main()
