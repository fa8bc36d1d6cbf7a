"""Tree expansion on the device: prefixes in, sampled steps out; ids only.

A prefix is seldom run as a whole. Each group of searches has a `Lane`, which
holds the paths of its trees and the candidates that were sampled last, so that
a prefix is mostly one of these and a few tokens more.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from absl import logging
from flax import nnx

from rstar_jax.config.schema import EngineConfig
from rstar_jax.inference import decoding, programs, sampler
from rstar_jax.inference.lane import pick
from rstar_jax.inference.lanes import Lanes, Wave
from rstar_jax.models import cache
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
  """A call under way: its rows are items of the wave, -1 for padding."""

  wave: Wave
  rows: np.ndarray
  sampled: decoding.Sampled
  kept: cache.KeyValues | None


class Engine(Lanes):
  """Samples next steps of many leaves at once.

  Threads may share it, each with a lane of its own; see `Lanes`.

  Attributes:
    max_new_tokens: longest step.
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
    mesh: jax.sharding.Mesh | None = None,
    **options: Any,
  ):
    """Makes an engine; nothing is compiled before the first call.

    Args:
      model: with an LM head.
      config: shapes and sampling.
      stop_ids: ids that end a step; they are part of it.
      max_new_tokens: longest step; None is config.max_step_tokens.
      pad_id: any id; fills.
      stop_words: runs of ids; a step ends with the token after one.
      mesh: that the model's parameters are on.
      **options: slots, reuse, busy, lock: see `Lanes`.
    """
    self.max_new_tokens = max_new_tokens or config.max_step_tokens
    super().__init__(
      model,
      config,
      what="expansion",
      room=self.max_new_tokens,
      mesh=mesh,
      **options,
    )
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
    longest = config.prefix_buckets[-1] + self.max_new_tokens
    if longest > model.config.max_length:
      logging.warning(
        "prefixes of up to %d tokens and steps of up to %d pass the model's "
        "max_length=%d",
        config.prefix_buckets[-1],
        self.max_new_tokens,
        model.config.max_length,
      )
    self.generated_tokens = 0
    self.too_long = 0

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
    with self.busy:
      with self.lock:
        calls = self._send(
          lane,
          [prefixes[i] for i in fits],
          seeds[fits],
          [limits[i] for i in fits],
        )
      for call in calls:
        out = jax.device_get(call.sampled)
        # Of its last token nothing was computed.
        usable = np.maximum(out.lengths - 1, 0)
        call.wave.keep(call.rows, call.kept, out.tokens, usable)
        for row, item in enumerate(call.rows):
          if item >= 0:
            results[fits[call.wave.indices[item]]] = _steps(out, row)
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
    none = Wave(held, [], [], [], [])

    def expand(leaves, path):
      rows = np.full(leaves * held.slots.banks, -1)
      seeds = np.zeros((0, candidates), np.uint32)
      _, kept = self._sample(none, rows, seeds, [], path)
      if kept is not None:
        held.commit_ahead(kept)

    return held.ahead(self) + [
      functools.partial(expand, leaves, path)
      for leaves in self._spec.sizes_up_to(
        self._spec.most_sampled(candidates, self.max_new_tokens)
      )
      for path in self.config.prefix_buckets
    ]

  def _send(
    self,
    lane: int,
    paths: Sequence[np.ndarray],
    seeds: np.ndarray,
    limits: Sequence[int],
  ) -> list[_Call]:
    """Hands all work to the device."""
    if not paths:
      return []
    held, calls = self._lane(lane), []
    shape = seeds.shape[1], self.max_new_tokens
    most = self._spec.most_sampled(*shape)
    for wave in self._waves(held, paths, self.max_new_tokens, hidden=True):
      for rows, path in held.calls(
        wave.slots, wave.lengths, math.prod(shape), most
      ):
        out = self._sample(wave, rows, seeds, limits, path)
        calls.append(_Call(wave, rows, *out))
    return calls

  def _sample(
    self,
    wave: Wave,
    rows: np.ndarray,
    seeds: np.ndarray,
    limits: Sequence[int],
    path: int,
  ) -> tuple[decoding.Sampled, cache.KeyValues | None]:
    """Hands one call to the device; rows of padding have a limit of 0."""
    candidates = seeds.shape[1]
    chosen = np.zeros((len(rows), candidates), np.uint32)
    real = rows >= 0
    chosen[real] = seeds[[wave.indices[item] for item in rows[real]]]
    self.programs.call(
      "expand", rows=len(rows), path=path, candidates=candidates
    )
    lengths = pick(wave.lengths, rows)
    return _expand(
      self.params,
      wave.lane.pool,
      wave.lane.local(pick(wave.slots, rows, -1)),
      lengths,
      lengths + self.max_new_tokens,
      chosen,
      pick([limits[i] for i in wave.indices], rows),
      graphdef=self.graphdef,
      path=path,
      options=dataclasses.replace(
        self._options, keep=self._spec.keeps(candidates, self.max_new_tokens)
      ),
      banks=wave.lane.slots.banks,
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
