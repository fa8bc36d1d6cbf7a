"""A model and a prefix cache for each group of searches that uses it.

The base of sampling (`engine.py`) and scoring (`ppm.py`).
"""

import contextlib
import dataclasses
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np

from rstar_jax.config.schema import EngineConfig
from rstar_jax.inference.prefix_cache import PrefixCache, spec_of
from rstar_jax.inference.slots import CachedCandidates
from rstar_jax.inference.weights import Busy, Programs, Weights
from rstar_jax.models.kernels import build
from rstar_jax.models.transformer import Transformer, reconfigured


@dataclasses.dataclass(frozen=True)
class Batch:
  """Paths that are on the device at the same time, one an item.

  Attributes:
    prefix_cache: the cache that has them.
    indices: each item's index among the requested paths.
    slots: each item's slot.
    versions: each slot's version while it has this path.
    lengths: each path's length in tokens.
  """

  prefix_cache: PrefixCache
  indices: list[int]
  slots: list[int]
  versions: list[int]
  lengths: list[int]

  def cache_candidates(
    self,
    rows: np.ndarray,
    source: Any,
    tokens: np.ndarray,
    usable: np.ndarray,
  ) -> None:
    """Records the candidates that a call has cached for its paths.

    Args:
      rows: int32 [B] items of the call, -1 for padding.
      source: keys and values [B, C, K, S, H]; None if the call returned none.
      tokens: int32 [B, C, S'].
      usable: int32 [B, C], tokens of each candidate that are in `source`.
    """
    if source is None:
      return
    for row, item in enumerate(rows):
      if item >= 0:
        cached = CachedCandidates(source, row, tokens[row], usable[row])
        self.prefix_cache.slots.cache_candidates(
          self.slots[item], self.versions[item], cached
        )


def _on_cpu(model: Transformer, mesh: jax.sharding.Mesh | None) -> Transformer:
  """Returns the model with the CPU kernels, compiled if need be."""
  devices = 1 if mesh is None else mesh.size
  backend = jax.default_backend()
  if backend != "cpu" or devices > 1:
    raise ValueError(
      f"engine.native=True is for one CPU device, and this is {backend} with a "
      f"mesh of {devices}: set it to False in another --workdir"
    )
  build.load()
  return reconfigured(model, native=True)


class CachedModel(Weights):
  """A model, and a prefix cache for each group of searches.

  Attributes:
    config: the shapes of device calls.
    programs: the programs that have been called.
    busy: runs while the device does.
    lock: taken while work is sent to the device.
    prefix_tokens: tokens of prefixes, without padding: what would be prefilled
      without prefix caches.
  """

  def __init__(
    self,
    model: Transformer,
    config: EngineConfig,
    *,
    what: str,
    slots: int = 0,
    room: int,
    mesh: jax.sharding.Mesh | None = None,
    reuse: bool = True,
    busy: Busy | None = None,
    lock: contextlib.AbstractContextManager | None = None,
  ):
    """Allocates nothing on the device before the first call.

    Args:
      model: with any head.
      config: shapes of device calls.
      what: names the programs' purpose in log lines.
      slots: paths in each prefix cache; 0 is the largest leaf bucket.
      room: most tokens that a candidate is padded to.
      mesh: the mesh of the model's parameters.
      reuse: False prefills every prefix from its first token.
      busy: None makes one.
      lock: None makes one; all users of a device share one.
    """
    super().__init__(_on_cpu(model, mesh) if config.native else model)
    self.config = config
    self.programs = Programs(what)
    self.busy = busy or Busy()
    self.lock = lock or threading.Lock()
    self.prefix_tokens = 0
    self._spec = spec_of(
      model.config, config, slots=slots, room=room, mesh=mesh, reuse=reuse
    )
    self._caches: dict[int, PrefixCache] = {}

  @property
  def path_tokens(self) -> dict[str, int]:
    """Returns `PrefixCache.tokens`, summed over all groups."""
    caches = self._caches.values()
    return {
      name: sum(each.tokens[name] for each in caches)
      for name in ("reused", "appended", "prefilled")
    }

  def load(self, params: Any) -> None:
    """Replaces the parameters; see `Weights.load`."""
    super().load(params)
    for group in self._caches:
      self.forget(group)

  def forget(self, group: int) -> None:
    """Empties a group's prefix cache: results no longer depend on the past."""
    if group in self._caches:
      self._caches[group].slots.reset()

  def _cache(self, group: int, longest: int = 0) -> PrefixCache:
    """Returns a group's cache, with room for paths of `longest` tokens."""
    if group not in self._caches:
      self._caches[group] = PrefixCache(self._spec, self.programs)
    self._caches[group].ensure(longest)
    return self._caches[group]

  def _batches(
    self,
    prefix_cache: PrefixCache,
    paths: Sequence[np.ndarray],
    room: int,
    *,
    hidden: bool,
  ) -> Iterator[Batch]:
    """Brings paths onto the device, as many at once as there are slots for.

    Args:
      prefix_cache: the cache to use.
      paths: int32 arrays.
      room: longest step that will follow, in tokens.
      hidden: whether the hidden state at the paths' last tokens is needed.

    Yields:
      Batches; the caller finishes with one before it asks for the next, which
      may overwrite its slots.
    """
    waiting = list(range(len(paths)))
    while waiting:
      moves = prefix_cache.place(
        self, [paths[i] for i in waiting], room, hidden=hidden
      )
      if len(moves) == len(waiting):
        # Their memory is freed before more is allocated.
        prefix_cache.slots.drop_candidates()
      slots = [each.slot for each in moves]
      indices = [waiting[each.index] for each in moves]
      yield Batch(
        prefix_cache,
        indices,
        slots,
        [prefix_cache.slots.version(slot) for slot in slots],
        [len(paths[i]) for i in indices],
      )
      waiting = sorted(set(waiting) - set(indices))
