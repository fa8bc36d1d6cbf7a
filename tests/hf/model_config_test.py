"""Tests of config.json: read, written, refused; against transformers' own."""

import json
import pathlib
import re

import transformers
from absl.testing import absltest, parameterized

from rstar_jax.hf import model_config
from rstar_jax.testing import tiny_model
from tests.parity import cases

GOLDEN = pathlib.Path(__file__).parents[1] / "golden"


def fields_of(name="qwen2", **changes):
  return json.loads((GOLDEN / name / "config.json").read_text()) | changes


def read(fields):
  return model_config.from_fields(fields, "some/config.json")


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

  def test_width_of_a_llama(self):
    """Whose config `transformers` refuses, though its head_dim is given."""
    fields = fields_of("llama_mqa", num_attention_heads=5, head_dim=4)
    with self.assertRaisesRegex(ValueError, "hidden_size=24 must be a multipl"):
      read(fields)
    qwen2 = fields_of(num_attention_heads=5, num_key_value_heads=1, head_dim=6)
    self.assertEqual(read(qwen2).head_dim, 6)

  @parameterized.parameters(
    # By the config classes of `transformers` 5.24: windows and bases of six
    # layers, and what else they are.
    ("mistral", [4096] * 6, [1e4] * 6, {"num_kv_heads": 8, "qkv_bias": False}),
    ("ministral", [4096] * 6, [1e4] * 6, {"num_kv_heads": 8}),
    ("granite", [0] * 6, [1e4] * 6, {"attention_scale": 1.0}),
    ("smollm3", [0] * 6, [2e6] * 6, {"num_kv_heads": 4}),
    ("olmo2", [0] * 6, [1e4] * 6, {"rms_eps": 1e-5, "norms": "post"}),
    ("olmo3", [4096] * 3 + [0, 4096, 4096], [5e5] * 6, {"qk_norm": "all"}),
    (
      "gemma2",
      [4096, 0] * 3,
      [1e4] * 6,
      {
        "attention_softcap": 50.0,
        "logits_softcap": 30.0,
        "attention_scale": 256**-0.5,
        "embedding_multiplier": 16.0,
      },
    ),
    (
      "gemma3_text",
      [4096] * 5 + [0],
      [1e4] * 5 + [1e6],
      {"attention_softcap": 0.0, "logits_softcap": 0.0, "qk_norm": "head"},
    ),
  )
  def test_silent_files_of_kinds(self, family, windows, bases, also):
    config = read(
      {
        "model_type": family,
        "vocab_size": 97,
        "hidden_size": 256,
        "intermediate_size": 37,
        "num_hidden_layers": 6,
        "num_attention_heads": 16,
        "head_dim": 16,
        "max_position_embeddings": 8192,
      }
    )
    layers = [config.layer(i) for i in range(6)]
    self.assertEqual([each.sliding_window for each in layers], windows)
    self.assertEqual([each.rope_theta for each in layers], bases)
    shares = [1, 1, 1, 0, 1, 1] if family == "smollm3" else [1] * 6
    self.assertEqual([each.rotary_share for each in layers], shares)
    self.assertEqual({name: vars(config)[name] for name in also}, also)
    tied = family in ("smollm3", "gemma2", "gemma3_text")
    self.assertEqual(config.tied_embeddings, tied)

  def test_heads_of_gemma4(self):
    """As published, by one field for all wide layers; and as written."""
    fields = fields_of("gemma4", rope_parameters=None, sliding_window=512)
    fields = {
      key: value
      for key, value in fields.items()
      if key not in ("attention_k_eq_v", "per_layer_config")
    }
    published = {"global_head_dim": 10, "num_global_key_value_heads": 1}
    each = {"head_dim": 10, "num_key_value_heads": 1}
    written = {"per_layer_config": {"01": each, "02": each}}
    for also, wide, heads in (
      ({}, 512, 2),
      # Ignored where values are not keys.
      (published, 10, 2),
      (published | {"attention_k_eq_v": True}, 10, 1),
      (written | {"attention_k_eq_v": True}, 10, 1),
    ):
      config = read(fields | also)
      layers = [config.layer(i) for i in range(3)]
      self.assertEqual((config.head_dim, config.num_kv_heads), (wide, 2))
      self.assertEqual([x.head_dim for x in layers], [6] + [wide] * 2)
      self.assertEqual([x.num_kv_heads for x in layers], [2] + [heads] * 2)
      self.assertEqual([x.rotary_share for x in layers], [1] + [0.25] * 2)
      self.assertEqual([x.rope_theta for x in layers], [1e4] + [1e6] * 2)
      self.assertEqual(
        [x.keys_as_values for x in layers],
        [False] + ["attention_k_eq_v" in also] * 2,
      )

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
    ("smollm3", {"no_rope_layers": [1, 2, 1]}, "a list of 3 times 0 or 1"),
    ("granite", {"sliding_window": 7}, "2 of 2 layers have it"),
    ("gemma4", {"hidden_size_per_layer_input": 8}, "must be 0: embeddings of"),
    ("gemma4", {"num_kv_shared_layers": 2}, "must be 0: layers without keys"),
    ("gemma4_moe", {"top_k_experts": 6}, "at most the 5 experts"),
    ("gemma4", {"use_bidirectional_attention": "all"}, "must be false or null"),
    (
      "gemma4",
      {"per_layer_config": dict.fromkeys("12", {"num_key_value_heads": 4})},
      "a divisor of the other's",
    ),
    (
      "gemma4",
      {"per_layer_config": {"2": {}}},
      "of the 'full_attention' layer",
    ),
    (
      "gemma4",
      {"per_layer_config": dict.fromkeys("12", {"hidden_size": 8})},
      "per_layer_config.1.hidden_size=8 must be left out",
    ),
    (
      "gemma4",
      {"rope_parameters": {"full_attention": {"rope_theta": 10.0}}},
      "lacks the field 'rope_parameters.sliding_attention.rope_theta'",
    ),
    ("mistral", {"layer_types": ["full_attention"] * 2}, "0 of 2 layers"),
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

  @parameterized.parameters(
    # Those that the config classes of `transformers` 5.24 declare.
    ("qwen2", 32, 4, 1e-6),
    ("qwen3", 32, 128, 1e-6),
    ("llama", 64, 4, 1e-6),
    ("phi3", 64, 4, 1e-5),
  )
  def test_silent_files(self, family, kv_heads, head_dim, eps):
    sizes = {
      "model_type": family,
      "vocab_size": 97,
      "hidden_size": 256,
      "intermediate_size": 37,
      "num_hidden_layers": 2,
      "num_attention_heads": 64,
      "max_position_embeddings": 8192,
    }
    config = read(sizes)
    self.assertEqual(
      (config.num_kv_heads, config.head_dim, config.rms_eps),
      (kv_heads, head_dim, eps),
    )
    self.assertEqual((config.sliding_window, config.rope_theta), (0, 10_000))
    self.assertEqual(
      (config.qkv_bias, config.qk_norm, config.tied_embeddings),
      (family == "qwen2", "head" if family == "qwen3" else "none", False),
    )
    # Null is no silence: as many as there are heads.
    config = read(sizes | {"num_key_value_heads": None})
    self.assertEqual(config.num_kv_heads, 64)
    if family.startswith("qwen"):
      slid = {"use_sliding_window": True, "max_window_layers": 0}
      self.assertEqual(read(sizes | slid).sliding_window, 4096)
      slid["max_window_layers"] = 28
      self.assertEqual(read(sizes | slid).sliding_window, 0)

  def test_null_head_dim(self):
    self.assertEqual(read(fields_of("llama_mqa", head_dim=None)).head_dim, 4)
    with self.assertRaisesRegex(ValueError, "head_dim=None must be a whole"):
      read(fields_of("qwen3", head_dim=None))

  def test_phi3_knows_no_switch_for_its_window(self):
    fields = fields_of("phi3_window", use_sliding_window=False)
    self.assertEqual(read(fields).sliding_window, 11)

  @parameterized.parameters("mistral", "ministral3", "phi3", "qwen3_moe")
  def test_all_layers_have_the_window(self, name):
    slid = {"sliding_window": 7, "layer_types": None}
    fields = fields_of(name, use_sliding_window=True, **slid)
    self.assertEqual(read(fields).sliding_window, 7)
    fields["use_sliding_window"] = False
    wanted = 0 if name == "qwen3_moe" else 7
    self.assertEqual(read(fields).sliding_window, wanted)

  def test_llama_has_no_window(self):
    fields = fields_of("llama_mqa", use_sliding_window=False)
    with self.assertRaisesRegex(ValueError, "sliding_window=7 must be null"):
      read(fields | {"sliding_window": 7})
    full, slid = ["full_attention"] * 2, ["sliding_attention"] * 2
    for changes in (
      {"sliding_window": 128},
      {"sliding_window": None},
      # `transformers` then caches as the layers attend: all of it.
      {"sliding_window": 7, "layer_types": full},
    ):
      self.assertEqual(read(fields | changes).sliding_window, 0)
    with self.assertRaisesRegex(ValueError, "layer_types=.*there is no window"):
      read(fields | {"layer_types": slid})

  @parameterized.parameters(
    ("phi3", {"sliding_window": 0}, "sliding_window=0 must be a whole number"),
    ("phi3", {"sliding_window": "7"}, "sliding_window='7' must be a whole nu"),
    ("phi3_window", {"layer_types": ["full_attention"] * 2}, "0 of 2 layers"),
    ("qwen2_window", {"sliding_window": 0}, "sliding_window=0 must be"),
    ("qwen2_window", {"layer_types": []}, "layer_types=.* a list of 2 kinds"),
    ("qwen2", {"layer_types": ["full_attention"]}, "a list of 2 kinds"),
    ("qwen2", {"layer_types": "full_attention"}, "a list of 2 kinds"),
    ("qwen2", {"layer_types": ["chunked_attention"] * 2}, "a list of 2 kinds"),
    ("qwen2", {"layer_types": ["sliding_attention"] * 2}, "there is no window"),
  )
  def test_windows_that_are_refused(self, name, changes, message):
    with self.assertRaisesRegex(ValueError, f"some/config.json: .*{message}"):
      read(fields_of(name, **changes))

  def test_windows_that_are_no_limit(self):
    for changes in (
      {"use_sliding_window": False, "sliding_window": 7},
      {"use_sliding_window": False, "sliding_window": 0},
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
