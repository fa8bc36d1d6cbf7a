"""Converts between Hugging Face's config.json and `ModelConfig`.

A model that the decoder does not compute exactly is refused, with the reason.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from rstar_jax.hf import reward_heads, rope_config
from rstar_jax.hf.families import FAMILIES
from rstar_jax.hf.fields import NEEDED, Fields
from rstar_jax.hf.rope_config import FULL, SLIDING
from rstar_jax.models.config import STEEPNESS, Mixture, ModelConfig, in_turns

# A family, and the quantisation that its weights may have.
MXFP4 = "gpt_oss", "mxfp4"


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
  # Layers that may have a window: those that the file names, or all or none.
  windows: Literal["named", "all", "none"] = "none"
  # Whether a field of the file turns windows on or off.
  switched: bool = False
  tied: bool = False
  # If the file does not say, layers with (i + 1) % every == 0 have no window; 0
  # is none.
  every: int = 0
  # Name of the activation, and of its field.
  activation: tuple[str, str] = ("silu", "hidden_act")
  # Those of "attention_bias" and "mlp_bias" that the file may have, and their
  # default.
  biases: tuple[str, ...] = ()
  biased: bool = False
  # Fields of the ModelConfig that the family fixes.
  fixed: Mapping[str, Any] = dataclasses.field(default_factory=dict)


_NO_BIAS = {"qkv_bias": False}
_GEMMA = {
  "kv_heads": 4,
  "head_dim": 256,
  "window": 4096,
  "windows": "named",
  "tied": True,
  "activation": ("gelu_pytorch_tanh", "hidden_activation"),
  "biases": ("attention_bias",),
}
_GEMMA_FIXED = {"norm_form": "offset", "norms": "both"}
_OLMO: dict[str, Any] = {
  "eps": 1e-5,
  "biases": ("attention_bias",),
  "fixed": {"norm_form": "wide", "norms": "post", "qk_norm": "all"},
}
_BOTH_BIASES = ("attention_bias", "mlp_bias")
_FAMILIES = {
  "qwen2": _Family(
    "Qwen2", kv_heads=32, window=4096, windows="named", switched=True
  ),
  "qwen3": _Family(
    "Qwen3",
    kv_heads=32,
    head_dim=128,
    window=4096,
    windows="named",
    switched=True,
    biases=("attention_bias",),
    fixed={"qk_norm": "head"},
  ),
  "qwen3_moe": _Family(
    "Qwen3Moe",
    kv_heads=4,
    window=4096,
    windows="all",
    switched=True,
    biases=("attention_bias",),
    fixed={"qk_norm": "head"},
  ),
  "gpt_oss": _Family(
    "GptOss",
    kv_heads=8,
    head_dim=64,
    eps=1e-5,
    window=128,
    windows="named",
    every=2,
    biases=("attention_bias",),
    biased=True,
    fixed={"norm_form": "wide", "sinks": True},
  ),
  "llama": _Family("Llama", biases=_BOTH_BIASES),
  "phi3": _Family("Phi3", eps=1e-5, windows="all", fixed=_NO_BIAS),
  "mistral": _Family(
    "Mistral", kv_heads=8, window=4096, windows="all", fixed=_NO_BIAS
  ),
  "ministral": _Family(
    "Ministral", kv_heads=8, window=4096, windows="named", fixed=_NO_BIAS
  ),
  "ministral3": _Family(
    "Ministral3",
    kv_heads=8,
    head_dim=128,
    eps=1e-5,
    windows="all",
    fixed=_NO_BIAS,
  ),
  "granite": _Family("Granite", biases=_BOTH_BIASES),
  "smollm3": _Family(
    "SmolLM3",
    kv_heads=4,
    windows="named",
    switched=True,
    tied=True,
    biases=_BOTH_BIASES,
  ),
  "olmo2": _Family("Olmo2", **_OLMO),
  "olmo3": _Family("Olmo3", window=4096, windows="named", every=4, **_OLMO),
  "gemma2": _Family("Gemma2", every=2, fixed=_GEMMA_FIXED, **_GEMMA),
  "gemma3_text": _Family(
    "Gemma3", every=6, fixed=_GEMMA_FIXED | {"qk_norm": "head"}, **_GEMMA
  ),
  "gemma4_text": _Family(
    "Gemma4",
    every=6,
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
  about = _FAMILIES[family]
  heads, width = file.whole("num_attention_heads"), file.whole("hidden_size")
  if family in {"llama"} | _GEMMAS and width % heads:
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
    for name in _BOTH_BIASES
  )
  found = {
    "qkv_bias": family == "qwen2" or biased,
    "o_bias": biased,
    "mlp_bias": mlp_biased,
    **about.fixed,
    **_scales(file, family, head_dim),
  }
  layers = _layers(file, family, head_dim, kv_heads)
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
  about = _FAMILIES[family]
  name = about.name
  fields = {
    "architectures": [f"{name}ForCausalLM"],
    "model_type": family,
    "vocab_size": config.vocab_size,
    "num_hidden_layers": config.num_layers,
    "hidden_size": config.embed_dim,
    "num_attention_heads": config.num_heads,
    **_head_fields(config),
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
  fields |= _window_fields(config) | _scale_fields(config)
  fields |= _mixture_fields(config)
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
  name = "Gemma3Text" if family == "gemma3_text" else _FAMILIES[family].name
  return f"{name}ForSequenceClassification"


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
        f"a {_FAMILIES[config.family].name} model has {name}={got!r}: one with "
        f"{name}={wanted!r} cannot be written in its form"
      )


def _check_plain(file: Fields, family: str) -> None:
  """Raises for fields that this package's decoder does not compute."""
  packed = file.part("quantization_config").value("quant_method", None)
  if "quantization_config" in file and (family, packed) != MXFP4:
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
      if file.value(field, silent):
        value = file.value(field, silent)
        file.refuse(field, f"{type(value)(0)!r}: {why} are not done", value)
  elif file.value("per_layer_config", None) is not None:
    file.refuse("per_layer_config", "left out: all layers must be alike")
  name = "use_bidirectional_attention"
  # In Gemma 4 "vision" changes the attention of images, not of text.
  plain = (None, False, "vision") if family == "gemma4_text" else (None, False)
  if file.value(name, None) not in plain:
    file.refuse(name, "false or null")
  name = _FAMILIES[family].name
  classes = [f"{name}{each}" for each in reward_heads.BY_CLASS]
  classes.append(classifier(family))
  names = file.value("architectures", None)
  if names is not None and not (
    isinstance(names, list) and all(each in classes for each in names)
  ):
    file.refuse("architectures", f"of {classes}")


