"""A model with the lanes of all groups that use it.

What sampling (`engine.py`) and scoring (`ppm.py`) have in common.
"""

import contextlib
import dataclasses
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np

from rstar_jax.config.schema import EngineConfig
from rstar_jax.inference.lane import Lane, spec_of
from rstar_jax.inference.slots import Kept
from rstar_jax.inference.weights import Busy, Programs, Weights
from rstar_jax.models.kernels import build
from rstar_jax.models.transformer import Transformer, reconfigured


@dataclasses.dataclass(frozen=True)
class Wave:
  """Paths that are on the device at once.

  Attributes:
    lane: where they are.
    indices: which of the paths that were asked for, one an item.
    slots: of the items.
    versions: of the slots while they hold these paths.
    lengths: of the paths, in tokens.
  """

  lane: Lane
  indices: list[int]
  slots: list[int]
  versions: list[int]
  lengths: list[int]

  def keep(
    self,
    rows: np.ndarray,
    source: Any,
    tokens: np.ndarray,
    usable: np.ndarray,
  ) -> None:
    """Notes the candidates that a call made at the ends of its paths.

    Args:
      rows: int32 [B] items of the call, -1 for padding.
      source: keys and values [B, C, K, S, H]; None keeps nothing.
      tokens: int32 [B, C, S'].
      usable: int32 [B, C], tokens of each that `source` holds.
    """
    if source is None:
      return
    for row, item in enumerate(rows):
      if item >= 0:
        kept = Kept(source, row, tokens[row], usable[row])
        self.lane.slots.keep(self.slots[item], self.versions[item], kept)


def _on_cpu(model: Transformer, mesh: jax.sharding.Mesh | None) -> Transformer:
  """Returns the model with the kernels for CPUs, which are made if need be."""
  devices = 1 if mesh is None else mesh.size
  backend = jax.default_backend()
  if backend != "cpu" or devices > 1:
    raise ValueError(
      f"engine.native=True is for one CPU device, and this is {backend} with a "
      f"mesh of {devices}: set it to False"
    )
  build.load()
  return reconfigured(model, native=True)


class Lanes(Weights):
  """A model, and what the device holds of the paths of each group.

  Attributes:
    config: shapes.
    programs: those that have been asked for.
    busy: runs while the device does.
    lock: held while work is handed to the device.
    prefix_tokens: tokens of prefixes, padding not counted: what would be run
      without lanes.
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
    """Makes no lane yet.

    Args:
      model: any head.
      config: shapes.
      what: the programs are for, in the log.
      slots: paths that a lane holds; 0 is the largest leaf bucket.
      room: most tokens that a candidate is padded to.
      mesh: that the model's parameters are on.
      reuse: False runs every prefix from its beginning.
      busy: None makes one.
      lock: None makes one; give the same to all that use the device.
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
    self._lanes: dict[int, Lane] = {}

  @property
  def path_tokens(self) -> dict[str, int]:
    """Returns how prefixes came to be there; see `Lane.tokens`."""
    lanes = self._lanes.values()
    return {
      name: sum(each.tokens[name] for each in lanes)
      for name in ("kept", "committed", "prefilled")
    }

  def load(self, params: Any) -> None:
    """Replaces the parameters; see `Weights.load`."""
    super().load(params)
    for number in self._lanes:
      self.forget(number)

  def forget(self, lane: int) -> None:
    """Forgets what a lane holds, so that what follows is of itself alone."""
    if lane in self._lanes:
      self._lanes[lane].slots.reset()

  def _lane(self, number: int, longest: int = 0) -> Lane:
    """Returns a lane with room for paths of `longest` tokens."""
    if number not in self._lanes:
      self._lanes[number] = Lane(self._spec, self.programs)
    self._lanes[number].ensure(longest)
    return self._lanes[number]

  def _waves(
    self, lane: Lane, paths: Sequence[np.ndarray], room: int, *, hidden: bool
  ) -> Iterator[Wave]:
    """Brings paths onto the device, as many at once as there are slots for.

    Args:
      lane: where to.
      paths: int32 arrays.
      room: longest step that will follow, in tokens.
      hidden: whether the state at the paths' last tokens is wanted.

    Yields:
      Waves; what is to be done with one is done before the next is asked for.
    """
    waiting = list(range(len(paths)))
    while waiting:
      moves = lane.place(self, [paths[i] for i in waiting], room, hidden=hidden)
      if len(moves) == len(waiting):
        # Before more memory is asked for.
        lane.slots.drop_kept()
      slots = [each.slot for each in moves]
      indices = [waiting[each.index] for each in moves]
      yield Wave(
        lane,
        indices,
        slots,
        [lane.slots.version(slot) for slot in slots],
        [len(paths[i]) for i in indices],
      )
      waiting = sorted(set(waiting) - set(indices))
