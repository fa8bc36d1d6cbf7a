"""The parts of a decoder layer: RMSNorm, rotary, attention, SwiGLU.

Letters: B T S sequences, D model, N query heads, K key/value heads, G = N / K,
H head, F mlp, V vocab. Weights keep float32 (`param_dtype`) and are cast where
they are used; norms and softmax are float32.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from flax import nnx

from rstar_jax.config import ModelConfig

# Finite, so that a row with nothing to attend to is no NaN.
MASKED = -1e30

# (q [..., N, H], k [..., K, H], v [..., K, H]) -> [..., N, H].
Attend = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]


def weight(
  rngs: nnx.Rngs,
  shape: Sequence[int],
  axes: Sequence[str],
  config: ModelConfig,
  scale: float = 0.02,
) -> nnx.Param:
  """Declares a matrix: its shape, logical axes and normal initialisation."""
  key = rngs.params()
  value = scale * jax.random.normal(key, tuple(shape), config.param_dtype)
  return nnx.Param(value, axes=tuple(axes))


def contract(
  spec: str, x: jax.Array, kernel: nnx.Param, dtype: str
) -> jax.Array:
  """Multiplies by a weight: float32 accumulation, result in `dtype`."""
  return jnp.einsum(
    spec,
    x,
    kernel.get_value().astype(dtype),
    preferred_element_type=jnp.float32,
  ).astype(dtype)


class RMSNorm(nnx.Module):
  """Scales to unit root mean square, in float32."""

  def __init__(self, config: ModelConfig):
    self.eps = config.rms_eps
    self.scale = nnx.Param(
      jnp.ones((config.embed_dim,), config.param_dtype), axes=("embed",)
    )

  def __call__(self, x: jax.Array) -> jax.Array:
    wide = x.astype(jnp.float32)
    square = jnp.mean(wide * wide, axis=-1, keepdims=True)
    wide *= jax.lax.rsqrt(square + self.eps)
    # Cast before the scale, as `transformers` does.
    return wide.astype(x.dtype) * self.scale.get_value().astype(x.dtype)


def rotary(
  positions: jax.Array, config: ModelConfig
) -> tuple[jax.Array, jax.Array]:
  """Returns the cosines and sines of rotary positions.

  Args:
    positions: int32 [...].
    config: gives H and the base of the frequencies.

  Returns:
    Two float32 arrays [..., 1, H / 2], to be shared by all layers.
  """
  exponents = jnp.arange(0, config.head_dim, 2, jnp.float32) / config.head_dim
  angles = positions[..., None].astype(jnp.float32) * (
    config.rope_theta**-exponents
  )
  return jnp.cos(angles)[..., None, :], jnp.sin(angles)[..., None, :]


def rotate(x: jax.Array, angles: tuple[jax.Array, jax.Array]) -> jax.Array:
  """Rotates the pairs (i, i + H/2) of x [..., heads, H]: HF's convention."""
  cos, sin = angles
  first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
  rotated = (first * cos - second * sin, second * cos + first * sin)
  return jnp.concatenate(rotated, axis=-1).astype(x.dtype)


def attend(
  q: jax.Array, k: jax.Array, v: jax.Array, mask: jax.Array
) -> jax.Array:
  """Grouped-query attention.

  Args:
    q: [B, T, N, H].
    k: [B, S, K, H].
    v: [B, S, K, H].
    mask: bool [B or 1, T, S], True where attention is allowed.

  Returns:
    [B, T, N, H] in q's dtype.
  """
  batch, length, heads, dim = q.shape
  kv_heads = k.shape[2]
  q = q.reshape(batch, length, kv_heads, -1, dim) * dim**-0.5
  # The query heads of a group are rows of one matrix product: [B, K, G, T, H].
  q = jnp.transpose(q, (0, 2, 3, 1, 4))
  scores = jnp.einsum(
    "bkgth,bskh->bkgts", q, k, preferred_element_type=jnp.float32
  )
  scores = jnp.where(mask[:, None, None], scores, MASKED)
  shares = jax.nn.softmax(scores, axis=-1).astype(v.dtype)
  mixed = jnp.einsum("bkgts,bskh->bkgth", shares, v)
  mixed = jnp.transpose(mixed, (0, 3, 1, 2, 4))
  return mixed.reshape(batch, length, heads, dim)


