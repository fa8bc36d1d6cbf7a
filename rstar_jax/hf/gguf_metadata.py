"""The metadata of a GGUF file, and its conversion to config.json."""

import math
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

# By the file's `general.architecture`, which equals the `model_type`.
ARCHITECTURES = {
  "llama": "LlamaForCausalLM",
  "phi3": "Phi3ForCausalLM",
  "qwen2": "Qwen2ForCausalLM",
  "qwen3": "Qwen3ForCausalLM",
}

# Most layers of a model, and most heads of one; none has a tenth of them.
MOST = 10_000

# Tensors with divisors of rotary frequencies instead of weights.
LLAMA3 = "rope_freqs.weight"
SHORT = "rope_factors_short.weight"
LONG = "rope_factors_long.weight"


class Metadata:
  """The keys and values of a file.

  Attributes:
    path: the file, for messages.
    architecture: one of `ARCHITECTURES`.
  """

  def __init__(self, reader, path: pathlib.Path):
    """Takes the `GGUFReader` of a file.

    Raises:
      ValueError: the model is not of one of `ARCHITECTURES`.
    """
    self._reader = reader
    self.path = path
    self.architecture = self.need("general.architecture")
    if self.architecture not in ARCHITECTURES:
      raise ValueError(
        f"{path}: general.architecture={self.architecture!r}; known are "
        f"{sorted(ARCHITECTURES)}"
      )

  def value(self, key: str, default: Any = None) -> Any:
    """Returns a value: a scalar, a string or a list.

    Args:
      key: a key of the file; one that starts with a dot gets the architecture
        as prefix.
      default: the value if the file lacks the key.
    """
    field = self._reader.get_field(self._full(key))
    if field is None:
      return default
    value = field.contents()
    # Floats have 32 bits in the file: 1e-05, not 9.999999747378752e-06.
    return float(str(np.float32(value))) if isinstance(value, float) else value

  def need(self, key: str) -> Any:
    """Returns a required value that is not a list.

    Raises:
      ValueError: the file lacks the key, or its value is a list.
    """
    value = self.value(key)
    if value is None or isinstance(value, list):
      raise ValueError(
        f"{self.path}: {self._full(key)}={value}, which must be one value"
      )
    return value

  def whole(self, key: str, most: int) -> int:
    """Returns a required whole number.

    Raises:
      ValueError: it is missing, or not from 1 to `most`.
    """
    value = self.need(key)
    if type(value) is not int or not 1 <= value <= most:
      raise ValueError(
        f"{self.path}: {self._full(key)}={value!r:.40}, which must be a whole "
        f"number from 1 to {most}"
      )
    return value

  def _full(self, key: str) -> str:
    return self.architecture + key if key.startswith(".") else key


def config_fields(
  metadata: Metadata,
  shapes: Mapping[str, tuple[int, ...]],
  tables: Mapping[str, np.ndarray],
) -> dict[str, Any]:
  """Returns the fields of config.json for the same model.

  Args:
    metadata: the file's metadata.
    shapes: shapes of weights, by Hugging Face names.
    tables: the tensors `LLAMA3`, `SHORT` and `LONG`, those that exist.

  Raises:
    ValueError: a value or a tensor is missing, or `transformers` has no field
      for it.
  """
  heads = metadata.whole(".attention.head_count", MOST)
  first = "model.layers.0."
  # The metadata may lack the size, so a tensor's shape gives it.
  output = _need(metadata, shapes, f"{first}self_attn.o_proj.weight")
  head_dim = output[1] // heads
  rope = _rope(metadata, head_dim, tables)
  fields = {
    "architectures": [ARCHITECTURES[metadata.architecture]],
    "model_type": metadata.architecture,
    "vocab_size": _need(metadata, shapes, "model.embed_tokens.weight")[0],
    "hidden_size": metadata.need(".embedding_length"),
    "intermediate_size": metadata.need(".feed_forward_length"),
    "num_hidden_layers": metadata.need(".block_count"),
    "num_attention_heads": heads,
    "num_key_value_heads": metadata.value(".attention.head_count_kv", heads),
    "head_dim": head_dim,
    "hidden_act": "silu",
    "rms_norm_eps": metadata.need(".attention.layer_norm_rms_epsilon"),
    "rope_theta": rope["rope_theta"],
    "rope_parameters": rope,
    "max_position_embeddings": metadata.need(".context_length"),
    # 0 stands for no window in the file.
    "sliding_window": metadata.value(".attention.sliding_window") or None,
    "use_sliding_window": False,
    "tie_word_embeddings": "lm_head.weight" not in shapes,
    "attention_bias": f"{first}self_attn.q_proj.bias" in shapes,
    "mlp_bias": f"{first}mlp.up_proj.bias" in shapes,
    "bos_token_id": metadata.value("tokenizer.ggml.bos_token_id"),
    "eos_token_id": metadata.value("tokenizer.ggml.eos_token_id"),
    "pad_token_id": metadata.value("tokenizer.ggml.padding_token_id"),
  }
  # Phi3Config has a field of that name, and prefers it to the dict's.
  length = "original_max_position_embeddings"
  return fields | ({length: rope[length]} if length in rope else {})


