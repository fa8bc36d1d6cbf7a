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
from rstar_jax.inference.lane import pick
from rstar_jax.inference.lanes import Lanes, Wave
from rstar_jax.models import cache
from rstar_jax.models.transformer import Transformer
from rstar_jax.steps import prompts
from rstar_jax.steps.tokenizer import Tokenizer, encode_piece, encode_solution
from rstar_jax.types import Prefix, Score


@functools.partial(
  jax.jit, static_argnames=("graphdef", "path", "keep", "banks")
)
def _score(params, pool, *arrays, graphdef, **static):
  return programs.score(nnx.merge(graphdef, params), pool, *arrays, **static)


@dataclasses.dataclass(frozen=True)
class _Call:
  """A call under way: its rows are items of the wave, -1 for padding."""

  wave: Wave
  rows: np.ndarray
  tokens: np.ndarray
  lengths: np.ndarray
  values: jax.Array
  kept: cache.KeyValues | None


class Scorer(Lanes):
  """Values of next steps; threads may share it, each with a lane of its own.

  A prefix is run once for all its candidate steps, and of a prefix only what
  its lane does not hold: mostly nothing, since it ends in a step that was
  scored before. Prefixes and steps past the largest bucket are padded to its
  doubles, so none is left out.

  Attributes:
    scored: steps scored; for the rest see `Lanes`.
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
      config: prefix and leaf buckets.
      **options: slots, mesh, reuse, busy, lock: see `Lanes`.
    """
    super().__init__(
      model, config, what="scoring", room=config.step_buckets[-1], **options
    )
    self._tokenizer = tokenizer
    self.scored = 0

  def begin(self, lane: int) -> Score:
    """Returns this with a lane of its own, which holds nothing yet."""
    self.forget(lane)
    return functools.partial(self, lane=lane)

  def __call__(
    self,
    questions: Sequence[str],
    prefixes: Sequence[Prefix],
    steps: Sequence[Sequence[str]],
    *,
    lane: int = 0,
  ) -> list[np.ndarray]:
    """Scores prefix + step for each step; see `types.Score`.

    Args:
      questions: B questions.
      prefixes: B prefixes.
      steps: B lists of node texts, of any numbers; none is empty.
      lane: whose paths to go on from; one thread at a time.

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
    return self.score(ids, step_ids, lane=lane)

  def score(
    self,
    prefixes: Sequence[Sequence[int]],
    steps: Sequence[Sequence[Sequence[int]]],
    *,
    lane: int = 0,
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
          lane,
          [np.asarray(prefixes[i], np.int32) for i in live],
          [steps[i] for i in live],
        )
      for call in calls:
        values = jax.device_get(call.values)
        call.wave.keep(call.rows, call.kept, call.tokens, call.lengths)
        for row, item in enumerate(call.rows):
          if item >= 0:
            index = live[call.wave.indices[item]]
            results[index] = values[row, : len(steps[index])]
    with self.lock:
      self.scored += sum(map(len, steps))
      self.prefix_tokens += sum(len(prefixes[i]) for i in live)
    return results

  def ahead(self, candidates: int) -> list[Callable[[], None]]:
    """Returns calls that each run programs of the calls to come, on padding.

    When all have been made, scoring up to so many steps of a leaf compiles
    nothing, as long as prefixes and steps fit the buckets.

    Args:
      candidates: most steps of a leaf.
    """
    config = self.config
    held = self._lane(0)
    none = Wave(held, [], [], [], [])
    most = buckets.bucket_of(candidates, config.score_buckets)

    def score(leaves, path, shape):
      rows = np.full(leaves * held.slots.banks, -1)
      call = self._call(none, rows, [], shape, path)
      if call.kept is not None:
        held.commit_ahead(call.kept)

    return held.ahead(self) + [
      functools.partial(score, leaves, path, (columns, size))
      for columns in config.score_buckets
      if columns <= most
      for leaves in self._spec.sizes_up_to(self._spec.most_scored(columns))
      for path in config.prefix_buckets
      for size in config.step_buckets
    ]

  def _send(
    self,
    lane: int,
    paths: Sequence[np.ndarray],
    steps: Sequence[Sequence[Sequence[int]]],
  ) -> list[_Call]:
    """Hands all work to the device."""
    held, calls = self._lane(lane, max(map(len, paths))), []
    widest = max(map(len, steps))
    longest = max(len(step) for row in steps for step in row)
    shape = (
      buckets.bucket_of(widest, self.config.score_buckets),
      buckets.bucket_of(longest, self.config.step_buckets),
    )
    most = self._spec.most_scored(shape[0])
    for wave in self._waves(held, paths, shape[1], hidden=False):
      for rows, path in held.calls(
        wave.slots, wave.lengths, math.prod(shape), most
      ):
        calls.append(self._call(wave, rows, steps, shape, path))
    return calls

  def _call(
    self,
    wave: Wave,
    rows: np.ndarray,
    steps: Sequence[Sequence[Sequence[int]]],
    shape: tuple[int, int],
    path: int,
  ) -> _Call:
    """Hands one call to the device."""
    candidates, size = shape
    chosen = [steps[wave.indices[i]] if i >= 0 else () for i in rows]
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
    ends = pick(wave.lengths, rows)
    values, kept = _score(
      self.params,
      wave.lane.pool,
      wave.lane.local(pick(wave.slots, rows, -1)),
      ends,
      ends + size,
      tokens,
      step_lengths,
      graphdef=self.graphdef,
      path=path,
      keep=self._spec.keeps(*shape),
      banks=wave.lane.slots.banks,
    )
    return _Call(wave, rows, tokens, step_lengths, values, kept)
