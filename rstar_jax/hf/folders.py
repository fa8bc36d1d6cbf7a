"""Loads models from Hugging Face folders and GGUF files.

It needs neither torch nor `transformers`: `model_config.py` reads sizes and
`families.py` has the names. Weights are read tensor by tensor, directly to
their devices.
"""

import contextlib
import dataclasses
import math
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from rstar_jax.hf import (
  adapters,
  families,
  finding,
  model_config,
  mxfp4,
  pickles,
  reward_heads,
  tensors,
)
from rstar_jax.hf.fields import Fields, read_json
from rstar_jax.hf.gguf import GgufFile
from rstar_jax.models import llama_form, sharding
from rstar_jax.models.config import ModelConfig
from rstar_jax.models.transformer import Path, Transformer, abstract
from rstar_jax.storage import store

# The base model that the package ships.
BASE_MODEL = pathlib.Path(__file__).parents[1] / "base_model"

# The field with the original family of a model that is saved as a Llama.
FORM_OF = "rstar_family"
# Dtypes that weights may be read in by their file's own field.
_DTYPES = ("float32", "bfloat16", "float16")
# Tensors of old files that are not weights.
_BUFFERS = ("rotary_emb.inv_freq", "attn.bias", "attn.masked_bias")


def load_policy(
  name_or_folder: str | store.Path,
  dtype: jnp.dtype | None = jnp.float32,
  **options: Any,
) -> Transformer:
  """Loads a causal LM.

  Args:
    name_or_folder: a folder with config.json and safetensors or .bin files
      (`pickles.py`); a GGUF file, or a folder with one; a PEFT adapter
      (`adapters.py`), which is merged into its base model; or a name on the
      Hub. A folder in a bucket (gs://) is copied temporarily.
    dtype: dtype of parameters and activations; None is the file's own.
    **options: `compute_dtype`, dtype of activations; `mesh`, which shards the
      parameters.

  Returns:
    A model with an LM head.

  Raises:
    ValueError: tensors are missing, unknown or of another shape; or the decoder
      does not compute the model. The message names them.
  """
  with _open(name_or_folder) as source:
    _check_is_policy(source)
    return _load(source, "lm", dtype, **options)


def _check_is_policy(source: "_Source") -> None:
  if reward_heads.HEAD in source.fields:
    raise ValueError(f"{source.where} is of a PPM, and a policy is wanted")


def check_policy(name_or_folder: str | store.Path) -> None:
  """Checks a causal LM without reading the values of its tensors.

  Raises:
    ValueError: see `load_policy`; raised early, before a run needs the model.
  """
  with _open(name_or_folder) as source:
    _check_is_policy(source)
    config = model_config.from_fields(source.fields, source.where)
    _planned(source, config, "lm")


def check_ppm(name_or_folder: str | store.Path) -> None:
  """Checks a PPM of this package without reading the values of its tensors.

  Raises:
    ValueError: see `load_ppm`; raised early, before a run needs the model.
  """
  with _open(name_or_folder) as source:
    head = _head_of_ppm(source)
    config = model_config.from_fields(source.fields, source.where)
    _planned(source, config, head)


def load_ppm(
  name_or_folder: str | store.Path,
  dtype: jnp.dtype | None = jnp.float32,
  **options: Any,
) -> Transformer:
  """Loads a PPM of this package, or a PPM's adapter; see `load_policy`."""
  with _open(name_or_folder) as source:
    return _load(source, _head_of_ppm(source), dtype, **options)


def _head_of_ppm(source: "_Source") -> Any:
  head = source.fields.get(reward_heads.HEAD)
  if head is None:
    raise ValueError(
      f"{source.where} lacks {reward_heads.HEAD}: it is not a PPM of ours; "
      "read it by `load_reward_model`"
    )
  if head not in ("tanh", "logit"):
    Fields(source.fields, source.where).refuse(
      reward_heads.HEAD, "'tanh' or 'logit'"
    )
  return head


