"""Tests of a model's lanes: apart from each other, and forgotten at once."""

import jax
import numpy as np
from absl.testing import absltest

from rstar_jax.config.schema import MeshConfig
from rstar_jax.inference.lanes import Wave
from rstar_jax.models import sharding
from tests.inference.engine_test import engine, prefix, seeds
from tests.inference.lane_test import SHAPES, walk

jax.config.update("jax_num_cpu_devices", 2)


class LanesTest(absltest.TestCase):
  def test_kernels_for_cpus_want_one_cpu(self):
    mesh = sharding.make_mesh(MeshConfig(data=2, fsdp=1, tensor=1))
    with self.assertRaisesRegex(ValueError, "cpu with a mesh of 2: set"):
      engine(**SHAPES, slots=5, native=True, mesh=mesh)

  def test_a_lane_that_begins_repeats_itself_to_the_bit(self):
    lane = engine(**SHAPES, slots=5)
    first = list(walk([lane], ticks=5))
    lane.forget(0)
    self.assertEqual(first, list(walk([lane], ticks=5)))

  def test_lanes_are_apart(self):
    both = engine(**SHAPES, slots=5)
    alone = engine(**SHAPES, slots=5)
    ids = [prefix(11), prefix(13)]
    expected = [alone.expand(ids, seeds(2, 3)) for _ in range(2)]
    both.expand([prefix(17)] * 2, seeds(2, 3), lane=1)
    self.assertEqual(both.expand(ids, seeds(2, 3)), expected[0])
    both.expand([prefix(19)] * 2, seeds(2, 3), lane=1)
    self.assertEqual(both.expand(ids, seeds(2, 3)), expected[1])

  def test_candidates_are_kept_where_the_path_still_is(self):
    lane = engine(**SHAPES, slots=5)._lane(0)
    paths = [prefix(11), prefix(13)]
    moves = lane.slots.place(paths, [0, 0], hidden=True)
    slots = [each.slot for each in moves]
    versions = [lane.slots.version(slot) for slot in slots]
    wave = Wave(lane, [0, 1], slots, versions, [11, 13])
    # The second slot goes on to another path before the call is noted.
    lane.slots.place([np.concatenate([paths[1], prefix(3)])], [0], hidden=True)
    tokens = np.arange(24, dtype=np.int32).reshape(3, 2, 4) + 50
    usable = np.full((3, 2), 4)
    source = object()
    # Rows: the first path, padding, the second path.
    wave.keep(np.array([0, -1, 1]), source, tokens, usable)
    children = [
      np.concatenate([paths[0], tokens[0, 1]]),
      np.concatenate([paths[1], tokens[2, 0]]),
    ]
    first, second = lane.slots.place(children, [0, 0], hidden=False)
    kept, column = first.candidate
    self.assertIs(kept.source, source)
    self.assertEqual((column, first.committed), (1, 4))
    self.assertIsNone(second.candidate)
    wave.keep(np.array([0]), None, tokens, usable)


if __name__ == "__main__":
  absltest.main()
