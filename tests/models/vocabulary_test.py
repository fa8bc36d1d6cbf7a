"""Tests of added rows: what is kept, what is near a mean, where it is."""

import jax
import numpy as np
from absl.testing import absltest, parameterized
from flax import nnx

from rstar_jax.config.schema import MeshConfig
from rstar_jax.models import meshes, sharding, vocabulary
from rstar_jax.models.transformer import Transformer
from rstar_jax.testing import tiny_model
from tests.models import jitted

jax.config.update("jax_num_cpu_devices", 8)


def make(**overrides):
  config = tiny_model(vocab_size=23, **overrides)
  return Transformer(config, rngs=nnx.Rngs(7))


def rows(variable):
  return np.asarray(variable.get_value())


class ResizeTest(parameterized.TestCase):
  @parameterized.parameters(True, False)
  def test_new_rows_are_near_the_mean_of_the_known(self, tied):
    model = make(tied_embeddings=tied)
    larger = vocabulary.resize(model, known=19, used=26, multiple=8)
    self.assertEqual(larger.config.vocab_size, 32)
    matrices = [(model.embedding, larger.embedding)]
    if not tied:
      matrices.append((model.lm_head, larger.lm_head))
    for old, new in matrices:
      old, new = rows(old), rows(new)
      self.assertEqual(new.shape, (32, 24))
      np.testing.assert_array_equal(new[:19], old[:19])
      known = old[:19].astype(np.float64)
      mean = known.mean(0)
      np.testing.assert_allclose(new[26:], [mean] * 6, atol=1e-8)
      # The seven new ones are near it, and each is another.
      offsets = (new[19:26] - mean) / (known - mean).std()
      self.assertBetween(offsets.std(), 0.07, 0.13)
      self.assertBetween(np.abs(offsets.mean()), 0, 0.03)
      apart = np.linalg.norm(offsets[:, None] - offsets, axis=-1)
      self.assertGreater(apart[~np.eye(7, dtype=bool)].min(), 0.3)
    ids = np.arange(1, 12)[None]
    found, wanted = (jitted.call(each, ids) for each in (larger, model))
    np.testing.assert_allclose(found[..., :19], wanted[..., :19], atol=1e-6)

  def test_spare_rows_come_first_and_the_rest_of_them_stays(self):
    model = make()
    larger = vocabulary.resize(model, known=17, used=20, multiple=128)
    self.assertEqual(larger.config.vocab_size, 23)
    old, new = rows(model.embedding), rows(larger.embedding)
    np.testing.assert_array_equal(new[20:], old[20:])
    for row in new[17:20]:
      self.assertLess(np.abs(row - old[:17].mean(0)).max(), old.std())

  def test_new_tokens_differ_before_training_and_are_the_same_each_time(self):
    model = vocabulary.resize(make(), known=19, used=26)
    again = vocabulary.resize(make(), known=19, used=26)
    np.testing.assert_array_equal(rows(model.embedding), rows(again.embedding))
    logits = np.asarray(jitted.call(model, np.arange(19, 26)[:, None]))
    self.assertTrue(np.isfinite(logits).all())
    # What follows a new token, and how likely one is after another.
    self.assertLen(np.unique(logits[..., 3].round(6)), 7)
    self.assertLen(np.unique(logits[0, 0, 19:].round(6)), 7)

  def test_nothing_to_add(self):
    model = make()
    self.assertIs(vocabulary.resize(model, known=23, used=23), model)
    with self.assertRaisesRegex(ValueError, "29 tokens and the model rows for"):
      vocabulary.resize(model, known=29, used=31)

  def test_on_a_mesh(self):
    mesh = meshes.make(MeshConfig(data=2, fsdp=2, tensor=2))
    graphdef, params = nnx.split(make())
    placed = nnx.merge(graphdef, sharding.place(params, mesh))
    larger = vocabulary.resize(placed, known=23, used=32, multiple=8)
    table = larger.embedding.get_value()
    self.assertEqual(
      {s.data.shape for s in table.addressable_shards}, {(16, 12)}
    )
    alone = vocabulary.resize(make(), known=23, used=32, multiple=8)
    np.testing.assert_allclose(
      np.asarray(table), rows(alone.embedding), atol=1e-7
    )


if __name__ == "__main__":
  absltest.main()
