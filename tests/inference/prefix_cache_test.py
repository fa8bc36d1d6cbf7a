"""Tests of prefix caches: steps are those of a decoder without one."""

import dataclasses
import functools
from unittest import mock

import jax
import numpy as np
from absl.testing import absltest, parameterized
from flax import nnx

from rstar_jax.config.schema import EngineConfig
from rstar_jax.inference.engine import Engine
from rstar_jax.inference.prefix_cache import PrefixCache, Spec, pick, spec_of
from rstar_jax.inference.weights import Programs
from rstar_jax.models.config import RopeScaling
from rstar_jax.models.transformer import Transformer
from rstar_jax.testing import tiny_model
from tests.inference.engine_test import (
  STEP,
  engine,
  model,
  prefix,
  same_steps,
  seeds,
)
from tests.inference.plain_engine import PlainEngine

# Every fifth id stops.
STOPS = tuple(range(2, 267, 5))
SHAPES = dict(
  stop_ids=STOPS,
  prefix_buckets=(16, 40, 64),
  leaf_buckets=(2, 5),
  tail_buckets=(4, 16),
)


@functools.cache
def plain_engine():
  return PlainEngine(model(), STOPS, STEP)


def walk(engines, ticks, trees=4, seed=0, candidates=3):
  """Grows trees of ids as searches do, and yields what each engine samples.

  Trees grow by the first engine's candidates. A leaf is mostly a child of the
  last one, sometimes another node; children may get a tail, as code gets its
  output.
  """
  rng = np.random.default_rng(seed)
  nodes = [[tuple(prefix(3 + 2 * i, i).tolist())] for i in range(trees)]
  for tick in range(ticks):
    leaves = [
      tree[-1] if rng.random() < 0.7 else tree[rng.integers(len(tree))]
      for tree in nodes
    ]
    rows = [
      each.expand(
        [np.array(leaf, np.int32) for leaf in leaves],
        seeds(trees, candidates, start=1000 * tick),
      )
      for each in engines
    ]
    yield rows
    for i, (tree, leaf, row) in enumerate(
      zip(nodes, leaves, rows[0], strict=True)
    ):
      step = row[rng.integers(candidates)].token_ids
      tail = prefix(int(rng.choice([1, 3, 9])), tick) if i % 2 else ()
      child = (*leaf, *step, *(int(each) for each in tail))
      if len(child) <= 64:
        tree.append(child)


class SpecTest(parameterized.TestCase):
  def spec(self, slots=7, room=11, **config) -> Spec:
    shapes = {"leaf_buckets": (2, 6, 16), "tail_buckets": (4, 9)}
    return Spec(tiny_model(), EngineConfig(**shapes | config), slots, room)

  def test_sizes_of_calls_by_hand(self):
    spec = self.spec()
    self.assertEqual((spec.data_shards, spec.count), (1, 7))
    self.assertEqual(spec.sizes, [2, 6, 16])
    for most, sizes in (
      (1, [2]),
      (2, [2]),
      (5, [2]),
      (6, [2, 6]),
      (99, spec.sizes),
    ):
      self.assertEqual(spec.sizes_up_to(most), sizes)

  def test_on_four_shards_a_call_has_a_quarter_of_the_rows_on_each(self):
    with mock.patch.object(Spec, "data_shards", 4):
      spec = self.spec()
      self.assertEqual((spec.count, self.spec(slots=8).count), (8, 8))
      # Of 2, 6 and 16 rows; a shard has one at least.
      self.assertEqual(spec.sizes, [1, 4])
      for most, sizes in ((3, [1]), (4, [1]), (15, [1]), (16, [1, 4])):
        self.assertEqual(spec.sizes_up_to(most), sizes)

  def test_leaves_of_a_call(self):
    spec = self.spec(most_tokens=100, score_rows=50)
    # Three candidates of seven tokens are 21 of 100.
    self.assertEqual(spec.most_sampled(3, 7), 4)
    self.assertEqual(spec.most_sampled(5, 5), 4)
    self.assertEqual(spec.most_scored(7), 7)
    self.assertEqual(spec.most_scored(10), 5)

  @parameterized.parameters(
    (3, 11, {}, True),
    (3, 12, {}, False),  # A candidate is longer than there is room for.
    (3, 10, {"most_tokens": 210}, True),
    (3, 10, {"most_tokens": 209}, False),
    (3, 10, {"cache_candidates": False}, False),
  )
  def test_whether_candidates_are_kept(self, candidates, size, config, kept):
    self.assertEqual(self.spec(**config).keeps(candidates, size), kept)

  @parameterized.parameters(
    ((0, 3), (16, 9)), ((16, 9), (16, 9)), ((17, 10), (17, 10))
  )
  def test_caches_are_large_enough_for_the_calls(self, given, found):
    config = EngineConfig(leaf_buckets=(2, 16), tail_buckets=(4, 9))
    slots, room = given
    spec = spec_of(tiny_model(), config, slots=slots, room=room)
    self.assertEqual((spec.slots, spec.room), found)
    self.assertTrue(spec.reuse)
    self.assertIsNone(spec.mesh)


