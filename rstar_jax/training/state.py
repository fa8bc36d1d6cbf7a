"""The training state, the optimiser, and the update step."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from optax import contrib

from rstar_jax.config.schema import TrainConfig
from rstar_jax.models import sharding
from rstar_jax.training import moments, muon

Params = Any
Batch = dict[str, jax.Array]
# (params, batch) -> sum of losses, and sums of metrics. The metric "count" is
# the common denominator, which has no gradient.
LossFn = Callable[[Params, Batch], tuple[jax.Array, dict[str, jax.Array]]]

# RMS of an orthogonalised update, so that AdamW's learning rates suit Muon too
# (Liu et al. 2025, "Muon is Scalable for LLM Training", section 2.2).
_MUON_RMS = 0.2

# Share of updates after the warm-up -> share of the peak.
_SHAPES = {
  "linear": lambda done: 1 - done,
  "cosine": lambda done: (1 + jnp.cos(jnp.pi * done)) / 2,
  "constant": jnp.ones_like,
}

# Groups of parameters by a part of their path; the first match counts.
_GROUPS = (
  ("norms", "norm"),
  ("embedding", "'embedding'"),
  ("attention", "'attention'"),
  ("mlp", "'mlp'"),
  ("experts", "'experts'"),
  ("head", "'score'"),
  ("head", "'lm_head'"),
)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
  """All that a run needs to resume.

  Attributes:
    step: int32 scalar, number of updates so far.
    params: a pytree of arrays.
    opt_state: the optimiser's state.
    average: the moving average of the parameters, None without one.
  """

  step: jax.Array
  params: Params
  opt_state: Any
  average: Params | None = None

  @property
  def trained(self) -> Params:
    """The parameters of the trained model."""
    return self.params if self.average is None else self.average


def learning_rate(
  config: TrainConfig, num_steps: int | jax.Array
) -> optax.Schedule:
  """Returns a schedule: linear warm-up, then the config's shape.

  Args:
    config: peak, shape, and warm-up as a share of all updates.
    num_steps: updates of the whole run.
  """
  if config.schedule not in _SHAPES:
    raise ValueError(
      f"schedule={config.schedule!r}: must be one of {', '.join(_SHAPES)}"
    )
  warmup = jnp.round(config.warmup * num_steps)
  rest = jnp.maximum(num_steps - warmup, 1)

  def rate(count):
    # From peak / warmup instead of 0, so that the first update counts.
    rise = (count + 1) / jnp.maximum(warmup, 1)
    fall = _SHAPES[config.schedule](jnp.clip((count - warmup) / rest, 0, 1))
    return config.learning_rate * jnp.where(count < warmup, rise, fall)

  return rate


def optimizer(
  config: TrainConfig, num_steps: int | jax.Array
) -> optax.GradientTransformation:
  """Builds gradient clipping, then the config's optimiser.

  Args:
    config: the optimiser's hyperparameters.
    num_steps: updates of the whole run, for the schedule; if traced, one
      program serves trainings of any length.

  Raises:
    ValueError: the optimiser or the schedule is unknown.
  """
  rate = learning_rate(config, num_steps)
  match config.optimizer:
    case "adamw":
      update = optax.adamw(
        rate,
        b1=config.b1,
        b2=config.b2,
        weight_decay=config.weight_decay,
        mask=_decayed,
      )
    case "muon":
      update = muon.muon(
        rate,
        _muon_dimensions,
        b1=config.b1,
        b2=config.b2,
        weight_decay=config.weight_decay,
        rms=_MUON_RMS,
      )
    case "adamw_8bit":
      update = optax.chain(
        moments.scale_by_adam(config.b1, config.b2),
        optax.add_decayed_weights(config.weight_decay, _decayed),
        optax.scale_by_learning_rate(rate),
      )
    case "adafactor":
      # Without scaling by the size of parameters, so that AdamW's learning
      # rates suit it too. A head's width is factored like the model's.
      update = optax.chain(
        optax.scale_by_factored_rms(min_dim_size_to_factor=16),
        optax.clip_by_block_rms(1.0),
        optax.add_decayed_weights(config.weight_decay, _decayed),
        optax.scale_by_learning_rate(rate),
      )
    case other:
      raise ValueError(
        f"optimizer={other!r}: must be 'adamw', 'adamw_8bit', 'adafactor' or "
        "'muon'"
      )
  return optax.chain(optax.clip_by_global_norm(config.clip), update)


def init(
  params: Params,
  tx: optax.GradientTransformation,
  mesh: jax.sharding.Mesh | None = None,
  *,
  averages: bool = False,
) -> TrainState:
  """Returns the state before the first update.

  Args:
    params: the parameters, on their devices.
    tx: the optimiser. Its arrays get the shardings of their parameters.
    mesh: the parameters' mesh; counters are replicated over it.
    averages: whether a moving average of the parameters is kept.
  """
  # Not jitted, since eager zeros_like keeps each parameter's sharding.
  state = TrainState(
    jnp.zeros((), jnp.int32),
    params,
    tx.init(params),
    jax.tree.map(jnp.copy, params) if averages else None,
  )
  return state if mesh is None else sharding.replicate(state, mesh)


def make_step(
  loss_fn: LossFn,
  tx: optax.GradientTransformation,
  accumulate: int = 1,
  at_once: int | None = None,
  ema: float = 0.0,
) -> Callable[..., tuple[TrainState, dict[str, jax.Array]]]:
  """Builds the update step, a pure function to be jitted.

  Args:
    loss_fn: sums of the loss and of the metrics over a (micro-)batch.
    tx: the optimiser.
    accumulate: number of micro-batches; divides the first axis of the batch.
      Sums are divided once, so the update is that of the whole batch.
    at_once: rows of a micro-batch, instead of `accumulate`.
    ema: decay of the state's average, if it has one.

  Returns:
    A function (state, batch) -> (next state, metrics): "loss" and the other
    means, and "grad_norm" before clipping, in all and per group of parameters,
    all float32 scalars.
  """
  grad_fn = jax.grad(summed(loss_fn), has_aux=True)

  def step(state: TrainState, batch: Batch):
    rows = len(jax.tree.leaves(batch)[0])
    parts = rows // at_once if at_once else accumulate
    if parts == 1:
      grads, sums = grad_fn(state.params, batch)
    else:
      grads, sums = _accumulate(grad_fn, state.params, batch, parts)
    count = jnp.maximum(sums["count"], 1.0)
    grads = jax.tree.map(lambda g: (g / count).astype(g.dtype), grads)
    updates, opt_state = tx.update(grads, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    metrics = {k: v / count for k, v in sums.items() if k != "count"}
    metrics["count"] = sums["count"]
    metrics["grad_norm"] = optax.global_norm(grads)
    metrics |= _norms(grads)
    average = state.average
    if average is not None:
      average = _updated_average(average, params, state.step, ema)
    return TrainState(state.step + 1, params, opt_state, average), metrics

  return step


def compiler_options(mesh: jax.sharding.Mesh | None) -> dict[str, str]:
  """Returns the compiler's options for updates on a mesh.

  The TPU compiler may multiply with a weight while its shards arrive from the
  fsdp devices one by one (windowed einsum). Each turn then adds to the whole
  result in HBM, which with 16 turns is several times all other traffic
  (docs/results/training_aot.md). The option makes it gather weights first.

  Args:
    mesh: the training's mesh; None is one device.
  """
  if mesh is None or mesh.devices.flat[0].platform != "tpu":
    return {}
  # Least MiB of a result for a windowed einsum: more than any has.
  return {"xla_jf_spmd_threshold_for_windowed_einsum_mib": "1000000"}


def _updated_average(
  average: Params, params: Params, step: jax.Array, decay: float
) -> Params:
  """Returns the average after an update; `step` counts those before it."""
  # Else the initial parameters would dominate after few updates.
  decay = jnp.minimum(decay, (2.0 + step) / (11.0 + step))
  return jax.tree.map(
    lambda old, new: (old + (1 - decay) * (new - old)).astype(old.dtype),
    average,
    params,
  )


def summed(loss_fn: LossFn) -> LossFn:
  """Returns a loss whose sums include the loss itself, as "loss"."""

  def with_loss(params, batch):
    total, sums = loss_fn(params, batch)
    return total, {"loss": total, **sums}

  return with_loss


def _accumulate(grad_fn, params: Params, batch: Batch, parts: int):
  """Adds gradients and sums over micro-batches."""

  def split(x: jax.Array) -> jax.Array:
    # Interleaved, so that rows stay on their devices.
    return x.reshape(x.shape[0] // parts, parts, *x.shape[1:]).swapaxes(0, 1)

  micro = jax.tree.map(split, batch)

  def at(number):
    return jax.tree.map(lambda x: x[number], micro)

  def add(number, total):
    return jax.tree.map(jnp.add, total, grad_fn(params, at(number)))

  zeros = jax.tree.map(
    lambda x: jnp.zeros(x.shape, x.dtype),
    jax.eval_shape(grad_fn, params, at(0)),
  )
  used = parts
  if "ends" in micro:
    # Micro-batches of padding alone, which come last, are not computed. (A
    # branch for each would copy the sums instead of adding in place.)
    there = jnp.any(micro["ends"] > 0, axis=range(1, micro["ends"].ndim))
    used = jnp.max(jnp.where(there, 1 + jnp.arange(parts), 0))
  return jax.lax.fori_loop(0, used, add, zeros)


def _norms(grads: Params) -> dict[str, jax.Array]:
  """Returns the norm of each group of gradients, by name."""
  groups: dict[str, list[jax.Array]] = {}
  for path, grad in jax.tree_util.tree_flatten_with_path(grads)[0]:
    name = jax.tree_util.keystr(path)
    for group, part in _GROUPS:
      if part in name:
        groups.setdefault(f"grad_norm_{group}", []).append(grad)
        break
  return {name: optax.global_norm(some) for name, some in groups.items()}


def _is_matrix(name: str, x: Any) -> bool:
  """Returns whether a parameter is no bias and no scale of a norm.

  Their heads are an axis of their own, as in OLMo 2's q_norm [N, H].
  """
  return x.ndim > 1 and "bias" not in name and "norm" not in name


def _decayed(params: Params):
  """Marks parameters with weight decay: all but biases and norm scales."""

  def decays(path, x):
    return _is_matrix(jax.tree_util.keystr(path), x)

  return jax.tree_util.tree_map_with_path(decays, params)


def _muon_dimensions(params: Params):
  """Marks parameters for Muon: the layers' weights, with heads as one axis."""

  def dimensions(path, x):
    name = jax.tree_util.keystr(path)
    if "layers" not in name or not _is_matrix(name, x):
      return None
    if "'experts'" in name and x.ndim == 3:
      # Experts' weights are [E, I, O].
      return contrib.MuonDimensionNumbers(1, 2)
    if x.ndim == 2:
      return contrib.MuonDimensionNumbers(1, 0)
    # Attention: q, k, v are [N, H, D], o is [D, N, H].
    if "['o']" in name:
      return contrib.MuonDimensionNumbers((1, 2), 0)
    return contrib.MuonDimensionNumbers(2, (0, 1))

  return jax.tree_util.tree_map_with_path(dimensions, params)
