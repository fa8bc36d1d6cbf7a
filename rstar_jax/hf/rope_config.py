"""Converts between rotary fields of config.json and `RopeScaling`.

`transformers` reads "rope_scaling" first, else "rope_parameters" (version 5),
which also has the base. Missing fields may be at the top level. In families of
several bases "rope_parameters" has fields for each kind of layer; there
"rope_scaling" is for layers without a window.
"""

import dataclasses
import math
from typing import Any

from rstar_jax.hf.family_config import FAMILIES, FULL, SLIDING
from rstar_jax.hf.fields import NEEDED, Fields
from rstar_jax.models.config import ModelConfig, RopeScaling

_ORIGINAL = "original_max_position_embeddings"
_SHARE = "partial_rotary_factor"
_GROWTH = "llama_4_scaling_beta"
# Names of longrope in the first Phi-3 files.
_PHI3_OLD_KINDS = ("su", "yarn")
_PHI3_ORIGINAL = 4096
# What silent files of Gemma 4 say of layers without a window.
_GEMMA4_FULL = {"rope_type": "proportional", _SHARE: 0.25}


def from_fields(
  fields: Fields, family: str, head_dim: int, kind: str = FULL
) -> dict[str, Any]:
  """Reads the rotary fields of a config.json.

  Args:
    fields: the file's fields.
    family: its `model_type`.
    head_dim: H.
    kind: kind of a layer; used only in families of several bases.

  Returns:
    `rope_theta`, `rope` and `rotary_share` of the ModelConfig.

  Raises:
    ValueError: `models/rotary.py`, or `transformers` for this family, does not
      compute the scaling.
  """
  about = FAMILIES[family]
  if about.bases:
    rope, theta = _of_kind(fields, family, kind)
  else:
    name = "rope_scaling"
    if not fields.value(name, None):
      name = "rope_parameters"
    rope = fields.part(name)
    if about.scaled and not rope:
      fields.refuse(name, "given: silent files are scaled by YaRN")
    for each in (FULL, SLIDING):
      if each in rope:
        rope.refuse(each, f"left out: a {family} model has one for all layers")
    base = rope if "rope_theta" in rope else fields
    theta = base.number("rope_theta", about.base, above=1)
  scaling = _scaling(rope, fields, family, head_dim)
  if family == "ministral3":
    scaling = dataclasses.replace(
      scaling,
      query_growth=rope.number(_GROWTH),
      # Only some scalings take it from elsewhere.
      original_length=scaling.original_length or rope.whole(_ORIGINAL, least=2),
    )
  return {
    "rope_theta": theta,
    "rotary_share": _share(rope, fields, family, head_dim),
    "rope": scaling,
  }


def _of_kind(fields: Fields, family: str, kind: str) -> tuple[Fields, float]:
  """Returns the fields of a kind of layer, and their base."""
  kinds = fields.part("rope_parameters")
  for each in kinds:
    if each not in (FULL, SLIDING):
      kinds.refuse(each, f"in {FULL!r} or {SLIDING!r}, which have their own")
  rope, top = kinds.part(kind), "rope_theta"
  silent = FAMILIES[family].bases[kind]
  if family == "gemma4_text":
    if fields.value("rope_scaling", None):
      fields.refuse("rope_scaling", "left out: rope_parameters has it")
    if not kinds:
      also = _GEMMA4_FULL if kind == FULL else {}
      rope = Fields({"rope_theta": silent} | also, "transformers")
    return rope, rope.number("rope_theta", above=1)
  if kind == SLIDING and family == "gemma3_text":
    top = "rope_local_base_freq"
  if kind == FULL and fields.value("rope_scaling", None):
    if rope:
      fields.refuse("rope_scaling", "left out: rope_parameters has it")
    rope = fields.part("rope_scaling")
    if "rope_type" not in rope:
      # `transformers` ignores the old "type" in these families.
      rope.value("rope_type")
  if "rope_theta" in rope:
    return rope, rope.number("rope_theta", above=1)
  if kind == SLIDING and top == "rope_theta":
    # `transformers` takes the top level's away for the other kind, in any case.
    return rope, silent
  return rope, fields.number(top, silent, above=1)


def to_fields(config: ModelConfig) -> dict[str, Any]:
  """Returns the rotary fields; the caller reads them back to check them."""
  if FAMILIES[config.family].bases:
    kinds = {
      SLIDING if each.sliding_window else FULL: _to_part(each)
      for each in config.layers()
    }
    return {"rope_parameters": kinds}
  part = _to_part(config)
  fields = {"rope_theta": config.rope_theta, "rope_parameters": part}
  if config.family == "phi3" and _ORIGINAL in part:
    # Phi3Config's field of that name takes precedence.
    fields[_ORIGINAL] = part[_ORIGINAL]
  return fields


