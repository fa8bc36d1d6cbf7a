"""What the command reads of a config, and what it makes of rows."""

import json
import pathlib

from absl import flags
from absl.testing import absltest, parameterized

from configs import qwen2_5_math_7b
from rstar_jax.aot import __main__ as command
from rstar_jax.aot import analytic, chips, programs
from rstar_jax.models.config import ModelConfig


class ModelTest(parameterized.TestCase):
  def test_published(self):
    found = command.model_config("Qwen/Qwen2.5-Math-1.5B", "bfloat16")
    self.assertEqual(found.num_layers, 28)
    self.assertEqual((found.dtype, found.param_dtype), ("bfloat16",) * 2)

  def test_folder(self):
    folder = pathlib.Path(self.create_tempdir().full_path)
    fields = {
      "model_type": "qwen2",
      "vocab_size": 512,
      "hidden_size": 64,
      "intermediate_size": 96,
      "num_hidden_layers": 3,
      "num_attention_heads": 4,
      "num_key_value_heads": 2,
      "max_position_embeddings": 128,
    }
    (folder / "config.json").write_text(json.dumps(fields))
    found = command.model_config(str(folder), "float32")
    self.assertEqual((found.num_layers, found.head_dim), (3, 16))

  def test_neither(self):
    with self.assertRaisesRegex(ValueError, "'nobody/nothing' is no folder"):
      command.model_config("nobody/nothing", "float32")

  @parameterized.parameters((28, 4, 4), (12, 4, 4), (9, 4, 3), (7, 8, 7))
  def test_tensor_parts(self, heads, chips, parts):
    model = ModelConfig(num_heads=heads, num_kv_heads=1)
    self.assertEqual(command.tensor_parts(model, chips), parts)


class LeastTest(absltest.TestCase):
  def test_every_program_has_one(self):
    model, shapes = ModelConfig(), programs.Shapes()
    for name in programs.SEARCH:
      self.assertGreater(command.least(name, model, shapes, 1).bytes, 0)

  def test_commit_copies_and_computes_nothing(self):
    shapes = programs.Shapes(leaves=3, step=7)
    found = command.least("commit", ModelConfig(), shapes, 1)
    token = analytic.cache_bytes(ModelConfig())
    self.assertEqual(found, analytic.Least(0, 2 * 3 * 6 * token))


class RatesTest(absltest.TestCase):
  def test_rows_take_the_place_of_the_least(self):
    least = {"v5e:4x4": {"expand": 9.0, "sft": 5.0}}
    row = {
      "slice": "v5e:4x4",
      "program": "expand",
      "tokens_per_second_per_chip": 7.0,
    }
    rows = [
      row,
      row | {"repeated": True, "tokens_per_second_per_chip": 1.0},
      row | {"slice": "v6e:4x4"},
      {"slice": "v5e:4x4", "program": "sft", "limit": "memory"},
    ]
    found = command.rates(rows, least)
    self.assertEqual(found, {"v5e:4x4": {"expand": 7.0, "sft": 5.0}})
    self.assertEqual(least["v5e:4x4"]["expand"], 9.0)

  def test_least_rates(self):
    flags.FLAGS(["aot", "--config=configs/qwen2_5_math_7b.py"])
    config = qwen2_5_math_7b.get_config()
    model = command.model_config(config.policy.path, "bfloat16")
    found = command.least_rates(config, model, chips.parse("v5p:2x2x4"))
    # Training is bound by products: 6 FLOPs a parameter and token, and
    # attention; 459 TFLOP/s.
    self.assertBetween(found["sft"], 0.8 * 459e12 / (6 * 7.07e9), 1.1e4)
    # No token is sampled faster than one is read.
    self.assertLess(found["expand"], found["advance"])


if __name__ == "__main__":
  absltest.main()
