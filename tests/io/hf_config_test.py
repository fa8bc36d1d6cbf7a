"""Tests of config.json: read, written, refused; against transformers' own."""

import json
import math
import pathlib

import transformers
from absl.testing import absltest, parameterized

from rstar_jax.io import hf_config
from rstar_jax.models.config import RopeScaling
from rstar_jax.testing import tiny_model
from tests.parity import cases

GOLDEN = pathlib.Path(__file__).parents[1] / "golden"


def fields_of(name="qwen2", **changes):
  return json.loads((GOLDEN / name / "config.json").read_text()) | changes


def read(fields):
  return hf_config.from_fields(fields, "some/config.json")


class HfConfigTest(parameterized.TestCase):
  @parameterized.parameters(*cases.CASES)
  def test_what_is_written_is_read_again(self, name):
    config = read(fields_of(name))
    again = hf_config.to_fields(config, "lm")
    self.assertEqual(read(again), config)

  @parameterized.parameters(*cases.CASES)
  def test_transformers_understands_the_same(self, name):
    """Its config of our fields says what its config of its own fields says."""
    fields = fields_of(name)
    ours = hf_config.to_fields(read(fields), "lm")
    kind = type(transformers.AutoConfig.for_model(fields["model_type"]))
    want, got = (kind(**each).to_dict() for each in (fields, ours))
    rope, said = want.pop("rope_parameters"), got.pop("rope_parameters")
    for key, value in rope.items():
      if (key, value) != ("partial_rotary_factor", 1.0):
        self.assertEqual(said[key], value)
    for key in (
      "pad_token_id",
      "initializer_range",
      "dtype",
      "architectures",
      "rope_theta",
      "layer_types",
      "max_window_layers",
    ):
      want.pop(key, None), got.pop(key, None)
    self.assertEqual(
      {k: v for k, v in want.items() if v not in (None, False)},
      {k: v for k, v in got.items() if v not in (None, False) and k in want},
    )

  @parameterized.parameters(
    ({"model_type": "gpt2"}, "model_type='gpt2'; known are"),
    ({"hidden_act": "gelu"}, "hidden_act='gelu' is not 'silu'"),
    ({"quantization_config": {}}, "quantised"),
    ({"rope_parameters": {"rope_type": "dynamic"}}, "rope_type='dynamic'"),
    (
      {
        "use_sliding_window": True,
        "sliding_window": 7,
        "layer_types": None,
        "max_window_layers": 1,
      },
      "1 of 2 layers attend to sliding_window=7",
    ),
  )
  def test_what_is_not_ours_is_refused(self, changes, message):
    with self.assertRaisesRegex(ValueError, f"some/config.json.*{message}"):
      read(fields_of(**changes))

  def test_missing_fields_are_named(self):
    fields = fields_of()
    del fields["intermediate_size"]
    with self.assertRaisesRegex(ValueError, "lacks the field 'intermediate_si"):
      read(fields)

  def test_windows_that_are_no_limit(self):
    for changes in (
      {"use_sliding_window": False, "sliding_window": 7},
      {"use_sliding_window": True, "sliding_window": 128},
      {
        "use_sliding_window": True,
        "sliding_window": 7,
        "layer_types": None,
        "max_window_layers": 2,
      },
    ):
      self.assertEqual(read(fields_of(**changes)).sliding_window, 0)
    self.assertEqual(
      read(fields_of("phi3", sliding_window=2047)).sliding_window, 0
    )
    self.assertEqual(read(fields_of("phi3_window")).sliding_window, 11)

  def test_files_of_transformers_4(self):
    fields = fields_of()
    for name in ("rope_parameters", "head_dim"):
      fields.pop(name, None)
    fields |= {
      "rope_scaling": None,
      "rope_theta": 1e6,
      "torch_dtype": "bfloat16",
    }
    config = read(fields)
    self.assertEqual((config.rope_theta, config.head_dim), (1e6, 4))
    self.assertEqual(config.rope, RopeScaling())
    fields |= {
      "model_type": "phi3",
      "original_max_position_embeddings": 32,
      "rope_scaling": {
        "type": "su",
        "short_factor": [1.0, 1.5],
        "long_factor": [2.0, 3.0],
      },
    }
    rope = read(fields).rope
    self.assertEqual((rope.kind, rope.original_length), ("longrope", 32))
    # 128 / 32 times the original length (LongRoPE, as Phi-3 has it).
    self.assertAlmostEqual(
      rope.attention_factor, math.sqrt(1 + math.log(4) / math.log(32))
    )

  def test_what_a_family_cannot_say_is_not_written(self):
    for config, message in (
      (tiny_model(qkv_bias=False), "Qwen2 model has qkv_bias=True"),
      (tiny_model(family="phi3"), "Phi3 model has qkv_bias=False"),
      (tiny_model(family="llama", o_bias=False), "Llama model has o_bias=True"),
      (tiny_model(mlp_bias=True), "has mlp_bias=False"),
      (tiny_model(family="llama", o_bias=True, qk_norm=True), "has qk_norm"),
    ):
      with self.assertRaisesRegex(ValueError, message):
        hf_config.to_fields(config, "lm")

  def test_heads(self):
    fields = hf_config.to_fields(tiny_model(), "logit")
    self.assertEqual(fields["rstar_head"], "logit")
    self.assertEqual(
      fields["architectures"], ["Qwen2ForSequenceClassification"]
    )
    self.assertTrue(hf_config.is_reward_model(fields))
    self.assertFalse(
      hf_config.is_reward_model(hf_config.to_fields(tiny_model(), "lm"))
    )
    self.assertFalse(
      hf_config.is_reward_model(
        {
          "architectures": ["LlamaForSequenceClassification"],
        }
      )
    )


if __name__ == "__main__":
  absltest.main()
