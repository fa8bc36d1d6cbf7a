"""Tests of model configs: hashable, and full-size ones of the right count."""

import math

import jax
from absl.testing import absltest, parameterized
from flax import nnx

from rstar_jax.hf import model_config
from rstar_jax.models.config import ModelConfig, RopeScaling
from rstar_jax.models.transformer import Transformer
from tests.models import published


class ConfigTest(parameterized.TestCase):
  @parameterized.parameters(*published.MODELS)
  def test_count_of_a_published_model(self, name):
    """Nothing is allocated: the shapes alone are made."""
    count, fields = published.MODELS[name]
    config = model_config.from_fields(fields, name)
    model = nnx.eval_shape(lambda: Transformer(config, rngs=nnx.Rngs(0)))
    shapes = jax.tree.leaves(nnx.split(model)[1])
    self.assertEqual(sum(math.prod(x.shape) for x in shapes), count)

  def test_equal_configs_have_one_hash(self):
    first, second = (
      ModelConfig(rope=RopeScaling(kind="linear", factor=factor))
      for factor in (2.0, 2)
    )
    self.assertEqual(first, second)
    self.assertEqual(hash(first), hash(second))
    second.num_layers += 1
    self.assertNotEqual(first, second)


if __name__ == "__main__":
  absltest.main()
