"""The training loop, with checkpoints and metrics.

A killed run that is started again with the same arguments resumes from its
newest checkpoint, and ends with the same bytes as an uninterrupted run.
"""

import contextlib
import dataclasses
import functools
import math
import pathlib
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from flax import nnx
from jax.tree_util import Partial

from rstar_jax.config.schema import TrainConfig
from rstar_jax.data.batches import BatchAt
from rstar_jax.models import sharding
from rstar_jax.models.transformer import Transformer, arrays_in
from rstar_jax.storage import checkpoints as checkpoints_lib
from rstar_jax.storage import metrics as metrics_lib
from rstar_jax.storage import stopping
from rstar_jax.training import lora
from rstar_jax.training import state as state_lib
from rstar_jax.training.state import TrainState

# Most updates that are queued on the device.
_QUEUED = 2


class NonFiniteLoss(FloatingPointError):
  """The loss of an update is NaN or infinite."""


class Preempted(stopping.Stopped):
  """The process was told to end; the state is saved."""

  def __init__(self, name: str, step: int):
    super().__init__()
    self.name, self.step = name, step

  def __str__(self) -> str:
    return (
      f"{self.name}: stopped after update {self.step}; run the same command "
      "again to resume"
    )


@dataclasses.dataclass(frozen=True)
class Session:
  """The environment of a training.

  Attributes:
    name: name of the training in metrics and messages.
    seed: seed of the order of rows, and of LoRA's initial values.
    mesh: shards parameters and optimiser state by the rules of
      `models/sharding.py`; None is one device.
    folder: folder of checkpoints; None writes none.
    writer: destination of metrics; None writes none.
    progress: whether progress is shown.
    adapter: with LoRA, called at the end with the trained parameters and the
      model; see `lora.saver`.
  """

  name: str
  seed: int = 0
  mesh: jax.sharding.Mesh | None = None
  folder: str | pathlib.Path | None = None
  writer: metrics_lib.Writer | None = None
  progress: bool = True
  adapter: lora.Saver | None = None


def fit(
  state: TrainState,
  step: Partial,
  batch_at: BatchAt,
  num_steps: int,
  config: TrainConfig,
  session: Session,
  *,
  before: Callable[[int, state_lib.Params], None] | None = None,
  measure: Callable[[state_lib.Params], dict[str, float]] | None = None,
) -> TrainState:
  """Trains until `num_steps` updates have been made in all.

  On a mesh of several processes, all of them call this; the first one writes
  the metrics. An update whose batch is only padding is counted, and changes
  nothing else: no parameter, moment, average or learning rate.

  Args:
    state: the start, unless the session's folder has a checkpoint. Its arrays
      are donated to the first update, or deleted before a checkpoint is loaded.
    step: pure update (state, batch) -> (state, metrics with "loss" and
      "count"), compiled here. The arrays that it is bound to, which it only
      reads, are arguments of the program.
    batch_at: returns batch k, as a function of k alone; the whole batch on
      every process.
    num_steps: updates of the whole run, those before a restart included.
    config: `checkpoint_every`, `log_every`, `eval_every` and `accumulate` are
      used.
    session: its mesh is the state's.
    before: called with k and the parameters before `batch_at(k)`, so that the
      batch may depend on them; the next update donates them. A single process
      can be stopped within it; updates since the last checkpoint are then
      repeated.
    measure: called with the trained model's parameters (the average, if there
      is one) every `config.eval_every` updates and after the last; returns
      further metrics.

  Returns:
    The state after the last update.

  Raises:
    NonFiniteLoss: a loss or gradient is NaN or infinite; no later state is
      saved.
    Preempted: SIGTERM, or another signal of `stopping`, came; the current
      update is completed and saved. If that takes longer than the deadline, the
      process ends, and the last checkpoint remains.
    ValueError: the folder has checkpoints of another model or optimiser, or the
      mesh does not divide the rows of a batch.
  """
  name, mesh, leads = session.name, session.mesh, jax.process_index() == 0
  writer = (leads and session.writer) or metrics_lib.NullWriter()
  update = _updates(step, state, name, config, mesh)
  with contextlib.ExitStack() as stack:
    stack.enter_context(sharding.on(mesh))
    saver = None
    if session.folder is not None:
      saver = stack.enter_context(checkpoints_lib.Checkpoints(session.folder))
      state = _newest(saver, state, name)
    start = int(state.step)
    if start >= num_steps:
      return state
    stack.enter_context(stopping.listening())
    stack.enter_context(stopping.deferred())
    stops, alone = _Stop(mesh), jax.process_count() == 1
    bar = None
    if session.progress and leads:
      bar = stack.enter_context(
        metrics_lib.Progress(num_steps, name, start=start, unit="update")
      )
    log = _Log(writer, name, bar, num_steps)
    done = start
    if saver is not None:
      stack.enter_context(
        stopping.losing(lambda: _lost(name, done, saver.whole or 0))
      )
    for k in range(start, num_steps):
      if before is not None:
        # Only a single process may stop alone.
        with stopping.interruptible() if alone else contextlib.nullcontext():
          before(k, state.params)
      batch = batch_at(k)
      state, metrics = update(state, batch)
      log.add(k + 1, metrics, _tokens(batch))
      done, last = k + 1, k + 1 == num_steps
      # All processes also agree on a request after the last update, and before
      # `before`, which may take long.
      stop = stops.wait() if last or before is not None else stops()
      save = last or stop or done % config.checkpoint_every == 0
      if save or done % config.log_every == 0 or done == start + 1:
        log.flush()  # Before a save, since it raises for a non-finite loss.
      every = config.eval_every
      if measure is not None and (last or (every and done % every == 0)):
        log.flush()
        log.measured(done, measure(state.trained))
      if saver is not None and save:
        saver.save(done, state)
        if last or stop:
          saver.wait()
      if stop:
        raise Preempted(name, done)
  return state


