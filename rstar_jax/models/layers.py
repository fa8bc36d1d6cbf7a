"""The parts of a decoder layer: RMSNorm, attention, the gated MLP.

Letters: B batch, T queries, S keys, D model, N query heads, K key/value heads,
G = N / K, H head, F mlp, V vocab. Weights have `param_dtype` and are cast to
`dtype` where they are used; norms and softmax are computed in float32.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.ad_checkpoint import checkpoint_name

from rstar_jax.models.config import ModelConfig
from rstar_jax.models.int8 import Int8
from rstar_jax.models.kernels import cpu
from rstar_jax.models.rotary import Angles, rotate

# Finite, so that a row with every key masked is not NaN.
MASKED = -1e30

# What a layer may keep for its backward pass, as checkpoint policies know it:
# what attention is called with, the sum after it, and the MLP's two products.
QKV, MIXED, GATED = "qkv", "mixed", "gated"

# By the names of `ModelConfig.activation`.
ACTIVATIONS = {"silu": jax.nn.silu, "gelu_pytorch_tanh": jax.nn.gelu}

# Up to this many rows, XLA on a CPU mostly multiplies faster with the weights
# on the left (docs/results/engine.md).
_FEW_ROWS = 128

# Parts of a sequence whose queries share keys, on a CPU: with four, 5/8 of all
# scores are computed. Shorter sequences than `_PARTED` are one part.
_PARTS, _PARTED = 4, 128

# (q [..., N, H], k [..., K, H], v [..., K, H]) -> [..., N, H]; a layer with
# sinks gives its own [N] as a fourth.
Attend = Callable[..., jax.Array]


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


def move(function: Callable[..., jax.Array], *arrays: jax.Array) -> jax.Array:
  """Calls a function that moves elements of arrays without arithmetic.

  XLA on a CPU converts whole operands of 16-bit gathers and scatters to
  float32. There the elements are moved as integers, and the barrier keeps the
  compiler from making an array of these, once for all turns of a loop.

  Args:
    function: returns an array of the first array's dtype.
    *arrays: its arguments.
  """
  dtype = arrays[0].dtype
  if dtype.itemsize != 2:
    return function(*arrays)

  def by_bits(*arrays):
    cast = jax.lax.bitcast_convert_type
    arrays = jax.lax.optimization_barrier(arrays)
    moved = function(
      *(cast(x, jnp.uint16) if x.dtype == dtype else x for x in arrays)
    )
    return cast(moved, dtype)

  return jax.lax.platform_dependent(*arrays, cpu=by_bits, default=function)


@jax.custom_jvp
def lookup(table: jax.Array, ids: jax.Array) -> jax.Array:
  """Returns rows [..., D] of a table [V, D] by int32 ids [...]."""
  return move(lambda table, ids: table[ids], table, ids)


@lookup.defjvp
def _(primals, tangents):
  # The bitcast has no derivative, but a lookup is linear.
  table, ids = primals
  return lookup(table, ids), tangents[0][ids]


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


def project(
  x: jax.Array,
  params: Sequence[nnx.Param],
  config: ModelConfig,
  axes: int = 1,
) -> list[jax.Array]:
  """Multiplies by weights, accumulating in float32; results in config.dtype.

  Args:
    x: [..., *I].
    params: [*O, *I] each.
    config: gives the dtype and the kernels.
    axes: number of axes of I.

  Returns:
    [..., *O] for each of the params.
  """
  size = math.prod(x.shape[x.ndim - axes :])
  rows = x.reshape(-1, size)
  shapes = [
    (*x.shape[: x.ndim - axes], *p.shape[: p.ndim - axes]) for p in params
  ]
  weights = [matrix(p.get_value(), size, config.dtype) for p in params]
  outs = products(rows, weights, config, config.dtype)
  return [out.reshape(shape) for out, shape in zip(outs, shapes, strict=True)]


def matrix(weight: jax.Array | Int8, size: int, dtype: str) -> jax.Array | Int8:
  """Returns a weight [*O, *I] as [O, I] for `products`, for the size of I."""
  if isinstance(weight, Int8):
    return Int8(weight.values.reshape(-1, size), weight.scales.reshape(-1))
  return weight.astype(dtype).reshape(-1, size)


def by_kernel(x: jax.Array, config: ModelConfig) -> bool:
  """Says whether a CPU kernel multiplies rows [R, I]."""
  return config.native and cpu.can_multiply(x)


def products(
  x: jax.Array,
  weights: Sequence[jax.Array] | Sequence[Int8],
  config: ModelConfig,
  dtype: str,
) -> list[jax.Array]:
  """Returns rows [R, I] times each of weights [O, I], as [R, O] in `dtype`."""
  if isinstance(weights[0], Int8):
    # Exact in x's dtype; a TPU converts tiles on their way to the product. Sums
    # are rounded before they are scaled, since devices add them up as they are.
    plain = [each.values.astype(x.dtype) for each in weights]
    return [
      (out.astype(jnp.float32) * each.scales).astype(dtype)
      for out, each in zip(
        products(x, plain, config, dtype), weights, strict=True
      )
    ]
  if by_kernel(x, config):
    return cpu.products(x, weights, dtype)
  return in_blocks(
    lambda x: [product(x, each).astype(dtype) for each in weights],
    config.row_block,
    x,
  )


def in_blocks(
  function: Callable[..., Any], size: int, *arrays: jax.Array
) -> Any:
  """Calls a function of rows for `size` rows at a time.

  How XLA on a CPU adds up a row depends on the number of rows, and so do the
  bits of products, norms and sums, unless that number is always the same.

  Args:
    function: of arrays [R, ...]; returns arrays [R, ...], row by row.
    size: rows of a block; 0 is all of them.
    *arrays: its arguments.
  """
  if not size:
    return function(*arrays)
  rows = arrays[0].shape[0]
  count = -(-rows // size)
  arrays = [
    jnp.pad(x, [(0, count * size - rows)] + [(0, 0)] * (x.ndim - 1))
    for x in arrays
  ]

  def call(index):
    return function(
      *(jax.lax.dynamic_slice_in_dim(x, index * size, size) for x in arrays)
    )

  def put(index, outs):
    return jax.tree.map(
      lambda out, new: jax.lax.dynamic_update_slice_in_dim(
        out, new, index * size, axis=0
      ),
      outs,
      call(index),
    )

  outs = jax.tree.map(
    lambda x: jnp.zeros((count * size, *x.shape[1:]), x.dtype),
    jax.eval_shape(call, 0),
  )
  # A loop over a single block that the compiler knows of would be none.
  outs = jax.lax.fori_loop(0, jax.lax.optimization_barrier(count), put, outs)
  return jax.tree.map(lambda x: x[:rows], outs)


@jax.custom_vjp
def product(x: jax.Array, weights: jax.Array) -> jax.Array:
  """Returns rows [R, I] times weights [O, I], as float32 [R, O].

  The order of the operands depends on the platform. In the gradients, that of
  the result is rounded to the operands' dtype.
  """

  def plain(x, weights):
    # Both operands contract their last axis, so neither is transposed.
    return dot(x, weights, 1, 1)

  def turned(x, weights):
    # Without the barrier the compiler would undo the transposition.
    return jax.lax.optimization_barrier(plain(weights, x)).T

  if x.shape[0] > _FEW_ROWS:
    return plain(x, weights)
  return jax.lax.platform_dependent(x, weights, cpu=turned, default=plain)


def _product_forward(x, weights):
  return product(x, weights), (x, weights)


def _product_backward(saved, grad):
  x, weights = saved
  grad = grad.astype(x.dtype)

  def plain(grad, x):
    return dot(grad, x, 0, 0)

  def turned(grad, x):
    # XLA on a CPU multiplies 16-bit operands as float32, at half the rate, if
    # one is transposed; a loop's result counts as none.
    once = jax.lax.optimization_barrier(1)
    zeros = jnp.zeros(grad.shape[::-1], grad.dtype)
    grad = jax.lax.fori_loop(0, once, lambda *_: grad.T, zeros)
    return jax.lax.optimization_barrier(dot(grad, x, 1, 0))

  if x.dtype.itemsize == 2:
    of_weights = jax.lax.platform_dependent(grad, x, cpu=turned, default=plain)
  else:
    of_weights = plain(grad, x)
  of_x = dot(grad, weights, 1, 0)
  return of_x.astype(x.dtype), of_weights.astype(weights.dtype)


product.defvjp(_product_forward, _product_backward)


def dot(x: jax.Array, y: jax.Array, of_x: int, of_y: int) -> jax.Array:
  """Contracts an axis of each matrix, accumulating in float32."""
  return jax.lax.dot_general(
    x, y, (((of_x,), (of_y,)), ((), ())), preferred_element_type=jnp.float32
  )


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
  """Returns float32 x, of which the last `axes` have unit root mean square."""
  wide = x.astype(jnp.float32)

  def square(x: jax.Array) -> jax.Array:
    return jnp.mean(x * x, axis=tuple(range(-axes, 0)), keepdims=True)

  return wide * jax.lax.rsqrt(in_blocks(square, block, wide) + eps)


def scaled(x: jax.Array, factor: float) -> jax.Array:
  """Returns x times a factor that is not rounded, in x's dtype."""
  return (x.astype(jnp.float32) * factor).astype(x.dtype)


