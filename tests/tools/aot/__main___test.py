"""What the command reads of a config, and what it makes of rows."""

import json
import pathlib

from absl.testing import absltest

from rstar_jax.tools.aot import __main__ as command


class ModelTest(absltest.TestCase):
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


class RatesTest(absltest.TestCase):
  def test_rows_take_the_place_of_the_least(self):
    least = {"v5e:4x4": {"expand": 9.0, "sft": 5.0}}
    row = {
      "slice": "v5e:4x4",
      "stage": "rollout",
      "program": "expand",
      "tokens_per_second_per_chip": 7.0,
    }
    rows = [
      row,
      row | {"repeated": True, "tokens_per_second_per_chip": 1.0},
      row | {"stage": "evaluation", "tokens_per_second_per_chip": 2.0},
      row | {"slice": "v6e:4x4"},
      {"slice": "v5e:4x4", "program": "sft", "limit": "memory"},
    ]
    found = command.rates(rows, least)
    self.assertEqual(found, {"v5e:4x4": {"expand": 7.0, "sft": 5.0}})
    self.assertEqual(least["v5e:4x4"]["expand"], 9.0)


if __name__ == "__main__":
  absltest.main()
