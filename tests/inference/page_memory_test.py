"""Tests of the pages of a model: when they are made, resized and freed."""

import dataclasses
from unittest import mock

import jax
from absl.testing import absltest

from rstar_jax.config.schema import EngineConfig
from rstar_jax.inference.page_memory import PageMemory
from rstar_jax.inference.sizes import Sizes
from rstar_jax.models.config import ModelConfig, RopeScaling
from rstar_jax.models.paged_attention import PagedAttention

MODEL = ModelConfig(num_kv_heads=2, head_dim=8)
LAYERS = 3


def sizes_of(shards=1, pages=6):
  config = EngineConfig(max_prefix_tokens=30, pages=pages * shards)
  return Sizes.of(config, shards, 9)


def memory_of(attention=None, model=MODEL, **sizes):
  return PageMemory(
    sizes_of(**sizes), model, LAYERS, attention or PagedAttention()
  )


def fill(shard, count):
  """Caches paths, each in a page of its own."""
  root = shard.cache.match([]).page
  for token in range(count):
    shard.cache.add(root, [token], [shard.cache.take()])


class PageMemoryTest(absltest.TestCase):
  def test_pages_are_made_once_and_when_asked_for(self):
    memory = memory_of(shards=2)
    self.assertEqual((memory.arrays, memory.shards, memory.used), (None, [], 0))
    memory.allocate()
    arrays, shards = memory.arrays, memory.shards
    self.assertEqual(arrays.shape, (LAYERS * 6, 16, 4, 8))
    self.assertEqual([each.cache.count for each in shards], [6, 6])
    memory.allocate()
    self.assertIs(memory.arrays, arrays)
    self.assertIs(memory.shards, shards)

  def test_counts_go_on_when_pages_are_others(self):
    memory = memory_of()
    memory.allocate()
    fill(memory.shards[0], 8)
    self.assertEqual((memory.used, memory.dropped), (6, 2))
    (shard,) = memory.shards
    memory.resize(dataclasses.replace(memory.sizes, least=9))
    self.assertEqual(memory.shards, [shard])
    self.assertEqual(shard.cache.count, 9)
    self.assertEqual(memory.arrays.shape[0], LAYERS * 9)
    self.assertEqual((memory.used, memory.dropped), (0, 2))
    fill(shard, 10)
    self.assertEqual(memory.dropped, 3)
    memory.free()
    self.assertEqual((memory.arrays, memory.shards), (None, []))
    self.assertEqual((memory.used, memory.dropped), (0, 3))

  def test_no_room_for_more_leaves_as_many_as_before(self):
    def empty(config, layers, count):
      if count > 9:
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: x")
      return PagedAttention().empty(config, layers, count)

    tight = mock.Mock(spec=PagedAttention)
    tight.empty.side_effect = empty
    tight.page_bytes.return_value = 2**20
    memory = memory_of(tight)
    memory.allocate()
    fill(memory.shards[0], 8)
    before = memory.sizes
    with self.assertRaisesRegex(ValueError, "^10 pages"):
      memory.resize(dataclasses.replace(before, least=10))
    self.assertEqual(memory.sizes, before)
    self.assertEqual(memory.shards[0].cache.count, 6)
    self.assertEqual(memory.arrays.shape[0], LAYERS * 6)
    self.assertEqual((memory.used, memory.dropped), (0, 2))

  def test_paths_of_other_frequencies_share_no_pages(self):
    rope = RopeScaling(kind="longrope", original_length=20)
    memory = memory_of(model=dataclasses.replace(MODEL, rope=rope))
    memory.allocate()
    (shard,) = memory.shards
    self.assertEqual([shard.kind_of(n) for n in (1, 20, 21)], [0, 0, 1])

  def test_a_full_device_is_said_with_a_number_of_pages(self):
    full = mock.Mock(spec=PagedAttention)
    full.empty.side_effect = jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: x")
    full.page_bytes.return_value = 2**28
    device = mock.Mock()
    device.memory_stats.return_value = {
      "bytes_limit": 2**31,
      "bytes_in_use": 2**28,
    }
    memory = memory_of(full, shards=2, pages=8)
    with (
      mock.patch.object(jax, "local_devices", return_value=[device]),
      self.assertRaisesRegex(
        ValueError,
        "8 pages of keys and values take 2.00 GiB of a device, of which 1.75 "
        "GiB are free: set engine.pages to at most 14$",
      ),
    ):
      memory.allocate()

  def test_where_no_number_of_pages_would_do(self):
    full = mock.Mock(spec=PagedAttention)
    full.empty.side_effect = jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: x")
    full.page_bytes.return_value = 2**28
    device = mock.Mock()
    # Room for one page less than a path of 30 + 9 tokens needs.
    stats = {"bytes_limit": 2**30, "bytes_in_use": 0}
    device.memory_stats.return_value = stats
    memory = memory_of(full, shards=2, pages=8)
    self.assertEqual(memory.sizes.fewest, 5)
    with (
      mock.patch.object(jax, "local_devices", return_value=[device]),
      self.assertRaisesRegex(
        ValueError,
        "1.00 GiB are free: in another --workdir, take shorter.*mesh",
      ),
    ):
      memory.allocate()
    stats["bytes_limit"] += 2**28
    with (
      mock.patch.object(jax, "local_devices", return_value=[device]),
      self.assertRaisesRegex(ValueError, "set engine.pages to at most 10$"),
    ):
      memory.allocate()

  def test_other_errors_are_raised_as_they_are(self):
    broken = mock.Mock(spec=PagedAttention)
    broken.empty.side_effect = jax.errors.JaxRuntimeError("INTERNAL: x")
    with self.assertRaisesRegex(jax.errors.JaxRuntimeError, "INTERNAL"):
      memory_of(broken).allocate()


if __name__ == "__main__":
  absltest.main()