def fit_model(
  model: Transformer,
  loss_fn: Callable[..., tuple[jax.Array, dict[str, jax.Array]]],
  batch_at: BatchAt,
  num_steps: int,
  config: TrainConfig,
  session: Session,
  *,
  at_once: int | None = None,
  before: Callable[[int, nnx.State], None] | None = None,
  held_out: tuple[BatchAt, int] | None = None,
) -> Transformer:
  """Trains a model in place, with the config's optimiser.

  Args:
    model: its parameters are trained. If this raises, they are lost, since the
      updates donate them.
    loss_fn: (model, batch) -> sum of losses, and sums of metrics with "count".
    batch_at: returns batch k, as a function of k alone.
    num_steps: updates of the whole run.
    config: hyperparameters of the training.
    session: how it is run.
    at_once: rows of a micro-batch, if batches differ in size; None divides each
      into `config.accumulate` micro-batches.
    before: called with k and the model's parameters before `batch_at(k)`; see
      `fit`.
    held_out: a function like `batch_at`, and its number of batches, on which
      the model is measured every `config.eval_every` updates and at the end.
      The metrics are "held_out_loss" and so on.

  Returns:
    The same model; its parameters are on the mesh.
  """
  mesh = session.mesh
  graphdef, params, rest = nnx.split(model, nnx.Param, ...)
  merge = functools.partial(lora.merge, config=config)
  if config.lora_rank:
    places = None if mesh is None else sharding.shardings(params, mesh)
    merge = jax.jit(merge, out_shardings=places)
  params, frozen = divided(params, config, model.config.dtype, session.seed)
  if mesh is not None:
    params, frozen = (sharding.place(each, mesh) for each in (params, frozen))
  # The model drops its own arrays now, which saves memory.
  nnx.update(model, frozen if config.lora_rank else params)

  loss_with = losses(loss_fn, config, graphdef, rest)

  @jax.jit
  def sums(params, batch, frozen):
    return state_lib.summed(loss_with(frozen))(params, batch)[1]

  tx = state_lib.optimizer(config, num_steps)
  state = fit(
    # Only `fit` holds it, and drops it for that of a checkpoint.
    state_lib.init(params, tx, mesh, averages=config.ema > 0),
    Partial(step_of(loss_with, config, at_once), np.int32(num_steps), frozen),
    batch_at,
    num_steps,
    config,
    session,
    before=before and (lambda k, params: before(k, merge(params, frozen))),
    measure=held_out
    and _measure(
      lambda params, batch: sums(params, batch, frozen), *held_out, mesh
    ),
  )
  nnx.update(model, merge(state.trained, frozen))
  if config.lora_rank and session.adapter is not None:
    session.adapter(arrays_in(state.trained), model)
  return model


def losses(
  loss_fn: Callable[..., tuple[jax.Array, dict[str, jax.Array]]],
  config: TrainConfig,
  graphdef: nnx.GraphDef,
  *rest: nnx.State,
) -> Callable[[nnx.State], state_lib.LossFn]:
  """Returns a function of frozen parameters: the loss of the trained ones.

  Args:
    loss_fn: see `fit_model`.
    config: its LoRA is used.
    graphdef: of the model.
    rest: the model's state besides parameters.
  """

  def loss_with(frozen: nnx.State) -> state_lib.LossFn:
    def loss(params, batch):
      whole = lora.merge(params, frozen, config)
      return loss_fn(nnx.merge(graphdef, whole, *rest), batch)

    return loss

  return loss_with


