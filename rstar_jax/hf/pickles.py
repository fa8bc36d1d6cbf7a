"""Reads PyTorch's pickled weights (.bin) without torch or running code.

`torch.save` writes a zip archive: `data.pkl` describes the tensors, and each
storage, with the values of one or more tensors, is an uncompressed file. A
pickle is a program that may call anything; here it may call only what a dict of
tensors needs, and any other name is refused. Python's own unpickler runs it,
whose dicts can be replaced: keys must be text, since a few tuples inside each
other take hours to hash.
"""

import contextlib
import io
import pathlib
import pickle
import zipfile
from collections.abc import Sequence
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from rstar_jax import outside
from rstar_jax.hf import tensors

FILES = tensors.Files(
  "pytorch_model.bin", "pytorch_model*.bin", "pytorch_model.bin.index.json"
)

_CONVERT = (
  "where torch is, save the model as safetensors, by transformers' "
  "from_pretrained(FOLDER).save_pretrained(OTHER)"
)
_DTYPES = {
  "FloatStorage": np.dtype(np.float32),
  "HalfStorage": np.dtype(np.float16),
  "BFloat16Storage": np.dtype(ml_dtypes.bfloat16),
  "DoubleStorage": np.dtype(np.float64),
}
# Storages of buffers and quantised weights -> bytes of an element.
_OTHERS = {
  "BoolStorage": 1,
  "ByteStorage": 1,
  "CharStorage": 1,
  "ShortStorage": 2,
  "IntStorage": 4,
  "LongStorage": 8,
}
# Most bytes of `data.pkl` and `byteorder`, and bytes of a local header in a zip
# archive.
_MOST, _ORDER, _HEADER = 1 << 26, 16, 30


# Named tuples, since a pickle could change the fields of other classes.
class _Storage(NamedTuple):
  """Values in a file: `count` elements of a type at a byte."""

  file: pathlib.Path
  kind: str
  start: int
  count: int


class _Tensor(NamedTuple):
  """A view of a storage; `offset` and `strides` count elements."""

  storage: _Storage
  offset: int
  shape: tuple[int, ...]
  strides: tuple[int, ...]


class PickledFolder:
  """The .bin files of a folder, as `tensors.Tensors`."""

  def __init__(self, folder: str | pathlib.Path):
    """Reads the tensors' descriptions.

    Raises:
      FileNotFoundError: there is no file, or one in the index is missing.
      ValueError: a file is damaged, has an older format, or holds anything but
        tensors.
    """
    self._tensors: dict[str, _Tensor] = {}
    for file in tensors.files_of(pathlib.Path(folder), FILES):
      self._tensors |= _read(file)

  def names(self) -> list[str]:
    return sorted(self._tensors)

  def shape(self, name: str) -> tuple[int, ...]:
    tensor = self._tensors[name]
    storage = tensor.storage
    if storage.kind not in _DTYPES:
      tensors.refuse_kind(storage.file, name, storage.kind)
    return tensor.shape

  def read(self, name: str, index: tensors.Index) -> np.ndarray:
    storage, first, shape, strides = self._tensors[name]
    rest = index
    if shape:
      # Only the requested rows are read.
      start, stop, _ = index[0].indices(shape[0])
      first += start * strides[0]
      shape = (max(stop - start, 0), *shape[1:])
      rest = (slice(None), *index[1:])
    count = _extent(shape, strides)
    dtype = _DTYPES[storage.kind]
    with storage.file.open("rb") as opened:
      opened.seek(storage.start + first * dtype.itemsize)
      values = np.fromfile(opened, dtype, count)
    steps = tuple(step * dtype.itemsize for step in strides)
    block = np.lib.stride_tricks.as_strided(values, shape, steps)[rest]
    tensors.check_finite(block, storage.file, name)
    return block


def _extent(shape: Sequence[int], strides: Sequence[int]) -> int:
  """Returns the number of elements of its storage that a view spans."""
  if 0 in shape:
    return 0
  pairs = zip(shape, strides, strict=True)
  return 1 + sum((size - 1) * step for size, step in pairs)