def load_reward_model(
  name_or_folder: str | store.Path,
  dtype: jnp.dtype | None = jnp.float32,
  *,
  answers: tuple[int, int] | None = None,
  **options: Any,
) -> Transformer:
  """Loads a published reward model of the kinds in `reward_heads.py`.

  Args:
    name_or_folder: see `load_policy`.
    dtype: see `load_policy`; a head of two classes stays float32.
    answers: ids of the tokens with which a causal model calls a step good, and
      bad.
    **options: see `load_policy`.

  Returns:
    A model with values 2 p - 1 in [-1, 1], with p the probability that its
    input is good. Where there is no p, the value keeps the order of raw values
    in (-1, 1): tanh(raw / 5) of a classifier's single label, tanh(raw / 2) of
    Qwen2.5-Math-RM. A PPM of `save_ppm` keeps its own head.
  """
  with _open(name_or_folder) as source:
    config = model_config.from_fields(source.fields, source.where)
    head, weights = reward_heads.read(
      source.fields, config, source.tensors, source.where, answers
    )
    source = dataclasses.replace(source, tensors=weights)
    return _load(source, head, dtype, **options)


def read_config(
  name_or_folder: str | store.Path,
) -> tuple[ModelConfig, Mapping[str, Any]]:
  """Returns a model's config, and the fields of its config.json.

  An adapter's are its base model's.

  Args:
    name_or_folder: see `load_policy`.

  Raises:
    ValueError: the decoder does not compute the model.
  """
  with store.local(name_or_folder, finding.WEIGHTS) as place:
    path = finding.find(place, weights=False)
    if (base := _base_of(path)) is not None:
      return read_config(base)
    fields, _, where = _describe(path)
    return model_config.from_fields(fields, str(where)), fields


def merged_fields(name_or_folder: str | store.Path) -> Mapping[str, Any]:
  """Returns the fields of config.json; for an adapter, of the merged model."""
  if base_of_adapter(name_or_folder) is None:
    return read_config(name_or_folder)[1]
  with _open(name_or_folder) as source:
    return source.fields


@dataclasses.dataclass(frozen=True)
class _Source:
  """A model on disk: config fields, weights, and its name for errors."""

  fields: Mapping[str, Any]
  tensors: tensors.Tensors
  where: str


def base_of_adapter(name_or_folder: str | store.Path) -> str | None:
  """Returns the base model that an adapter names, None for other models.

  Args:
    name_or_folder: see `load_policy`.

  Raises:
    ValueError: the base is an adapter too, or there is none; or this package
      does not compute such an adapter.
  """
  with store.local(name_or_folder, finding.WEIGHTS) as place:
    return _base_of(finding.find(place, weights=False))


def _base_of(path: pathlib.Path) -> str | None:
  """Does what `base_of_adapter` does, for the local folder of a model."""
  if not adapters.is_adapter(path):
    return None
  base = adapters.base_of(path)
  with store.local(base, finding.WEIGHTS) as place:
    if adapters.is_adapter(finding.find(place, weights=False)):
      raise ValueError(
        f"{base} is the base model of an adapter, and an adapter itself: save "
        "it merged, and name that folder as the base"
      )
  return base


@contextlib.contextmanager
def _open(name_or_folder: str | store.Path) -> Iterator[_Source]:
  """Opens a model; see `load_policy`."""
  with store.local(name_or_folder) as place:
    path = finding.find(place)
    if (named := _base_of(path)) is not None:
      with _open(named) as base:
        yield _merged(base, path)
      return
    fields, weights, file = _describe(path)
    where = f"{name_or_folder}/{file.name}" if place != name_or_folder else file
    opened = weights or _weights(path)
    if "quantization_config" in fields:
      opened = mxfp4.Dequantized(opened)
    yield _Source(fields, opened, str(where))


