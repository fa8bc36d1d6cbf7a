"""Defaults of generation that the paper states, and others rely on."""

import json

from absl.testing import absltest

from rstar_jax.config import engine as config


class ConfigTest(absltest.TestCase):
  def test_sampling_is_from_the_whole_vocabulary(self):
    engine = config.EngineConfig()
    self.assertEqual((engine.temperature, engine.top_k), (1.0, 0))
    self.assertEqual((engine.top_p, engine.min_p), (1.0, 0.0))

  def test_a_server_is_asked_as_in_round_1(self):
    remote = config.RemoteConfig()
    self.assertEqual((remote.temperature, remote.url), (0.7, ""))
    self.assertIsInstance(json.loads(remote.extra), dict)


if __name__ == "__main__":
  absltest.main()
