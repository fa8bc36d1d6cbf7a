"""The process preference model as the search's `Score`: text in, values out."""

import contextlib
import functools
import threading
import time
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from flax import nnx

from rstar_jax.config import EngineConfig
from rstar_jax.generate import buckets, sampler
from rstar_jax.generate.engine import Weights
from rstar_jax.models.transformer import Transformer
from rstar_jax.text import prompts
from rstar_jax.text.tokenizer import (
  Tokenizer,
  encode_piece,
  encode_solution,
)
from rstar_jax.types import Prefix

# Most candidates in one device call: bounds the memory of attention.
_MOST_ROWS = 256


@functools.partial(jax.jit, static_argnames="graphdef")
def _values(
  params: Any,
  tokens: jax.Array,
  lengths: jax.Array,
  steps: jax.Array,
  step_lengths: jax.Array,
  *,
  graphdef: nnx.GraphDef,
) -> jax.Array:
  """Returns float32 [B, C], values at the last tokens of steps [B, C, S]."""
  model = nnx.merge(graphdef, params)
  _, path = sampler.prefill(model, tokens, lengths, steps.shape[-1])
  hidden = sampler.extend(model, path, steps)
  last = jnp.maximum(step_lengths - 1, 0)[..., None, None]
  return model.values(jnp.take_along_axis(hidden, last, axis=2)[:, :, 0])


class Scorer(Weights):
  """Values of next steps; threads may share it.

  A prefix is run once for all its candidate steps. Prefixes and steps past the
  largest bucket are padded to its doubles, so none is left out.

  Attributes:
    lock: held during device calls; give it the `Policy`'s on the same device.
    programs: shapes (leaves, prefix, candidates, step) of compiled programs.
    busy_seconds: wall time spent in device calls, compilation included.
    calls: device calls.
    scored: steps scored.
  """

  def __init__(
    self,
    model: Transformer,
    tokenizer: Tokenizer,
    config: EngineConfig,
    *,
    lock: contextlib.AbstractContextManager | None = None,
  ):
    """Makes a scorer.

    Args:
      model: with a scalar head.
      tokenizer: the one that the model was trained with.
      config: prefix and leaf buckets.
      lock: None makes one.
    """
    super().__init__(model)
    self.lock = lock or threading.Lock()
    self.config = config
    self._tokenizer = tokenizer
    self.programs: list[tuple[int, int, int, int]] = []
    self.busy_seconds = 0.0
    self.calls = 0
    self.scored = 0

  def __call__(
    self,
    questions: Sequence[str],
    prefixes: Sequence[Prefix],
    steps: Sequence[Sequence[str]],
  ) -> list[np.ndarray]:
    """Scores prefix + step for each step; see `types.Score`.

    Args:
      questions: B questions.
      prefixes: B prefixes.
      steps: B lists of node texts, of any numbers; none is empty.

    Returns:
      B float32 arrays in [-1, 1], the value at each step's last token.
    """
    tokenizer = self._tokenizer
    ids = [
      encode_solution(tokenizer, prompts.prompt(question), prefix)
      for question, prefix in zip(questions, prefixes, strict=True)
    ]
    step_ids = [
      [encode_piece(tokenizer, step) for step in row] for row in steps
    ]
    with self.lock:
      return self.score(ids, step_ids)

  def score(
    self,
    prefixes: Sequence[Sequence[int]],
    steps: Sequence[Sequence[Sequence[int]]],
  ) -> list[np.ndarray]:
    """Scores ids: B prefixes, and B lists of steps; not thread-safe."""
    for i, row in enumerate(steps):
      if any(len(step) == 0 for step in row):
        raise ValueError(f"leaf {i} has a step of no tokens: nothing to score")
    results = [np.zeros(len(row), np.float32) for row in steps]
    live = [i for i, row in enumerate(steps) if len(row)]
    if not live:
      return results
    widest = max(len(steps[i]) for i in live)
    longest = max(len(step) for i in live for step in steps[i])
    candidates = buckets.bucket_of(widest, self.config.score_buckets)
    length = buckets.bucket_of(longest, self.config.step_buckets)
    leaf_buckets = self.config.leaf_buckets
    plan = buckets.plan(
      [len(prefixes[i]) for i in live],
      self.config.prefix_buckets,
      [b for b in leaf_buckets if b * candidates <= _MOST_ROWS]
      or leaf_buckets[:1],
      step_cost=candidates * length,
    )
    for call in plan:
      indices = [live[i] for i in call.indices]
      values = self._call(
        call,
        [prefixes[i] for i in indices],
        [steps[i] for i in indices],
        (candidates, length),
      )
      for i, row in zip(indices, values, strict=False):
        results[i] = row[: len(steps[i])]
    return results

  def _call(
    self,
    call: buckets.Call,
    prefixes: list[Sequence[int]],
    steps: list[Sequence[Sequence[int]]],
    step_shape: tuple[int, int],
  ) -> np.ndarray:
    start = time.perf_counter()
    candidates, length = step_shape
    rows = [
      step for row in steps for step in (*row, *[()] * (candidates - len(row)))
    ]
    tokens, lengths = buckets.pad_rows(
      prefixes, (call.leaves, call.length), self._tokenizer.pad_id
    )
    step_tokens, step_lengths = buckets.pad_rows(
      rows, (call.leaves * candidates, length), self._tokenizer.pad_id
    )
    shape = (call.leaves, call.length, candidates, length)
    if shape not in self.programs:
      self.programs.append(shape)
      logging.info(
        "scoring program %d: %d leaves x %d prefix tokens x %d steps of %d",
        len(self.programs),
        *shape,
      )
    values = jax.device_get(
      _values(
        self.params,
        tokens,
        lengths,
        step_tokens.reshape(call.leaves, candidates, length),
        step_lengths.reshape(call.leaves, candidates),
        graphdef=self.graphdef,
      )
    )
    self.calls += 1
    self.scored += sum(map(len, steps))
    self.busy_seconds += time.perf_counter() - start
    return values