class Attention(nnx.Module):
  """Projections around attention; what attends to what is the caller's."""

  def __init__(self, config: ModelConfig, rngs: nnx.Rngs):
    d, h = config.embed_dim, config.head_dim
    n, k = config.num_heads, config.num_kv_heads
    self.dtype = config.dtype
    self.q = weight(rngs, (d, n, h), ("embed", "heads", "head_dim"), config)
    self.k = weight(rngs, (d, k, h), ("embed", "kv_heads", "head_dim"), config)
    self.v = weight(rngs, (d, k, h), ("embed", "kv_heads", "head_dim"), config)
    self.o = weight(
      rngs,
      (n, h, d),
      ("heads", "head_dim", "embed"),
      config,
      scale=0.02 / (2 * config.num_layers) ** 0.5,
    )
    self.has_bias = config.qkv_bias
    if config.qkv_bias:
      zeros = lambda heads: jnp.zeros((heads, h), config.param_dtype)  # noqa: E731
      self.q_bias = nnx.Param(zeros(n), axes=("heads", "head_dim"))
      self.k_bias = nnx.Param(zeros(k), axes=("kv_heads", "head_dim"))
      self.v_bias = nnx.Param(zeros(k), axes=("kv_heads", "head_dim"))

  def __call__(
    self,
    x: jax.Array,
    angles: tuple[jax.Array, jax.Array],
    attend: Attend,
  ) -> jax.Array:
    q = contract("...d,dnh->...nh", x, self.q, self.dtype)
    k = contract("...d,dkh->...kh", x, self.k, self.dtype)
    v = contract("...d,dkh->...kh", x, self.v, self.dtype)
    if self.has_bias:
      q += self.q_bias.get_value().astype(self.dtype)
      k += self.k_bias.get_value().astype(self.dtype)
      v += self.v_bias.get_value().astype(self.dtype)
    mixed = attend(rotate(q, angles), rotate(k, angles), v)
    return contract("...nh,nhd->...d", mixed, self.o, self.dtype)


class Mlp(nnx.Module):
  """SwiGLU: down(silu(gate(x)) * up(x))."""

  def __init__(self, config: ModelConfig, rngs: nnx.Rngs):
    d, f = config.embed_dim, config.mlp_dim
    self.dtype = config.dtype
    self.gate = weight(rngs, (d, f), ("embed", "mlp"), config)
    self.up = weight(rngs, (d, f), ("embed", "mlp"), config)
    self.down = weight(
      rngs,
      (f, d),
      ("mlp", "embed"),
      config,
      scale=0.02 / (2 * config.num_layers) ** 0.5,
    )

  def __call__(self, x: jax.Array) -> jax.Array:
    gate = contract("...d,df->...f", x, self.gate, self.dtype)
    up = contract("...d,df->...f", x, self.up, self.dtype)
    return contract(
      "...f,fd->...d", jax.nn.silu(gate) * up, self.down, self.dtype
    )


class Block(nnx.Module):
  """One pre-norm layer: attention, then the MLP, each added to the stream."""

  def __init__(self, config: ModelConfig, rngs: nnx.Rngs):
    self.attention_norm = RMSNorm(config)
    self.attention = Attention(config, rngs)
    self.mlp_norm = RMSNorm(config)
    self.mlp = Mlp(config, rngs)

  def __call__(
    self,
    x: jax.Array,
    angles: tuple[jax.Array, jax.Array],
    attend: Attend,
  ) -> jax.Array:
    x = x + self.attention(self.attention_norm(x), angles, attend)
    return x + self.mlp(self.mlp_norm(x))
