"""Converts between Hugging Face's config.json and `ModelConfig`.

A model that the decoder does not compute exactly is refused, with the reason.
"""

from collections.abc import Mapping
from typing import Any

from rstar_jax.hf import layer_config, reward_heads, rope_config
from rstar_jax.hf.family_config import FAMILIES
from rstar_jax.hf.fields import Fields
from rstar_jax.models.config import ModelConfig, in_turns

_GEMMAS = {"gemma2", "gemma3_text"}


def from_fields(fields: Mapping[str, Any], where: str) -> ModelConfig:
  """Reads the fields of a config.json.

  Args:
    fields: the file's fields.
    where: name of the file, for error messages.

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
  about = FAMILIES[family]
  heads, width = file.whole("num_attention_heads"), file.whole("hidden_size")
  if about.whole_heads and width % heads:
    file.refuse("hidden_size", f"a multiple of num_attention_heads={heads}")
  kv_heads = file.whole("num_key_value_heads", about.kv_heads, null=True)
  kv_heads = heads if kv_heads is None else kv_heads
  if heads % kv_heads:
    file.refuse(
      "num_key_value_heads",
      f"a divisor of num_attention_heads={heads}",
      kv_heads,
    )
  head_dim = file.whole("head_dim", about.head_dim)
  head_dim = width // heads if head_dim is None else head_dim
  biased, mlp_biased = (
    name in about.biases and file.flag(name, about.biased)
    for name in ("attention_bias", "mlp_bias")
  )
  found = {
    "qkv_bias": biased,
    "o_bias": biased,
    "mlp_bias": mlp_biased,
    **about.fixed,
    **_scales(file, family, head_dim),
  }
  layers = layer_config.from_fields(file, family, head_dim, kv_heads)
  # The largest over layers, which pages need room for.
  for name in ("num_kv_heads", "head_dim"):
    found[name] = max(each[name] for each in layers)
  return ModelConfig(
    family=family,
    vocab_size=file.whole("vocab_size"),
    num_layers=file.whole("num_hidden_layers"),
    embed_dim=width,
    num_heads=heads,
    mlp_dim=file.whole("intermediate_size"),
    rms_eps=file.number("rms_norm_eps", about.eps),
    activation=_activation(file, family),
    tied_embeddings=file.flag("tie_word_embeddings", about.tied),
    max_length=file.whole("max_position_embeddings"),
    **found | in_turns(layers),
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
  about = FAMILIES[family]
  name = about.name
  fields = {
    "architectures": [f"{name}ForCausalLM"],
    "model_type": family,
    "vocab_size": config.vocab_size,
    "num_hidden_layers": config.num_layers,
    "hidden_size": config.embed_dim,
    "num_attention_heads": config.num_heads,
    **layer_config.to_fields(config),
    "intermediate_size": config.mlp_dim,
    about.activation[1]: config.activation,
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
  biases = {"attention_bias": config.qkv_bias, "mlp_bias": config.mlp_bias}
  fields |= {each: biases[each] for each in about.biases}
  fields |= _scale_fields(config)
  if head != "lm":
    fields |= {
      "architectures": [classifier(family)],
      "num_labels": 1,
      "id2label": {"0": "LABEL_0"},
      "label2id": {"LABEL_0": 0},
      # transformers has no tanh: its logit is the raw value.
      reward_heads.HEAD: head,
    }
  _check_said(config, fields)
  return fields


def classifier(family: str) -> str:
  """Returns the name of a family's class with a scalar head."""
  about = FAMILIES[family]
  return f"{about.scalar_name or about.name}ForSequenceClassification"


# Fields of this package's computation, which files do not have.
_NOT_WRITTEN = (
  "dtype",
  "param_dtype",
  "remat",
  "balance",
  "attention",
  "scan",
  "attention_block",
  "row_block",
  "native",
)


def _check_said(config: ModelConfig, fields: Mapping[str, Any]) -> None:
  """Reads fields back, and raises if they do not express the config."""
  reread = from_fields(fields, "config.json")
  for name, wanted in vars(config).items():
    if name in _NOT_WRITTEN:
      continue
    got = getattr(reread, name)
    if got != wanted:
      raise ValueError(
        f"a {FAMILIES[config.family].name} model has {name}={got!r}: one with "
        f"{name}={wanted!r} cannot be written in its form"
      )


