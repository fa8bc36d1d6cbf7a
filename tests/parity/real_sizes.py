"""Rotary tables and layers at head widths of 64 and 128; needs torch.

python -m tests.parity.real_sizes      # writes tests/golden/real_sizes.npz anew

The golden models are tiny. Here heads and contexts are those of published
models: what is rounded, such as the ends of YaRN's ramp, falls elsewhere.
Weights are drawn, and not kept: the test draws them again. The file says which
version of `transformers` computed it.
"""

from typing import Any

import numpy as np

from rstar_jax.models.config import ModelConfig
from rstar_jax.models.transformer import Path

WIDTHS = (64, 128)
# Positions of the tables. LongRoPE goes by the last: 4096 is its border.
SHORT = (0, 1, 17, 1000, 4095)
LONG = (*SHORT, 4096, 32_767, 131_071)
BORDER = 4096
# A layer's border and window, and how many of its last outputs are kept.
LAYER_BORDER, WINDOW, KEPT = 64, 37, 16


def scaling(kind: str, width: int, border: int = BORDER) -> dict[str, Any]:
  """Returns "rope_parameters" of a config.json, as published models have them.

  LongRoPE's factors are drawn: none of these widths is published.
  """
  rng = np.random.RandomState(width)
  half = width // 2
  return {
    "default": {"rope_type": "default", "rope_theta": 1e6},
    # Qwen2.5.
    "yarn": {
      "rope_type": "yarn",
      "rope_theta": 1e6,
      "factor": 4.0,
      "original_max_position_embeddings": 32_768,
    },
    # Llama 3.1.
    "llama3": {
      "rope_type": "llama3",
      "rope_theta": 5e5,
      "factor": 8.0,
      "low_freq_factor": 1.0,
      "high_freq_factor": 4.0,
      "original_max_position_embeddings": 8192,
    },
    # Phi-3.
    "longrope": {
      "rope_type": "longrope",
      "rope_theta": 1e4,
      "short_factor": (1 + rng.rand(half)).round(3).tolist(),
      "long_factor": (2 + np.sort(60 * rng.rand(half))).round(3).tolist(),
      "original_max_position_embeddings": border,
    },
  }[kind]


KINDS = ("default", "yarn", "llama3", "longrope")


def fields(kind: str, width: int, border: int = BORDER) -> dict[str, Any]:
  """Returns a config.json of one layer; kind is one of KINDS, or "window"."""
  window = kind == "window"
  more = {
    "use_sliding_window": True,
    "sliding_window": WINDOW,
    "max_window_layers": 0,
  }
  return {
    "architectures": ["Qwen2ForCausalLM" if window else "LlamaForCausalLM"],
    "model_type": "qwen2" if window else "llama",
    "vocab_size": 97,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": width,
    "max_position_embeddings": 131_072,
    "rms_norm_eps": 1e-6,
    "hidden_act": "silu",
    "tie_word_embeddings": True,
    "rope_parameters": scaling("default" if window else kind, width, border),
    **(more if window else {}),
  }


# (kind, width, length): LongRoPE at its border and one token beyond.
LAYERS = tuple(
  (kind, width, length)
  for width in WIDTHS
  for kind, length in (
    ("yarn", 65),
    ("longrope", LAYER_BORDER),
    ("longrope", LAYER_BORDER + 1),
    ("window", 65),
  )
)


def tokens(length: int) -> np.ndarray:
  """Returns int32 [1, length], the ids that a layer gets."""
  return np.random.RandomState(length).randint(0, 97, (1, length), np.int32)


