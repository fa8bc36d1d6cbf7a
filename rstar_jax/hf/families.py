"""Names and layouts of weights on disk: a table per family, for both ways.

Letters are axes: D embed, N heads, K key/value heads, H head, F mlp, V vocab,
O outputs of a head's hidden layer, E experts, W width of one, 1 one. On disk,
letters written together are one axis; in Wg and Wu, elements of two parameters
alternate, and in gW and uW halves of an axis do.
"""

import dataclasses
import math
from collections.abc import Collection, Mapping

import numpy as np

from rstar_jax.hf.tensors import Index
from rstar_jax.models.config import Mixture, ModelConfig
from rstar_jax.models.transformer import Path


@dataclasses.dataclass(frozen=True)
class Row:
  """A parameter of the model, and its tensor on disk.

  Rows with the same name are parts of one tensor, concatenated on its first
  axis, or alternating on another. `{i}` is the layer. With `{e}` each expert
  has a tensor of its own, without the parameter's first axis.
  """

  name: str
  disk: str
  path: str
  here: str


def _layer(name: str, disk: str, path: str, here: str) -> Row:
  return Row(f"model.layers.{{i}}.{name}", disk, f"layers.{{i}}.{path}", here)


_COMMON = (
  Row("model.embed_tokens.weight", "V D", "embedding", "V D"),
  _layer("self_attn.o_proj.weight", "D NH", "attention.o", "D N H"),
  _layer("mlp.down_proj.weight", "D F", "mlp.down", "D F"),
  Row("model.norm.weight", "D", "norm.scale", "D"),
  Row("lm_head.weight", "V D", "lm_head", "V D"),
  Row("score.weight", "1 D", "score", "D"),
  Row("score.bias", "1", "score_bias", ""),
  Row("score.0.weight", "O D", "score_hidden", "O D"),
  Row("score.0.bias", "O", "score_hidden_bias", "O"),
)
# Norms before attention and the MLP, after them, and both.
_PRE = (
  _layer("input_layernorm.weight", "D", "attention_norm.scale", "D"),
  _layer("post_attention_layernorm.weight", "D", "mlp_norm.scale", "D"),
)
_POST = (
  _layer(
    "post_attention_layernorm.weight", "D", "attention_post_norm.scale", "D"
  ),
  _layer("post_feedforward_layernorm.weight", "D", "mlp_post_norm.scale", "D"),
)
_BOTH = (
  *_POST,
  _layer("input_layernorm.weight", "D", "attention_norm.scale", "D"),
  _layer("pre_feedforward_layernorm.weight", "D", "mlp_norm.scale", "D"),
)
_SPLIT = (
  _layer("self_attn.q_proj.weight", "NH D", "attention.q", "N H D"),
  _layer("self_attn.k_proj.weight", "KH D", "attention.k", "K H D"),
  _layer("self_attn.v_proj.weight", "KH D", "attention.v", "K H D"),
  _layer("mlp.gate_proj.weight", "F D", "mlp.gate", "F D"),
  _layer("mlp.up_proj.weight", "F D", "mlp.up", "F D"),
)
_FUSED = (
  _layer("self_attn.qkv_proj.weight", "NH D", "attention.q", "N H D"),
  _layer("self_attn.qkv_proj.weight", "KH D", "attention.k", "K H D"),
  _layer("self_attn.qkv_proj.weight", "KH D", "attention.v", "K H D"),
  _layer("mlp.gate_up_proj.weight", "F D", "mlp.gate", "F D"),
  _layer("mlp.gate_up_proj.weight", "F D", "mlp.up", "F D"),
)
_QKV_BIAS = (
  _layer("self_attn.q_proj.bias", "NH", "attention.q_bias", "N H"),
  _layer("self_attn.k_proj.bias", "KH", "attention.k_bias", "K H"),
  _layer("self_attn.v_proj.bias", "KH", "attention.v_bias", "K H"),
)
_O_BIAS = (_layer("self_attn.o_proj.bias", "D", "attention.o_bias", "D"),)
_QK_NORM = (
  _layer("self_attn.q_norm.weight", "H", "attention.q_norm.scale", "H"),
  _layer("self_attn.k_norm.weight", "H", "attention.k_norm.scale", "H"),
)
_QK_NORM_OF_ALL = (
  _layer("self_attn.q_norm.weight", "NH", "attention.q_norm.scale", "N H"),
  _layer("self_attn.k_norm.weight", "KH", "attention.k_norm.scale", "K H"),
)
_MLP_BIAS = (
  _layer("mlp.gate_proj.bias", "F", "mlp.gate_bias", "F"),
  _layer("mlp.up_proj.bias", "F", "mlp.up_bias", "F"),
  _layer("mlp.down_proj.bias", "D", "mlp.down_bias", "D"),
)

