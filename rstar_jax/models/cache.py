"""Keys and values of shared paths and of the candidates that branch from them.

A leaf's path (prompt and steps so far) is stored ONCE for all its candidates;
each candidate stores only its own tokens. A query attends to both, in one
softmax. Letters: B leaves, C candidates, T path, S step, Q queries, N query
heads, K key/value heads, G = N / K, H head.
"""

import dataclasses

import jax
import jax.numpy as jnp

from rstar_jax.models.config import ModelConfig
from rstar_jax.models.layers import MASKED


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class PathCache:
  """Paths, padded to one length.

  Attributes:
    keys: L arrays [B, K, T, H], rotated.
    values: L arrays [B, K, T, H].
    lengths: int32 [B], tokens of each path; 0 is a leaf of padding.
    spans: int32 [B], tokens that a path and its steps may have together.
  """

  keys: tuple[jax.Array, ...]
  values: tuple[jax.Array, ...]
  lengths: jax.Array
  spans: jax.Array

  def mask(self, steps: jax.Array, window: int = 0) -> jax.Array:
    """Says which tokens of the path the steps' tokens attend to.

    Args:
      steps: int32 [Q], the tokens' places in their step, from 0.
      window: tokens that one attends to, itself included; 0 is all before it.

    Returns:
      bool [B, Q, T], or [B, 1, T] where all of a step see the same.
    """
    columns = jnp.arange(self.keys[0].shape[2])
    seen = (columns < self.lengths[:, None])[:, None]
    if window:
      positions = self.lengths[:, None, None] + steps[:, None]
      seen = seen & (columns > positions - window)
    return seen


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
    path_mask: bool [B, Q or 1, T].
    own: keys and values, [B, C, K, S, H] each.
    own_mask: bool [Q, S].

  Returns:
    [B, C, Q, N, H] in q's dtype.
  """
  leaves, candidates, queries, heads, dim = q.shape
  kv_heads = path[0].shape[1]
  q = q.reshape(leaves, candidates, queries, kv_heads, -1, dim) * dim**-0.5
  # All candidates of a leaf are rows of one matrix product per kv head.
  on_path = jnp.einsum(
    "bcqkgh,bkth->bkcqgt", q, path[0], preferred_element_type=jnp.float32
  )
  on_own = jnp.einsum(
    "bcqkgh,bcksh->bkcqgs", q, own[0], preferred_element_type=jnp.float32
  )
  on_path = jnp.where(path_mask[:, None, None, :, None], on_path, MASKED)
  on_own = jnp.where(own_mask[:, None], on_own, MASKED)
  # One softmax over both parts without joining them, which would copy the
  # larger one at every token.
  peak = jnp.maximum(jnp.max(on_path, axis=-1), jnp.max(on_own, axis=-1))
  on_path = jnp.exp(on_path - peak[..., None])
  on_own = jnp.exp(on_own - peak[..., None])
  total = jnp.sum(on_path, axis=-1) + jnp.sum(on_own, axis=-1)
  mixed = jnp.einsum("bkcqgt,bkth->bkcqgh", on_path.astype(q.dtype), path[1])
  mixed += jnp.einsum("bkcqgs,bcksh->bkcqgh", on_own.astype(q.dtype), own[1])
  mixed = (mixed / total[..., None]).astype(q.dtype)
  # [B, K, C, Q, G, H] to [B, C, Q, K, G, H].
  mixed = jnp.transpose(mixed, (0, 2, 3, 1, 4, 5))
  return mixed.reshape(leaves, candidates, queries, heads, dim)
