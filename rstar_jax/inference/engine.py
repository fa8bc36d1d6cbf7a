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
from rstar_jax.inference.generated import BY_LENGTH, Generated, Stop
from rstar_jax.inference.pace import Pace
from rstar_jax.inference.paged_model import Call, PagedModel, Request
from rstar_jax.inference.prefix_cache import Page
from rstar_jax.inference.runs import Run, Shard
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
    ids: the prefix.
    seeds: one for each candidate.
    stop: when a step ends.
    temperature: of all samples; 0 takes the likeliest tokens.
    steps: the candidates that have ended, None for the others.
    page: the last page of the prefix, pinned; None until it is in pages.
  """

  def __init__(
    self, ids: list[int], seeds: list[int], stop: Stop, temperature: float
  ):
    super().__init__(ids)
    self.ids, self.seeds, self.stop = ids, seeds, stop
    self.temperature = temperature
    self.steps: list[Generated | None] = [None] * len(seeds)
    self.page: Page | None = None

  @property
  def span(self) -> int:
    """Returns the most tokens of a candidate's path."""
    return len(self.ids) + self.stop.limit


@dataclasses.dataclass(eq=False)
class _Candidate:
  """A step that is being sampled: number `column` of its expansion."""

  run: Run
  column: int
  logprobs: list[float] = dataclasses.field(default_factory=list)


