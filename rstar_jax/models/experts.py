"""A mixture of experts in the place of an MLP: each token has a few of them.

Pairs of a token and one of its experts are sorted by expert, so that the rows
of an expert lie together (`grouped_products.py`). An expert has no capacity
that limits it, and no token is dropped.

On a mesh, experts lie along the axis that cuts heads and the MLP (see
`sharding.Rules`). Every device has the tokens of its rows there already: it
computes the pairs of its own experts, and the results of all devices are added
up, as with a dense MLP that is cut. No token moves.

Letters: R rows (tokens), D model, E experts, A experts of a token, F width of
an expert, I inputs, O outputs.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax.ad_checkpoint import checkpoint_name

from rstar_jax.models import sharding
from rstar_jax.models.config import STEEPNESS, Mixture, ModelConfig
from rstar_jax.models.grouped_products import grouped
from rstar_jax.models.layers import (
  ACTIVATIONS,
  GATED,
  bias,
  scaled,
  unit,
  weight,
)
from rstar_jax.models.moves import lookup, move
from rstar_jax.models.products import in_blocks, products


class Experts(nnx.Module):
  """Sums a token's experts by their shares; see `ModelConfig.mixture`."""

  def __init__(self, config: ModelConfig, rngs: nnx.Rngs):
    self.config = config
    mixture = config.mixture
    e, d, f = mixture.experts, config.embed_dim, mixture.dim
    if not 0 < mixture.chosen <= e:
      raise ValueError(f"chosen={mixture.chosen} must be of {e} experts")
    self.router = weight(rngs, (e, d), ("router", "embed"), config)
    # [E, I, O], as kernels of grouped rows want it.
    inner, outer = ("experts", "embed", "width"), ("experts", "width", "embed")
    self.gate = weight(rngs, (e, d, f), inner, config)
    self.up = weight(rngs, (e, d, f), inner, config)
    scale = 0.02 / (2 * config.num_layers) ** 0.5
    self.down = weight(rngs, (e, f, d), outer, config, scale=scale)
    if mixture.bias:
      self.router_bias = bias((e,), ("router",), config)
      self.gate_bias = bias((e, f), ("experts", "width"), config)
      self.up_bias = bias((e, f), ("experts", "width"), config)
      self.down_bias = bias((e, d), ("experts", "embed"), config)
    if mixture.beside:
      ones = functools.partial(jnp.ones, dtype=config.param_dtype)
      self.router_scale = nnx.Param(ones((d,)), axes=("embed",))
      self.share_scale = nnx.Param(ones((e,)), axes=("router",))

  def __call__(
    self,
    x: jax.Array,
    logits: jax.Array,
    mesh: jax.sharding.Mesh | None = None,
  ) -> jax.Array:
    """Sums each token's experts by their shares.

    Args:
      x: [..., D].
      logits: float32 [..., E] from `logits`, whose argument may differ from x.
      mesh: as in `Block`.

    Returns:
      [..., D].
    """
    config, mixture = self.config, self.config.mixture
    rows = x.reshape(-1, x.shape[-1])
    chosen, shares = in_blocks(
      functools.partial(choose, mixture=mixture),
      config.row_block,
      logits.reshape(-1, mixture.experts),
    )
    if mixture.beside:
      factors = self.share_scale.get_value().astype(jnp.float32)
      shares *= factors[chosen]
    arrays = {
      name: getattr(self, name).get_value().astype(config.dtype)
      for name in ("gate", "up", "down")
    }
    if mixture.bias:
      for name in ("gate_bias", "up_bias", "down_bias"):
        arrays[name] = getattr(self, name).get_value().astype(config.dtype)
    run = functools.partial(_mix, mixture=mixture, activation=config.activation)
    mesh = mesh or jax.sharding.get_abstract_mesh()
    if mesh.empty:
      out = run(rows, chosen, shares, arrays)
    else:
      by_row = sharding.spec(rows.shape, ("batch",), mesh)
      cut = sharding.spec((mixture.experts,), ("experts",), mesh)
      # Kernels do not declare the mesh axes over which their results vary.
      out = jax.shard_map(
        functools.partial(run, axis=cut[0]),
        mesh=mesh,
        in_specs=(by_row, by_row, by_row, cut),
        out_specs=by_row,
        check_vma=False,
      )(rows, chosen, shares, arrays)
    return out.astype(x.dtype).reshape(x.shape)

  def logits(self, x: jax.Array) -> jax.Array:
    """Returns the router's float32 logits [..., E] of [..., D]."""
    config = self.config
    rows = x.reshape(-1, x.shape[-1])
    if config.mixture.beside:
      rows = unit(rows, 1, config.rms_eps, config.row_block).astype(x.dtype)
      rows *= self.router_scale.get_value().astype(x.dtype)
      rows = scaled(rows, config.embed_dim**-0.5)
    router = self.router.get_value().astype(rows.dtype)
    (logits,) = products(rows, [router], config, "float32")
    if config.mixture.bias:
      logits += self.router_bias.get_value().astype(jnp.float32)
    return logits.reshape(*x.shape[:-1], -1)


