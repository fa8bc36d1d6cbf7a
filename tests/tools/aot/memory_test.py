"""Bytes on a chip, and settings that fit, against sums made by hand."""

import dataclasses

import jax
from absl.testing import absltest

from rstar_jax.config.schema import MeshConfig
from rstar_jax.models import sharding
from rstar_jax.models.config import ModelConfig
from rstar_jax.tools.aot import lower_bound, memory, programs
from rstar_jax.tools.aot.shapes import Shapes

_MODEL = ModelConfig(
  vocab_size=106,
  num_layers=1,
  embed_dim=20,
  num_heads=4,
  num_kv_heads=2,
  head_dim=6,
  mlp_dim=34,
  tied_embeddings=False,
)
# Calls of 2 of 5 slots sample, calls of 3 score.
_SHAPES = Shapes(
  slots=5,
  room=29,
  leaves=2,
  candidates=3,
  step=7,
  scored=3,
  columns=4,
  scored_step=11,
  value_room=31,
  others=(29, 37),
)


def _resident(shapes):
  mesh = sharding.make_mesh(MeshConfig(data=1), jax.devices()[:1])
  return memory.resident(shapes, _MODEL, mesh)


def _pool(length):
  """Keys and values, and the last hidden states."""
  return 5 * (length * lower_bound.cache_bytes(_MODEL) + 4 * 20)


class ResidentTest(absltest.TestCase):
  def test_everything(self):
    found = _resident(_SHAPES)
    # The head is of V x D instead of D.
    self.assertEqual(found.policy - found.value, 4 * (106 * 20 - 20))
    self.assertEqual(found.pool, _pool(29))
    self.assertEqual(found.others, _pool(29) + _pool(37) + 2 * _pool(31))
    token = lower_bound.cache_bytes(_MODEL)
    self.assertEqual(found.sampled, 5 * 3 * 6 * token)
    self.assertEqual(found.scored, 5 * 4 * 11 * token)
    self.assertEqual(found.kept, 2 * (found.sampled + found.scored))

  def test_beside_a_program(self):
    found = _resident(_SHAPES)
    total = found.weights + found.pools + found.kept
    own = {
      "advance": found.policy + found.pool,
      "fork": found.pool,
      "expand": found.policy + found.pool + 2 / 5 * found.sampled,
      "commit": found.pool + 2 / 5 * found.sampled,
      "score": found.value + _pool(31) + 3 / 5 * found.scored,
    }
    self.assertEqual(set(own), set(programs.SEARCH))
    for name, bytes_ in own.items():
      self.assertAlmostEqual(found.beside(name, _SHAPES), total - bytes_)

  def test_nothing_kept_and_no_ppm(self):
    found = _resident(
      dataclasses.replace(_SHAPES, keep=False, keep_scored=False, value_room=0)
    )
    self.assertEqual((found.kept, found.value, found.value_pool), (0, 0, 0))
    self.assertEqual(found.others, _pool(29) + _pool(37))


class SuggestTest(absltest.TestCase):
  def test_largest(self):
    # 10 that stay and 2 for each: 3 fit into 16, 3 into 17, none into 11.
    for has, count in ((16, 3), (17, 3), (11, 0), (9, 0), (1000, 7)):
      self.assertEqual(memory.largest(7, 10, 14, has), count)
    self.assertEqual(memory.largest(7, 10, 0, 10), 7)
    self.assertEqual(memory.largest(7, 10, 0, 9), 0)

  def test_search(self):
    # 8 for the weights, 8 for the slots, 6 for the candidates of calls.
    found = memory.Resident(5.0, 3.0, 2.0, 1.0, 6.0, 1.0, 1.0, lanes=2)
    shapes = Shapes(slots=16, room=4096)

    def suggest(has):
      return memory.suggest_search(found, shapes, 600, needs=22.0, has=has)

    # 2 or 4 less of slots that take 8, or of candidates that take 6.
    self.assertEqual(
      suggest(20.0), {"slots": 12, "most_tokens": 400, "room": 3072}
    )
    # Without any candidates it would still be 16.
    self.assertEqual(suggest(15.0), {"slots": 2, "room": 512})
    # Neither alone is enough: 8 stay, and 3.5 of 14 may be there besides.
    self.assertEqual(suggest(11.5), {"slots_and_most_tokens": 0.25})
    self.assertEqual(suggest(8.0), {"tensor": 1})
    self.assertEqual(suggest(3.0), {"tensor": 3})

  def test_training(self):
    # 6 that stay and 2 for each of 4 rows at once; 32 rows on 4 devices.
    sizes = dict(batch_size=32, accumulate=2, parts=4, fixed=6.0, needs=14.0)
    # 8 / 4 parts is 4 more; 3 does not divide.
    self.assertEqual(
      memory.suggest_training(**sizes, has=10.5), {"accumulate": 4}
    )
    self.assertEqual(
      memory.suggest_training(**sizes, has=8.0), {"accumulate": 8}
    )
    # One row at a time needs 8.
    self.assertEqual(
      memory.suggest_training(**sizes, has=4.0), {"times_chips": 2}
    )


if __name__ == "__main__":
  absltest.main()
