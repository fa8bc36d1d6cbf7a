"""Reads blocks of tensors from safetensors files, and writes such files."""

import dataclasses
import json
import math
import os
import pathlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, BinaryIO, Protocol

import numpy as np
import safetensors

from rstar_jax import outside

INDEX = "model.safetensors.index.json"
_SINGLE = "model.safetensors"


# Names of dtypes in a file.
_DTYPES = {"bfloat16": "BF16", "float16": "F16", "float32": "F32"}


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

  def shape(self, name: str) -> tuple[int, ...]: ...

  def read(self, name: str, index: tuple[slice, ...]) -> np.ndarray:
    """Returns a block of a tensor, in its stored dtype."""
    ...


class SafetensorsFolder:
  """The safetensors files of a folder, as `Tensors`.

  It reads the files of the index if there is one, else model.safetensors, else
  all files.
  """

  def __init__(self, folder: str | pathlib.Path):
    """Reads the files' headers.

    Raises:
      FileNotFoundError: there is no file, or one of the index is missing.
      ValueError: a tensor is in two files, or a file is cut short.
    """
    folder = pathlib.Path(folder)
    self._files: dict[str, pathlib.Path] = {}
    for file in _files(folder):
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
    with safetensors.safe_open(self._files[name], framework="np") as opened:
      return tuple(opened.get_slice(name).get_shape())

  def read(self, name: str, index: tuple[slice, ...]) -> np.ndarray:
    # Opened each time: a mapped file keeps everything in memory that was read
    # from it, which would be the whole model at the end.
    with safetensors.safe_open(self._files[name], framework="np") as opened:
      return opened.get_slice(name)[index]


def write(
  folder: pathlib.Path,
  specs: Mapping[str, Spec],
  parts: Iterable[np.ndarray],
  shard_bytes: int,
) -> None:
  """Writes tensors as one file, or as shards and an index.

  The same tensors give the same bytes. A file is written under a temporary name
  and renamed when it is on the disk; other model files are removed.

  Args:
    folder: an existing folder.
    specs: dtypes and shapes by name.
    parts: the values of all tensors in the order of `specs`, each in one or
      several parts along its first axis. One part is in memory at a time.
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
    text = json.dumps(index, indent=2, sort_keys=True) + "\n"
    write_text(folder / INDEX, text)
  elif (folder / INDEX).exists():
    stale.add(INDEX)
  for name in stale:
    (folder / name).unlink()


def write_file(
  file: pathlib.Path, specs: Mapping[str, Spec], parts: Iterator[np.ndarray]
) -> None:
  """Writes tensors as one file; see `write`."""
  partial = _partial(file)
  with partial.open("wb") as stream:
    stream.write(_header(specs))
    for name, spec in specs.items():
      _copy(parts, stream, name, spec)
  _settle(partial, file)


def _header(specs: Mapping[str, Spec]) -> bytes:
  # transformers before version 5 requires "format".
  header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
  start = 0
  for name, spec in specs.items():
    header[name] = {
      "dtype": _DTYPES[spec.dtype.name],
      "shape": list(spec.shape),
      "data_offsets": [start, start + spec.nbytes],
    }
    start += spec.nbytes
  text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
  # The values begin at a multiple of 8 bytes.
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
    # As bytes, since streams do not know bfloat16.
    stream.write(np.ascontiguousarray(part).reshape(-1).view(np.uint8))
    del part  # Before the next one is made.


def write_text(file: pathlib.Path, text: str) -> None:
  """Writes a file atomically, by a temporary file and a rename."""
  partial = _partial(file)
  partial.write_text(text)
  _settle(partial, file)


def _partial(file: pathlib.Path) -> pathlib.Path:
  return file.with_name(f"{file.name}.partial")


def _settle(partial: pathlib.Path, file: pathlib.Path) -> None:
  with partial.open("rb") as stream:
    os.fsync(stream.fileno())
  partial.rename(file)


def _files(folder: pathlib.Path) -> list[pathlib.Path]:
  if (folder / INDEX).exists():
    index = outside.parse((folder / INDEX).read_bytes())
    files = [
      folder / name for name in sorted(set(index["weight_map"].values()))
    ]
  elif (folder / _SINGLE).exists():
    files = [folder / _SINGLE]
  else:
    files = sorted(folder.glob("*.safetensors"))
  if not files:
    raise FileNotFoundError(f"{folder} has no .safetensors file")
  for file in files:
    if not file.exists():
      raise FileNotFoundError(f"{folder / INDEX} names {file.name}: not there")
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
