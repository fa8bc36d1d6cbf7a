"""Tree expansion on the device: prefixes in, sampled steps out; ids only."""

import dataclasses
import functools
import time
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from absl import logging
from flax import nnx

from rstar_jax.config import EngineConfig
from rstar_jax.generate import buckets, sampler
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


@functools.partial(
  jax.jit,
  static_argnames=(
    "graphdef",
    "method",
    "stop_ids",
    "stop_words",
    "max_new_tokens",
    "pad_id",
  ),
)
def _expand(
  params: Any,
  tokens: jax.Array,
  lengths: jax.Array,
  seeds: jax.Array,
  *,
  graphdef: nnx.GraphDef,
  **options: Any,
) -> sampler.Sampled:
  model = nnx.merge(graphdef, params)
  hidden, path = sampler.prefill(
    model, tokens, lengths, options["max_new_tokens"]
  )
  return sampler.decode(model, path, hidden, seeds, **options)


class Engine(Weights):
  """Samples next steps of many leaves at once; not thread-safe.

  Attributes:
    programs: shapes (leaves, prefix, candidates) of the compiled programs.
    busy_seconds: wall time spent in device calls, compilation included.
    calls: device calls.
    prefix_tokens: tokens of prefixes, padding not counted.
    generated_tokens: sampled tokens.
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
    share_prefix: bool = True,
  ):
    """Makes an engine; nothing is compiled before the first call.

    Args:
      model: with an LM head.
      config: shapes and sampling.
      stop_ids: ids that end a step; they are part of it.
      max_new_tokens: longest step; None is config.max_step_tokens.
      pad_id: any id; fills.
      stop_words: runs of ids; a step ends with the token after one.
      share_prefix: False runs each prefix once per candidate, for comparison.
    """
    super().__init__(model)
    self.config = config
    self.max_new_tokens = max_new_tokens or config.max_step_tokens
    self.share_prefix = share_prefix
    self._pad_id = int(pad_id)
    self._run = functools.partial(
      _expand,
      graphdef=self.graphdef,
      method=sampler.method_of(config),
      stop_ids=tuple(int(i) for i in stop_ids),
      stop_words=tuple(tuple(map(int, word)) for word in stop_words),
      max_new_tokens=self.max_new_tokens,
      pad_id=self._pad_id,
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
    self.programs: list[tuple[int, int, int]] = []
    self.busy_seconds = 0.0
    self.calls = 0
    self.prefix_tokens = 0
    self.generated_tokens = 0

  def expand(
    self, prefixes: Sequence[np.ndarray], seeds: np.ndarray
  ) -> list[list[Generated]]:
    """Samples C next steps of each prefix.

    A candidate depends on its prefix, its seed and the weights only, but for
    the last bits of floating point, which differ between shapes.

    Args:
      prefixes: B int32 arrays [T_i], T_i at least 1. One longer than the
        largest prefix bucket gets empty candidates.
      seeds: uint32 [B, C].

    Returns:
      B lists of C steps, in order.
    """
    seeds = np.asarray(seeds)
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
    empty = Generated((), 0.0, -1)
    results = [[empty] * seeds.shape[1] for _ in prefixes]
    fits = [
      i
      for i, prefix in enumerate(prefixes)
      if len(prefix) <= self.config.prefix_buckets[-1]
    ]
    plan = buckets.plan(
      [len(prefixes[i]) for i in fits],
      self.config.prefix_buckets,
      self.config.leaf_buckets,
      step_cost=seeds.shape[1] * self.max_new_tokens,
    )
    for call in plan:
      indices = [fits[i] for i in call.indices]
      rows = self._call(call, [prefixes[i] for i in indices], seeds[indices])
      for i, row in zip(indices, rows, strict=True):
        results[i] = row
    return results

  def _call(
    self, call: buckets.Call, prefixes: list[np.ndarray], seeds: np.ndarray
  ) -> list[list[Generated]]:
    start = time.perf_counter()
    candidates = seeds.shape[1]
    padded = np.zeros((call.leaves, candidates), np.uint32)
    padded[: len(seeds)] = seeds
    tokens, lengths = buckets.pad_rows(
      prefixes, (call.leaves, call.length), self._pad_id
    )
    if not self.share_prefix:
      tokens = np.repeat(tokens, candidates, axis=0)
      lengths = np.repeat(lengths, candidates)
      padded = padded.reshape(-1, 1)
    self._count(tokens.shape + padded.shape[1:])
    out = jax.device_get(self._run(self.params, tokens, lengths, padded))
    shape = (call.leaves, candidates)
    out = jax.tree.map(lambda x: x.reshape(*shape, *x.shape[2:]), out)
    self.calls += 1
    self.prefix_tokens += int(lengths.sum())
    self.generated_tokens += int(out.lengths.sum())
    self.busy_seconds += time.perf_counter() - start
    return [
      [
        Generated(
          token_ids=tuple(out.tokens[i, j, : out.lengths[i, j]].tolist()),
          logprob=float(out.logprobs[i, j]),
          stopped=int(out.stops[i, j]),
        )
        for j in range(candidates)
      ]
      for i in range(len(prefixes))
    ]

  def _count(self, shape: tuple[int, int, int]) -> None:
    if shape not in self.programs:
      self.programs.append(shape)
      logging.info(
        "expansion program %d: %d leaves x %d prefix tokens x %d candidates",
        len(self.programs),
        *shape,
      )