_EXPERTS = (
  _layer("mlp.gate.weight", "E D", "experts.router", "E D"),
  _layer("mlp.experts.{e}.gate_proj.weight", "W D", "experts.gate", "E D W"),
  _layer("mlp.experts.{e}.up_proj.weight", "W D", "experts.up", "E D W"),
  _layer("mlp.experts.{e}.down_proj.weight", "D W", "experts.down", "E W D"),
)
_GPT_OSS = (
  _layer("self_attn.sinks", "N", "attention.sinks", "N"),
  _layer("mlp.router.weight", "E D", "experts.router", "E D"),
  _layer("mlp.router.bias", "E", "experts.router_bias", "E"),
  _layer("mlp.experts.gate_up_proj", "E D Wg", "experts.gate", "E D W"),
  _layer("mlp.experts.gate_up_proj", "E D Wu", "experts.up", "E D W"),
  _layer("mlp.experts.gate_up_proj_bias", "E Wg", "experts.gate_bias", "E W"),
  _layer("mlp.experts.gate_up_proj_bias", "E Wu", "experts.up_bias", "E W"),
  _layer("mlp.experts.down_proj", "E W D", "experts.down", "E W D"),
  _layer("mlp.experts.down_proj_bias", "E D", "experts.down_bias", "E D"),
)

_BESIDE = (
  _layer("post_feedforward_layernorm_1.weight", "D", "mlp_own_norm.scale", "D"),
  _layer("pre_feedforward_layernorm_2.weight", "D", "experts_norm.scale", "D"),
  _layer(
    "post_feedforward_layernorm_2.weight", "D", "experts_post_norm.scale", "D"
  ),
  _layer("router.proj.weight", "E D", "experts.router", "E D"),
  _layer("router.scale", "D", "experts.router_scale", "D"),
  _layer("router.per_expert_scale", "E", "experts.share_scale", "E"),
  _layer("experts.gate_up_proj", "E gW D", "experts.gate", "E D W"),
  _layer("experts.gate_up_proj", "E uW D", "experts.up", "E D W"),
  _layer("experts.down_proj", "E D W", "experts.down", "E W D"),
)

# By the `model_type` of config.json. A model uses its family's rows for the
# parameters that it has.
_QWEN2 = (*_COMMON, *_PRE, *_SPLIT, *_QKV_BIAS)
_LLAMA = (*_QWEN2, *_O_BIAS, *_MLP_BIAS)
_OLMO = (*_COMMON, *_POST, *_SPLIT, *_QKV_BIAS, *_O_BIAS, *_QK_NORM_OF_ALL)
_GEMMA2 = (*_COMMON, *_BOTH, *_SPLIT, *_QKV_BIAS, *_O_BIAS)
FAMILIES = {
  "qwen2": _QWEN2,
  "qwen3": (*_QWEN2, *_O_BIAS, *_QK_NORM),
  "qwen3_moe": (*_QWEN2, *_O_BIAS, *_QK_NORM, *_EXPERTS),
  "gpt_oss": (*_QWEN2, *_O_BIAS, *_GPT_OSS),
  "llama": _LLAMA,
  "phi3": (*_COMMON, *_PRE, *_FUSED),
  "mistral": (*_COMMON, *_PRE, *_SPLIT),
  "ministral": (*_COMMON, *_PRE, *_SPLIT),
  "ministral3": (*_COMMON, *_PRE, *_SPLIT),
  "granite": _LLAMA,
  "smollm3": _LLAMA,
  "olmo2": _OLMO,
  "olmo3": _OLMO,
  "gemma2": _GEMMA2,
  "gemma3_text": (*_GEMMA2, *_QK_NORM),
  "gemma4_text": (
    *(*_GEMMA2, *_QK_NORM),
    _layer("layer_scalar", "1", "factor", ""),
    *_BESIDE,
  ),
}


@dataclasses.dataclass(frozen=True)
class Entry:
  """A parameter of one model, and its place on disk.

  Attributes:
    name: the tensor's name.
    path: the parameter's path.
    row: the layouts of both.
    start: the parameter's offset on the tensor's first axis.
    sizes: sizes of axes in the parameter's layer, by letter.
    expert: the tensor's index on the parameter's first axis; None is all.
  """

  name: str
  path: Path
  row: Row
  start: int
  sizes: Mapping[str, int]
  expert: int | None = None


def sizes_of(config: ModelConfig) -> dict[str, int]:
  """Returns the size of each axis of a layer, by its letter."""
  experts = config.experts() or Mixture(experts=0, chosen=0, dim=0)
  return {
    "V": config.vocab_size,
    "D": config.embed_dim,
    "N": config.num_heads,
    "K": config.num_kv_heads,
    "H": config.head_dim,
    "F": config.mlp_dim,
    "O": config.embed_dim,
    "E": experts.experts,
    "W": experts.dim,
    "g": 2,
    "u": 2,
    "1": 1,
  }