def _to_part(config: ModelConfig) -> dict[str, Any]:
  """Returns the fields of all layers, or of a kind of them."""
  rope = config.rope
  inside: dict[str, Any] = {
    "rope_theta": config.rope_theta,
    "rope_type": rope.kind,
  }
  if config.rotary_share != 1:
    inside[_SHARE] = config.rotary_share
  names: tuple[str, ...] = ()
  match rope.kind:
    case "linear" | "proportional":
      names = ("factor",)
    case "llama3":
      names = ("factor", "low_freq_factor", "high_freq_factor")
    case "yarn":
      names = (
        "factor",
        "attention_factor",
        "beta_fast",
        "beta_slow",
        "truncate",
      )
    case "longrope":
      names = ("factor", "attention_factor", "short_factor", "long_factor")
  for name in names:
    value = getattr(rope, name)
    inside[name] = list(value) if isinstance(value, tuple) else value
  if rope.query_growth:
    inside[_GROWTH] = rope.query_growth
  if rope.original_length:
    inside[_ORIGINAL] = rope.original_length
  return inside


def _share(rope: Fields, fields: Fields, family: str, head_dim: int) -> float:
  place = rope if _SHARE in rope else fields
  share = place.number(_SHARE, 1.0, null=True) or 1.0
  of_whole = rope.value("rope_type", None) == "proportional"
  if share != 1 and family != "phi3" and not of_whole:
    # `transformers` ignores it without scaling, and fails with it.
    place.refuse(_SHARE, f"1: a {family} model rotates whole heads")
  # A small share of a whole head's frequencies may keep none.
  rotated = head_dim if of_whole else int(head_dim * share)
  if (share == 1 or of_whole) and rotated % 2:
    fields.refuse("head_dim", "even: it is rotated in pairs", head_dim)
  if share > 1 or rotated < 2 or rotated % 2:
    place.refuse(
      _SHARE,
      "a share of each head whose width is even and above 0, and at most 1; "
      f"of head_dim={head_dim} it rotates {rotated}",
      share,
    )
  return share


def _scaling(
  rope: Fields, fields: Fields, family: str, head_dim: int
) -> RopeScaling:
  known = FAMILIES[family].scalings
  name = "rope_type" if "rope_type" in rope else "type"
  kind = rope.value(name, "default")
  if family == "phi3" and kind in _PHI3_OLD_KINDS:
    kind = "longrope"
  if kind not in known:
    rope.refuse(name, f"one of {', '.join(map(repr, known))}")
  match kind:
    case "default":
      return RopeScaling()
    case "linear":
      return RopeScaling(kind=kind, factor=rope.number("factor"))
    case "proportional":
      return RopeScaling(kind=kind, factor=rope.number("factor", 1.0))
    case "llama3":
      low = rope.number("low_freq_factor")
      return RopeScaling(
        kind=kind,
        factor=rope.number("factor"),
        original_length=_original(rope, fields, family),
        low_freq_factor=low,
        high_freq_factor=rope.number("high_freq_factor", above=low),
      )
  original = _original(rope, fields, family)
  # YaRN's factor may be null, but not missing.
  silent = NEEDED if kind == "yarn" else None
  factor = rope.number("factor", silent, null=True)
  if factor is None:
    factor = fields.whole("max_position_embeddings") / original
  attention = rope.number("attention_factor", None)
  if kind == "yarn":
    if not rope.flag("truncate", True) and FAMILIES[family].bases:
      # `transformers` looks for it beside the kinds of layers.
      rope.refuse("truncate", f"true: a {family} model rounds in any case")
    return RopeScaling(
      kind=kind,
      factor=factor,
      original_length=original,
      attention_factor=attention or _yarn_attention(rope, factor),
      beta_fast=_positive(rope, "beta_fast") or 32.0,
      beta_slow=_positive(rope, "beta_slow") or 1.0,
      truncate=rope.flag("truncate", True),
    )
  half = int(head_dim * _share(rope, fields, family, head_dim)) // 2
  plain = fields.whole("hidden_size") // fields.whole("num_attention_heads")
  if family == "phi3" and head_dim != plain:
    fields.refuse(
      "head_dim",
      "hidden_size / num_attention_heads with longrope, since transformers "
      "counts its factors by that",
    )
  if attention is None:
    # LongRoPE (Ding et al. 2024).
    attention = math.sqrt(1 + max(0.0, math.log(factor)) / math.log(original))
  return RopeScaling(
    kind=kind,
    factor=factor,
    original_length=original,
    attention_factor=attention,
    short_factor=rope.numbers("short_factor", half),
    long_factor=rope.numbers("long_factor", half),
  )


def _original(rope: Fields, fields: Fields, family: str) -> int:
  """Returns the original context; a top-level field takes precedence."""
  if family == "phi3":
    return fields.whole(_ORIGINAL, _PHI3_ORIGINAL, least=2)
  longest = fields.whole("max_position_embeddings")
  above = _ORIGINAL in fields and not FAMILIES[family].bases
  place = fields if above else rope
  return place.whole(_ORIGINAL, longest, least=2)


def _yarn_attention(rope: Fields, factor: float) -> float:
  """Returns the attention factor of YaRN (Peng et al. 2023, Eq. 22)."""
  weights = [_positive(rope, name) for name in ("mscale", "mscale_all_dim")]
  if factor <= 1:
    return 1.0
  first, second = (
    0.1 * weight * math.log(factor) + 1
    for weight in (weights if all(weights) else (1.0, 0.0))
  )
  return first / second


def _positive(rope: Fields, name: str) -> float | None:
  """Returns a number above 0; None for 0, as in `transformers`."""
  return rope.number(name, None) if rope.value(name, None) else None
