"""Reads GGUF files, the quantised models of llama.cpp, as Hugging Face models.

The gguf package (the extra `gguf`) maps the file, names its tensors and
dequantises them. This module converts llama.cpp's conventions to those of
`transformers`: names, the order of rotary rows, and config.json.
"""

import pathlib

import numpy as np

from rstar_jax.hf import gguf_metadata, tensors

_OUTER = ("model.embed_tokens", "model.norm", "lm_head")
_INNER = (
  "input_layernorm",
  "self_attn.q_norm",
  "self_attn.k_norm",
  "self_attn.o_proj",
  "post_attention_layernorm",
  "mlp.down_proj",
)
_APART = (
  "self_attn.q_proj",
  "self_attn.k_proj",
  "self_attn.v_proj",
  "mlp.gate_proj",
  "mlp.up_proj",
)
_FUSED = ("self_attn.qkv_proj", "mlp.gate_up_proj")
_TABLES = (gguf_metadata.LLAMA3, gguf_metadata.SHORT, gguf_metadata.LONG)

# The first bytes of a file.
_MAGIC = b"GGUF"


class GgufFile:
  """A GGUF file, memory-mapped: tensors are read on demand.

  Attributes:
    metadata: the file's keys and values.
    fields: the model's config.json, in the form of transformers 5.
  """

  def __init__(self, path: str | pathlib.Path):
    """Opens a file and reads its metadata.

    Args:
      path: a .gguf file of one of `gguf_metadata.ARCHITECTURES`.

    Raises:
      ImportError: the gguf package is not installed.
      ValueError: the file is not a GGUF file, is one of several parts, or has a
        model that `transformers` does not have; the message gives the reason.
    """
    self.path = pathlib.Path(path)
    with self.path.open("rb") as file:
      if file.read(len(_MAGIC)) != _MAGIC:
        raise ValueError(f"{path} is neither a folder nor a GGUF file")
    self._library = _import_library()
    try:
      reader = self._library.GGUFReader(self.path)
    except (IndexError, KeyError, ValueError) as error:
      raise ValueError(
        f"{path}: the gguf package cannot read it: {error}"
      ) from error
    if reader.byte_order == "S":
      raise ValueError(f"{path} has the byte order of another kind of machine")
    self.metadata = gguf_metadata.Metadata(reader, self.path)
    if (parts := self.metadata.value("split.count", 1)) > 1:
      raise ValueError(
        f"{path} is one of {parts} parts: join them with `llama-gguf-split "
        "--merge` first"
      )
    if self.metadata.value(".expert_count", 0):
      raise ValueError(f"{path} is a mixture of experts: only dense ones load")
    self._tensors, tables = self._sort_tensors(reader.tensors)
    shapes = {name: self.shape(name) for name in self._tensors}
    self.fields = gguf_metadata.config_fields(self.metadata, shapes, tables)

  def names(self) -> list[str]:
    """Returns the tensors' Hugging Face names, sorted."""
    return sorted(self._tensors)

  def shape(self, name: str) -> tuple[int, ...]:
    """Returns a tensor's shape in Hugging Face's layout.

    Raises:
      KeyError: the file has no such tensor.
    """
    # GGUF lists axes from the innermost.
    return tuple(int(size) for size in reversed(self._tensor(name).shape))

  def read(self, name: str, index: tensors.Index) -> np.ndarray:
    """Reads a part of a tensor.

    Args:
      name: one of `names`.
      index: a slice for each axis, none of them empty. Only these rows are read
        and dequantised.

    Returns:
      float32, in the shape of `index`; perhaps a read-only view of the file.

    Raises:
      KeyError: the file has no such tensor.
      ValueError: the gguf package does not know the quantisation.
    """
    tensor = self._tensor(name)
    if (order := self._rotary_order(name)) is not None:
      index = (order[index[0]], *index[1:])
    # Blocks run along the last axis, which is therefore sliced afterwards.
    blocks = tensor.data[index[:-1]]
    try:
      values = self._library.dequantize(blocks, tensor.tensor_type)
    except NotImplementedError as error:
      raise ValueError(
        f"{self.path}: {name} is of the type {tensor.tensor_type.name}, which "
        "the gguf package does not dequantise"
      ) from error
    values = np.asarray(values[..., index[-1]])
    tensors.check_finite(values, self.path, name)
    return values

  def _tensor(self, name: str):
    if name not in self._tensors:
      raise KeyError(f"{self.path} has no tensor {name}")
    return self._tensors[name]

  def _sort_tensors(self, tensors) -> tuple[dict, dict[str, np.ndarray]]:
    """Returns weights by Hugging Face names, and tables by the file's names."""
    architecture = self.metadata.architecture
    layers = self.metadata.whole(".block_count", gguf_metadata.MOST)
    modules = _modules(self._library, architecture, layers)
    weights, tables, unknown = {}, {}, []
    for tensor in tensors:
      module, _, kind = tensor.name.rpartition(".")
      if tensor.name in _TABLES:
        tables[tensor.name] = tensor.data
      elif module in modules and kind in ("weight", "bias"):
        weights[f"{modules[module]}.{kind}"] = tensor
      else:
        unknown.append(tensor.name)
    if unknown:
      raise ValueError(
        f"{self.path}: tensors that no {architecture} model of `transformers` "
        f"has: {sorted(unknown)}"
      )
    return weights, tables

  def _rotary_order(self, name: str) -> np.ndarray | None:
    """Returns the file's row of each row of a tensor, None for the same order.

    In a head of H rows `transformers` rotates row i with row i + H / 2. For the
    architecture llama, llama.cpp rotates row 2i with row 2i + 1: the file has
    the halves of q's and k's heads interleaved.
    """
    heads = {
      "q_proj": "num_attention_heads",
      "k_proj": "num_key_value_heads",
    }.get(name.split(".")[-2])
    if self.metadata.architecture != "llama" or heads is None:
      return None
    rows = np.arange(self.shape(name)[0])
    pairs = rows.reshape(self.fields[heads], -1, 2)
    return pairs.swapaxes(1, 2).reshape(-1)


def _modules(library, architecture: str, layers: int) -> dict[str, str]:
  """Returns Hugging Face names of modules by llama.cpp's names."""
  known = {name: key for key, name in library.MODEL_ARCH_NAMES.items()}
  # The package's table maps many names to one, so it is inverted here.
  table = library.get_tensor_name_map(known[architecture], layers)
  inner = (*_INNER, *(_FUSED if architecture == "phi3" else _APART))
  modules = [
    *_OUTER,
    *(f"model.layers.{i}.{name}" for i in range(layers) for name in inner),
  ]
  return {
    name: module
    for module in modules
    if (name := table.get_name(module)) is not None
  }


def _import_library():
  try:
    import gguf as library
  except ImportError as error:
    raise ImportError(
      "GGUF files are read by the gguf package: pip install 'rstar_jax[gguf]'"
    ) from error
  return library