def entries(config: ModelConfig, paths: Collection[Path]) -> list[Entry]:
  """Finds the tensor of each parameter.

  Args:
    config: its family's table is used.
    paths: paths of the model's parameters.

  Returns:
    The entries of each parameter: one, or one for each expert; parts of a
    tensor are in order.

  Raises:
    ValueError: a parameter has no row, or more than one.
  """
  table = FAMILIES[config.family]
  layers = [sizes_of(each) for each in config.layers()]
  result: list[Entry] = []
  ends: dict[str, int] = {}
  seen: dict[Path, str] = {}
  for row in table:
    for i in range(config.num_layers) if "{i}" in row.path else (0,):
      path = tuple(
        int(part) if part.isdigit() else part
        for part in row.path.format(i=i).split(".")
      )
      if path not in paths:
        continue
      if path in seen:
        raise ValueError(f"{path} is both {seen[path]} and {row.name}")
      seen[path] = row.name
      sizes = layers[i % config.period]
      for expert in range(sizes["E"]) if "{e}" in row.name else (None,):
        name = row.name.format(i=i, e=expert)
        start = 0 if take_turns(row) else ends.get(name, 0)
        ends[name] = start + _size(row.disk.split()[0], sizes)
        result.append(Entry(name, path, row, start, sizes, expert))
  if missing := sorted(map(str, set(paths) - set(seen))):
    raise ValueError(
      f"family {config.family!r} has no tensor for the parameters {missing}"
    )
  return result


def disk_shapes(found: Collection[Entry]) -> dict[str, tuple[int, ...]]:
  """Returns the shape of each tensor of the entries."""
  shapes = {}
  for entry in found:
    axes = entry.row.disk.split()
    first, *rest = (_size(axis, entry.sizes) for axis in axes)
    # The last part gives the size of the whole tensor.
    shapes[entry.name] = (entry.start + first, *rest)
  return shapes


def disk_index(entry: Entry, index: Index) -> Index:
  """Returns the block of a tensor that contains a block of the parameter.

  Args:
    entry: the parameter.
    index: slices of the parameter's axes.

  Returns:
    Slices of the tensor's axes. Of joint letters only the first is sliced;
    `from_disk` slices the others.
  """
  bounds = _bounds(entry, index)
  slices = []
  for axis in entry.row.disk.split():
    inner = _size(axis[1:], entry.sizes)
    low, high = bounds[axis[0]]
    slices.append(slice(low * inner, high * inner))
  first, *rest = slices
  first = slice(first.start + entry.start, first.stop + entry.start)
  return (first, *rest)


def from_disk(block: np.ndarray, entry: Entry, index: Index) -> np.ndarray:
  """Returns a block of `disk_index` in the parameter's layout."""
  row, bounds = entry.row, _bounds(entry, index)
  letters, shape, cuts = [], [], []
  for axis in row.disk.split():
    for place, letter in enumerate(axis):
      low, high = bounds[letter]
      letters.append(letter)
      shape.append(entry.sizes[letter] if place else high - low)
      cuts.append(slice(low, high) if place else slice(None))
  block = block.reshape(shape)[tuple(cuts)]
  kept = _axes(row)
  ones = tuple(i for i, letter in enumerate(letters) if letter not in kept)
  letters = [letter for letter in letters if letter in kept]
  return block.squeeze(ones).transpose([letters.index(x) for x in kept])


def to_disk(value: np.ndarray, entry: Entry) -> np.ndarray:
  """Returns a parameter in the tensor's layout; the inverse of `from_disk`.

  For alternating parameters, the last axis has this one's elements alone; for
  an expert's tensor, the value is that expert's.
  """
  row, here = entry.row, _axes(entry.row)
  order = [here.index(letter) for letter in row.disk if letter in here]
  shape = [_size(axis.strip("gu"), entry.sizes) for axis in row.disk.split()]
  return np.ascontiguousarray(value.transpose(order).reshape(shape))


def take_turns(row: Row) -> bool:
  """Returns whether this row alternates with the next one of its tensor."""
  return turning_axis(row) >= 0


def turning_axis(row: Row) -> int:
  """Returns the axis on which alternating rows are stacked; else -1."""
  letters = row.disk.replace(" ", "")
  return max(letters.find("g"), letters.find("u"))


def _axes(row: Row) -> list[str]:
  """Returns the parameter's axes that are in a tensor."""
  return [letter for letter in row.here.split() if letter in row.disk]


def _size(letters: str, sizes: Mapping[str, int]) -> int:
  return math.prod(sizes[letter] for letter in letters)


def _bounds(entry: Entry, index: Index) -> dict[str, tuple[int, int]]:
  bounds = {"1": (0, 1), "g": (0, 1), "u": (1, 2)}
  for letter, part in zip(entry.row.here.split(), index, strict=True):
    low, high, _ = part.indices(entry.sizes[letter])
    bounds[letter] = low, high
  return bounds
