"""The prefix cache of one group of searches: its paths on the device.

`Slots` plans on the host which tokens are reused; `PrefixCache` carries the
plan out, in device calls of fixed shapes.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence

import jax
import numpy as np
from flax import nnx

from rstar_jax.config.schema import EngineConfig
from rstar_jax.inference import buckets, programs
from rstar_jax.inference.slots import CachedCandidates, Move, Slots
from rstar_jax.inference.weights import Programs, Weights
from rstar_jax.models import cache, sharding
from rstar_jax.models.config import ModelConfig


@functools.partial(
  jax.jit,
  static_argnames=("graphdef", "path", "data_shards"),
  donate_argnames="pool",
)
def _prefill(params, pool, *arrays, graphdef, **static):
  return programs.prefill(nnx.merge(graphdef, params), pool, *arrays, **static)


_append = jax.jit(
  programs.append, static_argnames="data_shards", donate_argnames="pool"
)
_fork = jax.jit(
  programs.fork, static_argnames="data_shards", donate_argnames="pool"
)


@dataclasses.dataclass(frozen=True)
class Spec:
  """Sizes of an engine's prefix caches and of its device calls.

  Attributes:
    model: shapes of the keys and values.
    engine: the buckets.
    slots: paths in each cache, at least the largest leaf bucket; see `spec_of`.
    room: most tokens that a candidate or a tail is padded to.
    mesh: the mesh of the model's parameters; None leaves placement to JAX.
    reuse: False prefills every path from its first token.
  """

  model: ModelConfig
  engine: EngineConfig
  slots: int
  room: int
  mesh: jax.sharding.Mesh | None = None
  reuse: bool = True

  @property
  def data_shards(self) -> int:
    """Returns the number of data shards: devices that hold different rows."""
    return sharding.row_shards(self.mesh)

  @property
  def count(self) -> int:
    """Returns the slots of a cache, rounded up to a multiple of the shards."""
    return -(-self.slots // self.data_shards) * self.data_shards

  @property
  def sizes(self) -> list[int]:
    """Returns the row counts that a data shard may have in a call."""
    return sorted(
      {max(each // self.data_shards, 1) for each in self.engine.leaf_buckets}
    )

  def sizes_up_to(self, most: int) -> list[int]:
    """Returns the sizes of calls of at most `most` rows, or the smallest."""
    fits = [each for each in self.sizes if each * self.data_shards <= most]
    return fits or self.sizes[:1]

  def most_sampled(self, candidates: int, size: int) -> int:
    """Returns the most leaves of a call that samples steps of `size` tokens."""
    return self.engine.most_tokens // (candidates * size)

  def most_scored(self, candidates: int) -> int:
    """Returns the most leaves of a call that scores `candidates` steps each."""
    return self.engine.score_rows // candidates

  def keeps(self, candidates: int, size: int) -> bool:
    """Says whether candidates stay cached until the next leaves are known."""
    tokens = self.slots * candidates * size
    fits = size <= self.room and tokens <= self.engine.most_tokens
    return self.engine.cache_candidates and fits


def spec_of(
  model: ModelConfig, engine: EngineConfig, *, slots: int, room: int, **options
) -> Spec:
  """Returns the spec of caches that are large enough for an engine's calls.

  Args:
    model: shapes of the keys and values.
    engine: the buckets.
    slots: paths in each cache; 0 is the largest leaf bucket.
    room: most tokens that a candidate is padded to.
    **options: mesh, reuse; see `Spec`.
  """
  return Spec(
    model=model,
    engine=engine,
    slots=max(slots, engine.leaf_buckets[-1]),
    room=max(engine.tail_buckets[-1], room),
    **options,
  )


class PrefixCache:
  """Keys and values of one model's paths, in slots; not thread-safe.

  Attributes:
    pool: the keys and values.
    slots: the host's record of which tokens each slot has.
    tokens: path tokens so far, by where they came from: "reused" from a slot,
      "appended" from cached candidates, or "prefilled".
  """

  def __init__(self, spec: Spec, programs: Programs):
    self.spec = spec
    self._programs = programs
    self.tokens = {"reused": 0, "appended": 0, "prefilled": 0}
    self._allocate(spec.engine.prefix_buckets[-1])

  def _allocate(self, length: int) -> None:
    spec = self.spec
    self.slots = Slots(spec.count, length, spec.data_shards)
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
    """Makes room for paths of `length` tokens; growing empties the cache."""
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
      weights: the model.
      paths: int32 arrays.
      room: longest step that will follow, in tokens.
      hidden: whether the hidden state at the paths' last tokens is needed.

    Returns:
      The moves of `Slots.place`, all carried out.
    """
    limit = self.spec.model.rope.original_length
    changes = self.spec.model.rope.kind == "longrope"
    moves = self.slots.place(
      paths,
      [int(changes and len(path) + room > limit) for path in paths],
      hidden=hidden,
      reuse=self.spec.reuse,
    )
    self._fork_paths(
      [each for each in moves if each.source not in (-1, each.slot)]
    )
    self._append([each for each in moves if each.candidate])
    self._prefill_tails(weights, moves, paths, room)
    for each in moves:
      self.tokens["reused"] += each.reused
      self.tokens["appended"] += each.appended
      self.tokens["prefilled"] += len(paths[each.index]) - each.start
    return moves

  def local(self, slots: np.ndarray) -> np.ndarray:
    """Returns indices in the slots' data shards; past the end for slot -1."""
    size = self.slots.count // self.slots.data_shards
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
      slots: one for each item, all different.
      lengths: path lengths; paths of similar length then share a call. None
        deals in order.
      step_cost: tokens of work of an item beside its path.
      most: most rows of a call; None is the largest leaf bucket.

    Returns:
      For each call int32 [B] items, -1 for rows of padding, and the path
      bucket (0 without lengths).
    """
    data_shards = self.slots.data_shards
    size = self.slots.count // data_shards
    return buckets.deal(
      [slot // size for slot in slots],
      data_shards,
      self.spec.sizes if most is None else self.spec.sizes_up_to(most),
      lengths,
      self.spec.engine.prefix_buckets,
      step_cost,
    )

  def warm_up_calls(self, weights: Weights) -> list[Callable[[], None]]:
    """Returns calls that each compile one program of `place`, on padding."""
    spec, data_shards = self.spec, self.slots.data_shards

    def fork(items):
      local = self.local(items)
      self._programs.call("fork", rows=len(items))
      self.pool = _fork(self.pool, local, local, data_shards=data_shards)

    def prefill(items, size, path):
      zeros = np.zeros(len(items), np.int32)
      tails = [()] * len(items)
      self._prefill(weights, path, items, zeros, tails, zeros, size)

    calls = []
    for rows in spec.sizes:
      items = np.full(rows * data_shards, -1)
      calls.append(functools.partial(fork, items))
      calls += [
        functools.partial(prefill, items, size, path)
        for size in spec.engine.tail_buckets
        for path in (0, *spec.engine.prefix_buckets)
      ]
    return calls

  def warm_up_append(self, candidates: cache.KeyValues) -> None:
    """Compiles the programs that append candidates of a call, on padding."""
    for rows in self.spec.sizes:
      items = np.full(rows * self.slots.data_shards, -1)
      self._put(candidates, items, *np.zeros((3, len(items)), np.int32))

  def _fork_paths(self, moves: list[Move]) -> None:
    """Copies paths to other slots."""
    for rows, _ in self.calls([each.slot for each in moves]):
      sources, targets = (
        self.local(pick([getattr(each, name) for each in moves], rows, -1))
        for name in ("source", "slot")
      )
      self._programs.call("fork", rows=len(rows))
      self.pool = _fork(
        self.pool, sources, targets, data_shards=self.slots.data_shards
      )

  def _append(self, moves: list[Move]) -> None:
    """Appends cached candidates to paths, those of one call together."""
    groups: dict[int, list[tuple[Move, CachedCandidates, int]]] = {}
    for each in moves:
      cached, column = each.candidate
      groups.setdefault(id(cached.source), []).append((each, cached, column))
    for group in groups.values():
      source = group[0][1].source
      size = source.keys[0].shape[0] // self.slots.data_shards
      for rows, _ in self.calls([each.slot for each, _, _ in group]):
        self._put(
          source,
          pick([each.slot for each, _, _ in group], rows, -1),
          pick([cached.row % size for _, cached, _ in group], rows),
          pick([column for _, _, column in group], rows),
          pick([each.reused for each, _, _ in group], rows),
        )

  def _put(
    self,
    source: cache.KeyValues,
    slots: np.ndarray,
    leaves: np.ndarray,
    columns: np.ndarray,
    starts: np.ndarray,
  ) -> None:
    """Appends candidates of one call; a slot of -1 is padding."""
    of, candidates, _, tokens, _ = source.keys[0].shape
    self._programs.call(
      "append", rows=len(slots), of=of, candidates=candidates, tokens=tokens
    )
    self.pool = _append(
      self.pool,
      source,
      self.local(slots),
      leaves,
      columns,
      starts,
      data_shards=self.slots.data_shards,
    )

  def _prefill_tails(
    self,
    weights: Weights,
    moves: list[Move],
    paths: Sequence[np.ndarray],
    room: int,
  ) -> None:
    """Prefills the tails, a chunk of each at a time."""
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
          self._prefill(
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

  def _prefill(
    self,
    weights: Weights,
    path: int,
    slots: np.ndarray,
    starts: np.ndarray,
    tails: Sequence[Sequence[int]],
    spans: np.ndarray,
    size: int,
  ) -> None:
    """Prefills tails of at most `size` tokens; a slot of -1 is padding."""
    tokens, counts = buckets.pad_rows(tails, (len(slots), size), 0)
    self._programs.call("prefill", rows=len(slots), tail=size, path=path)
    self.pool = _prefill(
      weights.params,
      self.pool,
      self.local(slots),
      starts,
      tokens,
      counts,
      spans,
      graphdef=weights.graphdef,
      path=path,
      data_shards=self.slots.data_shards,
    )


def pick(values: Sequence[int], rows: np.ndarray, fill: int = 0) -> np.ndarray:
  """Returns int32 values of a call's rows, `fill` for rows of padding."""
  return np.array([values[i] if i >= 0 else fill for i in rows], np.int32)
