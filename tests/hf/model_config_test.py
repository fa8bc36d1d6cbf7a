"""Tests of config.json: read, written, refused; against transformers' own."""

import re

import transformers
from absl.testing import absltest, parameterized

from rstar_jax.hf import model_config
from rstar_jax.testing import tiny_model
from tests.hf.golden_fields import fields_of, read
from tests.parity import cases


class HfConfigTest(parameterized.TestCase):
  @parameterized.parameters(*cases.CASES)
  def test_what_is_written_is_read_again(self, name):
    config = read(fields_of(name))
    again = model_config.to_fields(config, "lm")
    self.assertEqual(read(again), config)

  @parameterized.parameters(*cases.CASES)
  def test_transformers_understands_the_same(self, name):
    """Its config of our fields says what its config of its own fields says."""
    fields = fields_of(name)
    ours = model_config.to_fields(read(fields), "lm")
    kind = type(transformers.AutoConfig.for_model(fields["model_type"]))
    want, got = (kind(**each).to_dict() for each in (fields, ours))
    rope, said = want.pop("rope_parameters"), got.pop("rope_parameters")
    for key, value in rope.items():
      if isinstance(value, dict):
        # Of a kind of layers; what the file leaves out is said all the same.
        self.assertEqual(said[key] | value, said[key])
      elif key in ("mscale", "mscale_all_dim"):
        # Where both are equal they cancel.
        self.assertEqual(rope["mscale"], rope["mscale_all_dim"])
        self.assertEqual(said["attention_factor"], 1.0)
      elif (key, value) != ("partial_rotary_factor", 1.0):
        self.assertEqual(said[key], value)
    for key in (
      "pad_token_id",
      "initializer_range",
      "dtype",
      "architectures",
      "rope_theta",
      "max_window_layers",
      "no_rope_layer_interval",
      *(() if len(set(fields.get("layer_types", ()))) > 1 else ["layer_types"]),
    ):
      want.pop(key, None), got.pop(key, None)
    self.assertEqual(
      {k: v for k, v in want.items() if v not in (None, False)},
      {k: v for k, v in got.items() if v not in (None, False) and k in want},
    )

  @parameterized.parameters(
    ({"model_type": "gpt2"}, "model_type='gpt2'; known are"),
    ({"model_type": ["qwen2"]}, r"model_type=\['qwen2'\]; known are"),
    ({"hidden_act": "gelu"}, "hidden_act='gelu' must be 'silu'"),
    ({"hidden_act": None}, "hidden_act=None must be"),
    ({"quantization_config": {}}, "quantised"),
    ({"is_causal": False}, "is_causal=False must be true"),
    # Which `transformers` takes for false.
    ({"is_causal": None}, "is_causal=None must be true"),
    ({"per_layer_config": {"0": {}}}, "all layers must be alike"),
    ({"rope_parameters": {"rope_type": "dynamic"}}, "rope_type='dynamic'"),
  )
  def test_what_is_not_ours_is_refused(self, changes, message):
    with self.assertRaisesRegex(ValueError, f"some/config.json.*{message}"):
      read(fields_of(**changes))

  def test_missing_fields_are_named(self):
    fields = fields_of()
    del fields["intermediate_size"]
    with self.assertRaisesRegex(ValueError, "lacks the field 'intermediate_si"):
      read(fields)

  @parameterized.parameters(
    ["LlamaForCausalLM"],
    ["Qwen2Model"],
    ["Qwen2ForQuestionAnswering"],
    [7],
  )
  def test_architectures_of_other_models(self, name):
    with self.assertRaisesRegex(ValueError, "architectures=.* must be of"):
      read(fields_of(architectures=[name]))

  def test_class_of_a_scalar_head(self):
    # Names in `transformers` 5.24; a Gemma3For... reads images, too.
    for family, name in (("gemma2", "Gemma2"), ("gemma3_text", "Gemma3Text")):
      self.assertEqual(
        model_config.classifier(family), f"{name}ForSequenceClassification"
      )

  def test_architectures_that_say_no_more_than_the_family(self):
    for names in (None, [], ["Qwen2ForSequenceClassification"]):
      read(fields_of(architectures=names))

  @parameterized.parameters(
    ("vocab_size", "97", "a whole number of at least 1"),
    ("hidden_size", None, "a whole number of at least 1"),
    ("intermediate_size", 37.0, "a whole number of at least 1"),
    ("num_hidden_layers", True, "a whole number of at least 1"),
    ("num_attention_heads", 0, "a whole number of at least 1"),
    ("num_key_value_heads", 0, "a whole number of at least 1"),
    ("num_key_value_heads", 4, "a divisor of num_attention_heads=6"),
    ("num_key_value_heads", [2], "a whole number of at least 1"),
    ("head_dim", "4", "a whole number of at least 1"),
    ("max_position_embeddings", "128", "a whole number of at least 1"),
    ("rms_norm_eps", None, "a number above 0"),
    ("rms_norm_eps", float("nan"), "a number above 0"),
    ("tie_word_embeddings", None, "true or false"),
    ("use_sliding_window", None, "true or false"),
    ("max_window_layers", None, "a whole number"),
  )
  def test_fields_of_another_type(self, name, value, right):
    message = re.escape(f"some/config.json: {name}={value!r} must be {right}")
    with self.assertRaisesRegex(ValueError, message):
      read(fields_of(**{name: value}))

  def test_biases_are_flags(self):
    for name in ("attention_bias", "mlp_bias"):
      with self.assertRaisesRegex(ValueError, f"{name}=1 must be true or"):
        read(fields_of("llama_bias", **{name: 1}))

  @parameterized.parameters(
    ("gemma3", {"use_bidirectional_attention": True}, "must be false or null"),
    ("gemma3", {"attn_logit_softcapping": 30.0}, "transformers ignores it"),
    ("gemma3", {"hidden_activation": "gelu"}, "'silu' or 'gelu_pytorch_tanh'"),
    ("gemma3", {"rope_scaling": {"factor": 2.0}}, "rope_parameters has it"),
    (
      "gemma3",
      {"rope_parameters": {"rope_type": "linear", "factor": 2.0}},
      "rope_type='linear' must be in 'full_attention' or",
    ),
    (
      "gemma3",
      {"rope_parameters": None, "rope_scaling": {"type": "linear"}},
      "lacks the field 'rope_scaling.rope_type'",
    ),
    ("gemma4", {"hidden_size_per_layer_input": 8}, "must be 0: embeddings of"),
    ("gemma4", {"num_kv_shared_layers": 2}, "must be 0: layers without keys"),
    ("gemma4", {"num_kv_shared_layers": [1]}, "=.1. must be 0: layers without"),
    ("gemma4", {"use_bidirectional_attention": "all"}, "must be false or null"),
    (
      "gemma4",
      {"rope_parameters": {"full_attention": {"rope_theta": 10.0}}},
      "lacks the field 'rope_parameters.sliding_attention.rope_theta'",
    ),
    ("ministral3", {"rope_parameters": None}, "silent files are scaled"),
    (
      "ministral3",
      {"rope_parameters": {"rope_theta": 1e4}},
      "lacks the field 'rope_parameters.llama_4_scaling_beta'",
    ),
  )
  def test_what_new_families_are_refused_for(self, name, changes, message):
    with self.assertRaisesRegex(ValueError, f"some/config.json.*{message}"):
      read(fields_of(name, **changes))

  def test_bases_of_old_files(self):
    """Gemma 3's and OLMo 3's first files have them at the top."""
    old = {"rope_parameters": None, "rope_theta": 3e5}
    linear = {"rope_type": "linear", "factor": 8.0}
    config = read(
      fields_of("gemma3", **old, rope_local_base_freq=2e4, rope_scaling=linear)
    )
    first, last = config.layer(0), config.layer(5)
    self.assertEqual((first.rope_theta, last.rope_theta), (2e4, 3e5))
    self.assertEqual((first.rope.factor, last.rope.factor), (1.0, 8.0))
    config = read(fields_of("olmo3", **old))
    # `transformers` gives the base to layers without a window alone.
    self.assertEqual(config.layer(0).rope_theta, 5e5)
    self.assertEqual(config.layer(3).rope_theta, 3e5)

  def test_what_a_family_cannot_say_is_not_written(self):
    for config, message in (
      (tiny_model(qkv_bias=False), "Qwen2 model has qkv_bias=True"),
      (tiny_model(family="phi3"), "Phi3 model has qkv_bias=False"),
      (tiny_model(family="llama", o_bias=False), "Llama model has o_bias=True"),
      (tiny_model(mlp_bias=True), "has mlp_bias=False"),
      (tiny_model(family="llama", o_bias=True, qk_norm="head"), "has qk_norm"),
    ):
      with self.assertRaisesRegex(ValueError, message):
        model_config.to_fields(config, "lm")

  @parameterized.parameters(
    # What `transformers` would refuse, or fail with.
    (
      {"family": "llama", "o_bias": True, "num_heads": 4, "embed_dim": 30},
      "hidden_size=30 must be a multiple",
    ),
    ({"head_dim": 5}, "head_dim=5 must be even"),
    (
      {"num_heads": 4, "num_kv_heads": 3},
      "num_key_value_heads=3 must be a div",
    ),
    # What it would read differently.
    ({"rotary_share": 0.5}, "partial_rotary_factor=0.5 must be 1"),
    (
      {"family": "llama", "o_bias": True, "sliding_window": 7},
      "sliding_window",
    ),
    ({"sliding_window": -1}, "sliding_window=-1 must be"),
    ({"rms_eps": 0.0}, "rms_norm_eps=0.0 must be a number above 0"),
  )
  def test_what_transformers_would_not_load_is_not_written(self, what, message):
    with self.assertRaisesRegex(ValueError, message):
      model_config.to_fields(tiny_model(**what), "lm")

  def test_whole_numbers_are_written_as_the_type_that_is_asked(self):
    """An eps of 1 would be refused: the config class has a float there."""
    fields = model_config.to_fields(tiny_model(rms_eps=1), "lm")
    self.assertIsInstance(fields["rms_norm_eps"], float)

  def test_heads(self):
    fields = model_config.to_fields(tiny_model(), "logit")
    self.assertEqual(fields["rstar_head"], "logit")
    self.assertEqual(
      fields["architectures"], ["Qwen2ForSequenceClassification"]
    )
    self.assertEqual(fields["num_labels"], 1)


if __name__ == "__main__":
  absltest.main()
