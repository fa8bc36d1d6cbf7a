"""The modules of a decoder layer: RMSNorm, attention, the gated MLP.

Letters: D model, N query heads, K key/value heads, H head, F MLP. Weights have
`param_dtype` and are cast to `dtype` where they are used; norms are computed in
float32.
"""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx
from jax.ad_checkpoint import checkpoint_name

from rstar_jax.models.attention import Attend
from rstar_jax.models.config import ModelConfig
from rstar_jax.models.int8 import Int8
from rstar_jax.models.kernels import cpu
from rstar_jax.models.products import by_kernel, in_blocks, project
from rstar_jax.models.rotary import Angles, rotate

# Names of what a layer may keep for its backward pass, for checkpoint policies:
# the arguments of attention, the sum after it, and the MLP's two products.
QKV, MIXED, GATED = "qkv", "mixed", "gated"

# By the names of `ModelConfig.activation`.
ACTIVATIONS = {"silu": jax.nn.silu, "gelu_pytorch_tanh": jax.nn.gelu}


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


def bias(
  shape: Sequence[int], axes: Sequence[str], config: ModelConfig
) -> nnx.Param:
  """Declares a bias, of zeros: its shape and logical axes."""
  zeros = jnp.zeros(tuple(shape), config.param_dtype)
  return nnx.Param(zeros, axes=tuple(axes))


class RMSNorm(nnx.Module):
  """Normalises the last axes to unit root mean square, in float32."""

  def __init__(self, config: ModelConfig, shape: Sequence[int], *axes: str):
    self.eps, self.block = config.rms_eps, config.row_block
    self.form = config.norm_form
    make = jnp.zeros if self.form == "offset" else jnp.ones
    self.scale = nnx.Param(make(tuple(shape), config.param_dtype), axes=axes)

  def __call__(self, x: jax.Array) -> jax.Array:
    scale = self.scale.get_value()
    wide = unit(x, scale.ndim, self.eps, self.block)
    # Cast before the scale or after it, as `transformers` does.
    if self.form == "cast":
      return wide.astype(x.dtype) * scale.astype(x.dtype)
    scale = scale.astype(jnp.float32)
    return (wide * (scale + (self.form == "offset"))).astype(x.dtype)


def unit(x: jax.Array, axes: int, eps: float, block: int) -> jax.Array:
  """Returns float32 x with unit root mean square over the last `axes`."""
  wide = x.astype(jnp.float32)

  def square(x: jax.Array) -> jax.Array:
    return jnp.mean(x * x, axis=tuple(range(-axes, 0)), keepdims=True)

  return wide * jax.lax.rsqrt(in_blocks(square, block, wide) + eps)


def scaled(x: jax.Array, factor: float) -> jax.Array:
  """Returns x times a factor that is not rounded, in x's dtype."""
  return (x.astype(jnp.float32) * factor).astype(x.dtype)


