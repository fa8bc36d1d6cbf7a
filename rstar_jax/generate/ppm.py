"""The process preference model as the search's `Score`: text in, values out."""

import contextlib
import dataclasses
import functools
import math
import threading
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from flax import nnx

from rstar_jax.config import EngineConfig
from rstar_jax.generate import buckets, programs
from rstar_jax.generate import lane as lane_lib
from rstar_jax.generate.weights import Busy, Programs, Weights
from rstar_jax.models.transformer import Transformer
from rstar_jax.text import prompts
from rstar_jax.text.tokenizer import (
  Tokenizer,
  encode_piece,
  encode_solution,
)
from rstar_jax.types import Prefix, Score

# Most candidates in one device call: bounds the memory of attention.
_MOST_ROWS = 256


@functools.partial(
  jax.jit, static_argnames=("graphdef", "path", "keep", "banks")
)
def _score(params, pool, *arrays, graphdef, **static):
  return programs.score(nnx.merge(graphdef, params), pool, *arrays, **static)


@dataclasses.dataclass(frozen=True)
class _Call:
  """A call under way: which leaves, where, and what comes of it."""

  rows: np.ndarray
  indices: list[int]
  slots: list[int]
  versions: list[int]
  tokens: np.ndarray
  lengths: np.ndarray
  values: jax.Array
  kept: Any


class Scorer(Weights):
  """Values of next steps; threads may share it, each with a lane of its own.

  A prefix is run once for all its candidate steps, and of a prefix only what
  its lane does not hold: mostly nothing, since it ends in a step that was
  scored before. Prefixes and steps past the largest bucket are padded to its
  doubles, so none is left out.

  Attributes:
    programs: those that have been asked for.
    busy: runs while the device does.
    lock: held while work is handed to the device.
    scored: steps scored.
    prefix_tokens: tokens of prefixes, padding not counted.
  """

  def __init__(
    self,
    model: Transformer,
    tokenizer: Tokenizer,
    config: EngineConfig,
    *,
    slots: int = 0,
    mesh: jax.sharding.Mesh | None = None,
    busy: Busy | None = None,
    lock: contextlib.AbstractContextManager | None = None,
  ):
    """Makes a scorer.

    Args:
      model: with a scalar head.
      tokenizer: the one that the model was trained with.
      config: prefix and leaf buckets.
      slots: paths that a lane holds; 0 is the largest leaf bucket.
      mesh: that the model's parameters are on.
      busy: None makes one.
      lock: None makes one; give the same to all that use the device.
    """
    super().__init__(model)
    self.busy = busy or Busy()
    self.lock = lock or threading.Lock()
    self.config = config
    self.programs = Programs("scoring")
    self._tokenizer = tokenizer
    self._spec = lane_lib.Spec(
      model=model.config,
      engine=config,
      slots=max(slots, config.leaf_buckets[-1]),
      room=max(config.tail_buckets[-1], config.step_buckets[-1]),
      mesh=mesh,
    )
    self._lanes: dict[int, lane_lib.Lane] = {}
    self.scored = 0
    self.prefix_tokens = 0

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
    for each in self._lanes.values():
      each.slots.reset()

  def begin(self, lane: int) -> Score:
    """Returns this with a lane of its own, which holds nothing yet."""
    if lane in self._lanes:
      self._lanes[lane].slots.reset()
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
        held = self._lane(lane, max(len(prefixes[i]) for i in live))
        calls = self._send(held, live, prefixes, steps)
      for call in calls:
        values = jax.device_get(call.values)
        self._note(held, call)
        for row, item in enumerate(call.rows):
          if item >= 0:
            index = call.indices[item]
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
    held = self._lane(0, 0)
    most = buckets.bucket_of(candidates, config.score_buckets)

    def score(leaves, path, shape):
      rows = np.full(leaves * held.slots.banks, -1)
      call = self._call(held, rows, [], [], [], [()] * len(rows), shape, path)
      if call.kept is not None:
        held.commit_ahead(call.kept)

    return held.ahead(self) + [
      functools.partial(score, leaves, path, (columns, size))
      for columns in config.score_buckets
      if columns <= most
      for leaves in held.sizes_up_to(_MOST_ROWS // columns)
      for path in config.prefix_buckets
      for size in config.step_buckets
    ]

  def _lane(self, number: int, longest: int) -> lane_lib.Lane:
    if number not in self._lanes:
      self._lanes[number] = lane_lib.Lane(self._spec, self.programs)
    self._lanes[number].ensure(longest)
    return self._lanes[number]

  def _send(
    self,
    held: lane_lib.Lane,
    waiting: list[int],
    prefixes: Sequence[Sequence[int]],
    steps: Sequence[Sequence[Sequence[int]]],
  ) -> list[_Call]:
    """Hands all work to the device, in as many waves as the slots take."""
    widest = max(len(steps[i]) for i in waiting)
    longest = max(len(step) for i in waiting for step in steps[i])
    shape = (
      buckets.bucket_of(widest, self.config.score_buckets),
      buckets.bucket_of(longest, self.config.step_buckets),
    )
    calls = []
    while waiting:
      paths = [np.asarray(prefixes[i], np.int32) for i in waiting]
      moves = held.place(self, paths, shape[1], hidden=False)
      if len(moves) == len(waiting):
        # Before more memory is asked for.
        held.slots.drop_kept()
      indices = [waiting[each.index] for each in moves]
      slots = [each.slot for each in moves]
      lengths = [len(prefixes[i]) for i in indices]
      most = _MOST_ROWS // shape[0]
      for rows, path in held.calls(slots, lengths, math.prod(shape), most):
        chosen = [steps[indices[i]] if i >= 0 else () for i in rows]
        calls.append(
          self._call(held, rows, indices, slots, lengths, chosen, shape, path)
        )
      placed = set(indices)
      waiting = [i for i in waiting if i not in placed]
    return calls

  def _call(
    self, held, rows, indices, slots, lengths, chosen, shape, path
  ) -> _Call:
    """Hands one call to the device; `chosen` is the steps of each row."""
    candidates, size = shape
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
    ends = lane_lib.pick(lengths, rows)
    values, kept = _score(
      self.params,
      held.pool,
      held.local(lane_lib.pick(slots, rows, -1)),
      ends,
      ends + size,
      tokens,
      step_lengths,
      graphdef=self.graphdef,
      path=path,
      keep=self._keeps(*shape),
      banks=held.slots.banks,
    )
    versions = [held.slots.version(slot) for slot in slots]
    return _Call(
      rows,
      indices,
      slots,
      versions,
      tokens,
      step_lengths,
      values,
      kept,
    )

  def _keeps(self, candidates: int, size: int) -> bool:
    """Whether steps of all slots may stay until the next leaves come."""
    tokens = self._spec.slots * candidates * size
    fits = size <= self._spec.room and tokens <= self.config.most_tokens
    return self.config.commit and fits

  def _note(self, held: lane_lib.Lane, call: _Call) -> None:
    """Keeps what was scored at the ends of the paths."""
    if call.kept is not None:
      lane_lib.keep(
        held,
        call.kept,
        call.rows,
        call.slots,
        call.versions,
        call.tokens,
        call.lengths,
      )