def weights(config: ModelConfig) -> dict[Path, np.ndarray]:
  """Draws the weights of one layer, by their paths in our model.

  They are those of a bfloat16, so that both precisions begin alike, and so
  large that scores differ by tens. RandomState's stream never changes.
  """
  d, h, f = config.embed_dim, config.head_dim, config.mlp_dim
  n, k = config.num_heads, config.num_kv_heads
  rng = np.random.RandomState(d + h)

  def draw(*shape: int, scale: float) -> np.ndarray:
    drawn = (scale * rng.standard_normal(shape)).astype(np.float32)
    return (drawn.view(np.uint32) & 0xFFFF0000).view(np.float32)

  attention = ("layers", 0, "attention")
  mlp = ("layers", 0, "mlp")
  found = {
    ("embedding",): draw(config.vocab_size, d, scale=1.0),
    ("norm", "scale"): 1 + draw(d, scale=0.25),
    ("layers", 0, "attention_norm", "scale"): 1 + draw(d, scale=0.25),
    ("layers", 0, "mlp_norm", "scale"): 1 + draw(d, scale=0.25),
    (*attention, "q"): draw(n, h, d, scale=0.5),
    (*attention, "k"): draw(k, h, d, scale=0.25),
    (*attention, "v"): draw(k, h, d, scale=0.25),
    (*attention, "o"): draw(d, n, h, scale=0.125),
    (*mlp, "gate"): draw(f, d, scale=0.125),
    (*mlp, "up"): draw(f, d, scale=0.125),
    (*mlp, "down"): draw(d, f, scale=0.125),
  }
  if config.qkv_bias:
    for name, heads in (("q", n), ("k", k), ("v", k)):
      found[*attention, f"{name}_bias"] = draw(heads, h, scale=0.5)
  return {
    path: (each.view(np.uint32) & 0xFFFF0000).view(np.float32)
    for path, each in found.items()
  }


def _table(kind: str, width: int, positions: tuple[int, ...]) -> np.ndarray:
  """Returns [2, positions, H / 2]: cosines and sines."""
  import torch
  import transformers
  from transformers.models.llama import modeling_llama

  config = transformers.LlamaConfig(**fields(kind, width))
  rotary = modeling_llama.LlamaRotaryEmbedding(config)
  found = rotary(torch.zeros(1), torch.tensor([positions]))
  return np.stack([each[0, :, : width // 2].numpy() for each in found])


def _layer(kind: str, width: int, length: int, dtype: str) -> np.ndarray:
  """Returns [KEPT, D], the last outputs of a layer, after the final norm."""
  import torch
  import transformers

  from rstar_jax.hf import model_config

  said = fields(kind, width, LAYER_BORDER)
  config = transformers.AutoConfig.for_model(
    said.pop("model_type"), **said, attn_implementation="eager"
  )
  model = transformers.AutoModel.from_config(config).eval()
  ours = model_config.from_fields(
    fields(kind, width, LAYER_BORDER), "real_sizes"
  )
  drawn = {
    ".".join(map(str, path)): each for path, each in weights(ours).items()
  }
  names = {
    "embed_tokens": "embedding",
    "input_layernorm": "attention_norm",
    "post_attention_layernorm": "mlp_norm",
    "self_attn": "attention",
  }
  with torch.no_grad():
    for name, value in model.named_parameters():
      words = [names.get(word, word) for word in name.split(".")]
      words = [word.removesuffix("_proj") for word in words]
      kind_ = words.pop()
      norm = "norm" in words[-1]
      path = ".".join(words) + (".scale" if norm else "")
      path += "_bias" if kind_ == "bias" else ""
      value.copy_(torch.tensor(drawn.pop(path)).reshape(value.shape))
    assert not drawn, drawn.keys()
    model = model.to(getattr(torch, dtype))
    ids = torch.tensor(tokens(length), dtype=torch.long)
    out = model(ids).last_hidden_state
  return out[0, -KEPT:].float().numpy()


def main() -> None:
  import transformers

  found: dict[str, np.ndarray] = {
    "transformers": np.array(transformers.__version__)
  }
  for width in WIDTHS:
    for kind in KINDS:
      found[f"{kind}_{width}"] = _table(kind, width, LONG)
    found[f"longrope_{width}_short"] = _table("longrope", width, SHORT)
  for each in LAYERS:
    name = "layer_" + "_".join(map(str, each))
    found[name] = _layer(*each, "float32")
    found[f"{name}_bfloat16"] = _layer(*each, "bfloat16")
  from tests.parity import reference

  np.savez_compressed(reference.GOLDEN / "real_sizes.npz", **found)


if __name__ == "__main__":
  main()