class Attention(nnx.Module):
  """Projections, biases and norms around the caller's attention."""

  def __init__(self, config: ModelConfig, rngs: nnx.Rngs):
    d, h = config.embed_dim, config.head_dim
    n, k = config.num_heads, config.num_kv_heads
    self.config = config
    self.q = weight(rngs, (n, h, d), ("heads", "head_dim", "embed"), config)
    self.k = weight(rngs, (k, h, d), ("kv_heads", "head_dim", "embed"), config)
    if not config.keys_as_values:
      axes = "kv_heads", "head_dim", "embed"
      self.v = weight(rngs, (k, h, d), axes, config)
    self.o = weight(
      rngs,
      (d, n, h),
      ("embed", "heads", "head_dim"),
      config,
      scale=0.02 / (2 * config.num_layers) ** 0.5,
    )
    if config.qkv_bias:
      self.q_bias = bias((n, h), ("heads", "head_dim"), config)
      self.k_bias = bias((k, h), ("kv_heads", "head_dim"), config)
      if not config.keys_as_values:
        self.v_bias = bias((k, h), ("kv_heads", "head_dim"), config)
    if config.o_bias:
      self.o_bias = bias((d,), ("embed",), config)
    match config.qk_norm:
      case "head":
        self.q_norm = RMSNorm(config, (h,), "head_dim")
        self.k_norm = RMSNorm(config, (h,), "head_dim")
      case "all":
        self.q_norm = RMSNorm(config, (n, h), "heads", "head_dim")
        self.k_norm = RMSNorm(config, (k, h), "kv_heads", "head_dim")
    if config.sinks:
      self.sinks = bias((n,), ("heads",), config)

  def __call__(
    self,
    x: jax.Array,
    angles: Angles,
    attend: Attend,
  ) -> jax.Array:
    own = not self.config.keys_as_values
    weights = (self.q, self.k, self.v) if own else (self.q, self.k)
    q, k, *values = project(x, weights, self.config)
    if self.config.qkv_bias:
      q += self.q_bias.get_value().astype(q.dtype)
      k += self.k_bias.get_value().astype(k.dtype)
    v = values[0] if own else k
    if self.config.qkv_bias and own:
      v += self.v_bias.get_value().astype(v.dtype)
    if self.config.qk_norm != "none":
      q, k = self.q_norm(q), self.k_norm(k)
    if self.config.v_norm:
      eps, block = self.config.rms_eps, self.config.row_block
      v = unit(v, 1, eps, block).astype(v.dtype)
    if self.config.rotary_share:
      q, k = rotate(q, angles), rotate(k, angles)
    if scale := self.config.attention_scale:
      # The attention function divides by sqrt(H).
      q = scaled(q, scale * math.sqrt(self.config.head_dim))
    sinks = (self.sinks.get_value(),) if self.config.sinks else ()
    mixed = attend(*checkpoint_name((q, k, v), QKV), *sinks)
    (out,) = project(mixed, (self.o,), self.config, axes=2)
    if self.config.o_bias:
      out += self.o_bias.get_value().astype(out.dtype)
    return out


class Mlp(nnx.Module):
  """The gated MLP: down(activation(gate(x)) * up(x))."""

  def __init__(self, config: ModelConfig, rngs: nnx.Rngs):
    d, f = config.embed_dim, config.mlp_dim
    self.config = config
    self.gate = weight(rngs, (f, d), ("mlp", "embed"), config)
    self.up = weight(rngs, (f, d), ("mlp", "embed"), config)
    self.down = weight(
      rngs,
      (d, f),
      ("embed", "mlp"),
      config,
      scale=0.02 / (2 * config.num_layers) ** 0.5,
    )
    if config.mlp_bias:
      self.gate_bias = bias((f,), ("mlp",), config)
      self.up_bias = bias((f,), ("mlp",), config)
      self.down_bias = bias((d,), ("embed",), config)

  def __call__(self, x: jax.Array) -> jax.Array:
    (out,) = project(self._hidden(x), (self.down,), self.config)
    if self.config.mlp_bias:
      out += self.down_bias.get_value().astype(out.dtype)
    return out

  def _hidden(self, x: jax.Array) -> jax.Array:
    """Returns [..., F] of [..., D]."""
    rows = x.reshape(-1, x.shape[-1])
    gate = self.gate.get_value()
    plain = not self.config.mlp_bias and not isinstance(gate, Int8)
    plain &= self.config.activation == "silu"
    if plain and by_kernel(rows, self.config):
      gate, up = (each.astype(x.dtype) for each in (gate, self.up.get_value()))
      return cpu.gated(rows, gate, up).reshape(*x.shape[:-1], -1)
    gate, up = project(x, (self.gate, self.up), self.config)
    if self.config.mlp_bias:
      gate += self.gate_bias.get_value().astype(gate.dtype)
      up += self.up_bias.get_value().astype(up.dtype)
    gate, up = checkpoint_name((gate, up), GATED)
    return ACTIVATIONS[self.config.activation](gate) * up
