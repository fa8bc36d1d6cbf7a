"""Tree expansion on the device: prefixes in, sampled steps out; ids only.

A prefix is seldom run as a whole. Each group of searches has a `Lane`, which
holds the paths of its trees and the candidates that were sampled last, so that
a prefix is mostly one of these and a few tokens more.
"""

import contextlib
import dataclasses
import functools
import threading
from collections.abc import Callable, Sequence

import jax
import numpy as np
from absl import logging
from flax import nnx

from rstar_jax.config import EngineConfig
from rstar_jax.generate import decoding, programs, sampler
from rstar_jax.generate import lane as lane_lib
from rstar_jax.generate.weights import Busy, Programs, Weights
from rstar_jax.models.transformer import Transformer


@dataclasses.dataclass(frozen=True)
class Generated:
  """One sampled step.

  Attributes:
    token_ids: the sampled ids, the stop id included.
    logprob: sum of their log-probabilities (nats), untempered.
    stopped: the stop id that ended it, -1 if the length did.
  """

  token_ids: tuple[int, ...]
  logprob: float
  stopped: int


@functools.partial(
  jax.jit, static_argnames=("graphdef", "path", "options", "banks")
)
def _expand(params, pool, *arrays, graphdef, **static):
  return programs.expand(nnx.merge(graphdef, params), pool, *arrays, **static)


@dataclasses.dataclass(frozen=True)
class _Call:
  """A call under way: which leaves, where, and what comes of it."""

  rows: np.ndarray
  indices: list[int]
  slots: list[int]
  versions: list[int]
  sampled: decoding.Sampled
  kept: object


