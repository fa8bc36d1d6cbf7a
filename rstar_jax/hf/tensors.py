"""Reads blocks of tensors from safetensors files, and writes such files.

Integers, NaN and infinity are refused, since no model computes with them.
"""

import dataclasses
import json
import math
import os
import pathlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, BinaryIO, NamedTuple, NoReturn, Protocol

import ml_dtypes
import numpy as np
import safetensors

from rstar_jax.hf.fields import read_json
from rstar_jax.storage import json_io, store

INDEX = "model.safetensors.index.json"
_SINGLE = "model.safetensors"


# A block of a tensor: a slice of each axis.
Index = tuple[slice, ...]


class Files(NamedTuple):
  """The names of a folder's files of weights.

  Attributes:
    single: name of the file of a model in one file.
    pattern: glob pattern of all of them.
    index: name of the file that maps tensors to files.
  """

  single: str
  pattern: str
  index: str


FILES = Files(_SINGLE, "*.safetensors", INDEX)


# Names of dtypes in a file.
_DTYPES = {"bfloat16": "BF16", "float16": "F16", "float32": "F32"}
# Suffixes of the tensors of `mxfp4.py`: elements, and their scales.
PACKED = "_blocks", "_scales"
# Dtypes that are read.
_READ = (*_DTYPES.values(), "F64")
# Masks of the exponent's bits, which are all set in NaN and infinity alone.
_EXPONENTS = {
  np.dtype(np.float16): (np.uint16, 0x7C00),
  np.dtype(ml_dtypes.bfloat16): (np.uint16, 0x7F80),
  np.dtype(np.float32): (np.uint32, 0x7F800000),
  np.dtype(np.float64): (np.uint64, 0x7FF0000000000000),
}
# Elements checked at a time, so that they stay in the CPU's cache.
_LOOK = 1 << 18


@dataclasses.dataclass(frozen=True)
class Spec:
  """The dtype and the shape of a tensor."""

  dtype: np.dtype
  shape: tuple[int, ...]

  @property
  def nbytes(self) -> int:
    return self.dtype.itemsize * math.prod(self.shape)


class Tensors(Protocol):
  """Named tensors, read on demand."""

  def names(self) -> list[str]:
    """Returns the names, sorted."""
    ...

  def shape(self, name: str) -> tuple[int, ...]:
    """Returns a shape; raises ValueError unless the dtype is a float."""
    ...

  def read(self, name: str, index: Index) -> np.ndarray:
    """Returns a block of a tensor, in its stored dtype.

    Raises:
      ValueError: a value is NaN or infinite.
    """
    ...


class SafetensorsFolder:
  """The safetensors files of a folder, as `Tensors`."""

  def __init__(self, folder: str | pathlib.Path):
    """Reads the files' headers.

    Raises:
      FileNotFoundError: there is no file, or one in the index is missing.
      ValueError: a tensor is in two files, or a file is truncated.
    """
    folder = pathlib.Path(folder)
    self._files: dict[str, pathlib.Path] = {}
    for file in files_of(folder, FILES):
      try:
        with safetensors.safe_open(file, framework="np") as opened:
          names = list(opened.keys())
      except safetensors.SafetensorError as error:
        raise ValueError(
          f"{file} cannot be read ({error}): copy it again"
        ) from None
      if twice := sorted(self._files.keys() & set(names)):
        raise ValueError(f"{file}: {twice} are in another file of {folder} too")
      self._files |= dict.fromkeys(names, file)

  def names(self) -> list[str]:
    return sorted(self._files)

  def shape(self, name: str) -> tuple[int, ...]:
    file = self._files[name]
    with safetensors.safe_open(file, framework="np") as opened:
      found = opened.get_slice(name)
      packed = found.get_dtype() == "U8" and name.endswith(PACKED)
      if found.get_dtype() not in _READ and not packed:
        refuse_kind(file, name, found.get_dtype())
      return tuple(found.get_shape())

  def read(self, name: str, index: Index) -> np.ndarray:
    # Opened for each read: a mapped file keeps in memory all that was read from
    # it, in the end the whole model.
    file = self._files[name]
    with safetensors.safe_open(file, framework="np") as opened:
      block = opened.get_slice(name)[index]
    if block.dtype != np.uint8:
      check_finite(block, file, name)
    return block


def refuse_kind(file: pathlib.Path, name: str, kind: str) -> NoReturn:
  """Raises ValueError for a weight whose dtype is not a float."""
  raise ValueError(
    f"{file}: the tensor {name} is of the type {kind}: the weights are "
    "quantised, in a way that config.json does not say; give the model in "
    "bfloat16 or float32, or as a GGUF file"
  )


def check_finite(block: np.ndarray, file: pathlib.Path, name: str) -> None:
  """Raises ValueError if a value is NaN or infinite.

  Args:
    block: values of any floating-point dtype.
    file: the tensor's file, for the message.
    name: the tensor's name, for the message.
  """
  unsigned, exponent = _EXPONENTS[block.dtype]
  bits = block.view(unsigned).reshape(-1)
  for start in range(0, bits.size, _LOOK):
    some = bits[start : start + _LOOK] & unsigned(exponent)
    if some.max() == exponent:
      raise ValueError(
        f"{file}: the tensor {name} has values that are NaN or infinite: the "
        "file is damaged, or the training that wrote it diverged; take another "
        "copy, or an earlier checkpoint"
      )