def choose(logits: jax.Array, mixture: Mixture) -> tuple[jax.Array, jax.Array]:
  """Returns a token's experts and their shares.

  Args:
    logits: float32 [R, E].
    mixture: its `chosen`, and whether shares are `normalised`.

  Returns:
    int32 [R, A], the greatest logits first, and float32 [R, A]: the softmax of
    all logits, or of the chosen ones alone.
  """
  top, chosen = jax.lax.top_k(logits, mixture.chosen)
  of = top if mixture.normalised else logits
  total = jax.nn.logsumexp(of, axis=-1, keepdims=True)
  return chosen, jnp.exp(top - total)


class Load(NamedTuple):
  """Sums over the routed tokens that count; those of layers add up.

  Attributes:
    tokens: float32 [E], tokens of each expert.
    shares: float32 [E], sums of each expert's shares in the softmax over all.
    peak: tokens of a layer's busiest expert, as a multiple of the mean.
    entropy: of the distribution of a layer's tokens over its experts, from 0
      (one of several has all) to 1 (all have equally many).
    layers: number of layers with experts.
  """

  tokens: jax.Array
  shares: jax.Array
  peak: jax.Array
  entropy: jax.Array
  layers: jax.Array


def no_load(config: ModelConfig) -> Load | None:
  """Returns the load of no layer; None if the model has no experts."""
  mixture = config.experts()
  if mixture is None:
    return None
  none = jnp.zeros(mixture.experts)
  return Load(none, none, *jnp.zeros(3))


def load(logits: jax.Array, counts: jax.Array, mixture: Mixture) -> Load:
  """Returns the load of a layer.

  Args:
    logits: float32 [..., E].
    counts: bool [...], whether a token counts.
    mixture: its `chosen`.
  """
  _, chosen = jax.lax.top_k(logits, mixture.chosen)
  # Tokens that do not count have no expert.
  chosen = jnp.where(counts[..., None], chosen, -1).reshape(-1, 1)
  own = chosen == jnp.arange(mixture.experts)
  tokens = jnp.sum(own, axis=0, dtype=jnp.float32)
  shares = jnp.where(counts[..., None], jax.nn.softmax(logits), 0)
  shares = jnp.sum(shares, axis=range(counts.ndim))
  of = tokens / jnp.maximum(jnp.sum(tokens), 1)
  entropy = jnp.ones(())
  if mixture.experts > 1:
    entropy = jnp.sum(jax.scipy.special.entr(of)) / jnp.log(mixture.experts)
  return Load(
    tokens,
    shares,
    mixture.experts * jnp.max(of),
    entropy,
    jnp.ones(()),
  )


