"""Tests of rotary positions in a config.json, against values by hand."""

import math

from absl.testing import absltest, parameterized

from rstar_jax.hf import model_config, rope_config
from rstar_jax.hf.fields import Fields
from rstar_jax.models.config import RopeScaling
from rstar_jax.testing import tiny_model

SIZES = {
  "hidden_size": 24,
  "num_attention_heads": 6,
  "max_position_embeddings": 128,
}
LISTS = {"short_factor": [1.0, 1.5], "long_factor": [2, 3.0]}
LLAMA3 = {
  "rope_type": "llama3",
  "factor": 8.0,
  "low_freq_factor": 1.0,
  "high_freq_factor": 4.0,
}
YARN = {"rope_type": "yarn", "factor": 4.0}


def read(rope=None, family="llama", kind="full_attention", **beside):
  fields = SIZES | {"rope_parameters": rope} | beside
  return rope_config.from_fields(Fields(fields, "some/file"), family, 4, kind)


def scaling(rope, family="llama", **beside):
  return read(rope, family, **beside)["rope"]


class RopeConfigTest(parameterized.TestCase):
  def test_silence(self):
    plain = {
      "rope_theta": 10_000.0,
      "rope": RopeScaling(),
      "rotary_share": 1.0,
    }
    self.assertEqual(read(), plain)
    self.assertEqual(read({}, rope_scaling=None), plain)

  def test_which_of_two_places(self):
    self.assertEqual(
      read({"rope_theta": 5e5}, rope_theta=7.0)["rope_theta"], 5e5
    )
    self.assertEqual(read({}, rope_theta=1_000_000)["rope_theta"], 1e6)
    linear = {"rope_type": "linear", "factor": 3}
    self.assertEqual(scaling(YARN, rope_scaling=linear).kind, "linear")
    self.assertEqual(scaling(linear, rope_scaling={}).kind, "linear")
    both = {"rope_type": "default", "type": "linear", "factor": 3}
    self.assertEqual(scaling(both).kind, "default")
    old = {"type": "linear", "factor": 3}
    self.assertEqual(scaling(old), RopeScaling(kind="linear", factor=3.0))
    # The length of the first training beside the dict comes first.
    name = "original_max_position_embeddings"
    self.assertEqual(scaling(LLAMA3 | {name: 16}).original_length, 16)
    rope = scaling(LLAMA3 | {name: 16}, **{name: 32})
    self.assertEqual(rope.original_length, 32)
    self.assertEqual(scaling(LLAMA3).original_length, 128)

  @parameterized.parameters(
    ({}, {}, (5e5, 5e5)),
    ({}, {"rope_theta": 7.0}, (7.0, 5e5)),
    ({"full_attention": {"rope_theta": 9.0}}, {"rope_theta": 7.0}, (9.0, 5e5)),
    ({"sliding_attention": {"rope_theta": 9.0}}, {}, (5e5, 9.0)),
  )
  def test_bases_of_olmo3(self, kinds, beside, expected):
    """Against Olmo3Config of `transformers` 5.24, by hand."""
    found = tuple(
      read(kinds, "olmo3", kind, **beside)["rope_theta"]
      for kind in ("full_attention", "sliding_attention")
    )
    self.assertEqual(found, expected)

  def test_original_length_of_ministral3(self):
    name = "original_max_position_embeddings"
    grown = YARN | {"llama_4_scaling_beta": 0.1}
    for rope, beside, expected in (
      (grown | {name: 32}, {}, 32),
      # The field beside the dict comes first, as in other families.
      (grown | {name: 32}, {name: 16}, 16),
      (grown, {}, 128),
      (grown | {"rope_type": "default", name: 32}, {name: 16}, 32),
    ):
      found = scaling(rope, "ministral3", **beside)
      self.assertEqual(
        (found.original_length, found.query_growth), (expected, 0.1)
      )
    plain = grown | {"rope_type": "default"}
    with self.assertRaisesRegex(ValueError, f"lacks the field .*{name}"):
      scaling(plain, "ministral3", **{name: 16})

  @parameterized.parameters("gemma3_text", "gemma4_text", "olmo3")
  def test_kinds_of_layers_round_in_any_case(self, family):
    rope = {"rope_theta": 5e5, **YARN}
    for kind in ("full_attention", "sliding_attention"):
      found = read({kind: rope | {"truncate": True}}, family, kind)["rope"]
      self.assertTrue(found.truncate)
      with self.assertRaisesRegex(ValueError, "truncate=False must be true"):
        read({kind: rope | {"truncate": False}}, family, kind)

  def test_first_files_of_phi3(self):
    for kind in ("su", "yarn", "longrope"):
      rope = scaling(
        {"type": kind, **LISTS}, "phi3", original_max_position_embeddings=32
      )
      self.assertEqual((rope.kind, rope.original_length), ("longrope", 32))
      self.assertEqual(rope.long_factor, (2.0, 3.0))
      # 128 / 32 times the original length (LongRoPE, as Phi-3 has it).
      self.assertAlmostEqual(
        rope.attention_factor, math.sqrt(1 + math.log(4) / math.log(32))
      )
    # Which its config class has where the file is silent, whatever the dict's.
    silent = {"type": "longrope", "original_max_position_embeddings": 32}
    rope = scaling(silent | LISTS, "phi3")
    self.assertEqual((rope.original_length, rope.factor), (4096, 128 / 4096))
    self.assertEqual(rope.attention_factor, 1.0)

  def test_attention_of_longrope(self):
    rope = {"rope_type": "longrope", **LISTS}
    rope["original_max_position_embeddings"] = 16
    self.assertAlmostEqual(
      scaling(rope | {"factor": 2.0}).attention_factor, math.sqrt(1.25)
    )
    given = scaling(rope | {"attention_factor": 2, "factor": None})
    self.assertEqual((given.attention_factor, given.factor), (2.0, 8.0))

  @parameterized.parameters(
    ({}, 0.1 * math.log(4) + 1),
    ({"factor": 0.5}, 1.0),
    ({"attention_factor": 0.7}, 0.7),
    ({"attention_factor": None, "mscale": 1.0}, 0.1 * math.log(4) + 1),
    # DeepSeek's: one weight for the scores, another for all dimensions.
    (
      {"mscale": 2.0, "mscale_all_dim": 0.5},
      (0.2 * math.log(4) + 1) / (0.05 * math.log(4) + 1),
    ),
    ({"mscale": 2.0, "mscale_all_dim": 0}, 0.1 * math.log(4) + 1),
  )
  def test_attention_of_yarn(self, changes, expected):
    rope = scaling(YARN | changes)
    self.assertAlmostEqual(rope.attention_factor, expected)

  def test_yarn(self):
    name = "original_max_position_embeddings"
    rope = scaling(YARN | {"factor": None, name: 16})
    self.assertEqual((rope.factor, rope.original_length), (8.0, 16))
    rope = scaling(YARN | {"beta_fast": None, "beta_slow": 0})
    self.assertEqual((rope.beta_fast, rope.beta_slow), (32.0, 1.0))
    rope = scaling(YARN | {"beta_fast": 16, "truncate": False})
    self.assertEqual((rope.beta_fast, rope.truncate), (16.0, False))

  def test_share(self):
    for rope, beside in (
      ({"partial_rotary_factor": 0.5}, {}),
      ({"partial_rotary_factor": 0.5}, {"partial_rotary_factor": 1.0}),
      ({}, {"partial_rotary_factor": 0.5}),
    ):
      self.assertEqual(read(rope, "phi3", **beside)["rotary_share"], 0.5)
    for family in ("qwen2", "qwen3", "llama"):
      for whole in (1, 1.0, None):
        found = read({}, family, partial_rotary_factor=whole)
        self.assertEqual(found["rotary_share"], 1.0)
      with self.assertRaisesRegex(
        ValueError, f"be 1: a {family} model rotates"
      ):
        read({}, family, partial_rotary_factor=0.5)

  def test_odd_heads(self):
    fields = Fields(SIZES, "some/file")
    with self.assertRaisesRegex(ValueError, "head_dim=5 must be even"):
      rope_config.from_fields(fields, "llama", 5)

  @parameterized.parameters(0.25, 0.9, 1.5, 0, -1, "0.5", ([0.5],))
  def test_shares_that_are_refused(self, share):
    """Of 4 numbers: 1 and 3 are odd."""
    message = "some/file: rope_parameters.partial_rotary_factor=.* must be"
    with self.assertRaisesRegex(ValueError, message):
      read({"partial_rotary_factor": share}, "phi3")

  @parameterized.parameters(
    ("x", "rope_parameters='x' must be an object"),
    ([1], "must be an object"),
    ({"rope_theta": None}, "rope_parameters.rope_theta=None must be a number"),
    ({"rope_theta": 1}, "rope_theta=1 must be a number above 1"),
    ({"full_attention": {}}, "model has one for all layers"),
    ({"rope_type": None}, "rope_type=None must be one of 'default', 'linear'"),
    ({"rope_type": ["yarn"]}, "must be one of"),
    ({"rope_type": "su"}, "rope_type='su' must be one of"),
    ({"type": "dynamic"}, "rope_parameters.type='dynamic' must be one of"),
    ({"rope_type": "linear"}, "lacks the field 'rope_parameters.factor'"),
    ({"rope_type": "linear", "factor": "2"}, "factor='2' must be a number"),
    ({"rope_type": "linear", "factor": None}, "factor=None must be a number"),
    ({"rope_type": "linear", "factor": 0}, "factor=0 must be a number above 0"),
    (LLAMA3 | {"low_freq_factor": 4}, "high_freq_factor=4.0 .* above 4"),
    (LLAMA3 | {"low_freq_factor": 0}, "low_freq_factor=0 must be"),
    (
      LLAMA3 | {"original_max_position_embeddings": 1},
      "original_max_position_embeddings=1 must be .* at least 2",
    ),
    ({"rope_type": "yarn"}, "lacks the field 'rope_parameters.factor'"),
    (YARN | {"factor": 0}, "factor=0 must be a number above 0"),
    (YARN | {"attention_factor": 0}, "attention_factor=0 must be"),
    (YARN | {"beta_fast": -1}, "beta_fast=-1 must be"),
    (YARN | {"mscale": "1"}, "mscale='1' must be"),
    (YARN | {"truncate": None}, "truncate=None must be true or false"),
  )
  def test_what_is_refused(self, rope, message):
    with self.assertRaisesRegex(ValueError, f"some/file.*{message}"):
      read(rope)

  @parameterized.parameters(
    ({"factor": 0}, "factor=0 must be a number above 0"),
    ({"attention_factor": 0.0}, "attention_factor=0.0 must be"),
    ({"short_factor": [1.0]}, "short_factor=.* must be a list of 2 numbers"),
    ({"long_factor": [1.0, 2.0, 3.0]}, "long_factor=.* a list of 2 numbers"),
    ({"long_factor": None}, "long_factor=None must be a list of 2 numbers"),
    ({"long_factor": [1.0, 0.0]}, "long_factor=.* a list of 2 numbers above 0"),
  )
  def test_longrope_that_is_refused(self, changes, message):
    for family in ("phi3", "llama"):
      with self.assertRaisesRegex(ValueError, f"some/file.*{message}"):
        read({"rope_type": "longrope", **LISTS} | changes, family)

  def test_what_phi3_cannot_have(self):
    for rope in (LLAMA3, {"rope_type": "linear", "factor": 2.0}):
      with self.assertRaisesRegex(ValueError, "one of 'default', 'longrope'"):
        read(rope, "phi3")
    rope = {"rope_type": "longrope", **LISTS}
    # Its class counts the factors by hidden_size / num_attention_heads.
    with self.assertRaisesRegex(
      ValueError, "head_dim=None must be hidden_size"
    ):
      read(rope, "phi3", hidden_size=36)
    with self.assertRaisesRegex(ValueError, "original_.*=None must be a whole"):
      read(rope, "phi3", original_max_position_embeddings=None)

  @parameterized.parameters(
    {"kind": "linear", "factor": 3.0},
    {"kind": "llama3", "factor": 8.0, "original_length": 16},
    {"kind": "yarn", "factor": 4.0, "original_length": 16, "truncate": False},
    {
      "kind": "longrope",
      "factor": 4.0,
      "original_length": 32,
      "attention_factor": 1.5,
      "short_factor": (1.0, 1.5),
      "long_factor": (2.0, 3.0),
    },
  )
  def test_what_is_written_is_read_again(self, **values):
    config = tiny_model(rope=RopeScaling(**values), rope_theta=5e5)
    fields = Fields(SIZES | rope_config.to_fields(config), "some/file")
    said = rope_config.from_fields(fields, config.family, config.head_dim)
    self.assertEqual(said["rope"], config.rope)
    self.assertEqual(said["rope_theta"], 5e5)

  @parameterized.parameters(
    ({"kind": "linear", "factor": 2.0}, "phi3"),
    ({"kind": "yarn", "factor": 2.0, "original_length": 16}, "phi3"),
    ({"kind": "longrope", "original_length": 16}, "qwen2"),
    ({"kind": "yarn", "factor": 2.0}, "qwen2"),
    (
      {
        "kind": "llama3",
        "factor": 2.0,
        "original_length": 8,
        "high_freq_factor": 1.0,
      },
      "qwen2",
    ),
    ({"factor": 2.0}, "qwen2"),
    ({"kind": "linear", "factor": 2.0, "attention_factor": 1.5}, "qwen2"),
    (
      {"kind": "yarn", "factor": 2.0, "original_length": 16, "beta_slow": 0.0},
      "qwen2",
    ),
  )
  def test_what_a_file_cannot_say_is_not_written(self, values, family):
    config = tiny_model(
      family=family, qkv_bias=family == "qwen2", rope=RopeScaling(**values)
    )
    with self.assertRaises(ValueError):
      model_config.to_fields(config, "lm")


if __name__ == "__main__":
  absltest.main()