def write(
  folder: pathlib.Path,
  specs: Mapping[str, Spec],
  parts: Iterable[np.ndarray],
  shard_bytes: int,
) -> None:
  """Writes tensors as one file, or as shards and an index.

  Equal tensors give equal bytes. A file is written under a temporary name and
  renamed when it is on the disk; other model files are removed.

  Args:
    folder: an existing folder.
    specs: dtypes and shapes by name.
    parts: values of all tensors in the order of `specs`, each in one or more
      parts along its first axis. One part is in memory at a time.
    shard_bytes: most bytes of a shard, unless it has a single tensor.

  Raises:
    ValueError: the parts of a tensor have another size or dtype.
  """
  shards = _shards(specs, shard_bytes)
  total = len(shards)
  names = [f"model-{i + 1:05}-of-{total:05}.safetensors" for i in range(total)]
  if total == 1:
    names = [_SINGLE]
  values = iter(parts)
  for file, shard in zip(names, shards, strict=True):
    write_file(folder / file, {name: specs[name] for name in shard}, values)
  stale = {each.name for each in folder.glob("*.safetensors")} - set(names)
  if total > 1:
    index = {
      "metadata": {"total_size": sum(each.nbytes for each in specs.values())},
      "weight_map": {
        name: file
        for file, shard in zip(names, shards, strict=True)
        for name in shard
      },
    }
    json_io.write(folder / INDEX, index)
  elif (folder / INDEX).exists():
    stale.add(INDEX)
  for name in stale:
    (folder / name).unlink()


def write_file(
  file: pathlib.Path,
  specs: Mapping[str, Spec],
  parts: Iterator[np.ndarray],
  **said: str,
) -> None:
  """Writes tensors and metadata as one file; see `write`."""
  partial = file.with_name(f"{file.name}.partial")
  with store.writing(file), partial.open("wb") as stream:
    stream.write(_header(specs, said))
    for name, spec in specs.items():
      _copy(parts, stream, name, spec)
    stream.flush()
    os.fsync(stream.fileno())
  partial.rename(file)


def said_of(file: pathlib.Path) -> Mapping[str, str]:
  """Returns a file's metadata; see `write_file`."""
  with safetensors.safe_open(file, framework="np") as opened:
    return opened.metadata() or {}


def _header(specs: Mapping[str, Spec], metadata: Mapping[str, str]) -> bytes:
  # transformers before version 5 requires "format".
  header: dict[str, Any] = {"__metadata__": {"format": "pt", **metadata}}
  start = 0
  for name, spec in specs.items():
    header[name] = {
      "dtype": _DTYPES[spec.dtype.name],
      "shape": list(spec.shape),
      "data_offsets": [start, start + spec.nbytes],
    }
    start += spec.nbytes
  text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
  # Values start at a multiple of 8 bytes.
  text += b" " * (-len(text) % 8)
  return len(text).to_bytes(8, "little") + text


def _copy(
  parts: Iterator[np.ndarray], stream: BinaryIO, name: str, spec: Spec
) -> None:
  left = spec.nbytes
  while left:
    part = next(parts, None)
    if part is None or part.dtype != spec.dtype or part.nbytes > left:
      raise ValueError(f"the parts of {name} do not make up its {spec}")
    left -= part.nbytes
    # As bytes, since streams cannot write bfloat16.
    stream.write(np.ascontiguousarray(part).reshape(-1).view(np.uint8))
    del part  # Before the next one is made.


def files_of(folder: pathlib.Path, names: Files) -> list[pathlib.Path]:
  """Returns a folder's files of weights.

  They are the index's if there is one, else the single file, else all.

  Raises:
    FileNotFoundError: there is none, or one in the index is missing.
    ValueError: the index cannot be read.
  """
  index = folder / names.index
  if index.exists():
    placed = read_json(index).get("weight_map")
    if not isinstance(placed, Mapping) or not all(
      isinstance(name, str) and pathlib.PurePath(name).name == name
      for name in placed.values()
    ):
      raise ValueError(
        f"{index} has no weight_map of names of files: copy it again"
      )
    files = [folder / name for name in sorted(set(placed.values()))]
  elif (folder / names.single).exists():
    files = [folder / names.single]
  else:
    files = sorted(folder.glob(names.pattern))
  if not files:
    raise FileNotFoundError(f"{folder} has no {names.pattern[1:]} file")
  if missing := [file.name for file in files if not file.exists()]:
    raise FileNotFoundError(
      f"{index} names {missing[0]}, which is not there"
      + (f", and {len(missing) - 1} more" if missing[1:] else "")
      + ": copy it to the folder, or the whole model again"
    )
  return files


def _shards(specs: Mapping[str, Spec], most: int) -> list[list[str]]:
  shards: list[list[str]] = [[]]
  room = most
  for name, spec in specs.items():
    if shards[-1] and spec.nbytes > room:
      shards.append([])
      room = most
    shards[-1].append(name)
    room -= spec.nbytes
  return shards
