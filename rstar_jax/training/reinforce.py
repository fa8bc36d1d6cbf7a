"""Reinforcement: the clipped policy gradient over the policy's samples."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from rstar_jax.config.schema import ReinforceConfig
from rstar_jax.data import batches
from rstar_jax.models import sharding
from rstar_jax.models.transformer import Transformer
from rstar_jax.training import balance, next_token

# Log-ratios are clipped to this magnitude.
_FURTHEST = 20.0


@dataclasses.dataclass(frozen=True)
class Loss:
  """The loss of an update, as a function of a policy and a batch.

  For a token with ratio r (its probability now over that at sampling) and
  advantage A it is -min(r A, clip(r, 1 - low, 1 + high) A), as in PPO and GRPO;
  where A < 0, r is capped at `limit` (dual clip, arXiv 1912.09729). At a
  temperature other than 1 the policy is assumed to be the one that sampled: r =
  1, with the gradient of the log-probability. Rows that share a token may
  differ in A: their advantages are summed by sign, since each sign has its own
  bound.

  Attributes:
    config: the bounds, and the weight of the divergence.
  """

  config: ReinforceConfig

  def __call__(
    self, model: Transformer, batch: dict[str, jax.Array]
  ) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Sums the loss over the tokens that the policy wrote.

    Args:
      model: the policy.
      batch: that of `next_token.logprobs`; and float32 [B, T]: `weights`, the
        number of rows whose policy sampled the token; `gain` and `cost`, the
        sums of their positive and negative advantages; `old`, the
        log-probability at sampling, at temperature 1; and `reference`, that of
        the round's first policy, if the config weighs the divergence.

    Returns:
      The sum, and the sums "count" (of weights), "ratio", "clipped" (tokens
      whose gradient a bound took away), "far" (ratios beyond exp(20) or its
      inverse) and "kl", with those of `balance.added`.
    """
    config, weights = self.config, batch["weights"]
    there = weights > 0
    logprobs, _, load = next_token.logprobs(
      model, batch, temperature=config.temperature
    )
    old = batch["old"]
    if config.temperature != 1:
      old = jax.lax.stop_gradient(logprobs)
    # Masked before any arithmetic, since padding may hold anything.
    change = jnp.where(there, logprobs - old, 0.0)
    ratio = jnp.exp(jnp.clip(change, -_FURTHEST, _FURTHEST))
    up = jnp.minimum(ratio, 1 + config.clip_high)
    down = jnp.clip(ratio, 1 - config.clip_low, config.ratio_limit)
    gain, cost = batch["gain"], batch["cost"]
    total = -jnp.sum(gain * up + cost * down)
    # Without an advantage there is no gradient to take away.
    clipped = jnp.where(
      gain + cost > 0,
      ratio > 1 + config.clip_high,
      (cost < 0) & (ratio != down),
    )
    sums = {
      "count": jnp.sum(weights),
      "ratio": jnp.sum(weights * ratio),
      "clipped": jnp.sum(weights * clipped),
      "far": jnp.sum(weights * (jnp.abs(change) > _FURTHEST)),
    }
    if config.kl:
      # Never negative, with the right gradient (Schulman's k3).
      apart = jnp.where(there, batch["reference"] - logprobs, 0.0)
      apart = jnp.clip(apart, -_FURTHEST, _FURTHEST)
      sums["kl"] = jnp.sum(weights * (jnp.expm1(apart) - apart))
      total += config.kl * sums["kl"]
    return balance.added(total, sums, load, model.config)


def rows_of_update(rows: int, batch_size: int, parts: int = 1) -> int:
  """Returns a padded number of rows, so that few programs are compiled.

  Args:
    rows: number of packed rows.
    batch_size: rows of a micro-batch.
    parts: number of data shards, which take equally many rows.

  Returns:
    `batch_size`, rounded up to a multiple of `parts`, times a power of two.
  """
  size = -(-batch_size // parts) * parts
  return size << (-(-max(rows, 1) // size) - 1).bit_length()


def spread(arrays: batches.Batch, rows: int, at_once: int) -> batches.Batch:
  """Adds rows of zeros, in micro-batches of their own where possible.

  Args:
    arrays: [N, ...] each.
    rows: the new N, a multiple of `at_once`.
    at_once: rows of a micro-batch; `state.make_step` takes every (rows /
      at_once)th row.
  """

  def one(array: np.ndarray) -> np.ndarray:
    filled = batches.padded(array, rows)
    micro = filled.reshape(-1, at_once, *array.shape[1:])
    return micro.swapaxes(0, 1).reshape(filled.shape)

  return {name: one(array) for name, array in arrays.items()}


def reference(
  model: Transformer,
  arrays: batches.Batch,
  at_once: int,
  mesh: jax.sharding.Mesh | None = None,
  temperature: float = 1.0,
) -> np.ndarray:
  """Returns another policy's log-probabilities of a batch's tokens.

  Args:
    model: the other policy, on `mesh`.
    arrays: of `spread`.
    at_once: rows of a micro-batch.
    mesh: the mesh of the training.
    temperature: see `next_token.logprobs`.

  Returns:
    float32 [N, T].
  """
  structure, params = nnx.split(model)
  logprobs = np.zeros(arrays["tokens"].shape, np.float32)
  parts = len(logprobs) // at_once
  for part in range(parts):
    micro = {
      name: arrays[name][part::parts]
      for name in ("tokens", "positions", "parents", "ends")
    }
    if not micro["ends"].any():
      continue
    if mesh is not None:
      micro = sharding.to_global(micro, mesh)
    with sharding.on(mesh):
      values = _logprobs(params, micro, structure, temperature)
    logprobs[part::parts] = sharding.to_host(values)
  return logprobs


@functools.partial(jax.jit, static_argnames=("structure", "temperature"))
def _logprobs(params, batch, structure, temperature):
  model = nnx.merge(structure, params)
  return next_token.logprobs(model, batch, temperature=temperature)[0]
