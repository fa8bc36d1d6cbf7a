"""config.json of Hugging Face <-> our ModelConfig, exact or refused.

Whatever a file asks for that the decoder does not compute raises, with the
reason: a model that is nearly right is worse than none.
"""

import math
from collections.abc import Mapping
from typing import Any

from rstar_jax.io.families import FAMILIES
from rstar_jax.models.config import ModelConfig, RopeScaling

_CLASSES = {
  "qwen2": "Qwen2",
  "qwen3": "Qwen3",
  "llama": "Llama",
  "phi3": "Phi3",
}
# What `transformers` takes where a file is silent, where families differ.
_DEFAULT_EPS = {"phi3": 1e-5}
_DEFAULT_HEAD_DIM = {"qwen3": 128}
# Older names of scalings.
_ROPE_NAMES = {"su": "longrope"}


def from_fields(fields: Mapping[str, Any], where: str) -> ModelConfig:
  """Reads the fields of a config.json.

  Args:
    fields: of the file.
    where: names the file in errors.

  Returns:
    The model's config, with the dtypes of its defaults.

  Raises:
    ValueError: the file asks for something that the decoder does not do, or
      lacks a field.
  """
  family = fields.get("model_type")
  if family not in FAMILIES:
    raise ValueError(
      f"{where}: model_type={family!r}; known are {sorted(FAMILIES)}"
    )
  if "quantization_config" in fields:
    raise ValueError(
      f"{where}: the weights are quantised (quantization_config); give the "
      "model in bfloat16 or float32, or as a GGUF file"
    )
  act = fields.get("hidden_act", "silu")
  if act != "silu":
    raise ValueError(f"{where}: hidden_act={act!r} is not 'silu'")
  try:
    heads, width = fields["num_attention_heads"], fields["hidden_size"]
    rope = _rope_fields(fields, family)
    return ModelConfig(
      family=family,
      vocab_size=fields["vocab_size"],
      num_layers=fields["num_hidden_layers"],
      embed_dim=width,
      num_heads=heads,
      num_kv_heads=fields.get("num_key_value_heads") or heads,
      head_dim=fields.get("head_dim")
      or _DEFAULT_HEAD_DIM.get(family, width // heads),
      mlp_dim=fields["intermediate_size"],
      rope_theta=float(rope["rope_theta"]),
      rope=_rope(rope, fields, where),
      rotary_share=rope.get("partial_rotary_factor", 1.0),
      sliding_window=_window(fields, family, where),
      rms_eps=fields.get("rms_norm_eps", _DEFAULT_EPS.get(family, 1e-6)),
      qkv_bias=family == "qwen2" or _biased(fields, family),
      o_bias=_biased(fields, family),
      mlp_bias=family == "llama" and fields.get("mlp_bias", False),
      qk_norm=family == "qwen3",
      tied_embeddings=fields.get("tie_word_embeddings", False),
      max_length=fields["max_position_embeddings"],
    )
  except KeyError as error:
    raise ValueError(f"{where} lacks the field {error}") from None


def to_fields(config: ModelConfig, head: str) -> dict[str, Any]:
  """Returns the fields of a config.json that says what a model is.

  Args:
    config: of the model.
    head: of the model: "lm", or the form of a scalar head.

  Raises:
    ValueError: the family's files cannot say what the config asks for.
  """
  family = config.family
  fields = {
    "architectures": [f"{_CLASSES[family]}ForCausalLM"],
    "model_type": family,
    "vocab_size": config.vocab_size,
    "num_hidden_layers": config.num_layers,
    "hidden_size": config.embed_dim,
    "num_attention_heads": config.num_heads,
    "num_key_value_heads": config.num_kv_heads,
    "head_dim": config.head_dim,
    "intermediate_size": config.mlp_dim,
    "hidden_act": "silu",
    "rope_theta": config.rope_theta,
    "rope_parameters": _rope_to_fields(config),
    "rms_norm_eps": config.rms_eps,
    "tie_word_embeddings": config.tied_embeddings,
    "max_position_embeddings": config.max_length,
    "torch_dtype": config.param_dtype,
    # Said even so: else a family's own defaults would stand in for them.
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
    if config.rope.kind == "longrope":
      fields["original_max_position_embeddings"] = config.rope.original_length
  if head != "lm":
    fields |= {
      "architectures": [f"{_CLASSES[family]}ForSequenceClassification"],
      "num_labels": 1,
      "id2label": {"0": "LABEL_0"},
      "label2id": {"LABEL_0": 0},
      # transformers knows no tanh: its logit is our raw value.
      "rstar_head": head,
    }
  _check_said(config, fields)
  return fields


def is_reward_model(fields: Mapping[str, Any]) -> bool:
  """Says whether the file is of a sequence classifier with one label."""
  names = fields.get("architectures") or ("",)
  labels = fields.get("id2label")
  count = len(labels) if labels else fields.get("num_labels", 2)
  return names[0].endswith("ForSequenceClassification") and count == 1


def _check_said(config: ModelConfig, fields: Mapping[str, Any]) -> None:
  """Reads the fields back, since a family cannot say everything."""
  said = from_fields(fields, "config.json")
  for name, wanted in vars(config).items():
    if name in ("dtype", "param_dtype", "remat"):
      continue
    got = getattr(said, name)
    if got != wanted:
      raise ValueError(
        f"a {_CLASSES[config.family]} model has {name}={got!r}: one with "
        f"{name}={wanted!r} cannot be written in its form"
      )


def _biased(fields: Mapping[str, Any], family: str) -> bool:
  return family in ("qwen3", "llama") and fields.get("attention_bias", False)


def _window(fields: Mapping[str, Any], family: str, where: str) -> int:
  """Returns the window that all layers have, 0 where it is no limit."""
  if family == "llama" or not fields.get(
    "use_sliding_window", family == "phi3"
  ):
    return 0
  window = fields.get("sliding_window")
  if window is None or window >= fields["max_position_embeddings"]:
    return 0
  layers = fields["num_hidden_layers"]
  kinds = fields.get("layer_types") or [
    "sliding_attention" if i >= start else "full_attention"
    for start in [fields.get("max_window_layers", 28)]
    for i in range(layers)
  ]
  sliding = kinds.count("sliding_attention")
  if family == "phi3" or sliding == layers:
    return window
  if sliding:
    raise ValueError(
      f"{where}: {sliding} of {layers} layers attend to sliding_window="
      f"{window} tokens, which is less than max_position_embeddings="
      f"{fields['max_position_embeddings']}; all layers must have the window, "
      "or none"
    )
  return 0


def _rope_fields(fields: Mapping[str, Any], family: str) -> dict[str, Any]:
  """Returns what the file says of rotary positions, in transformers 5's form.

  Until version 4 the base stood beside a dict "rope_scaling".
  """
  rope = dict(fields.get("rope_scaling") or fields.get("rope_parameters") or {})
  rope.setdefault("rope_theta", fields.get("rope_theta", 10_000.0))
  if "partial_rotary_factor" in fields:
    rope.setdefault("partial_rotary_factor", fields["partial_rotary_factor"])
  kind = rope.get("rope_type") or rope.get("type") or "default"
  if family == "phi3" and kind == "yarn":
    # What Phi-3's first files called its own scaling.
    kind = "longrope"
  rope["rope_type"] = _ROPE_NAMES.get(kind, kind)
  return rope


def _rope(
  rope: Mapping[str, Any], fields: Mapping[str, Any], where: str
) -> RopeScaling:
  kind = rope["rope_type"]
  if kind == "default":
    return RopeScaling()
  longest = fields["max_position_embeddings"]
  # A field beside the dict comes first, as in transformers, where Phi-3 has one
  # though its file does not.
  original = fields.get("original_max_position_embeddings")
  if original is None and fields["model_type"] == "phi3":
    original = 4096
  if original is None:
    original = rope.get("original_max_position_embeddings", longest)
  factor = rope.get("factor") or longest / original
  match kind:
    case "linear":
      return RopeScaling(kind="linear", factor=rope["factor"])
    case "llama3":
      return RopeScaling(
        kind="llama3",
        factor=rope["factor"],
        original_length=original,
        low_freq_factor=rope["low_freq_factor"],
        high_freq_factor=rope["high_freq_factor"],
      )
    case "yarn":
      return RopeScaling(
        kind="yarn",
        factor=factor,
        original_length=original,
        attention_factor=rope.get("attention_factor")
        or _yarn_factor(rope, factor),
        beta_fast=rope.get("beta_fast") or 32.0,
        beta_slow=rope.get("beta_slow") or 1.0,
        truncate=rope.get("truncate", True),
      )
    case "longrope":
      stretched = math.sqrt(1 + math.log(factor) / math.log(original))
      return RopeScaling(
        kind="longrope",
        factor=factor,
        original_length=original,
        attention_factor=rope.get("attention_factor")
        or (stretched if factor > 1 else 1.0),
        short_factor=tuple(rope["short_factor"]),
        long_factor=tuple(rope["long_factor"]),
      )
  raise ValueError(
    f"{where}: rope_type={kind!r} is not one of 'default', 'linear', "
    "'llama3', 'yarn', 'longrope'"
  )


def _yarn_factor(rope: Mapping[str, Any], factor: float) -> float:
  """Returns the attention factor of YaRN (Peng et al. 2023, Eq. 22)."""
  if factor <= 1:
    return 1.0
  scale = lambda weight: 0.1 * weight * math.log(factor) + 1  # noqa: E731
  if rope.get("mscale") and rope.get("mscale_all_dim"):
    return scale(rope["mscale"]) / scale(rope["mscale_all_dim"])
  return scale(1)


def _rope_to_fields(config: ModelConfig) -> dict[str, Any]:
  rope = config.rope
  fields = {"rope_theta": config.rope_theta, "rope_type": rope.kind}
  if config.rotary_share != 1:
    fields["partial_rotary_factor"] = config.rotary_share
  if rope.kind == "default":
    return fields
  fields["factor"] = rope.factor
  if rope.kind != "linear":
    fields["original_max_position_embeddings"] = rope.original_length
  match rope.kind:
    case "llama3":
      names = ("low_freq_factor", "high_freq_factor")
    case "yarn":
      names = ("attention_factor", "beta_fast", "beta_slow", "truncate")
    case "longrope":
      names = ("attention_factor", "short_factor", "long_factor")
    case _:
      names = ()
  values = {name: getattr(rope, name) for name in names}
  return fields | {
    name: list(value) if isinstance(value, tuple) else value
    for name, value in values.items()
  }
