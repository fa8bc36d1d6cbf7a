"""Tests of model configs: hashable, and full-size ones of the right count."""

import dataclasses
import math

import jax
from absl.testing import absltest, parameterized

from rstar_jax.hf import model_config
from rstar_jax.models.config import ModelConfig, RopeScaling, in_turns
from rstar_jax.models.transformer import abstract
from tests.models import published


def parameters(config: ModelConfig, layers: int) -> int:
  """Returns the number of parameters of a model of so many layers."""
  config = dataclasses.replace(config, num_layers=layers)
  _, shapes = abstract(config, "lm")
  return sum(math.prod(x.shape) for x in jax.tree.leaves(shapes))


class ConfigTest(parameterized.TestCase):
  @parameterized.parameters(*published.MODELS)
  def test_count_of_a_published_model(self, name):
    """Nothing is allocated: the shapes alone are made, of two periods."""
    count, fields = published.MODELS[name]
    config = model_config.from_fields(fields, name)
    turns, rest = divmod(config.num_layers, config.period)
    found = parameters(config, min(turns, 2) * config.period + rest)
    if turns > 2:
      # Each further period has what the second one adds to the first.
      more = found - parameters(config, config.period + rest)
      found += (turns - 2) * more
    self.assertEqual(found, count)

  def test_layers_in_turns(self):
    layers = [
      {"sliding_window": window, "rope_theta": 1e4} for window in (7, 7, 0)
    ]
    said = in_turns([*layers, *layers, layers[0]])
    seven, none = (("sliding_window", 7),), (("sliding_window", 0),)
    self.assertEqual(said, {"rope_theta": 1e4, "kinds": (seven, seven, none)})
    config = ModelConfig(num_layers=7, **said)
    self.assertEqual(config.period, 3)
    self.assertEqual(
      [config.layer(i).sliding_window for i in range(7)], [7, 7, 0, 7, 7, 0, 7]
    )
    self.assertEqual(config.layer(5), ModelConfig(num_layers=7))
    self.assertEqual(config.windows(), [0, 7])
    # Neither alike nor in turns: all of them are said.
    self.assertLen(in_turns([layers[2], layers[0], layers[0]])["kinds"], 3)
    alike = in_turns(layers[:2])
    self.assertEqual(alike, layers[0] | {"kinds": ()})

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