class PrefixCacheTest(parameterized.TestCase):
  @parameterized.parameters(
    dict(slots=5),
    dict(slots=9, leaf_buckets=(3,)),
    # Fewer slots than trees: every call takes several batches.
    dict(leaf_buckets=(2,), tail_buckets=(8,)),
    dict(slots=5, cache_candidates=False, least_rows=1),
    # Room for two leaves in a call, and none to cache candidates.
    dict(slots=5, most_tokens=2 * 3 * STEP),
  )
  def test_searches_are_those_of_whole_prefixes(self, **other):
    cached = engine(**(SHAPES | other))
    for slow, rows in walk([plain_engine(), cached], ticks=9):
      same_steps(self, rows, slow)
    tokens = cached.path_tokens
    self.assertEqual(sum(tokens.values()), cached.prefix_tokens)
    if cached.config.leaf_buckets != (2,):
      self.assertLess(tokens["prefilled"], 0.5 * cached.prefix_tokens)
      keeps = cached.config.cache_candidates and "most_tokens" not in other
      self.assertEqual(tokens["appended"] > 0, keeps)
    if "most_tokens" in other:
      rows = {each[1] for each in cached.programs.shapes if each[0] == "expand"}
      self.assertEqual(rows, {2})

  def test_without_reuse_all_is_prefilled(self):
    whole = engine(**SHAPES, reuse=False)
    for slow, rows in walk([plain_engine(), whole], ticks=3):
      same_steps(self, rows, slow)
    self.assertEqual(whole.path_tokens["prefilled"], whole.prefix_tokens)

  def test_longrope_begins_again_beyond_its_border(self):
    rope = RopeScaling(
      kind="longrope",
      original_length=29,
      short_factor=(1.0, 1.0),
      long_factor=(3.0, 9.0),
    )
    of = Transformer(tiny_model(rope=rope), rngs=nnx.Rngs(3))
    cached = Engine(
      of,
      EngineConfig(prefix_buckets=(64,), leaf_buckets=(2,), tail_buckets=(16,)),
      stop_ids=(),
      max_new_tokens=STEP,
      pad_id=0,
    )
    slow = PlainEngine(of, (), STEP)
    path, prefilled = prefix(11), []
    for tick in range(5):
      one, other = (
        each.expand([path], seeds(1, 3, start=10 * tick))
        for each in (slow, cached)
      )
      same_steps(self, other, one)
      path = np.array([*path, *one[0][tick % 3].token_ids], np.int32)
      prefilled.append(cached.path_tokens["prefilled"])
    # 11 tokens; two steps' last ones; 25, since 25 + 7 > 29; and one more.
    self.assertEqual(np.diff([0, *prefilled]).tolist(), [11, 1, 25, 1, 1])

  @parameterized.parameters(("longrope", [0, 0, 1, 1]), ("none", [0] * 4))
  def test_positions_change_where_a_step_may_cross_the_border(
    self, kind, kinds
  ):
    rope = RopeScaling(kind=kind, original_length=29)
    if kind == "longrope":
      rope = dataclasses.replace(
        rope, short_factor=(1.0, 1.0), long_factor=(3.0, 9.0)
      )
    config = EngineConfig(
      prefix_buckets=(64,), leaf_buckets=(4,), tail_buckets=(16,)
    )
    spec = Spec(tiny_model(rope=rope), config, 4, 16)
    cached = PrefixCache(spec, Programs("test"))
    paths = [prefix(length) for length in (21, 22, 23, 40)]
    with mock.patch.object(
      cached.slots, "place", side_effect=InterruptedError
    ) as place:
      with self.assertRaises(InterruptedError):
        cached.place(None, paths, 7, hidden=True)
    # 22 tokens and a step of 7 are 29.
    ((asked, found), options) = place.call_args
    self.assertIs(asked, paths)
    self.assertEqual(found, kinds)
    self.assertEqual(options, {"hidden": True, "reuse": True})

  def test_limits(self):
    free = engine(stop_ids=())
    rows = free.expand([prefix(5)] * 3, seeds(3, 2), limits=[1, 7, 3])
    self.assertEqual([len(row[0].token_ids) for row in rows], [1, 7, 3])
    whole = free.expand([prefix(5)] * 3, seeds(3, 2))
    for row, full, limit in zip(rows, whole, (1, 7, 3), strict=True):
      for one, other in zip(row, full, strict=True):
        self.assertEqual(one.token_ids, other.token_ids[:limit])
        self.assertEqual(one.stopped, -1)
    with self.assertRaisesRegex(
      ValueError, rf"limits\[1\] = 8 is not in 1..{STEP}"
    ):
      free.expand([prefix(5)] * 2, seeds(2, 2), limits=[1, 8])

  def test_nothing_compiles_after_the_warm_up(self):
    cached = engine(**SHAPES, slots=5)
    for call in cached.warm_up_calls(3):
      call()
    made = list(cached.programs.shapes)
    with jax.log_compiles(), self.assertNoLogs("jax", "WARNING"):
      for _ in walk([cached], ticks=7):
        pass
    self.assertEqual(cached.programs.shapes, made)
    self.assertEqual(cached.generated_tokens > 0, True)

  def test_room_is_made_for_longer_paths(self):
    config = EngineConfig(prefix_buckets=(8, 16), leaf_buckets=(3,))
    cached = PrefixCache(Spec(tiny_model(), config, 3, 11), Programs("test"))
    self.assertEqual(cached.pool.keys[0].shape, (3, 2, 27, 4))
    cached.ensure(16)
    self.assertEqual(cached.slots.length, 16)
    cached.ensure(33)
    self.assertEqual(cached.slots.length, 64)
    self.assertEqual(cached.pool.keys[0].shape, (3, 2, 75, 4))
    pool = cached.pool
    cached.ensure(64)
    self.assertIs(cached.pool, pool)

  def test_slots_are_numbered_within_their_shards(self):
    config = EngineConfig(prefix_buckets=(8,), leaf_buckets=(4,))
    with mock.patch.object(Spec, "data_shards", 2):
      cached = PrefixCache(Spec(tiny_model(), config, 6, 11), Programs("test"))
      found = cached.local(np.array([-1, 0, 2, 3, 5]))
      self.assertEqual(found.tolist(), [3, 0, 2, 0, 2])
      self.assertEqual(found.dtype, np.int32)
      # Items of slots 3, 0, 5 and 1: two of each shard, in order.
      ((items, path),) = cached.calls([3, 0, 5, 1])
      self.assertEqual((items.tolist(), path), ([1, 3, 0, 2], 0))
      calls = cached.calls([3, 0, 5, 1], most=2)
      self.assertEqual([each.tolist() for each, _ in calls], [[1, 3, 0, 2]])

  def test_values_of_rows(self):
    found = pick([5, 6, 7], np.array([2, -1, 0]))
    self.assertEqual((found.tolist(), found.dtype), ([7, 0, 5], np.int32))
    self.assertEqual(pick([5], np.array([-1, 0]), -1).tolist(), [-1, 5])


if __name__ == "__main__":
  absltest.main()
