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
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from flax import nnx

from rstar_jax.config.schema import EngineConfig
from rstar_jax.inference import programs
from rstar_jax.inference.busy import Busy
from rstar_jax.inference.runs import Run, Shard, pages_for
from rstar_jax.inference.weights import Weights
from rstar_jax.models import int8, paged_attention, sharding
from rstar_jax.models.config import PAGE, ModelConfig
from rstar_jax.models.kernels import build, cpu
from rstar_jax.models.step import stacked
from rstar_jax.models.transformer import Transformer, reconfigured

# The slots of a call are a multiple of this in each data shard; programs of
# other sizes would not agree to the bit. It is also the number of rows that XLA
# on a CPU computes at once; see `ModelConfig.row_block`.
BLOCK = 32
# A data shard gets no more requests than twice the fewest of any shard, and
# these.
_AHEAD = 4


@functools.partial(
  jax.jit, static_argnames=("structure", "options"), donate_argnames="pages"
)
def _prefill(params, pages, plan, both, *, structure, options):
  model = structure.merge(params)
  return programs.prefill(model, pages, plan, both, options)


def kernels_of(
  config: EngineConfig, model: ModelConfig, mesh: jax.sharding.Mesh | None
) -> paged_attention.Kind:
  """Returns the implementation of attention and products on this machine.

  Raises:
    ValueError: the config names kernels that cannot run here.
  """
  backend = jax.default_backend()
  on_cpu = backend == "cpu" and mesh is None and cpu.supports(model)
  match config.kernels:
    case "auto" if on_cpu and build.available():
      return "cpp"
    case "auto":
      return "pallas" if backend == "tpu" else "xla"
    case "cpp" if not on_cpu:
      raise ValueError(
        "engine.kernels='cpp' is for one CPU device and heads of a multiple of "
        "32 in float32 or bfloat16, without softcap and sinks; here are "
        f"{backend}, a mesh of {mesh.size if mesh else 1}, heads of "
        f"{model.head_dim} in {model.dtype}, "
        f"softcap={model.attention_softcap}, sinks={model.sinks}: set it to "
        "'auto' in another --workdir"
      )
    case "ragged" if model.sinks:
      raise ValueError(
        "engine.kernels='ragged' has no sinks, which the model's attention "
        "has: set it to 'auto' in another --workdir"
      )
  return config.kernels


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


class Request:
  """A request to a model.

  Attributes:
    prefix: ids of its path, or of one of its paths.
    future: gets the result.
    shard: the data shard that has its paths; None before the thread takes it.
    runs: its runs that have begun and not ended.
  """

  def __init__(self, prefix: list[int]):
    self.prefix = prefix
    self.future: concurrent.futures.Future[Any] = concurrent.futures.Future()
    self.shard: Shard | None = None
    self.runs: set[Run] = set()


