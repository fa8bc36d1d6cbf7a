"""Attention in whole rows, by XLA.

Letters: B batch, T queries, S keys, N query heads, K key/value heads,
G = N / K, H head.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp

# The score of a masked key. Finite, so that a row with every key masked is not
# NaN.
MASKED = -1e30

# On a CPU, the parts of a sequence whose queries share keys: with four, 5/8 of
# all scores are computed. A sequence shorter than `_PARTED` is one part.
_PARTS, _PARTED = 4, 128

# (q [..., N, H], k [..., K, H], v [..., K, H]) -> [..., N, H]; a layer with
# sinks passes its own [N] as a fourth argument.
Attend = Callable[..., jax.Array]


def causal_mask(positions: jax.Array, window: int = 0) -> jax.Array:
  """Returns bool [B or 1, T, T]: whether a token attends to another.

  Args:
    positions: int32 [B or 1, T]; without a window only T matters.
    window: tokens that a token attends to, itself included; 0 is no limit.
  """
  length = positions.shape[1]
  mask = jnp.tril(jnp.ones((length, length), bool))[None]
  if window:
    mask &= positions[:, :, None] - positions[:, None, :] < window
  return mask


def capped(x: jax.Array, cap: float) -> jax.Array:
  """Returns float32 x, bounded smoothly by a cap; 0 is no cap."""
  return cap * jnp.tanh(x / cap) if cap else x


def attend(
  q: jax.Array,
  k: jax.Array,
  v: jax.Array,
  mask: jax.Array,
  block: int = 0,
  *,
  softcap: float = 0.0,
  sinks: jax.Array | None = None,
) -> jax.Array:
  """Grouped-query attention.

  Args:
    q: [B, T, N, H].
    k: [B, S, K, H].
    v: [B, S, K, H].
    mask: bool [B or 1, T, S], True where attention is allowed. If T is S, no
      query may attend to a later key.
    block: queries whose scores [B, N, block, S] are in memory at once, and
      recomputed in the backward pass; 0 is all.
    softcap: see `ModelConfig.attention_softcap`.
    sinks: [N], scores of no key; None is none.

  Returns:
    [B, T, N, H] in q's dtype.
  """
  length = q.shape[1]
  one = functools.partial(_attend, softcap=softcap, sinks=sinks)
  if not 0 < block < length:
    if length < _PARTED or k.shape[1] != length:
      return one(q, k, v, mask)
    return jax.lax.platform_dependent(
      *(q, k, v, mask),
      cpu=functools.partial(_attend_in_parts, one),
      default=one,
    )
  count = -(-length // block)
  # Rows of padding, dropped at the end.
  more = (0, count * block - length)
  rows = jnp.pad(q, ((0, 0), more, (0, 0), (0, 0)))
  rows = rows.reshape(q.shape[0], count, block, *q.shape[2:])
  mask = jnp.pad(mask, ((0, 0), more, (0, 0)))

  def some(part):
    queries, start = part
    seen = jax.lax.dynamic_slice_in_dim(mask, start, block, 1)
    return one(queries, k, v, seen)

  # A loop needs no barrier against common-subexpression elimination.
  some = jax.checkpoint(some, prevent_cse=False)
  parts = jnp.moveaxis(rows, 1, 0), block * jnp.arange(count)
  mixed = jnp.moveaxis(jax.lax.map(some, parts), 0, 1)
  return mixed.reshape(q.shape[0], -1, *q.shape[2:])[:, :length]


def _attend_in_parts(
  attend: Attend, q: jax.Array, k: jax.Array, v: jax.Array, mask: jax.Array
) -> jax.Array:
  """Attends with a part of the queries at a time, to the keys up to its end."""
  length = q.shape[1]
  step = -(-length // _PARTS)
  mixed = []
  for start in range(0, length, step):
    end = min(start + step, length)
    seen = mask[:, start:end, :end]
    mixed.append(attend(q[:, start:end], k[:, :end], v[:, :end], seen))
  return jnp.concatenate(mixed, axis=1)


def _attend(
  q: jax.Array,
  k: jax.Array,
  v: jax.Array,
  mask: jax.Array,
  *,
  softcap: float,
  sinks: jax.Array | None,
) -> jax.Array:
  batch, length, heads, dim = q.shape
  kv_heads = k.shape[2]
  q = q.reshape(batch, length, kv_heads, -1, dim) * dim**-0.5
  # One matrix product has a group's query heads as rows: [B, K, G, T, H].
  q = jnp.transpose(q, (0, 2, 3, 1, 4))
  scores = _scores(q, k)
  scores = jnp.where(mask[:, None, None], capped(scores, softcap), MASKED)
  if sinks is not None:
    sink = sinks.astype(jnp.float32).reshape(kv_heads, -1, 1, 1)
    sink = jnp.broadcast_to(sink, (*scores.shape[:-1], 1))
    scores = jnp.concatenate([scores, sink], axis=-1)
  shares = jax.nn.softmax(scores, axis=-1)[..., : k.shape[1]].astype(v.dtype)
  mixed = jnp.einsum(
    "bkgts,bskh->bkgth", shares, v, preferred_element_type=jnp.float32
  ).astype(v.dtype)
  mixed = jnp.transpose(mixed, (0, 3, 1, 2, 4))
  return mixed.reshape(batch, length, heads, dim)


@jax.custom_vjp
def _scores(q: jax.Array, k: jax.Array) -> jax.Array:
  """Returns float32 [B, K, G, T, S] of q [B, K, G, T, H] and k [B, S, K, H].

  No product of the gradients takes the transposed scores, which XLA on a CPU
  would compute once more, column by column.
  """
  return _summed("bkgth,bskh->bkgts", q, k)


def _scores_forward(q, k):
  return _scores(q, k), (q, k)


def _scores_backward(saved, grad):
  q, k = saved
  of_q = _summed("bkgts,bskh->bkgth", grad, k)
  of_k = _summed("bkgth,bkgts->bkhs", q, grad)
  of_k = jnp.transpose(of_k, (0, 3, 1, 2))
  return of_q.astype(q.dtype), of_k.astype(k.dtype)


_scores.defvjp(_scores_forward, _scores_backward)


def _summed(form: str, x: jax.Array, y: jax.Array) -> jax.Array:
  return jnp.einsum(form, x, y, preferred_element_type=jnp.float32)
