"""Converts between Hugging Face's config.json and `ModelConfig`.

A file that describes a model which the decoder does not compute exactly is
refused, with the reason.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from rstar_jax.hf import rope_config
from rstar_jax.hf.families import FAMILIES
from rstar_jax.hf.fields import Fields
from rstar_jax.models.config import ModelConfig

# What a class's name may end in: a decoder with one head or another.
CLASSES = (
  "ForCausalLM",
  "ForSequenceClassification",
  "ForTokenClassification",
  "ForProcessRewardModel",
  "ForRewardModel",
  "ForPrmModel",
)

_FULL, _SLIDING = "full_attention", "sliding_attention"


@dataclasses.dataclass(frozen=True)
class _Family:
  """A family's class names in `transformers`, and its default values."""

  # Prefix of the class names.
  name: str
  # None is num_attention_heads.
  kv_heads: int | None = None
  # None is hidden_size / num_attention_heads.
  head_dim: int | None = None
  eps: float = 1e-6
  window: int | None = None


_FAMILIES = {
  "qwen2": _Family("Qwen2", kv_heads=32, window=4096),
  "qwen3": _Family("Qwen3", kv_heads=32, head_dim=128, window=4096),
  "llama": _Family("Llama"),
  "phi3": _Family("Phi3", eps=1e-5),
}


def from_fields(fields: Mapping[str, Any], where: str) -> ModelConfig:
  """Reads the fields of a config.json.

  Args:
    fields: the file's fields.
    where: names the file in errors.

  Returns:
    The model's config, with the default dtypes.

  Raises:
    ValueError: the decoder does not compute the model, or a field is missing or
      of another type.
  """
  file = Fields(fields, where)
  family = file.value("model_type", None)
  known = sorted(FAMILIES)
  if family not in known:
    raise ValueError(f"{where}: model_type={family!r}; known are {known}")
  _check_plain(file, family)
  silent = _FAMILIES[family]
  heads, width = file.whole("num_attention_heads"), file.whole("hidden_size")
  if family == "llama" and width % heads:
    file.refuse("hidden_size", f"a multiple of num_attention_heads={heads}")
  kv_heads = file.whole("num_key_value_heads", silent.kv_heads, null=True)
  kv_heads = heads if kv_heads is None else kv_heads
  if heads % kv_heads:
    file.refuse(
      "num_key_value_heads",
      f"a divisor of num_attention_heads={heads}",
      kv_heads,
    )
  head_dim = file.whole("head_dim", silent.head_dim)
  head_dim = width // heads if head_dim is None else head_dim
  biased = family in ("qwen3", "llama") and file.flag("attention_bias", False)
  return ModelConfig(
    family=family,
    vocab_size=file.whole("vocab_size"),
    num_layers=file.whole("num_hidden_layers"),
    embed_dim=width,
    num_heads=heads,
    num_kv_heads=kv_heads,
    head_dim=head_dim,
    mlp_dim=file.whole("intermediate_size"),
    **rope_config.from_fields(file, family, head_dim),
    sliding_window=_window(file, family),
    rms_eps=file.number("rms_norm_eps", silent.eps),
    qkv_bias=family == "qwen2" or biased,
    o_bias=biased,
    mlp_bias=family == "llama" and file.flag("mlp_bias", False),
    qk_norm="head" if family == "qwen3" else "none",
    tied_embeddings=file.flag("tie_word_embeddings", False),
    max_length=file.whole("max_position_embeddings"),
  )


def to_fields(config: ModelConfig, head: str) -> dict[str, Any]:
  """Returns the fields of a model's config.json.

  Args:
    config: the model's config.
    head: "lm", or the form of a scalar head.

  Raises:
    ValueError: the family's config.json cannot express the config.
  """
  family = config.family
  name = _FAMILIES[family].name
  fields = {
    "architectures": [f"{name}ForCausalLM"],
    "model_type": family,
    "vocab_size": config.vocab_size,
    "num_hidden_layers": config.num_layers,
    "hidden_size": config.embed_dim,
    "num_attention_heads": config.num_heads,
    "num_key_value_heads": config.num_kv_heads,
    "head_dim": config.head_dim,
    "intermediate_size": config.mlp_dim,
    "hidden_act": "silu",
    **rope_config.to_fields(config),
    "rms_norm_eps": float(config.rms_eps),
    "tie_word_embeddings": config.tied_embeddings,
    "max_position_embeddings": config.max_length,
    "torch_dtype": config.param_dtype,
    # Explicit, since the family's classes have other defaults.
    "bos_token_id": None,
    "eos_token_id": None,
    "pad_token_id": None,
  }
  if family in ("qwen3", "llama"):
    fields["attention_bias"] = config.qkv_bias
  if family == "llama":
    fields["mlp_bias"] = config.mlp_bias
  if family in ("qwen2", "qwen3"):
    fields["use_sliding_window"] = bool(config.sliding_window)
    if config.sliding_window:
      fields |= {
        "sliding_window": config.sliding_window,
        "max_window_layers": 0,
      }
  if family == "phi3":
    fields["sliding_window"] = config.sliding_window or None
  if head != "lm":
    fields |= {
      "architectures": [classifier(family)],
      "num_labels": 1,
      "id2label": {"0": "LABEL_0"},
      "label2id": {"LABEL_0": 0},
      # transformers has no tanh: its logit is our raw value.
      "rstar_head": head,
    }
  _check_said(config, fields)
  return fields


