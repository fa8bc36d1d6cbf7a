"""The paths that one group of searches holds on the device.

`Slots` says what is to be done; a lane does it, in calls of fixed shapes.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence

import jax
import numpy as np
from flax import nnx

from rstar_jax.config.schema import EngineConfig
from rstar_jax.inference import buckets, programs
from rstar_jax.inference.slots import Kept, Move, Slots
from rstar_jax.inference.weights import Programs, Weights
from rstar_jax.models import cache, sharding
from rstar_jax.models.config import ModelConfig


@functools.partial(
  jax.jit,
  static_argnames=("graphdef", "path", "banks"),
  donate_argnames="pool",
)
def _advance(params, pool, *arrays, graphdef, **static):
  return programs.advance(nnx.merge(graphdef, params), pool, *arrays, **static)


_commit = jax.jit(
  programs.commit, static_argnames="banks", donate_argnames="pool"
)
_fork = jax.jit(programs.fork, static_argnames="banks", donate_argnames="pool")


@dataclasses.dataclass(frozen=True)
class Spec:
  """What the lanes of an engine have in common, and the sizes of its calls.

  Attributes:
    model: whose keys and values they hold.
    engine: buckets.
    slots: of each lane, at least the largest leaf bucket; see `spec_of`.
    room: most tokens that a candidate or a tail is padded to.
    mesh: of the model's parameters; None is wherever they are.
    reuse: False runs every path from its beginning.
  """

  model: ModelConfig
  engine: EngineConfig
  slots: int
  room: int
  mesh: jax.sharding.Mesh | None = None
  reuse: bool = True

  @property
  def banks(self) -> int:
    """Returns how many devices hold different rows."""
    return sharding.row_shards(self.mesh)

  @property
  def count(self) -> int:
    """Returns the slots of a lane: as many in each bank."""
    return -(-self.slots // self.banks) * self.banks

  @property
  def sizes(self) -> list[int]:
    """Returns the numbers of rows that a bank may have in a call."""
    return sorted(
      {max(each // self.banks, 1) for each in self.engine.leaf_buckets}
    )

  def sizes_up_to(self, most: int) -> list[int]:
    """Returns those that give a call at most so many rows, or the least."""
    fits = [each for each in self.sizes if each * self.banks <= most]
    return fits or self.sizes[:1]

  def most_sampled(self, candidates: int, size: int) -> int:
    """Returns the most leaves in a call that samples steps of `size` tokens."""
    return self.engine.most_tokens // (candidates * size)

  def most_scored(self, candidates: int) -> int:
    """Returns the most leaves in a call that scores so many of each."""
    return self.engine.score_rows // candidates

  def keeps(self, candidates: int, size: int) -> bool:
    """Whether candidates of all slots may stay until the next leaves come."""
    tokens = self.slots * candidates * size
    fits = size <= self.room and tokens <= self.engine.most_tokens
    return self.engine.commit and fits


def spec_of(
  model: ModelConfig, engine: EngineConfig, *, slots: int, room: int, **options
) -> Spec:
  """Returns the spec of lanes that hold all that an engine may ask for.

  Args:
    model: whose keys and values they hold.
    engine: buckets.
    slots: paths that a lane holds; 0 is the largest leaf bucket.
    room: most tokens that a candidate is padded to.
    **options: mesh, reuse: see `Spec`.
  """
  return Spec(
    model=model,
    engine=engine,
    slots=max(slots, engine.leaf_buckets[-1]),
    room=max(engine.tail_buckets[-1], room),
    **options,
  )


class Lane:
  """Paths of one model, in slots; not thread-safe.

  Attributes:
    pool: their keys and values.
    slots: what they are.
    tokens: how many tokens of paths were "kept" where they were, "committed"
      from candidates and "prefilled", since the lane was made.
  """

  def __init__(self, spec: Spec, programs: Programs):
    self.spec = spec
    self._programs = programs
    self.tokens = {"kept": 0, "committed": 0, "prefilled": 0}
    self._allocate(spec.engine.prefix_buckets[-1])

  def _allocate(self, length: int) -> None:
    spec = self.spec
    self.slots = Slots(spec.count, length, spec.banks)
    make = functools.partial(
      cache.empty_pool, spec.model, spec.count, length + spec.room
    )
    if spec.mesh is None:
      self.pool = make()
      return
    shardings = jax.tree.map(
      lambda x: sharding.cache_sharding(spec.mesh, x.shape),
      jax.eval_shape(make),
    )
    self.pool = jax.jit(make, out_shardings=shardings)()

  def ensure(self, length: int) -> None:
    """Makes room for paths of a length; what is held is lost where it grows."""
    if length > self.slots.length:
      self._allocate(buckets.bucket_of(length, self.spec.engine.prefix_buckets))

  def place(
    self,
    weights: Weights,
    paths: Sequence[np.ndarray],
    room: int,
    *,
    hidden: bool,
  ) -> list[Move]:
    """Brings as many paths onto the device as there are slots for.

    Args:
      weights: of the model.
      paths: int32 arrays.
      room: longest step that will follow, in tokens.
      hidden: whether the state at the paths' last tokens is wanted.

    Returns:
      See `Slots.place`; the moves have been carried out.
    """
    limit = self.spec.model.rope.original_length
    changes = self.spec.model.rope.kind == "longrope"
    moves = self.slots.place(
      paths,
      [int(changes and len(path) + room > limit) for path in paths],
      hidden=hidden,
      reuse=self.spec.reuse,
    )
    self._copy([each for each in moves if each.source not in (-1, each.slot)])
    self._commit([each for each in moves if each.candidate])
    self._run(weights, moves, paths, room)
    for each in moves:
      self.tokens["kept"] += each.kept
      self.tokens["committed"] += each.committed
      self.tokens["prefilled"] += len(paths[each.index]) - each.start
    return moves

  def local(self, slots: np.ndarray) -> np.ndarray:
    """Returns places in their bank; past its end where a slot is -1."""
    size = self.slots.count // self.slots.banks
    return np.where(slots < 0, size, slots % size).astype(np.int32)

  def calls(
    self,
    slots: Sequence[int],
    lengths: Sequence[int] | None = None,
    step_cost: int = 0,
    most: int | None = None,
  ) -> list[tuple[np.ndarray, int]]:
    """Deals items to device calls; see `buckets.deal`.

    Args:
      slots: of the items, all different.
      lengths: of their paths, so that those alike share a call; None deals in
        order.
      step_cost: tokens of work that an item is beside its path.
      most: rows of a call; None is the largest leaf bucket.

    Returns:
      For each call int32 [B] items, -1 for rows of padding, and the path
      bucket (0 without lengths).
    """
    banks = self.slots.banks
    size = self.slots.count // banks
    return buckets.deal(
      [slot // size for slot in slots],
      banks,
      self.spec.sizes if most is None else self.spec.sizes_up_to(most),
      lengths,
      self.spec.engine.prefix_buckets,
      step_cost,
    )

  def ahead(self, weights: Weights) -> list[Callable[[], None]]:
    """Returns calls that each run a program that makes paths, on padding."""
    spec, banks = self.spec, self.slots.banks

    def fork(items):
      local = self.local(items)
      self._programs.call("fork", rows=len(items))
      self.pool = _fork(self.pool, local, local, banks=banks)

    def advance(items, size, path):
      zeros = np.zeros(len(items), np.int32)
      tails = [()] * len(items)
      self._advance(weights, path, items, zeros, tails, zeros, size)

    calls = []
    for rows in spec.sizes:
      items = np.full(rows * banks, -1)
      calls.append(functools.partial(fork, items))
      calls += [
        functools.partial(advance, items, size, path)
        for size in spec.engine.tail_buckets
        for path in (0, *spec.engine.prefix_buckets)
      ]
    return calls

  def commit_ahead(self, kept: cache.KeyValues) -> None:
    """Runs the programs that commit candidates of a call, on padding."""
    for rows in self.spec.sizes:
      items = np.full(rows * self.slots.banks, -1)
      self._put(kept, items, *np.zeros((3, len(items)), np.int32))

  def _copy(self, moves: list[Move]) -> None:
    """Copies paths to other slots."""
    for rows, _ in self.calls([each.slot for each in moves]):
      sources, targets = (
        self.local(pick([getattr(each, name) for each in moves], rows, -1))
        for name in ("source", "slot")
      )
      self._programs.call("fork", rows=len(rows))
      self.pool = _fork(self.pool, sources, targets, banks=self.slots.banks)

  def _commit(self, moves: list[Move]) -> None:
    """Copies candidates to the ends of paths, those of one call together."""
    groups: dict[int, list[tuple[Move, Kept, int]]] = {}
    for each in moves:
      kept, column = each.candidate
      groups.setdefault(id(kept.source), []).append((each, kept, column))
    for group in groups.values():
      source = group[0][1].source
      size = source.keys[0].shape[0] // self.slots.banks
      for rows, _ in self.calls([each.slot for each, _, _ in group]):
        self._put(
          source,
          pick([each.slot for each, _, _ in group], rows, -1),
          pick([kept.row % size for _, kept, _ in group], rows),
          pick([column for _, _, column in group], rows),
          pick([each.kept for each, _, _ in group], rows),
        )

  def _put(
    self,
    source: cache.KeyValues,
    slots: np.ndarray,
    leaves: np.ndarray,
    columns: np.ndarray,
    starts: np.ndarray,
  ) -> None:
    """Commits candidates of one call; a slot of -1 is padding."""
    of, candidates, _, tokens, _ = source.keys[0].shape
    self._programs.call(
      "commit", rows=len(slots), of=of, candidates=candidates, tokens=tokens
    )
    self.pool = _commit(
      self.pool,
      source,
      self.local(slots),
      leaves,
      columns,
      starts,
      banks=self.slots.banks,
    )

  def _run(
    self,
    weights: Weights,
    moves: list[Move],
    paths: Sequence[np.ndarray],
    room: int,
  ) -> None:
    """Runs the tails, a chunk of each at a time."""
    sizes = self.spec.engine.tail_buckets
    slots = [each.slot for each in moves]
    tails = [paths[each.index][each.start :] for each in moves]
    starts = [each.start for each in moves]
    spans = [len(paths[each.index]) + room for each in moves]
    while any(map(len, tails)):
      for size in sizes:
        chosen = [
          i
          for i, tail in enumerate(tails)
          if len(tail)
          and buckets.bucket_of(min(len(tail), sizes[-1]), sizes) == size
        ]
        for rows, _ in self.calls([slots[i] for i in chosen]):
          items = np.array([*chosen, -1])[rows]
          path = max(starts[i] for i in items if i >= 0)
          path = path and buckets.bucket_of(
            path, self.spec.engine.prefix_buckets
          )
          self._advance(
            weights,
            path,
            pick(slots, items, -1),
            pick(starts, items),
            [tails[i][:size] if i >= 0 else () for i in items],
            pick(spans, items),
            size,
          )
      starts = [
        start + min(len(tail), sizes[-1])
        for start, tail in zip(starts, tails, strict=True)
      ]
      tails = [tail[sizes[-1] :] for tail in tails]

  def _advance(
    self,
    weights: Weights,
    path: int,
    slots: np.ndarray,
    starts: np.ndarray,
    tails: Sequence[Sequence[int]],
    spans: np.ndarray,
    size: int,
  ) -> None:
    """Runs tails of at most `size` tokens; a slot of -1 is padding."""
    tokens, counts = buckets.pad_rows(tails, (len(slots), size), 0)
    self._programs.call("advance", rows=len(slots), tail=size, path=path)
    self.pool = _advance(
      weights.params,
      self.pool,
      self.local(slots),
      starts,
      tokens,
      counts,
      spans,
      graphdef=weights.graphdef,
      path=path,
      banks=self.slots.banks,
    )


def pick(values: Sequence[int], rows: np.ndarray, fill: int = 0) -> np.ndarray:
  """Returns int32 values of the rows of a call, `fill` for padding."""
  return np.array([values[i] if i >= 0 else fill for i in rows], np.int32)
