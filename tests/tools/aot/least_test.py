"""The least of each program, and rates of it."""

from absl.testing import absltest

from configs import phi3_mini, qwen2_5_math_1_5b, qwen2_5_math_7b
from rstar_jax.models.config import ModelConfig
from rstar_jax.tools.aot import __main__ as command
from rstar_jax.tools.aot import analytic, chips, least, programs
from rstar_jax.tools.aot.shapes import Shapes


class LeastTest(absltest.TestCase):
  def test_every_program_has_one(self):
    for name in programs.SEARCH:
      found = least.of_search(name, ModelConfig(), Shapes(), 1)
      self.assertGreater(found.bytes, 0)

  def test_copies_compute_nothing(self):
    sizes = Shapes(moved=3, step=7, room=11)
    token = analytic.cache_bytes(ModelConfig())
    for name, tokens in (("commit", 6), ("fork", 11)):
      found = least.of_search(name, ModelConfig(), sizes, 1)
      self.assertEqual(found, analytic.Least(0, 2 * 3 * tokens * token))


class RatesTest(absltest.TestCase):
  def test_training_is_bound_by_products(self):
    config = qwen2_5_math_7b.get_config()
    model = command.model_config(config.policy.path, "bfloat16")
    found = least.rates(config, model, chips.parse("v5p:2x2x4"), 1024)
    # 6 FLOPs a parameter and token, and attention; 459 TFLOP/s.
    self.assertBetween(found["sft"], 0.8 * 459e12 / (6 * 7.07e9), 1.1e4)
    # No token is sampled faster than one is read.
    self.assertLess(found["expand"], found["advance"])

  def test_every_shipped_config_has_rates(self):
    for module in (qwen2_5_math_1_5b, phi3_mini):
      config = module.get_config()
      model = command.model_config(config.policy.path, "bfloat16")
      found = least.rates(config, model, chips.parse("v5e:4x4"))
      self.assertGreater(min(found.values()), 0)


if __name__ == "__main__":
  absltest.main()
