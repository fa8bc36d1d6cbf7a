"""A layer of a decoder."""

import jax
import jax.numpy as jnp
from flax import nnx
from jax.ad_checkpoint import checkpoint_name

from rstar_jax.models import layers
from rstar_jax.models.attention import Attend
from rstar_jax.models.config import ModelConfig
from rstar_jax.models.experts import Experts
from rstar_jax.models.rotary import Angles


class Block(nnx.Module):
  """Attention, then the MLP or experts, each with a residual.

  Norms (see `ModelConfig.norms`), MLP and experts that a layer lacks are None.
  """

  def __init__(self, config: ModelConfig, rngs: nnx.Rngs):
    """Makes a layer from a config of `ModelConfig.layer`."""
    self.config = config

    def norm(place: str) -> layers.RMSNorm | None:
      there = config.norms in (place, "both")
      return (
        layers.RMSNorm(config, (config.embed_dim,), "embed") if there else None
      )

    self.attention_norm = norm("pre")
    self.attention = layers.Attention(config, rngs)
    self.attention_post_norm = norm("post")
    self.mlp_norm = norm("pre")
    mixture = config.mixture
    beside = mixture is not None and mixture.beside
    alone = mixture is not None and not beside
    self.mlp = None if alone else layers.Mlp(config, rngs)
    self.experts = Experts(config, rngs) if mixture else None
    self.mlp_post_norm = norm("post")
    # With both: the norms of the MLP's output and of the experts' input and
    # output.
    self.mlp_own_norm = norm("post") if beside else None
    self.experts_norm = norm("pre") if beside else None
    self.experts_post_norm = norm("post") if beside else None
    if config.layer_factor:
      self.factor = nnx.Param(jnp.ones((), config.param_dtype), axes=())

  def __call__(
    self,
    x: jax.Array,
    angles: Angles,
    attend: Attend,
    mesh: jax.sharding.Mesh | None = None,
  ) -> tuple[jax.Array, jax.Array | None]:
    """Runs a layer.

    Args:
      x: [..., D], the residual stream.
      angles: of positions.
      attend: see `attention.Attend`.
      mesh: None is the mesh of `jax.set_mesh`, if there is one.

    Returns:
      [..., D], and the router's float32 logits [..., E], None without experts.
    """
    out = self.attention(_through(self.attention_norm, x), angles, attend)
    x = self._added(x, _through(self.attention_post_norm, out))
    x = checkpoint_name(x, layers.MIXED)
    out, logits = _through(self.mlp_norm, x), None
    if self.mlp is None:
      logits = self.experts.logits(out)
      out = self.experts(out, logits, mesh)
    elif self.experts is None:
      out = self.mlp(out)
    else:
      out = _through(self.mlp_own_norm, self.mlp(out))
      logits = self.experts.logits(x)
      more = self.experts(_through(self.experts_norm, x), logits, mesh)
      out += _through(self.experts_post_norm, more)
    x = self._added(x, _through(self.mlp_post_norm, out))
    if self.config.layer_factor:
      # A buffer of the published model: no training changes it.
      factor = jax.lax.stop_gradient(self.factor.get_value())
      x *= factor.astype(x.dtype)
    return x, logits

  def _added(self, x: jax.Array, out: jax.Array) -> jax.Array:
    factor = self.config.residual_multiplier
    return x + (out if factor == 1 else layers.scaled(out, factor))


def _through(norm: layers.RMSNorm | None, x: jax.Array) -> jax.Array:
  return x if norm is None else norm(x)