def _each_layer(config: ModelConfig) -> list[ModelConfig]:
  return [config.layer(index) for index in range(config.num_layers)]


def _activation(file: Fields, family: str) -> str:
  silent, name = _FAMILIES[family].activation
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


def _layers(
  file: Fields, family: str, head_dim: int, kv_heads: int
) -> list[dict[str, Any]]:
  """Returns each layer's own fields: window, rotary, heads, experts."""
  count = file.whole("num_hidden_layers")
  rotated = [True] * count
  if family == "smollm3":
    every = file.whole("no_rope_layer_interval", 4)
    silent = [int((i + 1) % every != 0) for i in range(count)]
    rotated = file.value("no_rope_layers", None)
    rotated = silent if rotated is None else rotated
    if not (
      isinstance(rotated, list)
      and len(rotated) == count
      and all(each in (0, 1) for each in rotated)
    ):
      file.refuse("no_rope_layers", f"a list of {count} times 0 or 1")
  window, kinds = _windows(file, family, rotated)
  heads = {SLIDING: {"head_dim": head_dim, "num_kv_heads": kv_heads}}
  heads[FULL] = heads[SLIDING]
  if family == "gemma4_text":
    shared = file.flag("attention_k_eq_v", False)
    heads[FULL] = _global_heads(file, kinds, heads[SLIDING], shared)
    heads[FULL] |= {"keys_as_values": shared}
    heads[SLIDING] |= {"keys_as_values": False}
  ropes = {
    kind: rope_config.from_fields(file, family, heads[kind]["head_dim"], kind)
    for kind in set(kinds)
  }
  return [
    ropes[kind]
    | heads[kind]
    | {"sliding_window": window if kind == SLIDING else 0}
    | ({} if turned else {"rotary_share": 0.0})
    | {"mixture": mixture}
    for kind, turned, mixture in zip(
      kinds, rotated, _mixtures(file, family, count), strict=True
    )
  ]


