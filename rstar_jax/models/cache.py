"""Keys and values of shared paths and of the candidates that branch from them.

A leaf's path (prompt and steps so far) is stored ONCE for all its candidates;
each candidate stores only its own tokens. A query attends to both, in one
softmax. Letters: B leaves, C candidates, T path, S step, Q queries, N query
heads, K key/value heads, G = N / K, H head.
"""

import dataclasses

import jax
import jax.numpy as jnp

from rstar_jax.config import ModelConfig
from rstar_jax.models.layers import MASKED


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class PathCache:
  """Paths, padded to one length.

  Attributes:
    keys: L arrays [B, K, T, H], rotated.
    values: L arrays [B, K, T, H].
    lengths: int32 [B], tokens of each path; 0 is a leaf of padding.
  """

  keys: tuple[jax.Array, ...]
  values: tuple[jax.Array, ...]
  lengths: jax.Array

  @property
  def mask(self) -> jax.Array:
    """Returns bool [B, T], True for tokens of the path."""
    return jnp.arange(self.keys[0].shape[2]) < self.lengths[:, None]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class CandidateCache:
  """Candidates' own tokens.

  Attributes:
    keys: L arrays [B, C, K, S, H], rotated.
    values: L arrays [B, C, K, S, H].
  """

  keys: tuple[jax.Array, ...]
  values: tuple[jax.Array, ...]


def empty_candidates(
  config: ModelConfig, leaves: int, candidates: int, length: int
) -> CandidateCache:
  """Returns zeros for `length` tokens of [leaves, candidates] rows."""
  shape = (leaves, candidates, config.num_kv_heads, length, config.head_dim)
  zeros = (jnp.zeros(shape, config.dtype),) * config.num_layers
  return CandidateCache(keys=zeros, values=zeros)


def attend_branches(
  q: jax.Array,
  path: tuple[jax.Array, jax.Array],
  path_mask: jax.Array,
  own: tuple[jax.Array, jax.Array],
  own_mask: jax.Array,
) -> jax.Array:
  """Attends to a shared path, once for all its candidates, and to own tokens.

  Args:
    q: [B, C, Q, N, H].
    path: keys and values, [B, K, T, H] each.
    path_mask: bool [B, T].
    own: keys and values, [B, C, K, S, H] each.
    own_mask: bool [Q, S].

  Returns:
    [B, C, Q, N, H] in q's dtype.
  """
  leaves, candidates, queries, heads, dim = q.shape
  kv_heads, path_length = path[0].shape[1:3]
  q = q.reshape(leaves, candidates, queries, kv_heads, -1, dim) * dim**-0.5
  # All candidates of a leaf are rows of one matrix product per kv head.
  on_path = jnp.einsum(
    "bcqkgh,bkth->bkcqgt", q, path[0], preferred_element_type=jnp.float32
  )
  on_own = jnp.einsum(
    "bcqkgh,bcksh->bkcqgs", q, own[0], preferred_element_type=jnp.float32
  )
  scores = jnp.concatenate(
    [
      jnp.where(path_mask[:, None, None, None, None], on_path, MASKED),
      jnp.where(own_mask[:, None], on_own, MASKED),
    ],
    axis=-1,
  )
  shares = jax.nn.softmax(scores, axis=-1).astype(q.dtype)
  mixed = jnp.einsum("bkcqgt,bkth->bcqkgh", shares[..., :path_length], path[1])
  mixed += jnp.einsum("bkcqgs,bcksh->bcqkgh", shares[..., path_length:], own[1])
  return mixed.reshape(leaves, candidates, queries, heads, dim)
