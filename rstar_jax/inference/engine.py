"""Samples next steps on the device: prefixes in, candidates out; ids only."""

import collections
import concurrent.futures
import dataclasses
import functools
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from absl import logging

from rstar_jax.config.schema import EngineConfig
from rstar_jax.inference import futures, programs, sampler
from rstar_jax.inference.generated import (
  BY_LENGTH,
  Generated,
  Stop,
  check_request,
)
from rstar_jax.inference.pace import Pace
from rstar_jax.inference.paged_model import Call, PagedModel
from rstar_jax.inference.prefix_cache import Page
from rstar_jax.inference.runs import Request, Run, Shard
from rstar_jax.models.transformer import Transformer


@functools.partial(
  jax.jit, static_argnames=("structure", "options"), donate_argnames="pages"
)
def _decode(params, pages, plan, *, structure, options):
  model = structure.merge(params)
  return programs.decode(model, pages, plan, options)


class _Expansion(Request):
  """C candidates of one prefix.

  Attributes:
    seeds: one for each candidate.
    stop: when a step ends.
    temperature: of all samples; 0 takes the likeliest tokens.
    steps: the candidates that have ended, None for the others.
    page: the last page of the prefix, pinned; None until it is in pages.
  """

  def __init__(
    self, prefix: list[int], seeds: list[int], stop: Stop, temperature: float
  ):
    super().__init__(prefix)
    self.seeds, self.stop = seeds, stop
    self.temperature = temperature
    self.steps: list[Generated | None] = [None] * len(seeds)
    self.page: Page | None = None

  @property
  def span(self) -> int:
    """Returns the most tokens of a candidate's path."""
    return len(self.prefix) + self.stop.limit


@dataclasses.dataclass(eq=False)
class _Candidate:
  """A step that is being sampled: number `column` of its expansion."""

  run: Run
  column: int
  logprobs: list[float] = dataclasses.field(default_factory=list)


class _SamplingShard(Shard):
  """A data shard, and the candidates that are sampled there.

  Attributes:
    ready: expansion and column of candidates whose prefix is in pages.
    active: candidates that have slots.
  """

  def __init__(self, count: int, kind_of: Callable[[int], int]):
    super().__init__(count, kind_of)
    self.ready: collections.deque[tuple[_Expansion, int]] = collections.deque()
    self.active: list[_Candidate] = []

  def forget(self, request: _Expansion) -> None:
    super().forget(request)
    if request.page is not None:
      self.cache.unpin(request.page)
    self.ready = collections.deque(
      each for each in self.ready if each[0] is not request
    )
    self.active = [
      each for each in self.active if each.run.request is not request
    ]


