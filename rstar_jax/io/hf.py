"""Hugging Face folders <-> our models: one table a family, used both ways.

Reads and writes config.json and safetensors. No torch, and no `transformers`
but to fetch a name from the hub.
"""

import dataclasses
import json
import math
import os
import pathlib
from collections.abc import Iterator, Mapping

import jax
import jax.numpy as jnp
import numpy as np
import safetensors
import safetensors.numpy
from flax import nnx

from rstar_jax.config import ModelConfig
from rstar_jax.models.sharding import to_host
from rstar_jax.models.transformer import Transformer

Path = tuple[str | int, ...]


@dataclasses.dataclass(frozen=True)
class Row:
  """One tensor, on disk and here.

  Axes are letters (D embed, N heads, K kv heads, H head dim, F mlp, V vocab, 1
  one); letters written together are one axis on disk. `{i}` is the layer.
  """

  name: str
  disk: str
  path: str
  here: str


def _layer(name: str, disk: str, path: str, here: str) -> Row:
  return Row(f"model.layers.{{i}}.{name}", disk, f"layers.{{i}}.{path}", here)


QWEN2 = (
  Row("model.embed_tokens.weight", "V D", "embedding", "V D"),
  _layer("input_layernorm.weight", "D", "attention_norm.scale", "D"),
  _layer("self_attn.q_proj.weight", "NH D", "attention.q", "D N H"),
  _layer("self_attn.k_proj.weight", "KH D", "attention.k", "D K H"),
  _layer("self_attn.v_proj.weight", "KH D", "attention.v", "D K H"),
  _layer("self_attn.o_proj.weight", "D NH", "attention.o", "N H D"),
  _layer("self_attn.q_proj.bias", "NH", "attention.q_bias", "N H"),
  _layer("self_attn.k_proj.bias", "KH", "attention.k_bias", "K H"),
  _layer("self_attn.v_proj.bias", "KH", "attention.v_bias", "K H"),
  _layer("post_attention_layernorm.weight", "D", "mlp_norm.scale", "D"),
  _layer("mlp.gate_proj.weight", "F D", "mlp.gate", "D F"),
  _layer("mlp.up_proj.weight", "F D", "mlp.up", "D F"),
  _layer("mlp.down_proj.weight", "D F", "mlp.down", "F D"),
  Row("model.norm.weight", "D", "norm.scale", "D"),
  Row("lm_head.weight", "V D", "lm_head", "V D"),
  Row("score.weight", "1 D", "score", "D"),
)

# By the `model_type` of config.json.
FAMILIES = {"qwen2": QWEN2}


def _sizes(config: ModelConfig) -> dict[str, int]:
  return {
    "V": config.vocab_size,
    "D": config.embed_dim,
    "N": config.num_heads,
    "K": config.num_kv_heads,
    "H": config.head_dim,
    "F": config.mlp_dim,
  }


def from_disk(
  tensor: np.ndarray, row: Row, sizes: Mapping[str, int]
) -> np.ndarray:
  """Returns a tensor of the file in our layout. Raises ValueError by shape."""
  expected = tuple(
    math.prod(sizes.get(letter, 1) for letter in axis)
    for axis in row.disk.split()
  )
  if tensor.shape != expected:
    raise ValueError(
      f"{row.name}: shape {tensor.shape}, but config.json says {expected}"
    )
  letters = row.disk.replace(" ", "").replace("1", "")
  order = [letters.index(letter) for letter in row.here.split()]
  return tensor.reshape([sizes[x] for x in letters]).transpose(order)


def to_disk(
  value: np.ndarray, row: Row, sizes: Mapping[str, int]
) -> np.ndarray:
  """Returns a value of ours as the file has it; the inverse of `from_disk`."""
  letters = row.disk.replace(" ", "").replace("1", "")
  order = [row.here.split().index(letter) for letter in letters]
  shape = [
    math.prod(sizes.get(letter, 1) for letter in axis)
    for axis in row.disk.split()
  ]
  return np.ascontiguousarray(value.transpose(order).reshape(shape))


