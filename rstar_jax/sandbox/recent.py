"""A dictionary of limited size, which drops what was used longest ago."""

import collections
from typing import Generic, TypeVar

_Key, _Value = TypeVar("_Key"), TypeVar("_Value")


class Recent(Generic[_Key, _Value]):
  """The last values that were put or found; not thread-safe.

  Args:
    size: most entries, at least 0.
  """

  def __init__(self, size: int):
    self._size = size
    self._values: collections.OrderedDict[_Key, _Value] = (
      collections.OrderedDict()
    )

  def __contains__(self, key: _Key) -> bool:
    return key in self._values

  def __getitem__(self, key: _Key) -> _Value:
    """Returns the value of a known key, which counts as a use."""
    self._values.move_to_end(key)
    return self._values[key]

  def __setitem__(self, key: _Key, value: _Value) -> None:
    self._values[key] = value
    self._values.move_to_end(key)
    while len(self._values) > self._size:
      self._values.popitem(last=False)
