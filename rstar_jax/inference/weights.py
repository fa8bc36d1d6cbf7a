"""A model as an argument of compiled programs, and what running them takes."""

import threading
import time
from typing import Any

import jax
from absl import logging
from flax import nnx

from rstar_jax.models.transformer import Transformer


class Weights:
  """A module's parameters, as an argument of compiled programs.

  Attributes:
    graphdef: hashable, a static argument.
    params: may be replaced by `load`, at no recompilation.
  """

  def __init__(self, model: Transformer):
    self.graphdef, self.params = nnx.split(model)

  def load(self, params: Any) -> None:
    """Replaces the parameters.

    Args:
      params: a state of `nnx.split` of a model of the same config.

    Raises:
      ValueError: it is of another structure, shape or dtype.
    """
    old, new = (
      jax.tree.map(lambda x: (x.shape, x.dtype), tree)
      for tree in (self.params, params)
    )
    if old != new:
      raise ValueError(
        "the new parameters are not of the loaded model's shapes"
      )
    self.params = params


class Busy:
  """A clock that runs while anyone is inside; a context manager for threads.

  Attributes:
    seconds: wall time in which at least one thread was inside.
  """

  def __init__(self):
    self.seconds = 0.0
    self._inside = 0
    self._since = 0.0
    self._lock = threading.Lock()

  def __enter__(self) -> "Busy":
    with self._lock:
      if not self._inside:
        self._since = time.perf_counter()
      self._inside += 1
    return self

  def __exit__(self, *_) -> None:
    with self._lock:
      self._inside -= 1
      if not self._inside:
        self.seconds += time.perf_counter() - self._since


class Programs:
  """Which programs have been asked for, by their static shapes.

  Attributes:
    shapes: (name, size, ...) of each, in the order in which they came.
    calls: calls of all.
  """

  def __init__(self, what: str):
    self.shapes: list[tuple] = []
    self.calls = 0
    self._what = what

  def call(self, name: str, **sizes: int) -> None:
    """Counts a call, and logs a program that is new."""
    self.calls += 1
    shape = (name, *sizes.values())
    if shape not in self.shapes:
      self.shapes.append(shape)
      logging.info(
        "%s program %d: %s of %s",
        self._what,
        len(self.shapes),
        name,
        ", ".join(f"{size} {what}" for what, size in sizes.items()),
      )