def step_of(
  loss_with: Callable[[nnx.State], state_lib.LossFn],
  config: TrainConfig,
  at_once: int | None = None,
) -> Callable[..., tuple[TrainState, dict[str, jax.Array]]]:
  """Returns the update (num_steps, frozen, state, batch) -> (state, metrics).

  Args:
    loss_with: of `losses`.
    config: of the training.
    at_once: see `fit_model`.
  """

  def step(num_steps, frozen, state, batch):
    """Takes `num_steps` as a value, so that all rounds share one program."""
    tx = state_lib.optimizer(config, num_steps)
    options = config.accumulate, at_once, config.ema
    return state_lib.make_step(loss_with(frozen), tx, *options)(state, batch)

  return step


def divided(
  params: nnx.State, config: TrainConfig, dtype: str, seed: int
) -> tuple[nnx.State, nnx.State]:
  """Returns the trained and the frozen parameters, the latter in `dtype`."""
  trained, frozen = lora.begin(params, config, seed)
  frozen = jax.tree.map(lambda x: x.astype(dtype), frozen)
  # Copied, since the arrays are donated, and another module may share them (a
  # PPM and its policy).
  return jax.tree.map(jnp.copy, trained), frozen


def _measure(
  sums: Callable[[nnx.State, Any], dict[str, jax.Array]],
  batch_at: BatchAt,
  count: int,
  mesh: jax.sharding.Mesh | None,
) -> Callable[[nnx.State], dict[str, float]]:
  """Returns a function of parameters: means over held-out batches."""

  def measure(params: nnx.State) -> dict[str, float]:
    found = []
    for k in range(count):
      batch = batch_at(k)
      if mesh is not None:
        batch = sharding.to_global(batch, mesh)
      found.append(sums(params, batch))
    return _means(jax.device_get(found))

  return measure


def _means(sums: Sequence[dict[str, np.ndarray]]) -> dict[str, float]:
  """Returns the means of metrics over batches, from their sums."""
  totals = {name: sum(float(each[name]) for each in sums) for name in sums[0]}
  count = max(totals.pop("count"), 1.0)
  return {f"held_out_{name}": value / count for name, value in totals.items()}


def _updates(
  step: Partial,
  state: TrainState,
  name: str,
  config: TrainConfig,
  mesh: jax.sharding.Mesh | None,
) -> Callable[[TrainState, Any], tuple[TrainState, dict[str, jax.Array]]]:
  """Returns the compiled update, for batches on the host."""
  program, skip = (jitted(each, state, mesh) for each in (apply, _skip))

  def update(state: TrainState, batch: Any):
    if _is_padding(batch):
      return skip(state)
    if mesh is not None:
      rows = len(jax.tree.leaves(batch)[0])
      sharding.check_rows(name, rows, config.accumulate, mesh)
      batch = sharding.to_global(batch, mesh)
    return program(state, batch, step)

  return update


def apply(
  state: TrainState, batch: Any, step: Partial
) -> tuple[TrainState, dict[str, jax.Array]]:
  """Returns what an update returns: the program of a training, by `jitted`."""
  return step(state, batch)


def jitted(
  step: Callable, state: TrainState, mesh: jax.sharding.Mesh | None
) -> Callable:
  """Returns the jitted form of a function that takes the state first.

  Args:
    step: returns the next state, which is written over the given one, and
      metrics.
    state: arrays, or what describes them with their shardings.
    mesh: the state's; None is one device.
  """
  # A function of its own, since jax keeps programs as long as their function.
  step = functools.partial(step)
  if mesh is None:
    return jax.jit(step, donate_argnums=0)
  # Explicit, so that the compiler keeps the state's sharding.
  places = jax.tree.map(lambda x: x.sharding, state)
  everywhere = jax.NamedSharding(mesh, jax.P())
  return jax.jit(
    step,
    donate_argnums=0,
    out_shardings=(places, everywhere),
    compiler_options=state_lib.compiler_options(mesh),
  )


def _skip(state: TrainState) -> tuple[TrainState, dict[str, jax.Array]]:
  """Returns the state after an update without rows."""
  return dataclasses.replace(state, step=state.step + 1), {}


def _lost(name: str, done: int, whole: int) -> str:
  """Returns a message on the updates that are lost if the process ends now."""
  if done == whole:
    return f"{name}: no update is lost"
  return (
    f"{name}: the newest whole checkpoint is of update {whole}, and "
    f"{done - whole} of {done} updates are made again"
  )


