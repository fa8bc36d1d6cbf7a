"""What a chip holds, against sums made by hand."""

import dataclasses

import jax
from absl.testing import absltest

from rstar_jax.config.schema import MeshConfig
from rstar_jax.models import sharding
from rstar_jax.models.config import ModelConfig
from rstar_jax.tools.aot import analytic, held, programs
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


def _held(shapes):
  mesh = sharding.make_mesh(MeshConfig(data=1), jax.devices()[:1])
  return held.of_shapes(shapes, _MODEL, mesh)


def _pool(length):
  """Keys and values, and the last hidden states."""
  return 5 * (length * analytic.cache_bytes(_MODEL) + 4 * 20)


class HeldTest(absltest.TestCase):
  def test_everything(self):
    found = _held(_SHAPES)
    # The head is of V x D instead of D.
    self.assertEqual(found.policy - found.value, 4 * (106 * 20 - 20))
    self.assertEqual(found.pool, _pool(29))
    self.assertEqual(found.others, _pool(29) + _pool(37) + 2 * _pool(31))
    token = analytic.cache_bytes(_MODEL)
    self.assertEqual(found.sampled, 5 * 3 * 6 * token)
    self.assertEqual(found.scored, 5 * 4 * 11 * token)
    self.assertEqual(found.kept, 2 * (found.sampled + found.scored))

  def test_beside_a_program(self):
    found = _held(_SHAPES)
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
    found = _held(
      dataclasses.replace(_SHAPES, keep=False, keep_scored=False, value_room=0)
    )
    self.assertEqual((found.kept, found.value, found.value_pool), (0, 0, 0))
    self.assertEqual(found.others, _pool(29) + _pool(37))

  def test_a_path_for_each_candidate(self):
    found = _held(dataclasses.replace(_SHAPES, repeated=True))
    self.assertEqual(found.pool, 3 * _pool(29))


if __name__ == "__main__":
  absltest.main()
