"""Tests of a model with prefix caches: groups share nothing."""

import threading

import jax
import numpy as np
from absl.testing import absltest
from flax import nnx

from rstar_jax.config.schema import EngineConfig, MeshConfig
from rstar_jax.inference import weights
from rstar_jax.inference.cached_model import Batch, CachedModel
from rstar_jax.models import sharding
from tests.inference.engine_test import engine, model, prefix, seeds
from tests.inference.prefix_cache_test import SHAPES, walk

jax.config.update("jax_num_cpu_devices", 2)


class CachedModelTest(absltest.TestCase):
  def test_kernels_for_cpus_want_one_cpu(self):
    mesh = sharding.make_mesh(MeshConfig(data=2, fsdp=1, tensor=1))
    with self.assertRaisesRegex(ValueError, "cpu with a mesh of 2: set"):
      engine(**SHAPES, slots=5, native=True, mesh=mesh)

  def test_an_emptied_group_repeats_itself_to_the_bit(self):
    cached = engine(**SHAPES, slots=5)
    first = list(walk([cached], ticks=5))
    cached.forget(0)
    self.assertEqual(first, list(walk([cached], ticks=5)))

  def test_other_weights_find_every_cache_empty(self):
    cached, ids = engine(**SHAPES, slots=5), [prefix(11), prefix(13)]
    for group in (0, 1):
      cached.expand(ids, seeds(2, 3), group=group)
    cached.load(nnx.split(model(8))[1])
    expected = engine(**SHAPES, slots=5, of=model(8)).expand(ids, seeds(2, 3))
    for group in (0, 1):
      before = cached.path_tokens["prefilled"]
      self.assertEqual(cached.expand(ids, seeds(2, 3), group=group), expected)
      self.assertEqual(cached.path_tokens["prefilled"], before + 24)

  def test_what_it_is_made_of_unless_it_is_said_otherwise(self):
    config = EngineConfig(leaf_buckets=(2, 5), tail_buckets=(4, 16))
    made = CachedModel(model(), config, what="test", room=3)
    self.assertTrue(made._spec.reuse)
    self.assertIsNone(made._spec.mesh)
    self.assertEqual((made._spec.slots, made._spec.room), (5, 16))
    self.assertEqual(made.prefix_tokens, 0)
    self.assertEqual(
      made.path_tokens, {"reused": 0, "appended": 0, "prefilled": 0}
    )
    busy, lock = weights.Busy(), threading.Lock()
    made = CachedModel(
      model(), config, what="test", room=99, slots=7, busy=busy, lock=lock
    )
    self.assertIs(made.busy, busy)
    self.assertIs(made.lock, lock)
    self.assertEqual((made._spec.slots, made._spec.room), (7, 99))

  def test_groups_share_nothing(self):
    both = engine(**SHAPES, slots=5)
    alone = engine(**SHAPES, slots=5)
    ids = [prefix(11), prefix(13)]
    expected = [alone.expand(ids, seeds(2, 3)) for _ in range(2)]
    both.expand([prefix(17)] * 2, seeds(2, 3), group=1)
    self.assertEqual(both.expand(ids, seeds(2, 3)), expected[0])
    both.expand([prefix(19)] * 2, seeds(2, 3), group=1)
    self.assertEqual(both.expand(ids, seeds(2, 3)), expected[1])

  def test_candidates_are_cached_while_the_path_is_there(self):
    prefix_cache = engine(**SHAPES, slots=5)._cache(0)
    paths = [prefix(11), prefix(13)]
    moves = prefix_cache.slots.place(paths, [0, 0], hidden=True)
    slots = [each.slot for each in moves]
    versions = [prefix_cache.slots.version(slot) for slot in slots]
    batch = Batch(prefix_cache, [0, 1], slots, versions, [11, 13])
    # The second slot gets another path before the candidates are recorded.
    prefix_cache.slots.place(
      [np.concatenate([paths[1], prefix(3)])], [0], hidden=True
    )
    tokens = np.arange(24, dtype=np.int32).reshape(3, 2, 4) + 50
    usable = np.full((3, 2), 4)
    source = object()
    # Rows: the first path, padding, the second path.
    batch.cache_candidates(np.array([0, -1, 1]), source, tokens, usable)
    children = [
      np.concatenate([paths[0], tokens[0, 1]]),
      np.concatenate([paths[1], tokens[2, 0]]),
    ]
    first, second = prefix_cache.slots.place(children, [0, 0], hidden=False)
    cached, column = first.candidate
    self.assertIs(cached.source, source)
    self.assertEqual((column, first.appended), (1, 4))
    self.assertIsNone(second.candidate)
    batch.cache_candidates(np.array([0]), None, tokens, usable)


if __name__ == "__main__":
  absltest.main()