def _need(metadata: Metadata, tensors: Mapping[str, Any], name: str) -> Any:
  """Returns what is known of a required tensor."""
  if name not in tensors:
    raise ValueError(
      f"{metadata.path} lacks the tensor {name}: give the file of a whole "
      "model, not one of its vocabulary or of a part"
    )
  return tensors[name]


def _rope(
  metadata: Metadata, head_dim: int, tables: Mapping[str, np.ndarray]
) -> dict[str, Any]:
  rope = {"rope_theta": metadata.value(".rope.freq_base", 10_000.0)}
  rotated = metadata.value(".rope.dimension_count", head_dim)
  if rotated != head_dim:
    if metadata.architecture != "phi3":
      raise ValueError(
        f"{metadata.path}: rope.dimension_count={rotated}; only phi3 rotates "
        f"a part of a head, which here is of {head_dim}"
      )
    rope["partial_rotary_factor"] = rotated / head_dim
  if LLAMA3 in tables:
    scaling = llama3_rope(tables[LLAMA3], rope["rope_theta"], head_dim)
    if scaling is None:
      raise ValueError(f"{metadata.path}: {LLAMA3} is not that of Llama 3")
    return rope | scaling
  if LONG in tables:
    return rope | {
      "rope_type": "longrope",
      "long_factor": tables[LONG].tolist(),
      "short_factor": _need(metadata, tables, SHORT).tolist(),
      "original_max_position_embeddings": metadata.need(
        ".rope.scaling.original_context_length"
      ),
    }
  kind = metadata.value(".rope.scaling.type", "none")
  if kind == "none":
    return rope | {"rope_type": "default"}
  if kind == "linear":
    factor = metadata.need(".rope.scaling.factor")
    return rope | {"rope_type": "linear", "factor": factor}
  raise ValueError(
    f"{metadata.path}: rope.scaling.type={kind!r}; known are 'none' and "
    "'linear'"
  )


def llama3_rope(
  divisors: np.ndarray, theta: float, head_dim: int
) -> dict[str, Any] | None:
  """Recovers Llama 3's rope scaling from its table of divisors.

  A frequency with more than 4 turns within the original 8192 positions is
  unchanged, one with less than 1 turn is divided by `factor`, and between them
  the inverse of the divisor is interpolated. Llama 3.1 to 3.3 share these three
  numbers, so only the factor is unknown.

  Args:
    divisors: [H / 2], the divisor of each frequency.
    theta: base of the frequencies.
    head_dim: H.

  Returns:
    Fields of rope_parameters, None if the divisors are not of this form.
  """
  low, high, length = 1.0, 4.0, 8192
  factor = float(divisors.max())
  frequencies = theta ** -(np.arange(0, head_dim, 2) / head_dim)
  turns = length * frequencies / (2 * math.pi)
  kept = np.clip((turns - low) / (high - low), 0.0, 1.0)
  expected = 1.0 / (kept + (1.0 - kept) / factor)
  # The file's divisors are float32, computed by another library.
  if expected.shape != divisors.shape or not np.allclose(
    divisors, expected, rtol=1e-4
  ):
    return None
  return {
    "rope_type": "llama3",
    "factor": factor,
    "low_freq_factor": low,
    "high_freq_factor": high,
    "original_max_position_embeddings": length,
  }
