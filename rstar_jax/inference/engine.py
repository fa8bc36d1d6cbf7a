"""Tree expansion on the device: prefixes in, sampled steps out; ids only.

Each group of searches has a `PrefixCache` with the paths of its trees and the
candidates sampled last, so that most of a prefix needs no prefill.
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
from rstar_jax.inference.cached_model import Batch, CachedModel
from rstar_jax.inference.prefix_cache import pick
from rstar_jax.models import cache
from rstar_jax.models.transformer import Transformer


@dataclasses.dataclass(frozen=True)
class Generated:
  """One sampled step.

  Attributes:
    token_ids: sampled ids, with the stop id.
    logprob: sum of the tokens' log-probabilities at temperature 1, in nats.
    stopped: the stop id that ended the step, -1 if its length did.
  """

  token_ids: tuple[int, ...]
  logprob: float
  stopped: int


@functools.partial(
  jax.jit, static_argnames=("graphdef", "path", "options", "data_shards")
)
def _expand(params, pool, *arrays, graphdef, **static):
  return programs.expand(nnx.merge(graphdef, params), pool, *arrays, **static)


@dataclasses.dataclass(frozen=True)
class _Call:
  """A call under way; its rows are items of the batch, -1 for padding."""

  batch: Batch
  rows: np.ndarray
  sampled: decoding.Sampled
  cached: cache.KeyValues | None


class Engine(CachedModel):
  """Samples next steps of many leaves at once.

  Threads may share an engine, each with a group of its own; see `CachedModel`.

  Attributes:
    max_new_tokens: longest step, in tokens.
    generated_tokens: tokens sampled so far.
    too_long: leaves so far whose prefix did not fit the largest bucket.
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
      stop_ids: ids that end a step, and belong to it.
      max_new_tokens: longest step; None is config.max_step_tokens.
      pad_id: any id; pads token arrays.
      stop_words: sequences of ids; a step ends with the token after one.
      mesh: the mesh of the model's parameters.
      **options: slots, reuse, busy, lock; see `CachedModel`.
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
        "prefixes of up to %d tokens and steps of up to %d exceed the model's "
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
    group: int = 0,
    limits: Sequence[int] | None = None,
  ) -> list[list[Generated]]:
    """Samples C next steps of each prefix.

    A candidate depends on its prefix, its seed and the weights alone, up to
    floating-point rounding: that depends on the shapes, and on whether a token
    was computed in a step or in a prefix.

    Args:
      prefixes: B int32 arrays [T_i], T_i at least 1. A prefix longer than the
        largest bucket gets empty candidates.
      seeds: uint32 [B, C].
      group: selects the prefix cache; one thread at a time.
      limits: longest step of each leaf, 1 to `max_new_tokens`; None is
        `max_new_tokens` for all.

    Returns:
      B lists of C steps.

    Raises:
      ValueError: an empty prefix, or seeds or limits that do not fit.
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
          group,
          [prefixes[i] for i in fits],
          seeds[fits],
          [limits[i] for i in fits],
        )
      for call in calls:
        out = jax.device_get(call.sampled)
        # The last token has no cache entry.
        usable = np.maximum(out.lengths - 1, 0)
        call.batch.cache_candidates(call.rows, call.cached, out.tokens, usable)
        for row, item in enumerate(call.rows):
          if item >= 0:
            results[fits[call.batch.indices[item]]] = _steps(out, row)
    with self.lock:
      self.too_long += len(prefixes) - len(fits)
      self.prefix_tokens += sum(len(prefixes[i]) for i in fits)
      self.generated_tokens += sum(
        len(step.token_ids) for row in results for step in row
      )
    return results

  def warm_up_calls(self, candidates: int) -> list[Callable[[], None]]:
    """Returns calls that each compile programs of `expand`, on padding.

    After all of them `expand` compiles nothing for this many candidates.

    Args:
      candidates: C, candidates of a leaf.
    """
    prefix_cache = self._cache(0)
    none = Batch(prefix_cache, [], [], [], [])

    def expand(leaves, path):
      rows = np.full(leaves * prefix_cache.slots.data_shards, -1)
      seeds = np.zeros((0, candidates), np.uint32)
      _, cached = self._sample(none, rows, seeds, [], path)
      if cached is not None:
        prefix_cache.warm_up_append(cached)

    return prefix_cache.warm_up_calls(self) + [
      functools.partial(expand, leaves, path)
      for leaves in self._spec.sizes_up_to(
        self._spec.most_sampled(candidates, self.max_new_tokens)
      )
      for path in self.config.prefix_buckets
    ]

  def _send(
    self,
    group: int,
    paths: Sequence[np.ndarray],
    seeds: np.ndarray,
    limits: Sequence[int],
  ) -> list[_Call]:
    """Sends all work to the device."""
    if not paths:
      return []
    prefix_cache, calls = self._cache(group), []
    shape = seeds.shape[1], self.max_new_tokens
    most = self._spec.most_sampled(*shape)
    for batch in self._batches(
      prefix_cache, paths, self.max_new_tokens, hidden=True
    ):
      for rows, path in prefix_cache.calls(
        batch.slots, batch.lengths, math.prod(shape), most
      ):
        out = self._sample(batch, rows, seeds, limits, path)
        calls.append(_Call(batch, rows, *out))
    return calls

  def _sample(
    self,
    batch: Batch,
    rows: np.ndarray,
    seeds: np.ndarray,
    limits: Sequence[int],
    path: int,
  ) -> tuple[decoding.Sampled, cache.KeyValues | None]:
    """Sends one call to the device; rows of padding have a limit of 0."""
    candidates = seeds.shape[1]
    chosen = np.zeros((len(rows), candidates), np.uint32)
    real = rows >= 0
    chosen[real] = seeds[[batch.indices[item] for item in rows[real]]]
    self.programs.call(
      "expand", rows=len(rows), path=path, candidates=candidates
    )
    lengths = pick(batch.lengths, rows)
    return _expand(
      self.params,
      batch.prefix_cache.pool,
      batch.prefix_cache.local(pick(batch.slots, rows, -1)),
      lengths,
      lengths + self.max_new_tokens,
      chosen,
      pick([limits[i] for i in batch.indices], rows),
      graphdef=self.graphdef,
      path=path,
      options=dataclasses.replace(
        self._options, keep=self._spec.keeps(candidates, self.max_new_tokens)
      ),
      data_shards=batch.prefix_cache.slots.data_shards,
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