def _rows(
  family: tuple[Row, ...], paths: set[Path], layers: int
) -> Iterator[tuple[str, Path, Row]]:
  """Yields (file's name, our path, row) of each of the model's parameters.

  Raises:
    ValueError: a parameter has no row, or more than one.
  """
  seen: dict[Path, str] = {}
  for row in family:
    for i in range(layers) if "{i}" in row.path else (0,):
      path = tuple(
        int(part) if part.isdigit() else part
        for part in row.path.format(i=i).split(".")
      )
      if path not in paths:
        continue
      name = row.name.format(i=i)
      if path in seen:
        raise ValueError(f"{path} is both {seen[path]} and {name}")
      seen[path] = name
      yield name, path, row
  if missing := sorted(map(str, paths - set(seen))):
    raise ValueError(f"the table has no row for the parameters {missing}")


def read_config(folder: str | pathlib.Path) -> tuple[ModelConfig, dict]:
  """Reads config.json.

  Returns:
    The model's config, and the file's own fields.

  Raises:
    ValueError: the file asks for something that the decoder does not do.
  """
  file = pathlib.Path(folder) / "config.json"
  fields = json.loads(file.read_text())
  family = fields.get("model_type")
  if family not in FAMILIES:
    raise ValueError(
      f"{file}: model_type={family!r}; known are {sorted(FAMILIES)}"
    )
  # transformers 5 moved the base of the frequencies into a dict.
  rope = fields.get("rope_parameters") or fields.get("rope_scaling") or {}
  kind = rope.get("rope_type", rope.get("type", "default"))
  for name, value, wanted in (
    ("rope_type", kind, "default"),
    ("hidden_act", fields.get("hidden_act", "silu"), "silu"),
    ("use_sliding_window", fields.get("use_sliding_window", False), False),
  ):
    if value != wanted:
      raise ValueError(f"{file}: {name}={value!r} is not {wanted!r}")
  heads = fields["num_attention_heads"]
  config = ModelConfig(
    vocab_size=fields["vocab_size"],
    num_layers=fields["num_hidden_layers"],
    embed_dim=fields["hidden_size"],
    num_heads=heads,
    num_kv_heads=fields.get("num_key_value_heads") or heads,
    head_dim=fields.get("head_dim") or fields["hidden_size"] // heads,
    mlp_dim=fields["intermediate_size"],
    rope_theta=float(
      rope.get("rope_theta", fields.get("rope_theta", 10_000.0))
    ),
    rms_eps=fields["rms_norm_eps"],
    qkv_bias=True,
    tied_embeddings=fields.get("tie_word_embeddings", False),
    max_length=fields["max_position_embeddings"],
  )
  return config, fields


def _config_fields(model: Transformer) -> dict:
  config = model.config
  if not config.qkv_bias:
    raise ValueError(
      "Qwen2ForCausalLM always has q, k, v biases: a model with "
      "qkv_bias=False cannot be written in its form"
    )
  fields = {
    "architectures": ["Qwen2ForCausalLM"],
    "model_type": "qwen2",
    "vocab_size": config.vocab_size,
    "num_hidden_layers": config.num_layers,
    "hidden_size": config.embed_dim,
    "num_attention_heads": config.num_heads,
    "num_key_value_heads": config.num_kv_heads,
    "head_dim": config.head_dim,
    "intermediate_size": config.mlp_dim,
    "hidden_act": "silu",
    "rope_theta": config.rope_theta,
    "rope_parameters": {
      "rope_theta": config.rope_theta,
      "rope_type": "default",
    },
    "rms_norm_eps": config.rms_eps,
    "tie_word_embeddings": config.tied_embeddings,
    "max_position_embeddings": config.max_length,
    "use_sliding_window": False,
    "torch_dtype": config.param_dtype,
  }
  if model.head != "lm":
    fields |= {
      "architectures": ["Qwen2ForSequenceClassification"],
      "num_labels": 1,
      "id2label": {"0": "LABEL_0"},
      "label2id": {"LABEL_0": 0},
      # transformers knows no tanh: its logit is our raw value.
      "rstar_head": model.head,
    }
  return fields


def _read_tensors(folder: pathlib.Path) -> dict[str, np.ndarray]:
  files = sorted(folder.glob("*.safetensors"))
  if not files:
    raise FileNotFoundError(f"{folder} has no .safetensors file")
  tensors: dict[str, np.ndarray] = {}
  for file in files:
    part = safetensors.numpy.load_file(file)
    if twice := sorted(part.keys() & tensors.keys()):
      raise ValueError(f"{file}: {twice} are in another file of {folder} too")
    tensors |= part
  return tensors


