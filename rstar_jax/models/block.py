"""A layer of a decoder."""

import jax
from flax import nnx
from jax.ad_checkpoint import checkpoint_name

from rstar_jax.models import layers
from rstar_jax.models.config import ModelConfig
from rstar_jax.models.experts import Experts
from rstar_jax.models.rotary import Angles


class Block(nnx.Module):
  """Attention, then the MLP or experts, each with a residual.

  Where a norm is not (see `ModelConfig.norms`), its place is empty.
  """

  def __init__(self, config: ModelConfig, rngs: nnx.Rngs):
    """Makes a layer by `ModelConfig.layer`."""
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
    mlp = Experts if config.mixture else layers.Mlp
    self.mlp = mlp(config, rngs)
    self.mlp_post_norm = norm("post")

  def __call__(
    self,
    x: jax.Array,
    angles: Angles,
    attend: layers.Attend,
  ) -> jax.Array:
    out = self.attention(_through(self.attention_norm, x), angles, attend)
    x = self._added(x, _through(self.attention_post_norm, out))
    x = checkpoint_name(x, layers.MIXED)
    out = self.mlp(_through(self.mlp_norm, x))
    return self._added(x, _through(self.mlp_post_norm, out))

  def _added(self, x: jax.Array, out: jax.Array) -> jax.Array:
    factor = self.config.residual_multiplier
    return x + (out if factor == 1 else layers.scaled(out, factor))


def _through(norm: layers.RMSNorm | None, x: jax.Array) -> jax.Array:
  return x if norm is None else norm(x)
