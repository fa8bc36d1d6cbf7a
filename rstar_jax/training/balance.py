"""The balance of a mixture's experts in training: a loss, and metrics."""

import jax

from rstar_jax.models import experts
from rstar_jax.models.config import ModelConfig


def added(
  total: jax.Array,
  sums: dict[str, jax.Array],
  load: experts.Load | None,
  config: ModelConfig,
) -> tuple[jax.Array, dict[str, jax.Array]]:
  """Adds the auxiliary loss of experts to a loss, and their load to its sums.

  The loss of a batch is a sum divided by "count", which its micro-batches add
  up to. So each has its auxiliary loss times its count: that of the batch is
  their mean, as in `transformers`.

  Args:
    total: sum of the loss.
    sums: of its metrics, with "count".
    load: of the (micro-)batch; None is of a model without experts.
    config: of the model, with the loss's weight, `balance`.

  Returns:
    The sum; and the sums with "expert_imbalance" (see `experts.imbalance`),
    "expert_peak" and "expert_entropy", the means over layers of `experts.Load`.
  """
  if load is None:
    return total, sums
  count = sums["count"]
  loss = experts.imbalance(load, config.experts().chosen)
  if config.balance:
    total += config.balance * count * loss
  return total, sums | {
    "expert_imbalance": count * loss,
    "expert_peak": count * load.peak / load.layers,
    "expert_entropy": count * load.entropy / load.layers,
  }
