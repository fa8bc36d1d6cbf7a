"""Losses: pure functions of float32 logits or values, with explicit masks.

Each returns (sum, count), both float32 scalars, and never a mean: gradient
accumulation and padding rows stay exact, because sums of micro-batches add
up to the sums of the whole batch. The loss of a batch is sum / count.

Letters: B sequences, T tokens, V vocabulary.
"""

import jax
import jax.numpy as jnp


@jax.custom_vjp
def logprobs(logits: jax.Array, targets: jax.Array) -> jax.Array:
  """Returns log softmax(logits)[target], float32 [...], in nats.

  Args:
    logits: [..., V], any float dtype; the softmax runs in float32.
    targets: int [...] in [0, V).
  """
  return _logprobs(logits, targets)[0]


def _logprobs(logits, targets):
  wide = logits.astype(jnp.float32)
  total = jax.nn.logsumexp(wide, axis=-1)
  picked = jnp.take_along_axis(wide, targets[..., None], axis=-1)[..., 0]
  return picked - total, (logits, targets, total)


def _logits_grad(saved, grad):
  # One pass over the logits, where the derivatives of the parts take several.
  logits, targets, total = saved
  shares = jnp.exp(logits.astype(jnp.float32) - total[..., None])
  hits = jnp.arange(logits.shape[-1]) == targets[..., None]
  return (grad[..., None] * (hits - shares)).astype(logits.dtype), None


logprobs.defvjp(_logprobs, _logits_grad)


def masked_nll(
  logprobs: jax.Array, mask: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """Sums the negative log-likelihood under the mask.

  Args:
    logprobs: [B, T]; anything where the mask is 0.
    mask: [B, T], 1 where the token counts. Its values weight the terms.

  Returns:
    The sum over B and T of mask * -logprobs, in nats, and the sum of the mask.
  """
  mask = mask.astype(jnp.float32)
  # `where` and not a product: a padding row's logits may be anything.
  return jnp.sum(jnp.where(mask > 0, mask * -logprobs, 0.0)), jnp.sum(mask)


def bradley_terry(
  chosen: jax.Array, rejected: jax.Array, weight: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """Sums weight * -log sigmoid(chosen - rejected) (paper Eq. 4).

  Eq. 4 is -1/(2x2) E[log sigmoid(r_pos - r_neg)]. The 1/(2x2) is the pair's
  weight, 1 / (positives x negatives) of its group, and E is the mean over
  pairs: divide the sum by the count. The mean is over pairs and not over
  weights, so a group with many pairs does not outvote one with few.

  Args:
    chosen: values of the preferred sides, [...].
    rejected: values of the other sides, [...].
    weight: [...], above 0; 0 marks a padding pair.

  Returns:
    The weighted sum, in nats, and the number of pairs of weight above 0.
  """
  weight = weight.astype(jnp.float32)
  margin = chosen.astype(jnp.float32) - rejected.astype(jnp.float32)
  terms = jnp.where(weight > 0, -weight * jax.nn.log_sigmoid(margin), 0.0)
  return jnp.sum(terms), jnp.sum(weight > 0, dtype=jnp.float32)


def orm(
  raw: jax.Array, outcome: jax.Array, weight: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """Sums the binary cross entropy of an outcome reward model.

  Args:
    raw: values before tanh, [...], logits of "this solution is correct".
    outcome: [...] in [0, 1]; 1 is correct.
    weight: [...]; 0 marks padding.

  Returns:
    The weighted sum, in nats, and the number of terms of weight above 0.
  """
  raw, outcome = raw.astype(jnp.float32), outcome.astype(jnp.float32)
  weight = weight.astype(jnp.float32)
  terms = outcome * jax.nn.softplus(-raw) + (1 - outcome) * jax.nn.softplus(raw)
  terms = jnp.where(weight > 0, weight * terms, 0.0)
  return jnp.sum(terms), jnp.sum(weight > 0, dtype=jnp.float32)


def pqm(
  values: jax.Array, q_values: jax.Array, weight: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """Sums the squared error against Q-values (paper's PQM ablation, Table 8).

  Args:
    values: [...] in [-1, 1].
    q_values: targets, [...] in [-1, 1].
    weight: [...]; 0 marks padding.

  Returns:
    The weighted sum of squares and the number of terms of weight above 0.
  """
  weight = weight.astype(jnp.float32)
  error = values.astype(jnp.float32) - q_values.astype(jnp.float32)
  terms = jnp.where(weight > 0, weight * jnp.square(error), 0.0)
  return jnp.sum(terms), jnp.sum(weight > 0, dtype=jnp.float32)