def _folder(name_or_folder: str | pathlib.Path) -> pathlib.Path:
  folder = pathlib.Path(name_or_folder)
  if folder.is_dir():
    return folder
  import huggingface_hub

  return pathlib.Path(
    huggingface_hub.snapshot_download(
      str(name_or_folder), allow_patterns=["*.json", "*.safetensors"]
    )
  )


def _load(folder: pathlib.Path, head: str, dtype: jnp.dtype) -> Transformer:
  config, fields = read_config(folder)
  name = jnp.dtype(dtype).name
  config = dataclasses.replace(config, dtype=name, param_dtype=name)
  graphdef, params = nnx.split(
    nnx.eval_shape(lambda: Transformer(config, head=head, rngs=nnx.Rngs(0)))
  )
  variables = dict(nnx.to_flat_state(params))
  tensors = _read_tensors(folder)
  rows = _rows(
    FAMILIES[fields["model_type"]], set(variables), config.num_layers
  )
  sizes = _sizes(config)
  for name, path, row in rows:
    if name not in tensors:
      raise ValueError(f"{folder}: the tensor {name} is missing")
    value = from_disk(tensors.pop(name), row, sizes)
    variables[path].set_value(jnp.asarray(value, dtype))
  if tensors:
    raise ValueError(
      f"{folder}: tensors that the model has no place for: {sorted(tensors)}"
    )
  return nnx.merge(graphdef, params)


def load_policy(
  name_or_folder: str | pathlib.Path, dtype: jnp.dtype = jnp.float32
) -> Transformer:
  """Loads a causal LM.

  Args:
    name_or_folder: a folder of config.json and safetensors, or a hub name.
    dtype: of the parameters and of the activations.

  Returns:
    A model with an LM head.

  Raises:
    ValueError: the file's tensors are not exactly the model's; names them.
  """
  return _load(_folder(name_or_folder), "lm", dtype)


def load_ppm(
  name_or_folder: str | pathlib.Path, dtype: jnp.dtype = jnp.float32
) -> Transformer:
  """Loads a PPM that `save_ppm` wrote. Arguments as of `load_policy`."""
  folder = _folder(name_or_folder)
  head = read_config(folder)[1].get("rstar_head")
  if head is None:
    raise ValueError(
      f"{folder}/config.json lacks rstar_head: it is no PPM of `save_ppm`"
    )
  return _load(folder, head, dtype)


def save_policy(model: Transformer, folder: str | pathlib.Path) -> None:
  """Writes a causal LM as `Qwen2ForCausalLM`; the same model, the same bytes.

  Args:
    model: with an LM head.
    folder: made if it is not there.
  """
  if model.head != "lm":
    raise ValueError(f"a model with head={model.head!r} is no policy")
  _save(model, pathlib.Path(folder))


def save_ppm(ppm: Transformer, folder: str | pathlib.Path) -> None:
  """Writes a PPM as `Qwen2ForSequenceClassification` with one label.

  Args:
    ppm: with a scalar head, whose form is kept as "rstar_head".
    folder: made if it is not there.
  """
  if ppm.head == "lm":
    raise ValueError("a model with an LM head is no PPM")
  _save(ppm, pathlib.Path(folder))


def _save(model: Transformer, folder: pathlib.Path) -> None:
  fields = _config_fields(model)
  values = {
    path: variable.get_value()
    for path, variable in nnx.to_flat_state(nnx.split(model)[1])
  }
  family = FAMILIES[fields["model_type"]]
  sizes = _sizes(model.config)
  tensors = {
    name: to_disk(to_host(values[path]), row, sizes)
    for name, path, row in _rows(family, set(values), model.config.num_layers)
  }
  if jax.process_index() != 0:
    return
  folder.mkdir(parents=True, exist_ok=True)
  # transformers before version 5 insists on "format".
  data = safetensors.numpy.save(
    dict(sorted(tensors.items())), metadata={"format": "pt"}
  )
  _write(folder / "model.safetensors", data)
  text = json.dumps(fields, indent=2, sort_keys=True) + "\n"
  _write(folder / "config.json", text.encode())


def _write(file: pathlib.Path, data: bytes) -> None:
  """Writes beside the file, then renames: a reader sees all of it or none."""
  partial = file.with_name(f"{file.name}.partial")
  with partial.open("wb") as stream:
    stream.write(data)
    stream.flush()
    os.fsync(stream.fileno())
  partial.rename(file)
