"""Tiny models of every family and switch, as fields of a config.json.

Prime sizes where heads allow it, so that two axes are never mistaken for each
other. `initializer_range` is large, so that a mistake is seen in the logits.
"""

import random
from typing import Any

from rstar_jax.models.config import ModelConfig, RopeScaling

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


_FULL, _SLIDING = "full_attention", "sliding_attention"


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
    # Layers of kinds: a period, and what is left of the next one.
    "qwen2_windows": {
      "model_type": "qwen2",
      "use_sliding_window": True,
      "sliding_window": 7,
      "max_window_layers": 1,
    },
    "mistral": {
      "model_type": "mistral",
      "head_dim": 6,
      "sliding_window": 11,
    },
    "ministral": {
      "model_type": "ministral",
      "num_hidden_layers": 3,
      "head_dim": 4,
      "sliding_window": 11,
      "layer_types": [_FULL, _SLIDING, _FULL],
    },
    "granite": {
      "model_type": "granite",
      "attention_bias": True,
      "mlp_bias": True,
      "tie_word_embeddings": True,
      "attention_multiplier": 0.31,
      "embedding_multiplier": 3.0,
      "residual_multiplier": 0.47,
      "logits_scaling": 1.7,
    },
    "smollm3": {
      "model_type": "smollm3",
      "num_hidden_layers": 3,
      "no_rope_layer_interval": 2,
      "tie_word_embeddings": False,
    },
    "smollm3_windows": {
      "model_type": "smollm3",
      "use_sliding_window": True,
      "sliding_window": 7,
      "no_rope_layers": [0, 1],
    },
    "olmo2": {"model_type": "olmo2", "attention_bias": True},
    "olmo3": {
      "model_type": "olmo3",
      "num_hidden_layers": 5,
      "sliding_window": 7,
      "rope_parameters": {
        _SLIDING: {"rope_type": "default", "rope_theta": 1e4},
        _FULL: {
          "rope_type": "yarn",
          "rope_theta": 1e4,
          "factor": 4.0,
          "original_max_position_embeddings": 16,
        },
      },
    },
    "gemma2": {
      "model_type": "gemma2",
      "num_hidden_layers": 3,
      "head_dim": 6,
      "sliding_window": 7,
      "query_pre_attn_scalar": 5,
      "attn_logit_softcapping": 3.0,
      "final_logit_softcapping": 9.0,
    },
    "gemma3": {
      "model_type": "gemma3_text",
      "num_hidden_layers": 7,
      "head_dim": 10,
      "sliding_window": 7,
      "query_pre_attn_scalar": 10,
      "rope_parameters": {
        _SLIDING: {"rope_type": "default", "rope_theta": 1e2},
        _FULL: {"rope_type": "linear", "rope_theta": 1e4, "factor": 3.0},
      },
    },
    "qwen3_moe": {
      "model_type": "qwen3_moe",
      "num_hidden_layers": 3,
      "head_dim": 6,
      "attention_bias": True,
      "moe_intermediate_size": 11,
      "num_experts": 7,
      "num_experts_per_tok": 3,
      "mlp_only_layers": [1],
    },
    "gpt_oss": {
      "model_type": "gpt_oss",
      "num_hidden_layers": 3,
      "head_dim": 10,
      "sliding_window": 7,
      "intermediate_size": 13,
      "num_local_experts": 5,
      "num_experts_per_tok": 2,
      "swiglu_limit": 0.9,
    },
    "ministral3": {
      "model_type": "ministral3",
      "head_dim": 6,
      **_rope(
        "yarn",
        factor=4.0,
        original_max_position_embeddings=16,
        mscale=1.0,
        mscale_all_dim=1.0,
        llama_4_scaling_beta=0.3,
      ),
    },
    "gemma4": {
      "model_type": "gemma4_text",
      "num_hidden_layers": 3,
      "layer_types": [_SLIDING, _FULL, _FULL],
      "head_dim": 6,
      "global_head_dim": 10,
      "num_global_key_value_heads": 1,
      "attention_k_eq_v": True,
      "hidden_size_per_layer_input": 0,
      "sliding_window": 7,
      "final_logit_softcapping": 9.0,
      "rope_parameters": {
        _SLIDING: {"rope_type": "default", "rope_theta": 1e2},
        _FULL: {
          "rope_type": "proportional",
          "rope_theta": 1e4,
          "partial_rotary_factor": 0.5,
          "factor": 2.0,
        },
      },
    },
    "gemma4_moe": {
      "model_type": "gemma4_text",
      "num_hidden_layers": 2,
      "head_dim": 6,
      "global_head_dim": 6,
      "hidden_size_per_layer_input": 0,
      "sliding_window": 7,
      "enable_moe_block": True,
      "num_experts": 5,
      "top_k_experts": 2,
      "moe_intermediate_size": 11,
    },
  }.items()
}

# The first case of each family, by its `model_type`: the rows of the table in
# docs/your_model.md.
FAMILIES: dict[str, str] = {}
for _name, _fields in CASES.items():
  FAMILIES.setdefault(_fields["model_type"], _name)


def drawn(seed: int) -> ModelConfig:
  """Draws a model of a family, with what its files can say of switches."""
  rng = random.Random(seed)
  family = ("qwen2", "qwen3", "llama", "phi3")[seed % 4]
  kinds = ("default", "longrope", "linear", "llama3", "yarn")
  kind = rng.choice(kinds[:2] if family == "phi3" else kinds)
  heads, kv_heads, head_dim = rng.choice(((6, 2, 4), (3, 1, 8), (2, 2, 12)))
  share = rng.choice((0.5, 1.0)) if family == "phi3" else 1.0
  biased = family in ("qwen3", "llama") and rng.random() < 0.5
  rope: dict[str, Any] = {} if kind == "default" else {"factor": 3.0}
  if kind not in ("default", "linear"):
    rope["original_length"] = 32
  if kind in ("yarn", "longrope"):
    rope["attention_factor"] = rng.uniform(0.8, 1.3)
  if kind == "longrope":
    for name in ("short_factor", "long_factor"):
      half = int(head_dim * share) // 2
      rope[name] = tuple(rng.uniform(1, 3) for _ in range(half))
  return ModelConfig(
    family=family,
    vocab_size=97,
    num_layers=2,
    embed_dim=24,
    num_heads=heads,
    num_kv_heads=kv_heads,
    head_dim=head_dim,
    mlp_dim=37,
    rope_theta=rng.choice((1e4, 5e5)),
    rope=RopeScaling(kind=kind, **rope),
    rotary_share=share,
    sliding_window=0 if family == "llama" else rng.choice((0, 11)),
    qkv_bias=family == "qwen2" or biased,
    o_bias=biased,
    mlp_bias=family == "llama" and rng.random() < 0.5,
    qk_norm="head" if family == "qwen3" else "none",
    tied_embeddings=rng.random() < 0.5,
    max_length=128,
  )


def lengths(name: str) -> tuple[int, ...]:
  """Returns the lengths of a case's sequences: LongRoPE's, on both sides."""
  return (23, 53) if name.endswith("longrope") else (53,)


def greedy_sizes(name: str) -> tuple[tuple[int, int], ...]:
  """Returns (prompt, new tokens) of a case's greedy decoding.

  LongRoPE's stay on one side of its border, which a cache cannot cross: see
  `programs.prefill`.
  """
  return ((7, 19), (37, 64)) if name.endswith("longrope") else ((13, 64),)
