"""Draws tokens from logits: temperature, top-k, top-p, min-p.

All functions run inside `jax.jit`.
"""

import dataclasses

import jax
import jax.numpy as jnp
from jax.extend.random import threefry_2x32

from rstar_jax.config.schema import EngineConfig

# Vocabulary entries per block of the two-level inverse CDF.
_BLOCK = 128
# A lower temperature counts as 0: it would make logits so large that only their
# rounding would decide.
_COLDEST = 1e-4


@dataclasses.dataclass(frozen=True)
class Method:
  """Samples from softmax(logits / temperature), each row at its own.

  Attributes:
    top_k: keeps the k most likely tokens; 0 keeps all.
    top_p: then keeps the fewest most likely tokens that sum to p; 1 keeps all.
    min_p: keeps tokens with at least this share of the highest probability; 0
      keeps all.
  """

  top_k: int = 0
  top_p: float = 1.0
  min_p: float = 0.0

  def __post_init__(self):
    if self.top_k < 0 or not 0 < self.top_p <= 1 or not 0 <= self.min_p <= 1:
      raise ValueError(
        f"{self}: want top_k >= 0, 0 < top_p <= 1 and 0 <= min_p <= 1"
      )

  def __call__(
    self, logits: jax.Array, temperatures: jax.Array, uniforms: jax.Array
  ) -> jax.Array:
    """Draws a token of each row.

    Args:
      logits: float32 [..., V].
      temperatures: float32 [...], at least 0; 0 takes the likeliest token, of
        ties the lowest id.
      uniforms: float32 [...] in [0, 1).

    Returns:
      int32 [...].
    """
    greedy = temperatures < _COLDEST
    scales = jnp.where(greedy, 1, temperatures)
    drawn = self._draw(logits / scales[..., None], uniforms)
    # On a CPU it takes longer to find the likeliest token than to draw one.
    return jax.lax.cond(
      jnp.any(greedy),
      lambda: jnp.where(greedy, _likeliest(logits), drawn),
      lambda: drawn,
    )

  def _draw(self, logits: jax.Array, uniforms: jax.Array) -> jax.Array:
    vocab = logits.shape[-1]
    if self.top_k in (0, vocab) and self.top_p == 1:
      peak = jnp.max(logits, axis=-1, keepdims=True)
      return inverse_cdf(self._likely(jnp.exp(logits - peak)), uniforms)
    logits, ids = jax.lax.top_k(logits, min(self.top_k or vocab, vocab))
    weights = jax.nn.softmax(logits, axis=-1)
    before = jnp.cumsum(weights, axis=-1) - weights
    weights = jnp.where(before < self.top_p, weights, 0)
    # top_k sorts: the most likely token is first.
    picked = inverse_cdf(self._likely(weights / weights[..., :1]), uniforms)
    return jnp.take_along_axis(ids, picked[..., None], axis=-1)[..., 0]

  def _likely(self, shares: jax.Array) -> jax.Array:
    """Returns shares of the highest probability, zeroed below min_p."""
    if not self.min_p:
      return shares
    return jnp.where(shares >= self.min_p, shares, 0)


def method_of(config: EngineConfig) -> Method:
  """Returns the config's sampling method."""
  return Method(config.top_k, config.top_p, config.min_p)


def _likeliest(logits: jax.Array) -> jax.Array:
  return jnp.argmax(logits, axis=-1).astype(jnp.int32)


def inverse_cdf(weights: jax.Array, uniforms: jax.Array) -> jax.Array:
  """Samples by inverting the cumulative distribution, in two levels.

  Args:
    weights: float32 [..., V], at least 0, with a positive sum.
    uniforms: float32 [...] in [0, 1).

  Returns:
    int32 [...]; never an index of weight 0.
  """
  vocab = weights.shape[-1]
  blocks = -(-vocab // _BLOCK)
  padding = [(0, 0)] * (weights.ndim - 1) + [(0, blocks * _BLOCK - vocab)]
  weights = jnp.pad(weights, padding)
  weights = weights.reshape(*weights.shape[:-1], blocks, _BLOCK)
  sums = jnp.sum(weights, axis=-1)
  target = uniforms * jnp.sum(sums, axis=-1)
  block, target = _invert(sums, target)
  inside = jnp.take_along_axis(weights, block[..., None, None], axis=-2)
  token, _ = _invert(inside[..., 0, :], target)
  return block * _BLOCK + token


def _invert(
  weights: jax.Array, target: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """Returns the entry whose interval has `target`, and the offset in it."""
  ends = jnp.cumsum(weights, axis=-1)
  index = jnp.sum(ends <= target[..., None], axis=-1)
  # Rounding can put the target past the end: clamp to the last of weight > 0.
  size = weights.shape[-1]
  last = size - 1 - jnp.argmax(weights[..., ::-1] > 0, axis=-1)
  index = jnp.minimum(index, last).astype(jnp.int32)
  if size > _BLOCK:
    # XLA sums so many in parts, and rounding can give an entry of weight 0 an
    # interval: take the next one of weight > 0.
    some = (weights > 0) & (jnp.arange(size) >= index[..., None])
    index = jnp.argmax(some, axis=-1).astype(jnp.int32)
  pick = lambda x: jnp.take_along_axis(x, index[..., None], -1)[..., 0]  # noqa: E731
  # Rounding can also put it before the start, where only entries of weight 0
  # may be.
  return index, jnp.maximum(target - (pick(ends) - pick(weights)), 0)


def uniform_at(seeds: jax.Array, indices: jax.Array) -> jax.Array:
  """Returns a number of each seed's sequence in [0, 1).

  It is number `index` of `jax.random.uniform(jax.random.key(seed), (n,))` with
  the partitionable generator, for any n above `index`.

  Args:
    seeds: 32-bit integers [T].
    indices: int32 [T], from 0.

  Returns:
    float32 [T].
  """

  def draw(seed, index):
    key = jax.random.key_data(
      jax.random.key(
        jax.lax.bitcast_convert_type(seed, jnp.uint32), impl="threefry2x32"
      )
    )
    count = jnp.stack([jnp.uint32(0), index.astype(jnp.uint32)])
    high, low = threefry_2x32(key, count)
    # 23 bits are the mantissa of a number in [1, 2).
    bits = (high ^ low) >> 9 | jnp.uint32(0x3F800000)
    return jax.lax.bitcast_convert_type(bits, jnp.float32) - 1

  return jax.vmap(draw)(seeds, indices)
