"""A model whose keys and values lie in pages, and the thread that calls it.

The base of sampling (`engine.py`) and of scoring (`scoring.py`). Requests come
from any thread and wait in line. A thread of the model takes them and ends when
none is left. It fills each call of a program with the work of any requests; no
result depends on which.
"""

import abc
import concurrent.futures
import contextlib
import dataclasses
import functools
import threading
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from flax import nnx

from rstar_jax.config.schema import EngineConfig
from rstar_jax.inference import programs
from rstar_jax.inference.busy import Busy
from rstar_jax.inference.page_memory import PageMemory
from rstar_jax.inference.runs import Request, Run, Shard
from rstar_jax.inference.sizes import BLOCK, Sizes
from rstar_jax.models import int8, paged_attention, sharding
from rstar_jax.models.config import PAGE, ModelConfig
from rstar_jax.models.kernels import build
from rstar_jax.models.step import stacked
from rstar_jax.models.transformer import Transformer, reconfigured

# Fields of a model's config that change nothing in pages, or are set here.
_ELSEWHERE = (
  *("family", "max_length", "remat", "attention", "attention_block"),
  *("scan", "balance", "row_block", "native"),
)
# A data shard gets no more requests than twice the fewest of any shard, and
# these.
_AHEAD = 4


@functools.partial(
  jax.jit, static_argnames=("structure", "options"), donate_argnames="pages"
)
def _prefill(params, pages, plan, by_path, *, structure, options):
  model = structure.merge(params)
  return programs.prefill(model, pages, plan, by_path, options)


def kernels_for(
  config: EngineConfig,
  model: ModelConfig,
  mesh: jax.sharding.Mesh | jax.sharding.AbstractMesh | None,
  backend: str,
) -> paged_attention.Kind:
  """Returns the kernels of an engine; see `paged_attention.kind_for`.

  Raises:
    ValueError: an engine with this config cannot hold such a model there.
  """
  if config.weights == "int8":
    int8.check(model)
  return paged_attention.kind_for(config.kernels, model, mesh, backend)


def _computed(model: Transformer) -> dict[str, Any]:
  """Returns by name what a model computes, for all parameters."""
  fields = {"head": model.head, **vars(model.config)}
  return {name: fields[name] for name in fields if name not in _ELSEWHERE}


def _arranged(model: Transformer, config: EngineConfig) -> Transformer:
  """Returns a model with the layout of parameters that programs take."""
  if config.weights == "int8":
    # Before they are stacked, so that no copy of the floats is made.
    graphdef, params = nnx.split(model)
    model = nnx.merge(graphdef, int8.quantized(params))
  return model if jax.default_backend() == "cpu" else stacked(model)


@dataclasses.dataclass(frozen=True)
class Call:
  """A planned call of a program.

  Attributes:
    run: makes the call; the caller holds the device's lock.
    then: takes the results of `run`, without the lock.
  """

  run: Callable[[], Any]
  then: Callable[[Any], None]