class Engine(PagedModel):
  """Samples next steps; any thread may ask.

  Attributes:
    generated_tokens: tokens sampled so far.
    too_long: prefixes so far that were too long to be expanded.
  """

  def __init__(
    self,
    model: Transformer,
    config: EngineConfig,
    *,
    max_new_tokens: int | None = None,
    **options: Any,
  ):
    """Makes an engine; nothing is compiled before the first call.

    Args:
      model: with an LM head.
      config: sizes and sampling.
      max_new_tokens: longest step; None is the longest of the config.
      **options: mesh, busy, lock; see `PagedModel`.
    """
    self.max_new_tokens = max_new_tokens or max(
      config.max_step_tokens, config.max_block_tokens
    )
    longest = config.max_prefix_tokens + self.max_new_tokens
    super().__init__(
      model, config, longest=longest, margin=self.max_new_tokens, **options
    )
    if longest > model.config.max_length:
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
    self._ready: dict[Shard, collections.deque[tuple[_Expansion, int]]] = {}
    self._active: dict[Shard, list[_Candidate]] = {}
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
    if len(prefix) == 0:
      raise ValueError("the prefix is empty: give at least one token")
    if not 1 <= stop.limit <= self.max_new_tokens:
      raise ValueError(f"limit={stop.limit} is not in 1..{self.max_new_tokens}")
    if temperature is None:
      temperature = self.config.temperature
    if not 0 <= temperature < np.inf:
      raise ValueError(f"temperature={temperature} is not 0 or above")
    ids = np.asarray(prefix).tolist()
    seeds = np.asarray(seeds, np.uint32).tolist()
    request = _Expansion(ids, seeds, stop, temperature)
    with self._guard:
      self.prefix_tokens += len(ids)
      self.too_long += len(ids) > self.config.max_prefix_tokens
    if len(ids) > self.config.max_prefix_tokens or not seeds:
      request.future.set_result([Generated((), (), BY_LENGTH)] * len(seeds))
    else:
      self._add([request])
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
      self._allocate()
      with self.lock:
        self._call_decode(self._decode_plan(rows))

    return super().warm_up_calls() + [
      functools.partial(decode, rows) for rows in self.sizes
    ]

  @property
  def rows_used(self) -> int:
    """Returns the number of candidates that are being sampled now."""
    return sum(map(len, list(self._active.values())))

  @property
  def sizes(self) -> list[int]:
    """Returns the token slots of a step: a quarter of the rows, and all."""
    return sorted({self._rounded(self.rows // 4), self.rows})

  def _allocate(self) -> None:
    super()._allocate()
    if set(self._active) != set(self._shards):
      self._ready = {each: collections.deque() for each in self._shards}
      self._active = {each: [] for each in self._shards}

  def _cancel(self, request: _Expansion) -> None:
    super()._cancel(request)
    shard = request.shard
    if request.page is not None:
      shard.cache.unpin(request.page)
    self._ready[shard] = collections.deque(
      each for each in self._ready[shard] if each[0] is not request
    )
    self._active[shard] = [
      each for each in self._active[shard] if each.run.request is not request
    ]

  def _start(self, request: _Expansion) -> bool:
    """Gets a prefix into pages, without its last token.

    Each candidate computes that token itself, and so has its logits.
    """
    shard, before = request.shard, len(request.ids) - 1
    rows, active = self.rows // self._num_shards, len(self._active[shard])
    lined = len(self._ready[shard])
    lined += sum(len(run.request.seeds) for run in shard.prefills)
    # Enough candidates have their prefixes, or will, to fill all slots.
    if lined > rows:
      return False
    # Prefixes must not take the pages that earlier candidates wait for.
    steps = 1
    if lined or active:
      steps = max(1, min(lined + len(request.seeds), rows - active))
    run = shard.start(
      request,
      request.ids[:before],
      reuse=before,
      pages=before,
      span=request.span,
      margin=steps * self._margin_pages,
      done=self._prefilled,
    )
    if run is None:
      return False
    self.prefilled_tokens += run.left
    if run.left:
      shard.prefills.append(run)
    else:
      self._prefilled(run)
    return True

  def _prefilled(self, run: Run, value: float = 0.0) -> None:
    """Queues the candidates of a prefix that is in pages."""
    del value
    request = run.request
    request.page = request.shard.end(run)
    # Keeps the prefix until its last candidate has ended.
    request.shard.cache.pin(request.page)
    self._ready[request.shard] += [
      (request, column) for column in range(len(request.seeds))
    ]

  def _fills_call(self) -> bool:
    rows = self.rows // self._num_shards
    return all(self._slots_wanted(shard) >= rows for shard in self._shards)

  def _plan_call(self) -> Call | None:
    pending = sum(run.left for each in self._shards for run in each.prefills)
    sampling = any(self._ready.values()) or any(self._active.values())
    if pending and (not sampling or pending >= self.prefill_tokens // 2):
      return self._prefill()
    return self._decode() if sampling else None

  def _decode_plan(self, rows: int) -> programs.DecodePlan:
    return programs.DecodePlan(
      *(rows, self.config.inner_steps, self.path_pages, self.shard_pages),
      self._inner_steps(),
    )

  def _inner_steps(self) -> int:
    """Returns the inner steps of the next call."""
    return self._pace.steps(self.generated_tokens / max(self._ended, 1))

  def _slots_wanted(self, shard: Shard) -> int:
    """Returns the slots that a shard's work could fill."""
    tokens = sum(run.left for run in shard.prefills)
    prefills = -(-tokens // self._inner_steps())
    return prefills + len(self._active[shard]) + len(self._ready[shard])

  def _decode(self) -> Call:
    """Plans a call that continues candidates, begins others and prefills."""
    wanted = max(map(self._slots_wanted, self._shards)) * self._num_shards
    rows = next((size for size in self.sizes if size >= wanted), self.rows)
    plan = self._decode_plan(rows)
    slots = rows // self._num_shards
    places = []
    prefilled: list[Run] = []
    for number, shard in enumerate(self._shards):
      first = number * slots
      free = slots - len(self._active[shard])
      # Prefixes must not wait until all candidates have ended.
      most = free // 2 if self._ready[shard] else free
      taken = self._put_prefixes(plan, shard, first, most)
      prefilled += [run for run in shard.prefills if not run.left]
      shard.prefills = [run for run in shard.prefills if run.left]
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
    self, shard: Shard, first: int, tokens: np.ndarray, logprobs: np.ndarray
  ) -> None:
    """Adds the samples of a call to a shard's candidates; some end with them.

    Args:
      shard: the shard.
      first: slot of its first candidate.
      tokens: int32 [k, T], of k inner steps.
      logprobs: float32 [k, T].
    """
    active = self._active[shard]
    slots = slice(first, first + len(active))
    sampled = zip(
      active,
      tokens[:, slots].T.tolist(),
      logprobs[:, slots].T.tolist(),
      strict=True,
    )
    self._active[shard] = [
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

  def _begin_candidates(self, shard: Shard, most: int) -> None:
    """Begins as many candidates as there are slots and pages."""
    ready = self._ready[shard]
    while ready and most > 0:
      request, column = ready[0]
      run = shard.start(
        request,
        request.ids,
        reuse=len(request.ids) - 1,
        pages=request.span,
        span=request.span,
      )
      if run is None:
        return
      ready.popleft()
      self._active[shard].append(_Candidate(run, column))
      most -= 1

  def _put_candidates(
    self, plan: programs.DecodePlan, shard: Shard, first: int
  ) -> None:
    """Gives slots from `first` on to the candidates of a shard."""
    active = self._active[shard]
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
    before = np.array([len(run.request.ids) for run in runs])
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
    start, stop = len(request.ids), request.stop
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
      self._pages, *out = _decode(
        self.params,
        self._pages,
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
