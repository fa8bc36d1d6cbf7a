"""Tests of config.json made of a GGUF file's metadata."""

import math
import pathlib
from unittest import mock

import gguf
import numpy as np
import transformers
from absl.testing import absltest, parameterized

from rstar_jax.hf import gguf_metadata
from rstar_jax.hf.gguf import GgufFile
from tests import tiny_gguf

IDS = {
  "tokenizer.ggml.bos_token_id": 1,
  "tokenizer.ggml.eos_token_id": 2,
  "tokenizer.ggml.padding_token_id": 3,
}


def llama3_divisors(
  theta: float,
  head_dim: int,
  factor: float,
  *,
  low: float = 1.0,
  high: float = 4.0,
  length: int = 8192,
) -> np.ndarray:
  """Returns Llama 3's table, one case after the other."""
  divisors = []
  for i in range(0, head_dim, 2):
    wavelength = 2 * math.pi * theta ** (i / head_dim)
    if wavelength < length / high:
      divisors.append(1.0)
    elif wavelength > length / low:
      divisors.append(factor)
    else:
      smooth = (length / wavelength - low) / (high - low)
      divisors.append(1 / ((1 - smooth) / factor + smooth))
  return np.array(divisors, np.float32)


class GgufMetadataTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.path = pathlib.Path(self.create_tempdir().full_path) / "tiny.gguf"

  def fields(self, *args, **kwargs):
    tiny_gguf.write(self.path, *args, **kwargs)
    return GgufFile(self.path).fields

  @parameterized.parameters(
    ("llama", "LlamaForCausalLM", 64, False),
    ("qwen2", "Qwen2ForCausalLM", 64, True),
    ("qwen3", "Qwen3ForCausalLM", 128, False),
    ("phi3", "Phi3ForCausalLM", 64, False),
  )
  def test_all_fields(self, architecture, name, head_dim, bias):
    self.assertEqual(
      self.fields(architecture, metadata=IDS),
      {
        "architectures": [name],
        "model_type": architecture,
        "vocab_size": 24,
        "hidden_size": 256,
        "intermediate_size": 512,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": head_dim,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-5,
        "rope_theta": 1e5,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e5},
        "max_position_embeddings": 1024,
        "sliding_window": None,
        "use_sliding_window": False,
        "tie_word_embeddings": False,
        "attention_bias": bias,
        "mlp_bias": False,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 3,
      },
    )

  @parameterized.parameters("llama", "qwen2", "qwen3", "phi3")
  def test_transformers_takes_the_fields(self, architecture):
    fields = self.fields(architecture, tied=True, metadata=IDS)
    config = transformers.AutoConfig.for_model(**fields)
    self.assertEqual(config.model_type, architecture)
    for name, value in fields["rope_parameters"].items():
      self.assertEqual(config.rope_parameters[name], value)
    for name in ("num_key_value_heads", "tie_word_embeddings", "eos_token_id"):
      self.assertEqual(getattr(config, name), fields[name])

  def test_what_a_file_may_leave_out(self):
    metadata = {"llama.attention.head_count_kv": None}
    # As many heads of keys as of queries, the half of them as large.
    metadata["llama.attention.head_count"] = 2
    metadata["llama.rope.freq_base"] = None
    fields = self.fields("llama", metadata=metadata)
    self.assertEqual(fields["num_key_value_heads"], 2)
    self.assertEqual(fields["rope_theta"], 10_000.0)
    self.assertIsNone(fields["eos_token_id"])

  def test_window(self):
    for window, expected in ((0, None), (2047, 2047)):
      metadata = {"phi3.attention.sliding_window": window}
      fields = self.fields("phi3", metadata=metadata)
      self.assertEqual(fields["sliding_window"], expected)

  @parameterized.parameters((5e5, 64, 32.0), (5e5, 128, 8.0), (1e4, 64, 4.0))
  def test_llama3_rope(self, theta, head_dim, factor):
    self.assertEqual(
      gguf_metadata.llama3_rope(
        llama3_divisors(theta, head_dim, factor), theta, head_dim
      ),
      {
        "rope_type": "llama3",
        "factor": factor,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
      },
    )

  @parameterized.parameters(
    {"low": 2.0}, {"high": 8.0}, {"length": 4096}, {"head_dim": 32}
  )
  def test_tables_that_are_not_llama3s(self, head_dim=64, **other):
    table = llama3_divisors(5e5, head_dim, 32.0, **other)
    self.assertIsNone(gguf_metadata.llama3_rope(table, 5e5, 64))
    with self.assertRaisesRegex(ValueError, "rope_freqs.weight is not that"):
      self.fields(
        "llama",
        metadata={"llama.rope.freq_base": 5e5},
        extra={"rope_freqs.weight": table},
      )

  def test_longrope(self):
    short, long = np.arange(24, dtype=np.float32), np.full(24, 2, np.float32)
    fields = self.fields(
      "phi3",
      metadata={
        "phi3.rope.dimension_count": 48,
        "phi3.rope.scaling.original_context_length": 256,
        **IDS,
      },
      extra={
        "rope_factors_short.weight": short,
        "rope_factors_long.weight": long,
      },
    )
    self.assertEqual(
      fields["rope_parameters"],
      {
        "rope_type": "longrope",
        "rope_theta": 1e5,
        "partial_rotary_factor": 0.75,
        "short_factor": short.tolist(),
        "long_factor": long.tolist(),
        "original_max_position_embeddings": 256,
      },
    )
    config = transformers.AutoConfig.for_model(**fields)
    self.assertEqual(config.rope_parameters, fields["rope_parameters"])

  def test_a_file_without_the_tensors_of_a_model(self):
    known = tiny_gguf.shapes("llama")
    for name in (
      "model.layers.0.self_attn.o_proj.weight",
      "model.embed_tokens.weight",
    ):
      left = {each: known[each] for each in known.keys() - {name}}
      with (
        mock.patch.object(tiny_gguf, "shapes", return_value=left),
        self.assertRaisesRegex(
          ValueError, f"^.*tiny.gguf lacks the tensor {name}: .*$"
        ),
      ):
        self.fields("llama")

  def test_longrope_without_its_short_factors(self):
    with self.assertRaisesRegex(
      ValueError, "tiny.gguf lacks the tensor rope_factors_short.weight"
    ):
      self.fields(
        "phi3",
        metadata={"phi3.rope.scaling.original_context_length": 256},
        extra={"rope_factors_long.weight": np.ones(32, np.float32)},
      )

  def test_linear_rope(self):
    metadata = {"llama.rope.scaling.type": "linear"}
    with self.assertRaisesRegex(ValueError, "scaling.factor=None"):
      self.fields("llama", metadata=metadata)
    metadata["llama.rope.scaling.factor"] = 4.0
    rope = self.fields("llama", metadata=metadata)["rope_parameters"]
    self.assertEqual(
      rope, {"rope_type": "linear", "rope_theta": 1e5, "factor": 4.0}
    )

  @parameterized.parameters(
    ({"llama.rope.scaling.type": "yarn"}, "'yarn'; known are"),
    ({"llama.rope.dimension_count": 32}, "dimension_count=32; only phi3"),
    ({"llama.attention.head_count": [4, 4]}, r"head_count=\[4, 4\]"),
    ({"llama.context_length": None}, "llama.context_length=None"),
  )
  def test_models_without_a_config(self, metadata, message):
    with self.assertRaisesRegex(ValueError, f"tiny.gguf: .*{message}"):
      self.fields("llama", metadata=metadata)

  def test_unknown_architecture(self):
    writer = gguf.GGUFWriter(self.path, "gemma3")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    with self.assertRaisesRegex(ValueError, "'gemma3'; known are .'llama'"):
      GgufFile(self.path)


if __name__ == "__main__":
  absltest.main()
