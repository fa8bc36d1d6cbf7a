"""Converts between config.json and what may differ from layer to layer.

These are a layer's window, its heads, its rotary positions and its experts.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from rstar_jax.hf import rope_config
from rstar_jax.hf.family_config import FAMILIES, FULL, SLIDING
from rstar_jax.hf.fields import NEEDED, Fields
from rstar_jax.models.config import STEEPNESS, Mixture, ModelConfig

# Far above any model's; lists of layers are compared with each other.
_MOST_LAYERS = 4096


def from_fields(
  file: Fields, family: str, head_dim: int, kv_heads: int
) -> list[dict[str, Any]]:
  """Reads the fields of a config.json that describe layers.

  Args:
    file: the file's fields.
    family: its `model_type`.
    head_dim: H of layers about which the file says nothing else.
    kv_heads: K of them.

  Returns:
    For each layer the same fields of a ModelConfig.

  Raises:
    ValueError: the decoder does not compute such layers.
  """
  count = file.whole("num_hidden_layers", most=_MOST_LAYERS)
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


def to_fields(config: ModelConfig) -> dict[str, Any]:
  """Returns the fields that describe layers, except their rotary positions.

  The caller reads them back to check them.
  """
  return _head_fields(config) | _window_fields(config) | _mixture_fields(config)


def _windows(
  file: Fields, family: str, rotated: Sequence[Any]
) -> tuple[int, list[str]]:
  """Returns the window, 0 if there is no limit, and the kind of each layer.

  If a family's `windows` are "named", `layer_types` names them. Otherwise it
  configures only the cache of `transformers`, and must agree.
  """
  layers, about = len(rotated), FAMILIES[family]
  longest = file.whole("max_position_embeddings")
  window, start = None, 0
  if not about.switched or file.flag("use_sliding_window", False):
    # Where the kind of a layer selects its rotary fields, `transformers` makes
    # no layers without a window of null.
    null = not about.bases
    window = file.whole("sliding_window", about.window, null=null)
  if about.windows_from is not None:
    start = file.whole("max_window_layers", about.windows_from, least=None)
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
    window = longest if about.bases else None
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
  about = FAMILIES[config.family]
  layers = _each_layer(config)
  window = max(each.sliding_window for each in layers)
  fields: dict[str, Any] = {}
  # These families leave the fields out without a window.
  quiet = not window and about.windows_from is not None
  if window or (about.windows != "none" and not quiet):
    silent = config.max_length if about.bases else None
    fields["sliding_window"] = window or silent
  if about.switched:
    fields["use_sliding_window"] = bool(window)
  if about.windows_from is not None and window:
    fields["max_window_layers"] = 0
  if about.windows == "named" and not quiet:
    fields["layer_types"] = [
      SLIDING if each.sliding_window else FULL for each in layers
    ]
  if config.family == "smollm3":
    fields["no_rope_layers"] = [int(each.rotary_share != 0) for each in layers]
  return fields


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


def _each_layer(config: ModelConfig) -> list[ModelConfig]:
  return [config.layer(index) for index in range(config.num_layers)]