class Engine(Weights):
  """Samples next steps of many leaves at once.

  Threads may share it, each with a lane of its own.

  Attributes:
    programs: those that have been asked for.
    busy: runs while the device does.
    lock: held while work is handed to the device.
    prefix_tokens: tokens of prefixes, padding not counted: what would be run
      without lanes.
    generated_tokens: sampled tokens.
    too_long: leaves whose prefix did not fit the largest bucket.
  """

  def __init__(
    self,
    model: Transformer,
    config: EngineConfig,
    *,
    stop_ids: Sequence[int],
    max_new_tokens: int | None = None,
    pad_id: int,
    stop_words: Sequence[Sequence[int]] = (),
    slots: int = 0,
    mesh: jax.sharding.Mesh | None = None,
    reuse: bool = True,
    busy: Busy | None = None,
    lock: contextlib.AbstractContextManager | None = None,
  ):
    """Makes an engine; nothing is compiled before the first call.

    Args:
      model: with an LM head.
      config: shapes and sampling.
      stop_ids: ids that end a step; they are part of it.
      max_new_tokens: longest step; None is config.max_step_tokens.
      pad_id: any id; fills.
      stop_words: runs of ids; a step ends with the token after one.
      slots: paths that a lane holds, as many as a group has trees; 0 is the
        largest leaf bucket.
      mesh: that the model's parameters are on.
      reuse: False runs every prefix from its beginning, for comparison.
      busy: None makes one.
      lock: None makes one; give the same to all that use the device.
    """
    super().__init__(model)
    self.config = config
    self.max_new_tokens = max_new_tokens or config.max_step_tokens
    self.busy = busy or Busy()
    self.lock = lock or threading.Lock()
    self.programs = Programs("expansion")
    self._options = decoding.Options(
      method=sampler.method_of(config),
      stop_ids=tuple(int(i) for i in stop_ids),
      stop_words=tuple(tuple(map(int, word)) for word in stop_words),
      max_new_tokens=self.max_new_tokens,
      pad_id=int(pad_id),
      least_rows=config.least_rows,
      attention=config.attention,
      mesh=mesh,
    )
    self._spec = lane_lib.Spec(
      model=model.config,
      engine=config,
      slots=max(slots, config.leaf_buckets[-1]),
      room=max(config.tail_buckets[-1], self.max_new_tokens),
      mesh=mesh,
      reuse=reuse,
    )
    longest = config.prefix_buckets[-1] + self.max_new_tokens
    if longest > model.config.max_length:
      logging.warning(
        "prefixes of up to %d tokens and steps of up to %d pass the model's "
        "max_length=%d",
        config.prefix_buckets[-1],
        self.max_new_tokens,
        model.config.max_length,
      )
    self._lanes: dict[int, lane_lib.Lane] = {}
    self.prefix_tokens = 0
    self.generated_tokens = 0
    self.too_long = 0

  @property
  def path_tokens(self) -> dict[str, int]:
    """Returns how prefixes came to be there; see `Lane.tokens`."""
    lanes = self._lanes.values()
    return {
      name: sum(each.tokens[name] for each in lanes)
      for name in ("kept", "committed", "prefilled")
    }

  def load(self, params) -> None:
    """Replaces the parameters; see `Weights.load`."""
    super().load(params)
    for each in self._lanes.values():
      each.slots.reset()

  def begin(self, lane: int) -> None:
    """Forgets what a lane holds, so that what follows is of itself alone."""
    if lane in self._lanes:
      self._lanes[lane].slots.reset()

  def expand(
    self,
    prefixes: Sequence[np.ndarray],
    seeds: np.ndarray,
    *,
    lane: int = 0,
    limits: Sequence[int] | None = None,
  ) -> list[list[Generated]]:
    """Samples C next steps of each prefix.

    A candidate depends on its prefix, its seed and the weights only, but for
    the last bits of floating point, which differ between shapes, and between a
    token that was run in a step and in a prefix.

    Args:
      prefixes: B int32 arrays [T_i], T_i at least 1. One longer than the
        largest prefix bucket gets empty candidates.
      seeds: uint32 [B, C].
      lane: whose paths to go on from; one thread at a time.
      limits: longest step of each leaf, from 1 to `max_new_tokens`, which is
        what None gives.

    Returns:
      B lists of C steps, in order.
    """
    seeds = np.asarray(seeds)
    self._check(prefixes, seeds, limits)
    if limits is None:
      limits = [self.max_new_tokens] * len(prefixes)
    empty = Generated((), 0.0, -1)
    results = [[empty] * seeds.shape[1] for _ in prefixes]
    largest = self.config.prefix_buckets[-1]
    fits = [i for i, each in enumerate(prefixes) if len(each) <= largest]
    if not fits:
      self.too_long += len(prefixes)
      return results
    with self.busy:
      with self.lock:
        held = self._lane(lane)
        calls = self._send(held, fits, prefixes, seeds, limits)
      for call in calls:
        out = jax.device_get(call.sampled)
        self._note(held, call, out)
        for row, item in enumerate(call.rows):
          if item >= 0:
            results[call.indices[item]] = _steps(out, row)
    with self.lock:
      self.too_long += len(prefixes) - len(fits)
      self.prefix_tokens += sum(len(prefixes[i]) for i in fits)
      self.generated_tokens += sum(
        len(step.token_ids) for row in results for step in row
      )
    return results

  def ahead(self, candidates: int) -> list[Callable[[], None]]:
    """Returns calls that each run programs of the calls to come, on padding.

    When all have been made, `expand` of so many candidates compiles nothing.

    Args:
      candidates: C.
    """
    held = self._lane(0)

    def expand(leaves, path):
      rows = np.full(leaves * held.slots.banks, -1)
      seeds = np.zeros((0, candidates), np.uint32)
      _, kept = self._sample(held, rows, [], [], [], seeds, [], path)
      if kept is not None:
        held.commit_ahead(kept)

    return held.ahead(self) + [
      functools.partial(expand, leaves, path)
      for leaves in held.sizes_up_to(
        self.config.most_tokens // (candidates * self.max_new_tokens)
      )
      for path in self.config.prefix_buckets
    ]

  def _keeps(self, candidates: int) -> bool:
    """Whether candidates of all slots may stay until the next leaves come."""
    tokens = self._spec.slots * candidates * self.max_new_tokens
    return self.config.commit and tokens <= self.config.most_tokens

  def _lane(self, number: int) -> lane_lib.Lane:
    if number not in self._lanes:
      self._lanes[number] = lane_lib.Lane(self._spec, self.programs)
    return self._lanes[number]

  def _send(
    self,
    held: lane_lib.Lane,
    waiting: list[int],
    prefixes: Sequence[np.ndarray],
    seeds: np.ndarray,
    limits: Sequence[int],
  ) -> list[_Call]:
    """Hands all work to the device, in as many waves as the slots take."""
    calls = []
    while waiting:
      paths = [prefixes[i] for i in waiting]
      moves = held.place(self, paths, self.max_new_tokens, hidden=True)
      if len(moves) == len(waiting):
        # Before more memory is asked for.
        held.slots.drop_kept()
      indices = [waiting[each.index] for each in moves]
      slots = [each.slot for each in moves]
      lengths = [len(prefixes[i]) for i in indices]
      size = seeds.shape[1] * self.max_new_tokens
      most = self.config.most_tokens // size
      for rows, path in held.calls(slots, lengths, size, most):
        out, kept = self._sample(
          held,
          rows,
          slots,
          lengths,
          indices,
          seeds,
          limits,
          path,
        )
        calls.append(
          _Call(
            rows,
            indices,
            slots,
            [held.slots.version(slot) for slot in slots],
            out,
            kept,
          )
        )
      placed = set(indices)
      waiting = [i for i in waiting if i not in placed]
    return calls

  def _sample(
    self, held, rows, slots, lengths, indices, seeds, limits, path
  ) -> tuple[decoding.Sampled, object]:
    """Hands one call to the device; rows of padding have a limit of 0."""
    chosen = np.zeros((len(rows), seeds.shape[1]), np.uint32)
    for row, item in enumerate(rows):
      if item >= 0:
        chosen[row] = seeds[indices[item]]
    self.programs.call(
      "expand", rows=len(rows), path=path, candidates=seeds.shape[1]
    )
    lengths = lane_lib.pick(lengths, rows)
    return _expand(
      self.params,
      held.pool,
      held.local(lane_lib.pick(slots, rows, -1)),
      lengths,
      lengths + self.max_new_tokens,
      chosen,
      lane_lib.pick([limits[i] for i in indices], rows),
      graphdef=self.graphdef,
      path=path,
      options=dataclasses.replace(
        self._options, keep=self._keeps(seeds.shape[1])
      ),
      banks=held.slots.banks,
    )

  def _note(
    self, held: lane_lib.Lane, call: _Call, out: decoding.Sampled
  ) -> None:
    """Keeps what was sampled at the ends of the paths."""
    if call.kept is None:
      return
    lane_lib.keep(
      held,
      call.kept,
      call.rows,
      call.slots,
      call.versions,
      out.tokens,
      # Of its last token nothing was computed.
      np.maximum(out.lengths - 1, 0),
    )

  def _check(self, prefixes, seeds, limits) -> None:
    if (
      seeds.dtype != np.uint32 or seeds.ndim != 2 or len(seeds) != len(prefixes)
    ):
      raise ValueError(
        f"seeds are {seeds.dtype} {seeds.shape}, not uint32 "
        f"({len(prefixes)}, candidates)"
      )
    for i, prefix in enumerate(prefixes):
      if len(prefix) == 0:
        raise ValueError(f"prefix {i} is empty: give at least one token")
    for i, limit in enumerate(limits or ()):
      if not 1 <= limit <= self.max_new_tokens:
        raise ValueError(
          f"limits[{i}] = {limit} is not in 1..{self.max_new_tokens}"
        )


def _steps(out: decoding.Sampled, row: int) -> list[Generated]:
  """Returns the steps of one leaf."""
  return [
    Generated(
      token_ids=tuple(tokens[:length].tolist()),
      logprob=float(logprob),
      stopped=int(stop),
    )
    for tokens, length, logprob, stop in zip(
      out.tokens[row],
      out.lengths[row],
      out.logprobs[row],
      out.stops[row],
      strict=True,
    )
  ]