def imbalance(load: Load, chosen: int) -> jax.Array:
  """Returns the auxiliary loss of Switch Transformers (Fedus et al. 2021).

  It is that of `transformers` (`load_balancing_loss_func`), which takes the
  tokens of all layers together: A where all experts have as many tokens and as
  large shares, and more where those with many tokens have large shares too.

  Args:
    load: of the layers.
    chosen: A, experts of a token.
  """
  total = jnp.maximum(jnp.sum(load.tokens), 1) / chosen
  return load.tokens.size * jnp.sum(load.tokens * load.shares) / total**2


def _mix(
  rows: jax.Array,
  chosen: jax.Array,
  shares: jax.Array,
  arrays: dict[str, jax.Array],
  *,
  mixture: Mixture,
  activation: str,
  axis: str | None = None,
) -> jax.Array:
  """Returns float32 [R, D], the sums of rows' experts.

  Args:
    rows: [R, D].
    chosen: int32 [R, A].
    shares: float32 [R, A].
    arrays: weights [E, I, O] and biases [E, O] of this device's experts.
    mixture: whether there are biases, and a bound of the activation.
    activation: see `ModelConfig.activation`.
    axis: of the mesh, along which experts lie.
  """
  count, most = len(arrays["gate"]), chosen.shape[1]
  first = 0 if axis is None else jax.lax.axis_index(axis) * count
  own = (chosen >= first) & (chosen < first + count)
  # Pairs of other devices come last.
  keys = jnp.where(own, chosen - first, count).reshape(-1)
  sizes = jnp.sum(keys[:, None] == jnp.arange(count), axis=0, dtype=jnp.int32)
  keys, order = jax.lax.sort_key_val(keys, jnp.arange(keys.size))
  back = jnp.argsort(order)
  keys = jnp.minimum(keys, count - 1)

  def through(x, name):
    out = grouped(x, arrays[name], sizes)
    if mixture.bias:
      out += lookup(arrays[f"{name}_bias"], keys)
    return out

  x = _rearranged(rows, order, back, most)
  gate, up = checkpoint_name((through(x, "gate"), through(x, "up")), GATED)
  if mixture.limit:
    out = _bounded(gate, up, mixture.limit)
  else:
    out = ACTIVATIONS[activation](gate) * up
  out = through(out, "down")
  out = _rearranged(out, back, order, 1).reshape(*chosen.shape, -1)
  shares = jnp.where(own, shares, 0)
  # One by one: how XLA on a CPU adds up an axis depends on the number of rows.
  total = sum(
    shares[:, i, None] * out[:, i].astype(jnp.float32) for i in range(most)
  )
  return total if axis is None else jax.lax.psum(total, axis)


def _bounded(gate: jax.Array, up: jax.Array, limit: float) -> jax.Array:
  """Returns GPT-OSS's gated activation, of clipped gates and products."""
  gate, up = jnp.minimum(gate, limit), jnp.clip(up, -limit, limit)
  return (up + 1) * gate * jax.nn.sigmoid(STEEPNESS * gate)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def _rearranged(
  x: jax.Array, there: jax.Array, back: jax.Array, copies: int
) -> jax.Array:
  """Returns copies of the rows of x in another order.

  Args:
    x: [R, O].
    there: int32 [R * copies], a permutation of all copies, where those of a row
      are numbered together.
    back: its inverse, by which gradients are gathered and not scattered.
    copies: number of copies of each row.

  Returns:
    [R * copies, O]: row i is x[there[i] // copies].
  """
  return move(lambda x, index: x[index], x, there // copies)


def _rearranged_forward(x, there, back, copies):
  return _rearranged(x, there, back, copies), back


def _rearranged_backward(copies, back, grad):
  grad = move(lambda x, index: x[index], grad, back)
  if copies > 1:
    wide = grad.reshape(-1, copies, grad.shape[-1]).astype(jnp.float32)
    grad = jnp.sum(wide, axis=1).astype(grad.dtype)
  return grad, None, None


_rearranged.defvjp(_rearranged_forward, _rearranged_backward)
