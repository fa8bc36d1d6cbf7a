"""Sizes of published models, as their config.json has them, and their counts.

The counts are those of the weights that their authors published.
"""

from typing import Any

from rstar_jax.hf import published

_QWEN2_7B = published.MODELS["Qwen/Qwen2.5-Math-7B"]
_PHI3_MINI = published.MODELS["microsoft/Phi-3-mini-4k-instruct"]
_QWEN3 = {
  "model_type": "qwen3",
  "vocab_size": 151_936,
  "head_dim": 128,
  "attention_bias": False,
  "max_position_embeddings": 40_960,
  "rms_norm_eps": 1e-06,
  "rope_theta": 1000000,
  "rope_scaling": None,
  "sliding_window": None,
  "use_sliding_window": False,
}
_LLAMA3 = {
  "model_type": "llama",
  "vocab_size": 128_256,
  "attention_bias": False,
  "mlp_bias": False,
  "max_position_embeddings": 131_072,
  "rms_norm_eps": 1e-05,
  "rope_theta": 500000.0,
  "rope_scaling": {
    "factor": 32.0,
    "high_freq_factor": 4.0,
    "low_freq_factor": 1.0,
    "original_max_position_embeddings": 8192,
    "rope_type": "llama3",
  },
}
_SMOLLM2 = {
  "model_type": "llama",
  "vocab_size": 49_152,
  "attention_bias": False,
  "max_position_embeddings": 8192,
  "rms_norm_eps": 1e-05,
  "rope_scaling": None,
  "tie_word_embeddings": True,
}

MODELS: dict[str, tuple[int, dict[str, Any]]] = {
  "Qwen/Qwen2.5-Math-7B": (7_615_616_512, _QWEN2_7B),
  "Qwen/Qwen2-Math-7B": (7_615_616_512, _QWEN2_7B),
  "Qwen/Qwen2.5-Math-1.5B": (
    1_543_714_304,
    published.MODELS["Qwen/Qwen2.5-Math-1.5B"],
  ),
  "microsoft/Phi-3-mini-4k-instruct": (3_821_079_552, _PHI3_MINI),
  "microsoft/Phi-3-mini-128k-instruct": (
    3_821_079_552,
    _PHI3_MINI
    | {
      "max_position_embeddings": 131_072,
      "sliding_window": 262_144,
      # The factors themselves do not matter to a count.
      "rope_scaling": {
        "type": "longrope",
        "short_factor": [1.0] * 48,
        "long_factor": [1.0] * 48,
      },
    },
  ),
  "microsoft/Phi-4-mini-instruct": (
    3_836_021_760,
    _PHI3_MINI
    | {
      "architectures": ["Phi3ForCausalLM"],
      "vocab_size": 200_064,
      "num_attention_heads": 24,
      "num_key_value_heads": 8,
      "max_position_embeddings": 131_072,
      "partial_rotary_factor": 0.75,
      "sliding_window": 262_144,
      "tie_word_embeddings": True,
      "rope_scaling": {
        "type": "longrope",
        "short_factor": [1.0] * 48,
        "long_factor": [1.0] * 48,
      },
    },
  ),
  "Qwen/Qwen3-0.6B": (
    596_049_920,
    _QWEN3
    | {
      "hidden_size": 1024,
      "intermediate_size": 3072,
      "num_hidden_layers": 28,
      "num_attention_heads": 16,
      "num_key_value_heads": 8,
      "tie_word_embeddings": True,
    },
  ),
  "Qwen/Qwen3-8B": (
    8_190_735_360,
    _QWEN3
    | {
      "hidden_size": 4096,
      "intermediate_size": 12_288,
      "num_hidden_layers": 36,
      "num_attention_heads": 32,
      "num_key_value_heads": 8,
      "tie_word_embeddings": False,
    },
  ),
  "meta-llama/Llama-3.2-1B": (
    1_235_814_400,
    _LLAMA3
    | {
      "hidden_size": 2048,
      "intermediate_size": 8192,
      "num_hidden_layers": 16,
      "num_attention_heads": 32,
      "num_key_value_heads": 8,
      "head_dim": 64,
      "tie_word_embeddings": True,
    },
  ),
  "meta-llama/Llama-3.1-8B": (
    8_030_261_248,
    _LLAMA3
    | {
      "hidden_size": 4096,
      "intermediate_size": 14_336,
      "num_hidden_layers": 32,
      "num_attention_heads": 32,
      "num_key_value_heads": 8,
      "tie_word_embeddings": False,
    },
  ),
  "HuggingFaceTB/SmolLM2-135M-Instruct": (
    134_515_008,
    _SMOLLM2
    | {
      "hidden_size": 576,
      "intermediate_size": 1536,
      "num_hidden_layers": 30,
      "num_attention_heads": 9,
      "num_key_value_heads": 3,
      "rope_theta": 100000,
    },
  ),
  "HuggingFaceTB/SmolLM2-1.7B-Instruct": (
    1_711_376_384,
    _SMOLLM2
    | {
      "hidden_size": 2048,
      "intermediate_size": 8192,
      "num_hidden_layers": 24,
      "num_attention_heads": 32,
      "num_key_value_heads": 32,
      "rope_theta": 130000,
    },
  ),
  # Gemma 3 and SmolLM3 have layers of kinds, in silence.
  "google/gemma-3-1b-it": (
    999_885_952,
    {
      "model_type": "gemma3_text",
      "vocab_size": 262_144,
      "hidden_size": 1152,
      "intermediate_size": 6912,
      "num_hidden_layers": 26,
      "num_attention_heads": 4,
      "num_key_value_heads": 1,
      "head_dim": 256,
      "max_position_embeddings": 32_768,
      "query_pre_attn_scalar": 256,
      "rope_local_base_freq": 10000,
      "rope_theta": 1000000,
      "sliding_window": 512,
      "sliding_window_pattern": 6,
    },
  ),
  "HuggingFaceTB/SmolLM3-3B": (
    3_075_098_624,
    {
      "model_type": "smollm3",
      "vocab_size": 128_256,
      "hidden_size": 2048,
      "intermediate_size": 11_008,
      "num_hidden_layers": 36,
      "num_attention_heads": 16,
      "num_key_value_heads": 4,
      "max_position_embeddings": 65_536,
      "no_rope_layer_interval": 4,
      "rope_theta": 5000000.0,
      "tie_word_embeddings": True,
    },
  ),
}