def capped(x: jax.Array, cap: float) -> jax.Array:
  """Returns float32 x, of which none is beyond the cap; 0 is no cap."""
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
  """Attends with parts of the queries, to the keys up to their end."""
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

  In the gradients neither product has the scores' transposed: XLA on a CPU
  would compute them once more, column by column.
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


class Attention(nnx.Module):
  """Projections, biases and norms around the caller's attention function."""

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
    self.has_bias, self.has_o_bias = config.qkv_bias, config.o_bias
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
    if self.has_bias:
      q += self.q_bias.get_value().astype(q.dtype)
      k += self.k_bias.get_value().astype(k.dtype)
    v = values[0] if own else k
    if self.has_bias and own:
      v += self.v_bias.get_value().astype(v.dtype)
    if self.config.qk_norm != "none":
      q, k = self.q_norm(q), self.k_norm(k)
    if self.config.v_norm:
      eps, block = self.config.rms_eps, self.config.row_block
      v = unit(v, 1, eps, block).astype(v.dtype)
    if self.config.rotary_share:
      q, k = rotate(q, angles), rotate(k, angles)
    if scale := self.config.attention_scale:
      # What attends divides by sqrt(H).
      q = scaled(q, scale * math.sqrt(self.config.head_dim))
    sinks = (self.sinks.get_value(),) if self.config.sinks else ()
    mixed = attend(*checkpoint_name((q, k, v), QKV), *sinks)
    (out,) = project(mixed, (self.o,), self.config, axes=2)
    if self.has_o_bias:
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
    self.has_bias = config.mlp_bias
    if config.mlp_bias:
      self.gate_bias = bias((f,), ("mlp",), config)
      self.up_bias = bias((f,), ("mlp",), config)
      self.down_bias = bias((d,), ("embed",), config)

  def __call__(self, x: jax.Array) -> jax.Array:
    (out,) = project(self._hidden(x), (self.down,), self.config)
    if self.has_bias:
      out += self.down_bias.get_value().astype(out.dtype)
    return out

  def _hidden(self, x: jax.Array) -> jax.Array:
    """Returns [..., F] of [..., D]."""
    rows = x.reshape(-1, x.shape[-1])
    gate = self.gate.get_value()
    plain = not self.has_bias and not isinstance(gate, Int8)
    plain &= self.config.activation == "silu"
    if plain and by_kernel(rows, self.config):
      gate, up = (each.astype(x.dtype) for each in (gate, self.up.get_value()))
      return cpu.gated(rows, gate, up).reshape(*x.shape[:-1], -1)
    gate, up = project(x, (self.gate, self.up), self.config)
    if self.has_bias:
      gate += self.gate_bias.get_value().astype(gate.dtype)
      up += self.up_bias.get_value().astype(up.dtype)
    gate, up = checkpoint_name((gate, up), GATED)
    return ACTIVATIONS[self.config.activation](gate) * up
