"""Load balancing of experts in training: an auxiliary loss, and metrics."""

import jax

from rstar_jax.models import experts
from rstar_jax.models.config import ModelConfig


def added(
  total: jax.Array,
  sums: dict[str, jax.Array],
  load: experts.Load | None,
  config: ModelConfig,
) -> tuple[jax.Array, dict[str, jax.Array]]:
  """Adds the auxiliary loss of experts to a loss, and their load to the sums.

  A batch's loss is a sum over micro-batches divided by their total "count". So
  each micro-batch adds its auxiliary loss times its count, and the batch's is
  their weighted mean, as in `transformers`.

  Args:
    total: sum of the loss.
    sums: sums of metrics, with "count".
    load: of the (micro-)batch; None for a model without experts.
    config: of the model; `balance` is the weight of the auxiliary loss.

  Returns:
    The new sum of the loss; and the sums with "expert_imbalance" (see
    `experts.imbalance`), "expert_peak" and "expert_entropy", means over layers
    of `experts.Load`.
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