def _global_heads(
  file: Fields, kinds: Sequence[str], local: Mapping[str, int], shared: bool
) -> dict[str, int]:
  """Returns H and K of Gemma 4's layers without a window.

  Args:
    file: published files have both once; files that `transformers` writes have
      them per layer, where they differ.
    kinds: kinds of all layers.
    local: H and K of the other layers.
    shared: whether values are keys; only then K may differ.
  """
  name, said = "per_layer_config", file.value("per_layer_config", None)
  if said == {}:
    return dict(local)
  if said is None:
    dim, kv_heads = file.whole("global_head_dim", 512), None
    if shared:
      kv_heads = file.whole("num_global_key_value_heads", None)
  else:
    own = {str(i) for i, kind in enumerate(kinds) if kind == FULL}
    if not (
      isinstance(said, Mapping)
      and {str(each).lstrip("0") or "0" for each in said} == own
      and all(each == next(iter(said.values())) for each in said.values())
    ):
      file.refuse(name, f"of the {FULL!r} layers, which are alike")
    one = file.part(name).part(next(iter(said)))
    for each in one:
      if each not in ("head_dim", "num_key_value_heads"):
        one.refuse(each, "left out: of a layer head_dim alone may differ")
    dim = one.whole("head_dim", local["head_dim"])
    kv_heads = one.whole("num_key_value_heads", None)
  kv_heads = kv_heads or local["num_kv_heads"]
  most = max(kv_heads, local["num_kv_heads"])
  if file.whole("num_attention_heads") % most or most % min(
    kv_heads, local["num_kv_heads"]
  ):
    file.refuse(
      "num_global_key_value_heads", "a divisor of the other's heads", kv_heads
    )
  return {"head_dim": dim, "num_kv_heads": kv_heads}


def _head_fields(config: ModelConfig) -> dict[str, Any]:
  """Returns the fields for the number and width of heads."""
  layers = _each_layer(config)
  heads = [
    {"num_key_value_heads": each.num_kv_heads, "head_dim": each.head_dim}
    for each in layers
  ]
  first = next((i for i, x in enumerate(layers) if x.sliding_window), 0)
  if config.family != "gemma4_text":
    return heads[first]
  own = [dict(each.items() - heads[first].items()) for each in heads]
  return heads[first] | {
    "attention_k_eq_v": any(each.keys_as_values for each in layers),
    "per_layer_config": {str(i): each for i, each in enumerate(own) if each},
    "hidden_size_per_layer_input": 0,
  }


def _experts(
  file: Fields,
  names: tuple[str, str],
  silent: tuple[Any, Any] = (NEEDED, NEEDED),
) -> dict[str, int]:
  """Returns the numbers of experts: of a layer, and of each token.

  Args:
    file: the file's fields.
    names: of both numbers.
    silent: their defaults.
  """
  experts, chosen = map(file.whole, names, silent)
  if chosen > experts:
    file.refuse(names[1], f"at most the {experts} experts")
  return {"experts": experts, "chosen": chosen}


def _mixtures(file: Fields, family: str, count: int) -> list[Mixture | None]:
  """Returns the experts of each layer, None for a layer with an MLP."""
  if family == "gemma4_text" and file.flag("enable_moe_block", False):
    numbers = _experts(file, ("num_experts", "top_k_experts"))
    width = file.whole("moe_intermediate_size")
    return [Mixture(**numbers, dim=width, beside=True)] * count
  # The first is the name since version 5 of `transformers`.
  known = "num_local_experts", "num_experts"
  name = next((each for each in known if each in file), known[0])
  names = name, "num_experts_per_tok"
  if family == "gpt_oss":
    numbers = _experts(file, names, (128, 4))
    if file.number("swiglu_alpha", STEEPNESS) != STEEPNESS:
      file.refuse("swiglu_alpha", f"{STEEPNESS}")
    limit = file.number("swiglu_limit", 7.0)
    width = file.whole("intermediate_size")
    return [Mixture(**numbers, dim=width, bias=True, limit=limit)] * count
  if family != "qwen3_moe":
    return [None] * count
  one = Mixture(
    **_experts(file, names, (128, 8)),
    dim=file.whole("moe_intermediate_size", 768),
    normalised=file.flag("norm_topk_prob", False),
  )
  every = file.whole("decoder_sparse_step", 1)
  plain = file.value("mlp_only_layers", None) or []
  if not isinstance(plain, list):
    file.refuse("mlp_only_layers", "a list of layers")
  return [
    one if i not in plain and (i + 1) % every == 0 else None
    for i in range(count)
  ]