def _read(file: pathlib.Path) -> dict[str, _Tensor]:
  """Returns the tensors of a file by name."""
  try:
    with zipfile.ZipFile(file) as archive:
      (name,) = (n for n in archive.namelist() if n.endswith("/data.pkl"))
      if archive.getinfo(name).file_size > _MOST:
        raise ValueError("its description is too large")
      reader = _Reader(file, archive, name.removesuffix("data.pkl"))
      found = reader.load()
      if not isinstance(found, _Dict):
        raise ValueError("it holds no dict of tensors")
      for key, value in found.items():
        if not isinstance(value, _Tensor):
          raise ValueError(f"{key!r:.60} is no tensor")
      return dict(found)
  except Exception as error:
    # A damaged pickle may fail in any way.
    reason = outside.one_line(error)
    raise ValueError(
      f"{file} cannot be read ({reason:.200}): copy it again, or, {_CONVERT}"
    ) from None


class _Dict(dict):
  """A dict whose keys are text; others are neither hashed nor shown."""

  def __setitem__(self, key: Any, value: Any) -> None:
    if type(key) is not str:
      raise ValueError(f"it has a key of the type {type(key).__name__}")
    super().__setitem__(key, value)


class _Reader(pickle._Unpickler):
  """Runs an archive's `data.pkl` with access to tensors alone."""

  def __init__(self, file: pathlib.Path, archive: zipfile.ZipFile, top: str):
    super().__init__(io.BytesIO(archive.read(f"{top}data.pkl")))
    self._file, self._archive, self._top = file, archive, top
    with (
      contextlib.suppress(KeyError),
      archive.open(f"{top}byteorder") as order,
    ):
      if order.read(_ORDER) != b"little":
        raise ValueError("it has the byte order of another kind of machine")

  def find_class(self, module: str, name: str) -> Any:
    """Returns one of the few names that a dict of tensors needs."""
    if (module, name) == ("collections", "OrderedDict"):
      return self._dict
    if module == "torch" and name in _DTYPES | _OTHERS:
      return name
    if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
      # Methods, since a pickle could change the fields of functions.
      return self._tensor
    if (module, name) == ("torch._utils", "_rebuild_parameter"):
      return self._parameter
    raise ValueError(f"it names {module}.{name}, which is no tensor")

  def persistent_load(self, pid: Any) -> _Storage:
    """Returns a storage that the pickle names."""
    what, kind, key, _, count = pid
    if any(type(each) is not str for each in (what, kind, key)):
      raise ValueError("its storage has another form")
    size = _DTYPES[kind].itemsize if kind in _DTYPES else _OTHERS[kind]
    info = self._archive.getinfo(f"{self._top}data/{key}")
    sizes = {info.file_size, info.compress_size}
    whole = type(count) is int and sizes == {size * count}
    if what != "storage" or not whole:
      raise ValueError(f"its storage {key!r:.40} has another size or form")
    with self._file.open("rb") as opened:
      opened.seek(info.header_offset)
      header = opened.read(_HEADER)
    names = (header[26:28], header[28:30])
    start = info.header_offset + _HEADER
    start += sum(int.from_bytes(each, "little") for each in names)
    if start + size * count > self._file.stat().st_size:
      raise ValueError("it is cut short")
    return _Storage(self._file, kind, start, count)

  def _tensor(
    self, storage: Any, offset: Any, shape: Any, strides: Any, *_: Any
  ) -> _Tensor:
    """Returns a view of a storage, in place of torch's own function."""
    numbers = (offset, *shape, *strides)
    if not isinstance(storage, _Storage) or len(shape) != len(strides):
      raise ValueError("it has a tensor of another form")
    if any(type(each) is not int or each < 0 for each in numbers):
      raise ValueError("it has a tensor of another form")
    if offset + _extent(shape, strides) > storage.count:
      raise ValueError("it has a tensor beyond its storage")
    return _Tensor(storage, offset, tuple(shape), tuple(strides))

  def _parameter(self, tensor: Any, *_: Any) -> Any:
    """Returns the tensor of a parameter."""
    return tensor

  def _dict(self) -> _Dict:
    return _Dict()

  def _load_dict(self) -> None:
    self.append(_Dict())

  def _refuse(self) -> None:
    raise ValueError("it holds no dict of tensors")

  # By the byte of an instruction. Those that are refused hash what they are
  # given, or take as much memory as they name.
  dispatch = pickle._Unpickler.dispatch | {
    pickle.EMPTY_DICT[0]: _load_dict,
    pickle.DICT[0]: _refuse,
    pickle.FROZENSET[0]: _refuse,
    pickle.ADDITEMS[0]: _refuse,
    pickle.BYTEARRAY8[0]: _refuse,
  }
