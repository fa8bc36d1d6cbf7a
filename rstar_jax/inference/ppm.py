"""The process preference model as the search's `Score`: text in, values out."""

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from flax import nnx

from rstar_jax.config.schema import EngineConfig
from rstar_jax.inference import buckets, programs
from rstar_jax.inference.cached_model import Batch, CachedModel
from rstar_jax.inference.prefix_cache import pick
from rstar_jax.models import cache
from rstar_jax.models.transformer import Transformer
from rstar_jax.steps.tokenizer import Tokenizer, encode_piece, encode_solution
from rstar_jax.types import Prefix, Score


@functools.partial(
  jax.jit, static_argnames=("graphdef", "path", "keep", "data_shards")
)
def _score(params, pool, *arrays, graphdef, **static):
  return programs.score(nnx.merge(graphdef, params), pool, *arrays, **static)


@dataclasses.dataclass(frozen=True)
class _Call:
  """A call under way; its rows are items of the batch, -1 for padding."""

  batch: Batch
  rows: np.ndarray
  tokens: np.ndarray
  lengths: np.ndarray
  values: jax.Array
  cached: cache.KeyValues | None


class Scorer(CachedModel):
  """Scores next steps; threads may share it, each with a group of its own.

  A prefix is computed once for all its candidate steps, and only the part that
  its prefix cache lacks: mostly nothing, since it ends in a step that was
  scored before. Prefixes and steps beyond the largest bucket are padded to its
  doubles, so every step gets a value.

  Attributes:
    scored: steps scored so far; see `CachedModel` for the others.
  """

  def __init__(
    self,
    model: Transformer,
    tokenizer: Tokenizer,
    config: EngineConfig,
    **options: Any,
  ):
    """Makes a scorer.

    Args:
      model: with a scalar head.
      tokenizer: the one that the model was trained with.
      config: the buckets.
      **options: slots, mesh, reuse, busy, lock; see `CachedModel`.
    """
    super().__init__(
      model, config, what="scoring", room=config.step_buckets[-1], **options
    )
    self._tokenizer = tokenizer
    self.scored = 0

  def begin(self, group: int) -> Score:
    """Returns a callable for one group, whose prefix cache it empties."""
    self.forget(group)
    return functools.partial(self, group=group)

  def __call__(
    self,
    questions: Sequence[str],
    prefixes: Sequence[Prefix],
    steps: Sequence[Sequence[str]],
    *,
    group: int = 0,
  ) -> list[np.ndarray]:
    """Scores prefix + step for each step; see `types.Score`.

    Args:
      questions: B questions.
      prefixes: B prefixes.
      steps: B lists of node texts, of any length; no text is empty.
      group: selects the prefix cache; one thread at a time.

    Returns:
      B float32 arrays in [-1, 1], the value at each step's last token.
    """
    tokenizer = self._tokenizer
    ids = [
      encode_solution(tokenizer, tokenizer.prompt(question), prefix)
      for question, prefix in zip(questions, prefixes, strict=True)
    ]
    step_ids = [
      [encode_piece(tokenizer, step) for step in row] for row in steps
    ]
    return self.score(ids, step_ids, group=group)

  def score(
    self,
    prefixes: Sequence[Sequence[int]],
    steps: Sequence[Sequence[Sequence[int]]],
    *,
    group: int = 0,
  ) -> list[np.ndarray]:
    """Scores ids: B prefixes, and B lists of steps; see `__call__`."""
    for i, row in enumerate(steps):
      if any(len(step) == 0 for step in row):
        raise ValueError(f"leaf {i} has a step of no tokens: nothing to score")
    results = [np.zeros(len(row), np.float32) for row in steps]
    live = [i for i, row in enumerate(steps) if len(row)]
    if not live:
      return results
    with self.busy:
      with self.lock:
        calls = self._send(
          group,
          [np.asarray(prefixes[i], np.int32) for i in live],
          [steps[i] for i in live],
        )
      for call in calls:
        values = jax.device_get(call.values)
        call.batch.cache_candidates(
          call.rows, call.cached, call.tokens, call.lengths
        )
        for row, item in enumerate(call.rows):
          if item >= 0:
            index = live[call.batch.indices[item]]
            results[index] = values[row, : len(steps[index])]
    with self.lock:
      self.scored += sum(map(len, steps))
      self.prefix_tokens += sum(len(prefixes[i]) for i in live)
    return results

  def warm_up_calls(self, candidates: int) -> list[Callable[[], None]]:
    """Returns calls that each compile programs of `score`, on padding.

    After all of them, scoring up to `candidates` steps of a leaf compiles
    nothing while prefixes and steps fit the buckets.

    Args:
      candidates: most steps of a leaf.
    """
    config = self.config
    prefix_cache = self._cache(0)
    none = Batch(prefix_cache, [], [], [], [])
    most = buckets.bucket_of(candidates, config.score_buckets)

    def score(leaves, path, shape):
      rows = np.full(leaves * prefix_cache.slots.data_shards, -1)
      call = self._call(none, rows, [], shape, path)
      if call.cached is not None:
        prefix_cache.warm_up_append(call.cached)

    return prefix_cache.warm_up_calls(self) + [
      functools.partial(score, leaves, path, (columns, size))
      for columns in config.score_buckets
      if columns <= most
      for leaves in self._spec.sizes_up_to(self._spec.most_scored(columns))
      for path in config.prefix_buckets
      for size in config.step_buckets
    ]

  def _send(
    self,
    group: int,
    paths: Sequence[np.ndarray],
    steps: Sequence[Sequence[Sequence[int]]],
  ) -> list[_Call]:
    """Sends all work to the device."""
    prefix_cache, calls = self._cache(group, max(map(len, paths))), []
    widest = max(map(len, steps))
    longest = max(len(step) for row in steps for step in row)
    shape = (
      buckets.bucket_of(widest, self.config.score_buckets),
      buckets.bucket_of(longest, self.config.step_buckets),
    )
    most = self._spec.most_scored(shape[0])
    for batch in self._batches(prefix_cache, paths, shape[1], hidden=False):
      for rows, path in prefix_cache.calls(
        batch.slots, batch.lengths, math.prod(shape), most
      ):
        calls.append(self._call(batch, rows, steps, shape, path))
    return calls

  def _call(
    self,
    batch: Batch,
    rows: np.ndarray,
    steps: Sequence[Sequence[Sequence[int]]],
    shape: tuple[int, int],
    path: int,
  ) -> _Call:
    """Sends one call to the device."""
    candidates, size = shape
    chosen = [steps[batch.indices[i]] if i >= 0 else () for i in rows]
    flat = [
      step for row in chosen for step in (*row, *[()] * (candidates - len(row)))
    ]
    tokens, step_lengths = (
      x.reshape(len(rows), candidates, *x.shape[1:])
      for x in buckets.pad_rows(flat, (len(flat), size), self._tokenizer.pad_id)
    )
    self.programs.call(
      "score", rows=len(rows), path=path, candidates=candidates, step=size
    )
    ends = pick(batch.lengths, rows)
    values, cached = _score(
      self.params,
      batch.prefix_cache.pool,
      batch.prefix_cache.local(pick(batch.slots, rows, -1)),
      ends,
      ends + size,
      tokens,
      step_lengths,
      graphdef=self.graphdef,
      path=path,
      keep=self._spec.keeps(*shape),
      data_shards=batch.prefix_cache.slots.data_shards,
    )
    return _Call(batch, rows, tokens, step_lengths, values, cached)