def _mixture_fields(config: ModelConfig) -> dict[str, Any]:
  """Returns the fields that `_mixtures` reads."""
  one = config.experts()
  if one is None:
    return {}
  if config.family == "gemma4_text":
    return {
      "enable_moe_block": True,
      "num_experts": one.experts,
      "top_k_experts": one.chosen,
      "moe_intermediate_size": one.dim,
    }
  fields: dict[str, Any] = {"num_experts_per_tok": one.chosen}
  if config.family == "gpt_oss":
    return fields | {
      "num_local_experts": one.experts,
      "swiglu_limit": one.limit,
    }
  return fields | {
    "num_experts": one.experts,
    "moe_intermediate_size": one.dim,
    "norm_topk_prob": one.normalised,
    "decoder_sparse_step": 1,
    "mlp_only_layers": [
      i for i, each in enumerate(_each_layer(config)) if not each.mixture
    ],
  }


def _windows(
  file: Fields, family: str, rotated: Sequence[Any]
) -> tuple[int, list[str]]:
  """Returns the window, 0 if there is no limit, and the kind of each layer.

  If a family's `windows` are "named", `layer_types` names them. Otherwise it
  configures only the cache of `transformers`, and must agree.
  """
  layers, about = len(rotated), _FAMILIES[family]
  longest = file.whole("max_position_embeddings")
  window, start = None, 0
  if not about.switched or file.flag("use_sliding_window", False):
    window = file.whole("sliding_window", about.window, null=True)
  if family in ("qwen2", "qwen3"):
    start = file.whole("max_window_layers", 28, least=None)
  every = about.every
  if family == "gemma3_text":
    every = file.whole("sliding_window_pattern", every)
  kinds = file.value("layer_types", None)
  if kinds is None:
    full = [
      i < start or (every and (i + 1) % every == 0) for i in range(layers)
    ]
    if family == "gemma4_text":
      full[-1] = True
    if family == "smollm3":
      full = [bool(each) for each in rotated]
    kinds = [FULL if window is None or each else SLIDING for each in full]
  if not (
    isinstance(kinds, list)
    and len(kinds) == layers
    and all(kind in (FULL, SLIDING) for kind in kinds)
  ):
    file.refuse(
      "layer_types", f"a list of {layers} kinds, {FULL!r} or {SLIDING!r}"
    )
  if family == "gemma4_text" and kinds[-1] != FULL:
    file.refuse("layer_types", f"{FULL!r} at the end, as transformers has it")
  sliding = kinds.count(SLIDING)
  if window is None and sliding:
    file.refuse("layer_types", f"without {SLIDING!r}: there is no window")
  if window is not None and window >= longest:
    # The kind may still determine a layer's rotary fields.
    window = longest if family in rope_config.BY_KIND else None
  if window is None:
    return 0, [FULL] * layers
  if about.windows != "named":
    right = layers if about.windows == "all" else 0
    if sliding != right:
      file.refuse(
        "sliding_window",
        f"null, or at least max_position_embeddings={longest}: {sliding} of "
        f"{layers} layers have it, and of a {family} model {right} may",
        window,
      )
  return window, kinds


def _window_fields(config: ModelConfig) -> dict[str, Any]:
  """Returns the fields for layers' windows and rotary embeddings."""
  family, about = config.family, _FAMILIES[config.family]
  layers = _each_layer(config)
  window = max(each.sliding_window for each in layers)
  fields: dict[str, Any] = {}
  # These families leave the fields out without a window.
  quiet = not window and family in ("qwen2", "qwen3")
  if window or (about.windows != "none" and not quiet):
    fields["sliding_window"] = window or None
  if about.switched:
    fields["use_sliding_window"] = bool(window)
  if family in ("qwen2", "qwen3") and window:
    fields["max_window_layers"] = 0
  if about.windows == "named" and not quiet:
    fields["layer_types"] = [
      SLIDING if each.sliding_window else FULL for each in layers
    ]
  if family == "smollm3":
    fields["no_rope_layers"] = [int(each.rotary_share != 0) for each in layers]
  return fields
