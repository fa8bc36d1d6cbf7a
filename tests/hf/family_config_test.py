"""Tests of files that leave fields out, against `transformers`' classes."""

import inspect

import transformers
from absl.testing import absltest, parameterized

from rstar_jax.hf import families
from rstar_jax.hf.family_config import FAMILIES
from tests.hf.golden_fields import fields_of, read


class FamilyConfigTest(parameterized.TestCase):
  def test_the_families_whose_tensors_are_known(self):
    self.assertCountEqual(FAMILIES, families.FAMILIES)

  @parameterized.parameters(*FAMILIES)
  def test_transformers_declares_the_same(self, family):
    about = FAMILIES[family]
    kind = type(transformers.AutoConfig.for_model(family))
    declared = {
      name: each.default
      for name, each in inspect.signature(kind).parameters.items()
    }
    for name, silent in (
      ("num_key_value_heads", about.kv_heads),
      ("head_dim", about.head_dim),
      ("rms_norm_eps", about.eps),
      ("sliding_window", about.window),
      ("tie_word_embeddings", about.tied),
      ("max_window_layers", about.windows_from),
      *((each, about.biased) for each in about.biases),
      about.activation[::-1],
    ):
      self.assertEqual(declared.get(name), silent, name)
    self.assertEqual("use_sliding_window" in declared, about.switched)
    biases = {"attention_bias", "mlp_bias"} & set(declared)
    self.assertEqual(set(about.biases), biases)
    if not about.bases:
      self.assertEqual(getattr(kind, "default_theta", 10_000), about.base)
    kinds = kind.__name__.removesuffix("Config").removesuffix("Text")
    self.assertEqual(kinds, about.name)
    heads = {"num_attention_heads": 5, "num_key_value_heads": 1, "head_dim": 4}
    try:
      kind(hidden_size=24, **heads)
    except Exception as error:  # Of a class of its own.
      self.assertIn("hidden size", str(error))
      self.assertTrue(about.whole_heads)
    else:
      self.assertFalse(about.whole_heads)

  @parameterized.parameters("gemma3", "gemma4", "olmo3")
  def test_kinds_of_layers_with_bases_of_their_own_have_no_longrope(self, name):
    part = {"rope_type": "longrope", "rope_theta": 1e4, "factor": 2.0}
    both = {"full_attention": part, "sliding_attention": part}
    with self.assertRaisesRegex(ValueError, "rope_type='longrope' must be one"):
      read(fields_of(name, rope_parameters=both))

  def test_gpt_oss_is_scaled_and_may_be_quantised(self):
    with self.assertRaisesRegex(ValueError, "silent files are scaled by YaRN"):
      read(fields_of("gpt_oss", rope_parameters=None))
    packed = {"quantization_config": {"quant_method": "mxfp4"}}
    read(fields_of("gpt_oss", **packed))
    with self.assertRaisesRegex(ValueError, "the weights are quantised"):
      read(fields_of("qwen2", **packed))
    packed = {"quantization_config": {"quant_method": "fp8"}}
    with self.assertRaisesRegex(ValueError, "the weights are quantised"):
      read(fields_of("gpt_oss", **packed))

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
      del slid["max_window_layers"]
      config = read(sizes | slid | {"num_hidden_layers": 29})
      windows = [config.layer(i).sliding_window for i in range(29)]
      self.assertEqual(windows, [0] * 28 + [4096])

  def test_null_head_dim(self):
    self.assertEqual(read(fields_of("llama_mqa", head_dim=None)).head_dim, 4)
    with self.assertRaisesRegex(ValueError, "head_dim=None must be a whole"):
      read(fields_of("qwen3", head_dim=None))

  def test_width_of_a_llama(self):
    """Whose config `transformers` refuses, though its head_dim is given."""
    fields = fields_of("llama_mqa", num_attention_heads=5, head_dim=4)
    with self.assertRaisesRegex(ValueError, "hidden_size=24 must be a multipl"):
      read(fields)
    qwen2 = fields_of(num_attention_heads=5, num_key_value_heads=1, head_dim=6)
    self.assertEqual(read(qwen2).head_dim, 6)


if __name__ == "__main__":
  absltest.main()
