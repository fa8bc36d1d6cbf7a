"""Values of paths by a model with a scalar head; ids only."""

import concurrent.futures
import dataclasses
import functools
import os.path
from collections.abc import Sequence
from typing import Any

import numpy as np
from absl import logging

from rstar_jax.config.schema import EngineConfig
from rstar_jax.inference.paged_model import Call, PagedModel
from rstar_jax.inference.runs import Request, Run
from rstar_jax.inference.sizes import pages_for
from rstar_jax.models.config import PAGE
from rstar_jax.models.transformer import Transformer


class _Valuation(Request):
  """Paths to be valued, mostly one prefix with several steps.

  Attributes:
    paths: their ids.
    values: float32 [n].
    left: paths without a value.
    common: number of first tokens that all paths share, computed once.
    promised: pages that each path needs after these.
  """

  def __init__(self, paths: list[list[int]]):
    super().__init__(paths[0] if paths else [])
    self.paths = paths
    self.values = np.zeros(len(paths), np.float32)
    self.left = len(paths)
    self.common = 0
    self.promised: list[int] = []


class ScoringEngine(PagedModel):
  """Values paths at their last tokens; any thread may ask.

  Attributes:
    scored: paths valued so far.
  """

  def __init__(self, model: Transformer, config: EngineConfig, **options: Any):
    """Makes an engine; nothing is compiled before the first call.

    Args:
      model: with a scalar head.
      config: sizes of the program.
      **options: mesh, busy, lock; see `PagedModel`.
    """
    super().__init__(model, config, step=config.max_step_tokens, **options)
    self.scored = 0

  def submit(
    self, paths: Sequence[Sequence[int]], *, tree: str = ""
  ) -> concurrent.futures.Future[np.ndarray]:
    """Asks for the values of paths; their common prefix is computed once.

    A value depends on its path and the weights alone, to the bit.

    Args:
      paths: n sequences of at least one id, of any length: for one that is
        longer than the pages allow, more pages are made.
      tree: the tree that they belong to, which only servers need.

    Returns:
      float32 [n] in [-1, 1].

    Raises:
      ValueError: a path is empty. The future raises it if a device has no room
        for the paths.
    """
    del tree
    if not all(map(len, paths)):
      raise ValueError("a path has no tokens: nothing to score")
    request = _Valuation([np.asarray(path).tolist() for path in paths])
    with self._guard:
      self.prefix_tokens += sum(map(len, paths))
    if paths:
      self._add(request)
    else:
      request.future.set_result(request.values)
    return request.future

  def _start(self, request: _Valuation) -> bool:
    """Starts with the prefix that all paths share."""
    shard, paths = request.shard, request.paths
    longest = max(map(len, paths))
    if len({shard.kind_of(len(path)) for path in paths}) == 1:
      # The last token of a path is computed even if all paths share it.
      shared = len(os.path.commonprefix(paths))
      request.common = min(shared, min(map(len, paths)) - 1)
    request.promised = [
      pages_for(len(path)) - request.common // PAGE for path in paths
    ]
    promised = sum(request.promised)
    needed = pages_for(request.common) + promised
    fits = longest <= self.sizes.longest and needed <= self.sizes.shard_pages
    try:
      if not fits and not self._grow(longest, needed):
        return False
    except ValueError as error:  # No room for it, but for others.
      self._fail(request, error)
      return True
    run = shard.start(
      request,
      paths[0][: request.common],
      reuse=request.common,
      pages=request.common,
      span=len(paths[0]),
      margin=promised,
      done=self._branch,
    )
    if run is None:
      return False
    # Pages are promised to all paths at once, so that none waits for another.
    shard.reserved += promised
    self._queue(run)
    return True

  def _branch(self, run: Run) -> None:
    """Starts each path, once the common prefix is in pages."""
    request, shard = run.request, run.request.shard
    shard.end(run)
    for index, path in enumerate(request.paths):
      shard.reserved -= request.promised[index]
      run = shard.start(
        request,
        path,
        reuse=len(path) - 1,
        pages=len(path),
        span=len(path),
        done=functools.partial(self._set_value, index),
      )
      self._queue(run)

  def _set_value(self, index: int, run: Run) -> None:
    request = run.request
    request.shard.end(run)
    request.values[index] = run.value
    request.left -= 1
    self.scored += 1
    if not request.left:
      self._finish(request, request.values)

  def _cancel(self, request: _Valuation) -> None:
    shared = any(len(run.ids) == request.common for run in request.runs)
    if shared:
      request.shard.reserved -= sum(request.promised)
    super()._cancel(request)

  def _fills_call(self) -> bool:
    slots = self.sizes.prefill_tokens // self.sizes.shards
    return all(
      sum(run.left for run in shard.prefills) >= slots
      for shard in self.memory.shards
    )

  def _plan_call(self) -> Call | None:
    some = any(shard.prefills for shard in self.memory.shards)
    return self._prefill() if some else None

  def _grow(self, longest: int, needed: int) -> bool:
    """Makes more pages for a longer path; returns False while some are used."""
    if any(shard.prefills for shard in self.memory.shards):
      return False
    sizes = dataclasses.replace(
      self.sizes,
      longest=max(self.sizes.longest, 2 * longest),
      least=max(self.sizes.least, needed),
    )
    logging.info(
      "%d pages for paths of up to %d tokens", sizes.shard_pages, sizes.longest
    )
    self.memory.resize(sizes)
    return True
