"""What a config.json need not say, by family: defaults and fixed values.

Where families need code it is in `model_config.py`, `layer_config.py` and
`rope_config.py`. Their tensors are in `families.py`.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

# Kinds of layers: without a window, and with one.
FULL, SLIDING = "full_attention", "sliding_attention"
# Kinds of scaling of rotary positions.
_SCALINGS = ("default", "linear", "llama3", "yarn", "longrope")


@dataclasses.dataclass(frozen=True)
class Family:
  """A family's class names in `transformers`, and its default values."""

  # Prefix of the class names, and of the one with a scalar head if it differs.
  name: str
  scalar_name: str = ""
  # Whether `transformers` has the class with a scalar head.
  scalar: bool = True
  # Quantisations that the weights may have.
  quantised: tuple[str, ...] = ()
  # None is num_attention_heads.
  kv_heads: int | None = None
  # None is hidden_size / num_attention_heads.
  head_dim: int | None = None
  # Whether hidden_size is a multiple of num_attention_heads in any case.
  whole_heads: bool = False
  eps: float = 1e-6
  window: int | None = None
  # Layers that may have a window: those that the file names, or all or none.
  windows: Literal["named", "all", "none"] = "none"
  # Whether a field of the file turns windows on or off.
  switched: bool = False
  tied: bool = False
  # Default of the field "max_window_layers": if the file does not name layers,
  # those before it have no window. None has no such field.
  windows_from: int | None = None
  # If the file does not name layers, those with (i + 1) % every == 0 have no
  # window; 0 is none.
  every: int = 0
  # Name of the activation, and of its field.
  activation: tuple[str, str] = ("silu", "hidden_act")
  # Those of "attention_bias" and "mlp_bias" that the file may have, and their
  # default.
  biases: tuple[str, ...] = ()
  biased: bool = False
  # Base of rotary positions; by kind of layer, if kinds have one each.
  base: float = 10_000.0
  bases: Mapping[str, float] = dataclasses.field(default_factory=dict)
  # Kinds of scaling of rotary positions, and whether silent files have one.
  scalings: tuple[str, ...] = _SCALINGS
  scaled: bool = False
  # Fields of the ModelConfig that the family fixes.
  fixed: Mapping[str, Any] = dataclasses.field(default_factory=dict)


_NO_BIAS = {"qkv_bias": False}
_SCALINGS_BY_KIND = _SCALINGS[:-1]
_GEMMA: dict[str, Any] = {
  "kv_heads": 4,
  "head_dim": 256,
  "window": 4096,
  "windows": "named",
  "tied": True,
  "activation": ("gelu_pytorch_tanh", "hidden_activation"),
  "biases": ("attention_bias",),
}
_GEMMA_BASES = {FULL: 1_000_000.0, SLIDING: 10_000.0}
_GEMMA_FIXED = {"norm_form": "offset", "norms": "both"}
_OLMO: dict[str, Any] = {
  "eps": 1e-5,
  "biases": ("attention_bias",),
  "fixed": {"norm_form": "wide", "norms": "post", "qk_norm": "all"},
}
_BOTH_BIASES = ("attention_bias", "mlp_bias")
# By the `model_type` of config.json.
FAMILIES = {
  "qwen2": Family(
    "Qwen2",
    kv_heads=32,
    window=4096,
    windows="named",
    windows_from=28,
    switched=True,
    fixed={"qkv_bias": True},
  ),
  "qwen3": Family(
    "Qwen3",
    kv_heads=32,
    head_dim=128,
    window=4096,
    windows="named",
    windows_from=28,
    switched=True,
    biases=("attention_bias",),
    fixed={"qk_norm": "head"},
  ),
  "qwen3_moe": Family(
    "Qwen3Moe",
    kv_heads=4,
    window=4096,
    windows="all",
    switched=True,
    biases=("attention_bias",),
    fixed={"qk_norm": "head"},
  ),
  "gpt_oss": Family(
    "GptOss",
    quantised=("mxfp4",),
    kv_heads=8,
    head_dim=64,
    eps=1e-5,
    window=128,
    windows="named",
    every=2,
    biases=("attention_bias",),
    biased=True,
    base=150_000.0,
    scaled=True,
    fixed={"norm_form": "wide", "sinks": True},
  ),
  "llama": Family("Llama", whole_heads=True, biases=_BOTH_BIASES),
  "phi3": Family(
    "Phi3",
    eps=1e-5,
    windows="all",
    scalings=("default", "longrope"),
    fixed=_NO_BIAS,
  ),
  "mistral": Family(
    "Mistral", kv_heads=8, window=4096, windows="all", fixed=_NO_BIAS
  ),
  "ministral": Family(
    "Ministral", kv_heads=8, window=4096, windows="named", fixed=_NO_BIAS
  ),
  "ministral3": Family(
    "Ministral3",
    kv_heads=8,
    head_dim=128,
    eps=1e-5,
    windows="all",
    scaled=True,
    fixed=_NO_BIAS,
  ),
  "granite": Family("Granite", scalar=False, biases=_BOTH_BIASES),
  "smollm3": Family(
    "SmolLM3",
    kv_heads=4,
    windows="named",
    switched=True,
    tied=True,
    biases=_BOTH_BIASES,
    base=2_000_000.0,
  ),
  "olmo2": Family("Olmo2", **_OLMO),
  "olmo3": Family(
    "Olmo3",
    window=4096,
    windows="named",
    every=4,
    bases={FULL: 500_000.0, SLIDING: 500_000.0},
    scalings=_SCALINGS_BY_KIND,
    **_OLMO,
  ),
  "gemma2": Family(
    "Gemma2", whole_heads=True, every=2, fixed=_GEMMA_FIXED, **_GEMMA
  ),
  "gemma3_text": Family(
    "Gemma3",
    scalar_name="Gemma3Text",
    whole_heads=True,
    every=6,
    bases=_GEMMA_BASES,
    scalings=_SCALINGS_BY_KIND,
    fixed=_GEMMA_FIXED | {"qk_norm": "head"},
    **_GEMMA,
  ),
  "gemma4_text": Family(
    "Gemma4",
    scalar=False,
    every=6,
    bases=_GEMMA_BASES,
    scalings=(*_SCALINGS_BY_KIND, "proportional"),
    fixed={
      "norm_form": "wide",
      "norms": "both",
      "qk_norm": "head",
      "v_norm": True,
      "layer_factor": True,
      "attention_scale": 1.0,
    },
    **_GEMMA | {"window": 512},
  ),
}
