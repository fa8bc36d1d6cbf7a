"""Fields of config.json of published models, the paper's policies first.

So their programs can be compiled, and their memory planned, offline.
"""

from typing import Any

_QWEN2_7B = {
  "model_type": "qwen2",
  "vocab_size": 152_064,
  "hidden_size": 3584,
  "intermediate_size": 18_944,
  "num_hidden_layers": 28,
  "num_attention_heads": 28,
  "num_key_value_heads": 4,
  "max_position_embeddings": 4096,
  "max_window_layers": 28,
  "rms_norm_eps": 1e-06,
  "rope_theta": 10000.0,
  "sliding_window": 4096,
  "tie_word_embeddings": False,
  "use_sliding_window": False,
}
_QWEN2_1_5B = _QWEN2_7B | {
  "vocab_size": 151_936,
  "hidden_size": 1536,
  "intermediate_size": 8960,
  "num_attention_heads": 12,
  "num_key_value_heads": 2,
  "max_window_layers": 21,
  "tie_word_embeddings": True,
}
_PHI3_MINI = {
  "model_type": "phi3",
  "vocab_size": 32_064,
  "hidden_size": 3072,
  "intermediate_size": 8192,
  "num_hidden_layers": 32,
  "num_attention_heads": 32,
  "num_key_value_heads": 32,
  "max_position_embeddings": 4096,
  "original_max_position_embeddings": 4096,
  "rms_norm_eps": 1e-05,
  "rope_theta": 10000.0,
  "rope_scaling": None,
  "sliding_window": 2047,
  "tie_word_embeddings": False,
}
_QWEN3_30B_A3B = {
  "model_type": "qwen3_moe",
  "vocab_size": 151_936,
  "hidden_size": 2048,
  "intermediate_size": 6144,
  "moe_intermediate_size": 768,
  "num_hidden_layers": 48,
  "num_attention_heads": 32,
  "num_key_value_heads": 4,
  "head_dim": 128,
  "num_experts": 128,
  "num_experts_per_tok": 8,
  "norm_topk_prob": True,
  "max_position_embeddings": 40_960,
  "rms_norm_eps": 1e-06,
  "rope_theta": 1_000_000.0,
  "tie_word_embeddings": False,
}

_GPT_OSS_20B = {
  "model_type": "gpt_oss",
  "vocab_size": 201_088,
  "hidden_size": 2880,
  "intermediate_size": 2880,
  "num_hidden_layers": 24,
  "num_attention_heads": 64,
  "num_key_value_heads": 8,
  "head_dim": 64,
  "num_local_experts": 32,
  "num_experts_per_tok": 4,
  "sliding_window": 128,
  "swiglu_limit": 7.0,
  "attention_bias": True,
  "max_position_embeddings": 131_072,
  "rms_norm_eps": 1e-05,
  "rope_theta": 150_000.0,
  "rope_scaling": {
    "rope_type": "yarn",
    "factor": 32.0,
    "beta_fast": 32.0,
    "beta_slow": 1.0,
    "original_max_position_embeddings": 4096,
    "truncate": False,
  },
  "tie_word_embeddings": False,
}
# The text model.
_GEMMA_3_12B = {
  "model_type": "gemma3_text",
  "vocab_size": 262_208,
  "hidden_size": 3840,
  "intermediate_size": 15_360,
  "num_hidden_layers": 48,
  "num_attention_heads": 16,
  "num_key_value_heads": 8,
  "head_dim": 256,
  "query_pre_attn_scalar": 256,
  "sliding_window": 1024,
  "sliding_window_pattern": 6,
  "max_position_embeddings": 131_072,
  "rms_norm_eps": 1e-06,
  "rope_theta": 1_000_000.0,
  "rope_local_base_freq": 10_000.0,
  "rope_scaling": {"rope_type": "linear", "factor": 8.0},
  "tie_word_embeddings": True,
}

# The fields of config.json by the model's name.
MODELS: dict[str, dict[str, Any]] = {
  "Qwen/Qwen2.5-Math-7B": _QWEN2_7B,
  "Qwen/Qwen2-Math-7B": _QWEN2_7B,
  "Qwen/Qwen2.5-Math-1.5B": _QWEN2_1_5B,
  "microsoft/Phi-3-mini-4k-instruct": _PHI3_MINI,
  "Qwen/Qwen3-30B-A3B": _QWEN3_30B_A3B,
  "openai/gpt-oss-20b": _GPT_OSS_20B,
  "google/gemma-3-12b-it": _GEMMA_3_12B,
}