class PagedModel(Weights, abc.ABC):
  """A model, its pages, and a thread while there are requests.

  A subclass says how requests become runs, and plans the calls.

  Attributes:
    config: sizes of the programs.
    busy: the clock of the device.
    lock: held while the device computes; all models of a device share one.
    prefix_tokens: tokens of all prefixes so far.
    prefilled_tokens: those of them that were computed.
    slots: token slots of all calls so far.
    useful: those of them that computed a token.
    host_seconds: CPU time of the thread.
  """

  def __init__(
    self,
    model: Transformer,
    config: EngineConfig,
    *,
    longest: int,
    margin: int,
    mesh: jax.sharding.Mesh | None = None,
    busy: Busy | None = None,
    lock: contextlib.AbstractContextManager | None = None,
  ):
    """Allocates nothing on the device before the first request.

    Args:
      model: with any head.
      config: sizes of the programs.
      longest: most tokens of a path.
      margin: most tokens that follow a prefix.
      mesh: the mesh of the model's parameters.
      busy: None makes one.
      lock: None makes one.
    """
    kind = kernels_of(config, model.config, mesh)
    layers = model.config.num_layers
    if kind == "cpp":
      build.load()
    model = _arranged(model, config)
    if jax.default_backend() == "cpu":
      model = reconfigured(model, native=kind == "cpp", row_block=BLOCK)
    super().__init__(model)
    self.config = config
    self.busy = busy or Busy()
    self.lock = lock or threading.Lock()
    self.prefix_tokens = self.prefilled_tokens = 0
    self.slots = self.useful = 0
    self.host_seconds = 0.0
    self._options = programs.Options(
      layers=layers, attention=paged_attention.PagedAttention(kind, mesh)
    )
    self._model_config = model.config
    self._mesh = mesh
    self._num_shards = sharding.row_shards(mesh)
    self._longest, self._margin_pages = longest, pages_for(margin) + 1
    self._least_pages = 0
    self._pages: jax.Array | None = None
    self._shards: list[Shard] = []
    # Pages dropped by earlier caches.
    self._dropped = 0
    # Guards the inbox and the thread: requests come from any thread.
    self._guard = threading.Lock()
    self._inbox: list[Any] = []
    self._thread: threading.Thread | None = None
    # Requests that the thread has taken.
    self._open: set[Any] = set()

  @property
  def rows(self) -> int:
    """Returns the token slots of a step."""
    return self._rounded(self.config.rows)

  @property
  def prefill_tokens(self) -> int:
    """Returns the token slots of a call that computes prefixes."""
    return self._rounded(self.config.prefill_tokens)

  def _rounded(self, slots: int) -> int:
    """Returns slots rounded up to whole blocks, equally many in each shard."""
    block = self._num_shards * BLOCK
    return -(-slots // block) * block

  @property
  def path_pages(self) -> int:
    """Returns the pages of the longest path."""
    return pages_for(self._longest)

  @property
  def shard_pages(self) -> int:
    """Returns the pages of each data shard."""
    least = max(self.path_pages + self._margin_pages, self._least_pages)
    if self.config.pages:
      return max(self.config.pages // self._num_shards, least)
    # A path for every fourth row, and two steps for every row.
    rows = self.rows // self._num_shards
    return least + rows // 4 * self.path_pages + 2 * rows * self._margin_pages

  @property
  def pages_dropped(self) -> int:
    """Returns the pages dropped so far for lack of free ones."""
    return self._dropped + sum(each.cache.dropped for each in self._shards)

  @property
  def pages_used(self) -> int:
    """Returns the pages that have tokens now."""
    return sum(each.cache.used for each in self._shards)

  def load(self, model: Transformer) -> None:
    """Takes the parameters of a model; see `Weights.load`.

    Nothing is compiled, and no request may be open.

    Args:
      model: of the same config as the first one. Its arrays are not copied.
    """
    super().load(_arranged(model, self.config))
    self._free()

  def warm_up_calls(self) -> list[Callable[[], None]]:
    """Returns calls that each compile a program, on empty slots."""

    def prefill():
      self._allocate()
      with self.lock:
        self._call_prefill(self._prefill_plan())

    return [prefill]

  def _add(self, requests: Sequence[Any]) -> None:
    """Puts requests into the inbox, and starts the thread if there is none."""
    with self._guard:
      self._inbox += requests
      if self._thread is None and self._inbox:
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
        self._free()
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
    self._allocate()
    for request in new:
      request.shard = self._shard_for(request)
      request.shard.requests += 1
      request.shard.waiting.append(request)
    for request in [each for each in self._open if each.future.cancelled()]:
      self._cancel(request)
    for shard in self._shards:
      while shard.waiting and self._start(shard.waiting[0]):
        shard.waiting.popleft()

  def _shard_for(self, request: Any) -> Shard:
    """Returns the shard with most of a path among those with room for more."""
    most = 2 * min(each.requests for each in self._shards) + _AHEAD
    near = [each for each in self._shards if each.requests <= most]
    if len(near) == 1:
      return near[0]

    def worth(shard: Shard) -> tuple[int, int]:
      pages = shard.cache.match(request.prefix)[2] // PAGE
      return pages, -shard.requests

    return max(near, key=worth)

  @abc.abstractmethod
  def _start(self, request: Any) -> bool:
    """Starts a request's runs; returns False if there are too few pages."""

  @abc.abstractmethod
  def _fills_call(self) -> bool:
    """Returns whether the work at hand fills the next call."""

  @abc.abstractmethod
  def _plan_call(self) -> Call | None:
    """Plans the next call of a program, None if there is nothing to compute."""

  def _finish(self, request: Any, result: Any) -> None:
    """Gives a request its result."""
    self._leave(request)
    # It may have been cancelled at this moment.
    with contextlib.suppress(concurrent.futures.InvalidStateError):
      request.future.set_result(result)

  def _cancel(self, request: Any) -> None:
    """Ends a request that was cancelled."""
    request.shard.forget(request)
    self._leave(request)

  def _leave(self, request: Any) -> None:
    self._open.discard(request)
    request.shard.requests -= 1

  def _allocate(self) -> None:
    if not self._shards:
      self._shards = [
        Shard(self.shard_pages, self._kind_of) for _ in range(self._num_shards)
      ]
    if self._pages is not None:
      return
    try:
      self._pages = self._options.attention.empty(
        self._model_config, self._options.layers, self.shard_pages
      )
    except jax.errors.JaxRuntimeError as error:
      if "RESOURCE_EXHAUSTED" not in str(error):
        raise
      size = self._page_bytes()
      stats = jax.local_devices()[0].memory_stats() or {}
      free = stats.get("bytes_limit", 0) - stats.get("bytes_in_use", 0)
      raise ValueError(
        f"{self.shard_pages} pages of keys and values take "
        f"{self.shard_pages * size / 2**30:.2f} GiB of a device, of which "
        f"{free / 2**30:.2f} GiB are free: set engine.pages to at most "
        f"{max(free, 0) // size * self._num_shards}"
      ) from error

  def _free(self) -> None:
    """Drops the pages and the record of them."""
    self._dropped = self.pages_dropped
    self._shards, self._pages = [], None

  def _page_bytes(self) -> int:
    """Returns the bytes of a page in all layers, on one device."""
    options, config = self._options, self._model_config
    size = jax.eval_shape(
      lambda: paged_attention.PagedAttention(options.attention.kind).empty(
        config, options.layers, 1
      )
    )
    return size.size * size.dtype.itemsize // options.attention.cuts(config)

  def _kind_of(self, span: int) -> int:
    """Returns the kind of positions of a path; see `rotary.rotary`."""
    ropes = {each.rope for each in self._model_config.layers()}
    return sum(
      each.kind == "longrope" and span > each.original_length for each in ropes
    )

  def _prefill_plan(self) -> programs.PrefillPlan:
    slots = self.prefill_tokens
    return programs.PrefillPlan(
      slots,
      max(slots // 4, self._num_shards),
      self.path_pages,
      self.shard_pages,
      self._num_shards,
    )

  def _prefill(self) -> Call:
    """Plans to compute as many tokens of runs as a call has slots for."""
    plan = self._prefill_plan()
    slots = len(plan.tokens) // self._num_shards
    rows = len(plan.tables) // self._num_shards
    ended: list[tuple[Run, int]] = []
    for number, shard in enumerate(self._shards):
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
        if not run.left:
          ended.append((run, at - 1))
    for shard in self._shards:
      shard.prefills = [run for run in shard.prefills if run.left]

    def then(values: np.ndarray | None) -> None:
      for run, at in ended:
        run.done(run, 0.0 if values is None else float(values[at]))

    return Call(functools.partial(self._call_prefill, plan), then)

  def _call_prefill(self, plan: programs.PrefillPlan) -> np.ndarray | None:
    self.slots += len(plan.tokens)
    with self.busy:
      self._pages, values = _prefill(
        self.params,
        self._pages,
        self._to_devices(plan.array, 1),
        self._to_devices(plan.both, 0),
        structure=self.structure,
        options=self._options,
      )
      # Without values, waiting keeps calls from queueing up on the device.
      return jax.device_get(jax.block_until_ready(values))

  def _to_devices(self, array: np.ndarray, axis: int) -> jax.Array | np.ndarray:
    """Returns host data on the devices, cut along an axis by data shard."""
    if self._mesh is None:
      return array
    spec = [None] * array.ndim
    spec[axis] = sharding.RULES.batch
    place = jax.sharding.NamedSharding(self._mesh, jax.P(*spec))
    return jax.device_put(array, place)