def _weights(folder: pathlib.Path) -> tensors.Tensors:
  """Opens a folder's weights: safetensors, or else pickled ones."""
  older = any(folder.glob(pickles.FILES.pattern))
  if older and not any(folder.glob(tensors.FILES.pattern)):
    return pickles.PickledFolder(folder)
  return tensors.SafetensorsFolder(folder)


def _merged(base: _Source, folder: pathlib.Path) -> _Source:
  """Returns a base model merged with an adapter."""
  config = model_config.from_fields(base.fields, base.where)
  merged = adapters.Merged(base.tensors, folder, config.tied_embeddings)
  fields = dict(base.fields)
  if (rows := merged.replaced("model.embed_tokens.weight")) is not None:
    fields["vocab_size"] = rows
  if (labels := merged.replaced("score.weight")) is not None:
    fields["architectures"] = [model_config.classifier(config.family)]
    fields["num_labels"] = labels
  if head := merged.head():
    fields[reward_heads.HEAD] = head
  return _Source(fields, merged, str(folder))


def _describe(
  path: pathlib.Path,
) -> tuple[Mapping[str, Any], GgufFile | None, pathlib.Path]:
  """Returns a model's fields, its GGUF file or None, and the file read."""
  if file := finding.gguf_file(path):
    opened = GgufFile(file)
    return opened.fields, opened, file
  file = path / "config.json"
  # Some models have infinity in fields that are not read here.
  return read_json(file, constant=float), None, file


def _load(
  source: _Source,
  head: str,
  dtype: jnp.dtype | None,
  *,
  compute_dtype: jnp.dtype | None = None,
  mesh: jax.sharding.Mesh | None = None,
) -> Transformer:
  """Builds the model, and reads its parameters one by one.

  Args:
    source: the model on disk.
    head: see `Transformer`.
    dtype: dtype of the parameters; None is the file's own.
    compute_dtype: dtype of the activations; None is `dtype`.
    mesh: shards the parameters by `sharding.RULES`; for each device only its
      block is read. None is the default device.
  """
  config = model_config.from_fields(source.fields, source.where)
  if dtype is None:
    dtype = _own_dtype(source)
  name = jnp.dtype(dtype or jnp.float32).name
  config = dataclasses.replace(
    config, param_dtype=name, dtype=jnp.dtype(compute_dtype or name).name
  )
  graphdef, params, entries = _planned(source, config, head)
  variables = dict(nnx.to_flat_state(params))
  places = {}
  if mesh is not None:
    wanted = sharding.shardings(params, mesh)
    places = {
      path: variable.get_value() for path, variable in nnx.to_flat_state(wanted)
    }
  by_path: dict[Path, list[families.Entry]] = {}
  for entry in entries:
    by_path.setdefault(entry.path, []).append(entry)
  # The largest come first, while there is memory for copies.
  for path in sorted(
    by_path, key=lambda path: -variables[path].get_value().size
  ):
    variable = variables[path]
    shape = variable.get_value().shape
    dtype = variable.get_value().dtype
    read = _Reader(source.tensors, by_path[path], shape, dtype)
    if mesh is None:
      value = jax.device_put(read((slice(None),) * len(shape)))
    else:
      value = jax.make_array_from_callback(shape, places[path], read)
    # jax keeps the host's block until the transfer is done.
    variable.set_value(value.block_until_ready())
    del read
  model = nnx.merge(graphdef, params)
  if source.fields.get(FORM_OF) == "qwen2":
    return llama_form.to_qwen2(model)
  return model


def _own_dtype(source: _Source) -> str | None:
  """Returns the dtype that config.json names, None without one."""
  fields = Fields(source.fields, source.where)
  name = "dtype" if fields.value("dtype", None) else "torch_dtype"
  dtype = fields.value(name, None) or None
  if dtype not in (None, *_DTYPES):
    fields.refuse(name, f"one of {', '.join(_DTYPES)}: or give a dtype")
  return dtype