class Engine(PagedModel):
  """Samples next steps; any thread may ask.

  Attributes:
    max_new_tokens: longest step.
    generated_tokens: tokens sampled so far.
    too_long: prefixes so far that were too long to be expanded.
  """

  _shard = _SamplingShard

  def __init__(self, model: Transformer, config: EngineConfig, **options: Any):
    """Makes an engine; nothing is compiled before the first call.

    Args:
      model: with an LM head.
      config: sizes and sampling.
      **options: mesh, busy, lock; see `PagedModel`.
    """
    self.max_new_tokens = config.max_new_tokens
    super().__init__(model, config, step=self.max_new_tokens, **options)
    if self.sizes.longest > model.config.max_length:
      logging.warning(
        "prefixes of up to %d tokens and steps of up to %d exceed the model's "
        "max_length=%d",
        config.max_prefix_tokens,
        self.max_new_tokens,
        model.config.max_length,
      )
    self._options = dataclasses.replace(
      self._options, method=sampler.method_of(config), steps=config.inner_steps
    )
    self.generated_tokens = self.too_long = 0
    self._pace = Pace(config.inner_steps)
    self._ended = 0
    # CPU time of the thread when its last call ended.
    self._since = 0.0

  def submit(
    self,
    prefix: Sequence[int],
    seeds: Sequence[int],
    stop: Stop,
    *,
    temperature: float | None = None,
    tree: str = "",
  ) -> concurrent.futures.Future[list[Generated]]:
    """Asks for C next steps of a prefix.

    A step depends on its prefix, its seed, its temperature and the weights
    alone, to the bit.

    Args:
      prefix: at least one id. If it is longer than `max_prefix_tokens`, its
        steps are empty.
      seeds: C numbers below 2**32.
      stop: when a step ends; its limit is at most `max_new_tokens`.
      temperature: at least 0; 0 takes the likeliest tokens, None is the
        config's.
      tree: the tree that the prefix belongs to, which only servers need.

    Raises:
      ValueError: an empty prefix, or a limit or a temperature out of range.
    """
    del tree
    if temperature is None:
      temperature = self.config.temperature
    check_request(prefix, stop, self.max_new_tokens, temperature)
    prefix = np.asarray(prefix).tolist()
    seeds = np.asarray(seeds, np.uint32).tolist()
    request = _Expansion(prefix, seeds, stop, temperature)
    too_long = len(prefix) > self.config.max_prefix_tokens
    with self._guard:
      self.prefix_tokens += len(prefix)
      self.too_long += too_long
    if too_long or not seeds:
      request.future.set_result([Generated((), (), BY_LENGTH)] * len(seeds))
    else:
      self._add(request)
    return request.future

  def expand(
    self,
    prefixes: Sequence[Sequence[int]],
    seeds: np.ndarray,
    stop: Stop,
    **options: Any,
  ) -> list[list[Generated]]:
    """Samples C steps of each of B prefixes; see `submit`.

    Args:
      prefixes: B sequences of ids.
      seeds: uint32 [B, C].
      stop: see `submit`.
      **options: see `submit`.
    """
    submit = functools.partial(self.submit, stop=stop, **options)
    return futures.all_of(submit, prefixes, seeds)

  def warm_up_calls(self) -> list[Callable[[], None]]:
    """Returns calls that each compile a program, on empty slots."""

    def decode(rows):
      self.memory.allocate()
      with self.lock:
        self._call_decode(self._decode_plan(rows))

    return super().warm_up_calls() + [
      functools.partial(decode, rows)
      for rows in sorted({self.sizes.few, self.sizes.rows})
    ]

  @property
  def rows_used(self) -> int:
    """Returns the number of candidates that are being sampled now."""
    return sum(len(each.active) for each in self.memory.shards)

  @property
  def _slots(self) -> int:
    """Returns the token slots of a step in each data shard."""
    return self.sizes.rows // self.sizes.shards

  def _start(self, request: _Expansion) -> bool:
    """Gets a prefix into pages, without its last token.

    Each candidate computes that token itself, and so has its logits.
    """
    shard, before = request.shard, len(request.prefix) - 1
    lined = len(shard.ready)
    lined += sum(len(run.request.seeds) for run in shard.prefills)
    # Enough candidates have their prefixes, or will, to fill all slots.
    if lined > self._slots:
      return False
    # Prefixes must not take the pages that earlier candidates wait for.
    steps = 1
    if lined or shard.active:
      free = self._slots - len(shard.active)
      steps = max(1, min(lined + len(request.seeds), free))
    run = shard.start(
      request,
      request.prefix[:before],
      reuse=before,
      pages=before,
      span=request.span,
      margin=steps * self.sizes.step_pages,
      done=self._prefilled,
    )
    if run is None:
      return False
    self._queue(run)
    return True

  def _prefilled(self, run: Run) -> None:
    """Queues the candidates of a prefix that is in pages."""
    request, shard = run.request, run.request.shard
    request.page = shard.end(run)
    # Keeps the prefix until its last candidate has ended.
    shard.cache.pin(request.page)
    shard.ready += [(request, column) for column in range(len(request.seeds))]

  def _fills_call(self) -> bool:
    return all(
      self._slots_wanted(shard) >= self._slots for shard in self.memory.shards
    )

  def _plan_call(self) -> Call | None:
    shards = self.memory.shards
    pending = sum(run.left for shard in shards for run in shard.prefills)
    sampling = any(shard.ready or shard.active for shard in shards)
    if pending and (not sampling or pending >= self.sizes.prefill_tokens // 2):
      return self._prefill()
    return self._decode() if sampling else None

  def _decode_plan(self, rows: int) -> programs.DecodePlan:
    return programs.DecodePlan(
      rows,
      self.config.inner_steps,
      self.sizes.path_pages,
      self.sizes.shard_pages,
      self._inner_steps(),
    )

  def _inner_steps(self) -> int:
    """Returns the inner steps of the next call."""
    return self._pace.steps(self.generated_tokens / max(self._ended, 1))

  def _slots_wanted(self, shard: _SamplingShard) -> int:
    """Returns the slots that a shard's work could fill."""
    tokens = sum(run.left for run in shard.prefills)
    prefills = -(-tokens // self._inner_steps())
    return prefills + len(shard.active) + len(shard.ready)

  def _decode(self) -> Call:
    """Plans a call that continues candidates, begins others and prefills."""
    shards = self.memory.shards
    wanted = max(map(self._slots_wanted, shards)) * len(shards)
    rows = self.sizes.few if wanted <= self.sizes.few else self.sizes.rows
    plan = self._decode_plan(rows)
    slots = rows // len(shards)
    places = []
    prefilled: list[Run] = []
    for number, shard in enumerate(shards):
      first = number * slots
      free = slots - len(shard.active)
      # Prefixes must not wait until all candidates have ended.
      most = free // 2 if shard.ready else free
      taken = self._put_prefixes(plan, shard, first, most)
      prefilled += shard.take_prefilled()
      self._begin_candidates(shard, free - taken)
      self._put_candidates(plan, shard, first + taken)
      places.append((shard, first + taken))

    def then(found: tuple[np.ndarray, np.ndarray]) -> None:
      for shard, first in places:
        self._add_samples(shard, first, *found)
      for run in prefilled:
        run.done(run)

    return Call(functools.partial(self._call_decode, plan), then)

  def _add_samples(
    self,
    shard: _SamplingShard,
    first: int,
    tokens: np.ndarray,
    logprobs: np.ndarray,
  ) -> None:
    """Adds the samples of a call to a shard's candidates; some end with them.

    Args:
      shard: the shard.
      first: slot of its first candidate.
      tokens: int32 [k, T], of k inner steps.
      logprobs: float32 [k, T].
    """
    slots = slice(first, first + len(shard.active))
    sampled = zip(
      shard.active,
      tokens[:, slots].T.tolist(),
      logprobs[:, slots].T.tolist(),
      strict=True,
    )
    shard.active = [
      each for each, *samples in sampled if not self._add_tokens(each, *samples)
    ]

  def _put_prefixes(
    self, plan: programs.DecodePlan, shard: Shard, first: int, most: int
  ) -> int:
    """Gives slots to the tokens of prefixes; returns the number of slots.

    The slots of a run compute its next tokens side by side in each inner step.
    """
    steps, taken = len(plan.tokens), 0
    for run in shard.prefills:
      wide = min(-(-run.left // steps), most - taken)
      if wide <= 0:
        break
      count = min(run.left, wide * steps)
      shard.cover(run, run.next + count - 1)
      for _ in range(wide):
        plan.put(first + taken, run)
        taken += 1
      there = slice(first + taken - wide, first + taken)
      at = np.arange(steps * wide).reshape(steps, wide)
      ids = np.array(run.ids[run.next : run.next + count], np.int32)
      plan.tokens[:, there] = ids[np.minimum(at, count - 1)]
      plan.positions[:, there] = np.where(at < count, run.next + at, -1)
      run.next += count
      self.useful += count
    return taken

  def _begin_candidates(self, shard: _SamplingShard, most: int) -> None:
    """Begins as many candidates as there are slots and pages."""
    while shard.ready and most > 0:
      request, column = shard.ready[0]
      run = shard.start(
        request,
        request.prefix,
        reuse=len(request.prefix) - 1,
        pages=request.span,
        span=request.span,
      )
      if run is None:
        return
      shard.ready.popleft()
      shard.active.append(_Candidate(run, column))
      most -= 1

  def _put_candidates(
    self, plan: programs.DecodePlan, shard: _SamplingShard, first: int
  ) -> None:
    """Gives slots from `first` on to the candidates of a shard."""
    active = shard.active
    if not active:
      return
    steps = len(plan.tokens)
    runs = [each.run for each in active]
    for slot, run in enumerate(runs, first):
      last = run.next + steps - 1
      shard.cover(run, min(last, run.span - 2))
      plan.put(slot, run)
    there = slice(first, first + len(active))
    at = np.arange(steps)[:, None]
    position = np.array([run.next for run in runs])
    before = np.array([len(run.request.prefix) for run in runs])
    span = np.array([run.span for run in runs])
    plan.tokens[0, there] = [run.ids[-1] for run in runs]
    plan.tokens[1:, there] = -1
    plan.positions[:, there] = np.where(
      position + at < span - 1, position + at, -1
    )
    plan.draws[:, there] = position + 1 - before + at
    plan.seeds[there] = np.array(
      [each.run.request.seeds[each.column] for each in active], np.uint32
    ).view(np.int32)
    plan.temperatures[there] = [run.request.temperature for run in runs]

  def _add_tokens(
    self, each: _Candidate, tokens: list[int], logprobs: list[float]
  ) -> bool:
    """Adds sampled tokens to a candidate; returns whether it has ended."""
    run, request = each.run, each.run.request
    start, stop = len(request.prefix), request.stop
    for token, logprob in zip(tokens, logprobs, strict=True):
      run.ids.append(token)
      run.next += 1
      each.logprobs.append(logprob)
      self.useful += 1
      self.generated_tokens += 1
      if not stop.ends(run.ids, start):
        continue
      self._ended += 1
      request.shard.end(run)
      request.steps[each.column] = Generated(
        tuple(run.ids[start:]),
        tuple(each.logprobs),
        token if token in stop.ids else BY_LENGTH,
      )
      if all(request.steps):
        request.shard.cache.unpin(request.page)
        self._finish(request, request.steps)
      return True
    return False

  def _call_decode(
    self, plan: programs.DecodePlan
  ) -> tuple[np.ndarray, np.ndarray]:
    steps = plan.live
    self.slots += steps * plan.tokens.shape[1]
    began = time.perf_counter()
    with self.busy:
      self.memory.arrays, *out = _decode(
        self.params,
        self.memory.arrays,
        self._to_devices(plan.array, 1),
        structure=self.structure,
        options=self._options,
      )
      # Later inner steps were not run.
      found = [each[: len(plan.tokens)] for each in jax.device_get(out)]
    before, self._since = self._since, time.thread_time()
    if steps:
      # Another thread may have made the last call.
      host = max(self._since - before, 0.0)
      self._pace.add(host, time.perf_counter() - began, steps)
    return found