class PagedModel(abc.ABC):
  """A model, its pages, and a thread while there are requests.

  A subclass says how requests become runs, and plans the calls.

  Attributes:
    structure: a static argument of the programs.
    params: an argument of the programs.
    config: sizes of the programs.
    memory: the pages.
    busy: the clock of the device.
    lock: held while the device computes; all models of a device share one.
    prefix_tokens: tokens of all prefixes so far.
    prefilled_tokens: those of them that were computed.
    slots: token slots of all calls so far.
    useful: those of them that computed a token.
    host_seconds: CPU time of the thread.
  """

  # The record of a data shard.
  _shard: type[Shard] = Shard

  def __init__(
    self,
    model: Transformer,
    config: EngineConfig,
    *,
    step: int,
    mesh: jax.sharding.Mesh | None = None,
    busy: Busy | None = None,
    lock: contextlib.AbstractContextManager | None = None,
  ):
    """Allocates nothing on the device before the first request.

    Args:
      model: with any head.
      config: sizes of the programs.
      step: most tokens that follow a prefix.
      mesh: the mesh of the model's parameters.
      busy: None makes one.
      lock: None makes one.
    """
    kind = kernels_for(config, model.config, mesh, jax.default_backend())
    layers = model.config.num_layers
    if kind == "cpp":
      build.load()
    self._computed = _computed(model)
    model = _arranged(model, config)
    if jax.default_backend() == "cpu":
      model = reconfigured(model, native=kind == "cpp", row_block=BLOCK)
    graphdef, self.params = nnx.split(model)
    self.structure = programs.structure_of(graphdef)
    self.config = config
    self.busy = busy or Busy()
    self.lock = lock or threading.Lock()
    self.prefix_tokens = self.prefilled_tokens = 0
    self.slots = self.useful = 0
    self.host_seconds = 0.0
    attention = paged_attention.PagedAttention(kind, mesh)
    self._options = programs.Options(layers=layers, attention=attention)
    self._mesh = mesh
    sizes = Sizes.of(config, sharding.row_shards(mesh), step)
    self.memory = PageMemory(
      sizes, model.config, layers, attention, self._shard
    )
    # Guards the inbox and the thread: requests come from any thread.
    self._guard = threading.Lock()
    self._inbox: list[Request] = []
    self._thread: threading.Thread | None = None
    # Requests that the thread has taken.
    self._open: set[Request] = set()

  @property
  def sizes(self) -> Sizes:
    """Returns the sizes of the programs, and the number of pages."""
    return self.memory.sizes

  def load(self, model: Transformer) -> None:
    """Takes the parameters of a model.

    Nothing is compiled, and no request may be open.

    Args:
      model: of the same form as the first one. Its arrays are not copied.

    Raises:
      ValueError: it computes something else, or in another dtype.
    """
    given = _computed(model)
    if other := [x for x, value in self._computed.items() if value != given[x]]:
      raise ValueError(
        f"the model differs from the loaded one in {', '.join(other)}: start "
        "the server with this model"
      )
    self.params = nnx.split(_arranged(model, self.config))[1]
    self.memory.free()

  def warm_up_calls(self) -> list[Callable[[], None]]:
    """Returns calls that each compile a program, on empty slots."""

    def prefill():
      self.memory.allocate()
      with self.lock:
        self._call_prefill(self._prefill_plan())

    return [prefill]

  def _add(self, request: Request) -> None:
    """Puts a request into the inbox, and starts the thread if there is none."""
    with self._guard:
      self._inbox.append(request)
      if self._thread is None:
        self._thread = threading.Thread(target=self._serve, name="model")
        self._thread.start()

  def _serve(self) -> None:
    """Works until no request is left."""
    before = self.host_seconds
    try:
      while self._left():
        self._take_in()
        # A full call is planned while another model computes. A call that is
        # not full is planned with the lock, and has what arrives until then.
        call = self._plan_call() if self._fills_call() else None
        with self.lock:
          if call is None:
            self._take_in()
            call = self._plan_call()
          found = call.run() if call else None
        if call:
          call.then(found)
        self.host_seconds = before + time.thread_time()
    except BaseException as error:  # Waiting callers get it.
      with self._guard:
        failed = [*self._open, *self._inbox]
        self._open, self._inbox, self._thread = set(), [], None
        self.memory.free()
      for request in failed:
        with contextlib.suppress(concurrent.futures.InvalidStateError):
          request.future.set_exception(error)

  def _left(self) -> bool:
    """Returns whether any request is left; if not, the thread ends."""
    with self._guard:
      if not self._inbox and not self._open:
        self._thread = None
      return self._thread is not None

  def _take_in(self) -> None:
    """Takes the requests of the inbox, and starts those that have room."""
    with self._guard:
      new, self._inbox = self._inbox, []
    self._open.update(new)
    self.memory.allocate()
    for request in new:
      request.shard = self._shard_for(request)
      request.shard.requests += 1
      request.shard.waiting.append(request)
    for request in [each for each in self._open if each.future.cancelled()]:
      self._cancel(request)
    for shard in self.memory.shards:
      while shard.waiting and self._start(shard.waiting[0]):
        shard.waiting.popleft()

  def _shard_for(self, request: Request) -> Shard:
    """Returns the shard with most of a path among those with room for more."""
    shards = self.memory.shards
    most = 2 * min(each.requests for each in shards) + _AHEAD
    near = [each for each in shards if each.requests <= most]
    if len(near) == 1:
      return near[0]

    def worth(shard: Shard) -> tuple[int, int]:
      pages = shard.cache.match(request.prefix).length // PAGE
      return pages, -shard.requests

    return max(near, key=worth)

  @abc.abstractmethod
  def _start(self, request: Request) -> bool:
    """Starts a request's runs, or fails it.

    Returns False if there are too few pages for now.
    """

  @abc.abstractmethod
  def _fills_call(self) -> bool:
    """Returns whether the work at hand fills the next call."""

  @abc.abstractmethod
  def _plan_call(self) -> Call | None:
    """Plans the next call of a program, None if there is nothing to compute."""

  def _queue(self, run: Run) -> None:
    """Has the rest of a run's tokens computed, if there is any."""
    self.prefilled_tokens += run.left
    if run.left:
      run.request.shard.prefills.append(run)
    else:
      run.done(run)

  def _finish(self, request: Request, result: Any) -> None:
    """Gives a request its result."""
    self._leave(request)
    # It may have been cancelled at this moment.
    with contextlib.suppress(concurrent.futures.InvalidStateError):
      request.future.set_result(result)

  def _fail(self, request: Request, error: Exception) -> None:
    """Gives a request that has no runs an error."""
    self._leave(request)
    with contextlib.suppress(concurrent.futures.InvalidStateError):
      request.future.set_exception(error)

  def _cancel(self, request: Request) -> None:
    """Ends a request that was cancelled."""
    request.shard.forget(request)
    self._leave(request)

  def _leave(self, request: Request) -> None:
    self._open.discard(request)
    request.shard.requests -= 1

  def _prefill_plan(self) -> programs.PrefillPlan:
    sizes = self.sizes
    return programs.PrefillPlan(
      sizes.prefill_tokens,
      sizes.prefill_paths,
      sizes.path_pages,
      sizes.shard_pages,
      sizes.shards,
    )

  def _prefill(self) -> Call:
    """Plans to compute as many tokens of runs as a call has slots for."""
    plan, shards = self._prefill_plan(), self.memory.shards
    slots, rows = (len(x) // len(shards) for x in (plan.tokens, plan.tables))
    # The slot of each run's last token in the call.
    last: dict[Run, int] = {}
    for number, shard in enumerate(shards):
      at = number * slots
      for row, run in enumerate(shard.prefills[:rows]):
        some = min(run.left, (number + 1) * slots - at)
        if not some:
          break
        shard.cover(run, run.next + some - 1)
        plan.put(at, number * rows + row, row, run, some)
        run.next += some
        at += some
        self.useful += some
        last[run] = at - 1
    ended = [run for shard in shards for run in shard.take_prefilled()]

    def then(values: np.ndarray | None) -> None:
      for run in ended:
        if values is not None:
          run.value = float(values[last[run]])
        run.done(run)

    return Call(functools.partial(self._call_prefill, plan), then)

  def _call_prefill(self, plan: programs.PrefillPlan) -> np.ndarray | None:
    self.slots += len(plan.tokens)
    with self.busy:
      self.memory.arrays, values = _prefill(
        self.params,
        self.memory.arrays,
        self._to_devices(plan.array, 1),
        self._to_devices(plan.by_path, 0),
        structure=self.structure,
        options=self._options,
      )
      # Only values are waited for. A policy has none: its next call is planned
      # and sent meanwhile, and lock and clock miss the rest of this one.
      return jax.device_get(jax.block_until_ready(values))

  def _to_devices(self, array: np.ndarray, axis: int) -> jax.Array | np.ndarray:
    """Returns host data on the devices, cut along an axis by data shard."""
    if self._mesh is None:
      return array
    spec = [None] * array.ndim
    spec[axis] = sharding.RULES.batch
    place = jax.sharding.NamedSharding(self._mesh, jax.P(*spec))
    return jax.device_put(array, place)