def _planned(
  source: _Source, config: ModelConfig, head: str
) -> tuple[nnx.GraphDef, nnx.State, list[families.Entry]]:
  """Returns a model without values, and its parameters' places on disk.

  Raises:
    ValueError: the tensors are not those of the model.
  """
  graphdef, params = abstract(config, head)
  paths = {path for path, _ in nnx.to_flat_state(params)}
  entries = families.entries(config, paths)
  _check(source, families.disk_shapes(entries), config)
  return graphdef, params, entries


class _Reader:
  """Reads blocks of a parameter; devices share equal blocks."""

  def __init__(
    self,
    source: tensors.Tensors,
    entries: Sequence[families.Entry],
    shape: tuple[int, ...],
    dtype: jnp.dtype,
  ):
    """Reads nothing yet.

    Args:
      source: the tensors on disk.
      entries: the parameter's.
      shape: of the parameter.
      dtype: of the blocks.
    """
    self._source, self._entries = source, entries
    self._shape, self._dtype = shape, dtype
    self._blocks: dict[tuple, np.ndarray] = {}

  def __call__(self, index: tensors.Index) -> np.ndarray:
    key = tuple(
      part.indices(size) for part, size in zip(index, self._shape, strict=True)
    )
    if key not in self._blocks:
      block = _empty([len(range(*part)) for part in key], self._dtype)
      if self._entries[0].expert is None:
        block[...] = self._read(self._entries[0], index)
      else:
        for own, entry in zip(block, self._entries[index[0]], strict=True):
          own[...] = self._read(entry, index)
      self._blocks[key] = block
    return self._blocks[key]

  def _read(self, entry: families.Entry, index: tensors.Index) -> np.ndarray:
    where = families.disk_index(entry, index)
    block = self._source.read(entry.name, where)
    return families.from_disk(block, entry, index)


def _empty(shape: Sequence[int], dtype: np.dtype) -> np.ndarray:
  """Returns an aligned array, which jax on a CPU uses without a copy."""
  alignment = 64
  size = math.prod(shape) * dtype.itemsize
  space = np.empty(size + alignment, np.uint8)
  start = -space.ctypes.data % alignment
  return space[start : start + size].view(dtype).reshape(shape)


def _check(
  source: _Source, shapes: Mapping[str, tuple[int, ...]], config: ModelConfig
) -> None:
  """Raises ValueError unless the tensors are exactly the model's."""
  where, weights = source.where, source.tensors
  names = {name for name in weights.names() if not name.endswith(_BUFFERS)}
  if missing := sorted(shapes.keys() - names):
    raise ValueError(f"{where}: tensors are missing: {_some(missing)}")
  left = sorted(names - shapes.keys())
  if config.tied_embeddings and "lm_head.weight" in left:
    # Some files store the tied matrix twice.
    left.remove("lm_head.weight")
    _check_tied(source)
  if left:
    raise ValueError(
      f"{where}: tensors that the model has no place for: {_some(left)}"
    )
  for name, expected in shapes.items():
    shape = weights.shape(name)
    if shape != expected:
      raise ValueError(f"{name}: shape {shape}, but {where} says {expected}")


def _check_tied(source: _Source) -> None:
  names = ("lm_head.weight", "model.embed_tokens.weight")
  rows = source.tensors.shape(names[0])[0]
  # In parts, so that the largest matrix is not twice in memory.
  for start in range(0, rows, 4096):
    index = (slice(start, min(start + 4096, rows)), slice(None))
    first, second = (source.tensors.read(name, index) for name in names)
    if not np.array_equal(first, second):
      raise ValueError(
        f"{source.where} says tie_word_embeddings, but {names[0]} is not "
        f"{names[1]}"
      )


def _some(names: list[str]) -> str:
  more = f" and {len(names) - 5} more" if len(names) > 5 else ""
  return ", ".join(names[:5]) + more
