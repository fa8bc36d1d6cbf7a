"""Tests of what a config.json says of layers, against values by hand."""

from absl.testing import absltest, parameterized

from rstar_jax.hf import model_config
from tests.hf.golden_fields import fields_of, read


class LayerConfigTest(parameterized.TestCase):
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

  @parameterized.parameters("gemma3", "gemma4", "olmo3")
  def test_kinds_of_layers_need_a_window(self, name):
    """Since their kinds have rotary fields of their own."""
    for kinds in (fields_of(name)["layer_types"], None):
      fields = fields_of(name, layer_types=kinds, sliding_window=None)
      with self.assertRaisesRegex(ValueError, "sliding_window=None must be a"):
        read(fields)
    # One that is no limit changes no kind.
    longest = fields_of(name)["max_position_embeddings"]
    wide = read(fields_of(name, sliding_window=longest))
    plain = read(fields_of(name))
    for ours, other in zip(wide.layers(), plain.layers(), strict=True):
      self.assertEqual(ours.rope_theta, other.rope_theta)
      self.assertEqual(ours.rope, other.rope)
    # Without any such layer it is written, and read again.
    full = ["full_attention"] * len(fields_of(name)["layer_types"])
    alike = {} if name == "gemma4" else None
    full = read(fields_of(name, layer_types=full, per_layer_config=alike))
    self.assertEqual(full.windows(), [0])
    fields = model_config.to_fields(full, "lm")
    self.assertEqual(fields["sliding_window"], longest)
    self.assertEqual(read(fields), full)

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

  @parameterized.parameters(
    ("smollm3", {"no_rope_layers": [1, 2, 1]}, "a list of 3 times 0 or 1"),
    ("qwen2", {"num_hidden_layers": 4097}, "=4097 must be at most 4096"),
    ("granite", {"sliding_window": 7}, "2 of 2 layers have it"),
    ("gemma4_moe", {"top_k_experts": 6}, "at most the 5 experts"),
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
    ("mistral", {"layer_types": ["full_attention"] * 2}, "0 of 2 layers"),
  )
  def test_layers_that_are_refused(self, name, changes, message):
    with self.assertRaisesRegex(ValueError, f"some/config.json.*{message}"):
      read(fields_of(name, **changes))


if __name__ == "__main__":
  absltest.main()