def _check_plain(file: Fields, family: str) -> None:
  """Raises for fields that this package's decoder does not compute."""
  packed = file.part("quantization_config").value("quant_method", None)
  about = FAMILIES[family]
  if "quantization_config" in file and packed not in about.quantised:
    file.refuse(
      "quantization_config",
      "left out: the weights are quantised; give the model in bfloat16 or "
      "float32, or as a GGUF file",
    )
  if file.value("is_causal", True) is not True:
    file.refuse("is_causal", "true: the decoder does not look ahead")
  if family == "gemma4_text":
    for field, silent, why in (
      ("hidden_size_per_layer_input", 256, "embeddings of each layer (E2B)"),
      ("num_kv_shared_layers", 0, "layers without keys of their own (E2B)"),
    ):
      if value := file.value(field, silent):
        file.refuse(field, f"0: {why} are not done", value)
  elif file.value("per_layer_config", None) is not None:
    file.refuse("per_layer_config", "left out: all layers must be alike")
  name = "use_bidirectional_attention"
  # In Gemma 4 "vision" changes the attention of images, not of text.
  plain = (None, False, "vision") if family == "gemma4_text" else (None, False)
  if file.value(name, None) not in plain:
    file.refuse(name, "false or null")
  classes = [f"{about.name}{each}" for each in reward_heads.BY_CLASS]
  classes.append(classifier(family))
  names = file.value("architectures", None)
  if names is not None and not (
    isinstance(names, list) and all(each in classes for each in names)
  ):
    file.refuse("architectures", f"of {classes}")


def _activation(file: Fields, family: str) -> str:
  silent, name = FAMILIES[family].activation
  value, known = file.value(name, silent), ("silu", "gelu_pytorch_tanh")
  if value not in known:
    file.refuse(name, " or ".join(map(repr, known)))
  return value


def _scales(file: Fields, family: str, head_dim: int) -> dict[str, Any]:
  """Returns the multipliers and caps of families that have them."""
  if family == "granite":
    scale = file.number("attention_multiplier", 1.0)
    names = "embedding_multiplier", "residual_multiplier", "logits_scaling"
    scales = {name: file.number(name, 1.0) for name in names}
  elif family in _GEMMAS:
    scale = file.whole("query_pre_attn_scalar", 256) ** -0.5
    scales = {"embedding_multiplier": file.whole("hidden_size") ** 0.5}
    for name, ours, silent in (
      ("attn_logit_softcapping", "attention_softcap", 50.0),
      ("final_logit_softcapping", "logits_softcap", 30.0),
    ):
      silent = silent if family == "gemma2" else None
      scales[ours] = file.number(name, silent, null=True) or 0.0
    if family == "gemma3_text" and scales["attention_softcap"]:
      file.refuse("attn_logit_softcapping", "null: transformers ignores it")
  elif family == "gemma4_text":
    return {
      "embedding_multiplier": file.whole("hidden_size") ** 0.5,
      "logits_softcap": file.number("final_logit_softcapping", None) or 0.0,
    }
  else:
    return {}
  return scales | {"attention_scale": 0 if scale == head_dim**-0.5 else scale}


def _scale_fields(config: ModelConfig) -> dict[str, Any]:
  """Returns the fields that `_scales` reads."""
  scale = config.attention_scale or config.head_dim**-0.5
  if config.family == "granite":
    return {
      "attention_multiplier": scale,
      "embedding_multiplier": config.embedding_multiplier,
      "residual_multiplier": config.residual_multiplier,
      "logits_scaling": config.logits_scaling,
    }
  if config.family in _GEMMAS:
    return {
      "query_pre_attn_scalar": round(scale**-2),
      "attn_logit_softcapping": config.attention_softcap or None,
      "final_logit_softcapping": config.logits_softcap or None,
    }
  if config.family == "gemma4_text":
    return {"final_logit_softcapping": config.logits_softcap or None}
  return {}