def _newest(
  saver: checkpoints_lib.Checkpoints, state: TrainState, name: str
) -> TrainState:
  """Returns the state of the newest checkpoint, or `state` without one."""
  restored = saver.restore_latest(state)
  if restored is None:
    return state
  logging.info("%s: resumes after update %d", name, restored[0])
  return restored[1]


class _Log:
  """Keeps metrics on the device until they are written."""

  def __init__(self, writer, name: str, bar, num_steps: int):
    self._writer, self._name, self._bar = writer, name, bar
    self._num_steps = num_steps
    self._pending: list[tuple[int, dict[str, jax.Array]]] = []
    self._tokens = 0
    self._started = self._began = time.monotonic()

  def add(self, step: int, metrics: dict[str, jax.Array], tokens: int) -> None:
    self._pending.append((step, metrics))
    self._tokens += tokens
    if len(self._pending) > _QUEUED:
      # A short queue stops quickly, and shows the true progress.
      jax.block_until_ready(self._pending[-1 - _QUEUED])
    if self._bar is not None:
      self._bar.update()

  def measured(self, step: int, values: dict[str, float]) -> None:
    """Writes measured metrics; their time does not count as training."""
    self._writer.write(step, values, self._name)
    if self._bar is not None:
      self._bar.update(0, **values)
    self._began = time.monotonic()

  def flush(self) -> None:
    """Checks metrics, and writes their means since the last call."""
    if not self._pending:
      return
    step = self._pending[-1][0]
    learned = [each for each in jax.device_get(self._pending) if each[1]]
    # Without rows there are no means.
    means = self._means(learned) if learned else {"rows": 0.0}
    now = time.monotonic()
    means["tokens_per_second"] = self._tokens / max(now - self._began, 1e-9)
    # Since this process started to train, as in other stages.
    means["seconds"] = now - self._started
    means["updates"] = float(self._num_steps)
    self._writer.write(step, means, self._name)
    if self._bar is not None:
      loss = {"loss": means["loss"]} if learned else {}
      speed = {"tokens/s": round(means["tokens_per_second"])}
      self._bar.update(0, **loss, **speed)
    self._pending, self._tokens, self._began = [], 0, time.monotonic()

  def _means(self, updates: list) -> dict[str, float]:
    """Returns means of metrics by count; raises for what is not finite."""
    for step, metrics in updates:
      for key, what in (("loss", "loss"), ("grad_norm", "gradient norm")):
        if not math.isfinite(metrics.get(key, 0.0)):
          raise NonFiniteLoss(
            f"{self._name}: the {what} of update {step} is {metrics[key]} "
            f"(loss {metrics['loss']}, gradient norm "
            f"{metrics.get('grad_norm', 'unknown')}); lower learning_rate or "
            "clip in another --workdir, or look at that batch"
          )
    weights = np.array([m["count"] for _, m in updates], np.float64)
    weights /= max(weights.sum(), 1e-9)
    return {
      key: float(
        sum(w * m[key] for w, (_, m) in zip(weights, updates, strict=True))
      )
      for key in updates[0][1]
      if key != "count"
    }


def _is_padding(batch: Any) -> bool:
  return isinstance(batch, dict) and "ends" in batch and not batch["ends"].any()


def _tokens(batch: Any) -> int:
  """Counts a batch's tokens, without padding if the batch has `ends`."""
  if not isinstance(batch, dict):
    return 0
  if "ends" in batch:
    return int(np.count_nonzero(batch["ends"]))
  return int(np.size(batch.get("tokens", ())))


class _Stop:
  """Decides whether to stop; all processes agree, after the same update."""

  def __init__(self, mesh):
    self._mesh = mesh
    self._alone = mesh is None or jax.process_count() == 1
    self._asked: list[jax.Array] = []
    self._any = jax.jit(jnp.any)

  def __call__(self) -> bool:
    """Returns whether to stop; called once after each update."""
    if self._alone:
      return stopping.asked()
    flags = jax.make_array_from_callback(
      (self._mesh.size,),
      jax.NamedSharding(self._mesh, jax.P(self._mesh.axis_names)),
      lambda _: np.full(1, stopping.asked()),
    )
    self._asked.append(self._any(flags))
    # An earlier update's result, so that nothing waits for it.
    return len(self._asked) > _QUEUED and bool(self._asked.pop(0))

  def wait(self) -> bool:
    """Returns whether to stop now; waits for all results."""
    answer = self()
    return any([answer, *map(bool, self._asked)])