def classifier(family: str) -> str:
  """Returns the name of a family's class with a scalar head."""
  return f"{_FAMILIES[family].name}ForSequenceClassification"


def labels(fields: Mapping[str, Any]) -> int:
  """Returns the number of a classifier's labels."""
  named = fields.get("id2label")
  # The number of labels takes precedence over their names.
  return fields.get(
    "num_labels", len(named) if isinstance(named, Mapping) else 2
  )


# Fields that say how the model is computed here.
_NOT_WRITTEN = (
  "dtype",
  "param_dtype",
  "remat",
  "attention",
  "scan",
  "attention_block",
  "row_block",
  "native",
)


def _check_said(config: ModelConfig, fields: Mapping[str, Any]) -> None:
  """Reads the fields back: raises if they do not express the config."""
  said = from_fields(fields, "config.json")
  for name, wanted in vars(config).items():
    if name in _NOT_WRITTEN:
      continue
    got = getattr(said, name)
    if got != wanted:
      raise ValueError(
        f"a {_FAMILIES[config.family].name} model has {name}={got!r}: one with "
        f"{name}={wanted!r} cannot be written in its form"
      )


def _check_plain(file: Fields, family: str) -> None:
  """Refuses fields with which the decoder is not the family's."""
  if "quantization_config" in file:
    file.refuse(
      "quantization_config",
      "left out: the weights are quantised; give the model in bfloat16 or "
      "float32, or as a GGUF file",
    )
  if file.value("hidden_act", "silu") != "silu":
    file.refuse("hidden_act", "'silu'")
  if file.value("is_causal", True) is not True:
    file.refuse("is_causal", "true: the decoder does not look ahead")
  if file.value("per_layer_config", None) is not None:
    file.refuse("per_layer_config", "left out: all layers must be alike")
  name = _FAMILIES[family].name
  classes = [f"{name}{each}" for each in CLASSES]
  names = file.value("architectures", None)
  if names is not None and not (
    isinstance(names, list) and all(each in classes for each in names)
  ):
    file.refuse("architectures", f"of {classes}")


def _window(file: Fields, family: str) -> int:
  """Returns the sliding window of all layers, 0 if there is no limit.

  In Qwen models `layer_types` says which layers have a window. All layers of
  Phi-3 and none of Llama have one; there `layer_types` configures only the
  cache of `transformers`, and must agree.
  """
  layers = file.whole("num_hidden_layers")
  longest = file.whole("max_position_embeddings")
  window, start = None, 0
  qwen = family in ("qwen2", "qwen3")
  if not qwen or file.flag("use_sliding_window", False):
    window = file.whole("sliding_window", _FAMILIES[family].window, null=True)
  if qwen:
    start = file.whole("max_window_layers", 28, least=None)
  kinds = file.value("layer_types", None)
  if kinds is None:
    kinds = [
      _FULL if window is None or i < start else _SLIDING for i in range(layers)
    ]
  if not (
    isinstance(kinds, list)
    and len(kinds) == layers
    and all(kind in (_FULL, _SLIDING) for kind in kinds)
  ):
    file.refuse(
      "layer_types", f"a list of {layers} kinds, {_FULL!r} or {_SLIDING!r}"
    )
  sliding = kinds.count(_SLIDING)
  if window is None and sliding:
    file.refuse("layer_types", f"without {_SLIDING!r}: there is no window")
  if window is None or window >= longest:
    return 0
  allowed = {"llama": (0,), "phi3": (layers,)}.get(family, (0, layers))
  if sliding not in allowed:
    file.refuse(
      "sliding_window",
      f"null, or at least max_position_embeddings={longest}: {sliding} of "
      f"{layers} layers have it, and of a {family} model "
      f"{' or '.join(map(str, allowed))} may",
      window,
    )
  return window if sliding else 0
