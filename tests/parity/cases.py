"""Tiny models of every family and switch, as fields of a config.json.

Prime sizes where heads allow it, so that two axes are never mistaken for each
other. `initializer_range` is large, so that a mistake is seen in the logits.
"""

from typing import Any

_COMMON = {
  "vocab_size": 97,
  "hidden_size": 24,
  "intermediate_size": 37,
  "num_hidden_layers": 2,
  "num_attention_heads": 6,
  "num_key_value_heads": 2,
  "max_position_embeddings": 128,
  "initializer_range": 0.3,
  "bos_token_id": None,
  "eos_token_id": None,
  "pad_token_id": 0,
}


def _rope(kind: str, **options: Any) -> dict[str, Any]:
  return {"rope_parameters": {"rope_type": kind, "rope_theta": 1e4, **options}}


CASES: dict[str, dict[str, Any]] = {
  name: _COMMON | fields
  for name, fields in {
    "qwen2": {"model_type": "qwen2"},
    "qwen2_tied": {"model_type": "qwen2", "tie_word_embeddings": True},
    "qwen2_mha": {"model_type": "qwen2", "num_key_value_heads": 6},
    "qwen2_yarn": {
      "model_type": "qwen2",
      **_rope("yarn", factor=4.0, original_max_position_embeddings=16),
    },
    "qwen2_window": {
      "model_type": "qwen2",
      "use_sliding_window": True,
      "sliding_window": 7,
      "max_window_layers": 0,
    },
    "qwen3": {"model_type": "qwen3", "head_dim": 6},
    "qwen3_bias_tied": {
      "model_type": "qwen3",
      "head_dim": 10,
      "attention_bias": True,
      "tie_word_embeddings": True,
    },
    "llama_mqa": {"model_type": "llama", "num_key_value_heads": 1},
    "llama_bias": {
      "model_type": "llama",
      "attention_bias": True,
      "mlp_bias": True,
    },
    "llama_linear": {"model_type": "llama", **_rope("linear", factor=3.0)},
    "llama3_tied": {
      "model_type": "llama",
      "tie_word_embeddings": True,
      **_rope(
        "llama3",
        factor=8.0,
        low_freq_factor=1.0,
        high_freq_factor=4.0,
        original_max_position_embeddings=16,
      ),
    },
    "phi3": {"model_type": "phi3"},
    "phi3_window": {"model_type": "phi3", "sliding_window": 11},
    "phi3_partial": {
      "model_type": "phi3",
      "num_attention_heads": 3,
      "num_key_value_heads": 1,
      **_rope("default", partial_rotary_factor=0.75),
    },
    "phi3_longrope": {
      "model_type": "phi3",
      "original_max_position_embeddings": 32,
      **_rope("longrope", short_factor=[1.0, 1.3], long_factor=[1.7, 2.9]),
    },
  }.items()
}


def lengths(name: str) -> tuple[int, ...]:
  """Returns the lengths of a case's sequences: LongRoPE's, on both sides."""
  return (23, 53) if name.endswith("longrope") else (53,)


def greedy_sizes(name: str) -> tuple[tuple[int, int], ...]:
  """Returns (prompt, new tokens) of a case's greedy decoding.

  LongRoPE's stay on one side of its border, which a cache cannot cross: see
  `sampler.prefill`.
  """
  return ((7, 19), (37, 64)) if name.endswith("longrope") else ((13, 64),)
