"""Keys and values of shared paths and of the candidates that branch from them.

A leaf's path (prompt and steps so far) is stored once for all its candidates;
each candidate stores its own tokens alone. A query attends to both, in one
softmax. Letters: P slots, B leaves, C candidates, T path, U tail, S step, Q
queries, N query heads, K key/value heads, G = N / K, H head.
"""

import dataclasses

import jax
import jax.numpy as jnp

from rstar_jax.models.config import ModelConfig
from rstar_jax.models.layers import MASKED, move


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class KeyValues:
  """Keys and values of rows of tokens.

  Attributes:
    keys: L arrays [..., K, T, H], after the rotary embedding.
    values: L arrays [..., K, T, H].
  """

  keys: tuple[jax.Array, ...]
  values: tuple[jax.Array, ...]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class PathCache(KeyValues):
  """Paths of the leaves of one call, padded to one length: [B, K, T, H].

  Attributes:
    lengths: int32 [B], tokens of each path; 0 is a leaf of padding.
    spans: int32 [B], most tokens of a path with its steps.
  """

  lengths: jax.Array
  spans: jax.Array

  def mask(self, steps: jax.Array, window: int = 0) -> jax.Array:
    """Returns which tokens of the path each token of a step attends to.

    Args:
      steps: int32 [Q], the tokens' positions in their step, from 0.
      window: tokens that a token attends to, itself included; 0 is no limit.

    Returns:
      bool [B, Q, T], or [B, 1, T] if it is the same for all tokens of a step.
    """
    columns = jnp.arange(self.keys[0].shape[2])
    seen = (columns < self.lengths[:, None])[:, None]
    if window:
      positions = self.lengths[:, None, None] + steps[:, None]
      seen = seen & (columns > positions - window)
    return seen


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Pool(KeyValues):
  """Paths that outlive a call, one in each slot: [P, K, T, H].

  Slots are in data shards of equal size, one after the other, and so are the
  rows of a call. Rows of shard i use slots of shard i, so that nothing moves
  between the devices of the data axes.

  Attributes:
    hidden: [P, D], after the final norm at each path's last token.
  """

  hidden: jax.Array


def empty(config: ModelConfig, rows: tuple[int, ...], length: int) -> KeyValues:
  """Returns zeros for `length` tokens of rows [*rows, K, length, H]."""
  shape = (*rows, config.num_kv_heads, length, config.head_dim)
  zeros = (jnp.zeros(shape, config.dtype),) * config.num_layers
  return KeyValues(keys=zeros, values=zeros)


def empty_pool(config: ModelConfig, slots: int, length: int) -> Pool:
  """Returns a pool of `slots` empty paths with room for `length` tokens."""
  rows = empty(config, (slots,), length)
  # The pool is donated, so no two arrays may share a buffer.
  keys, values = jax.tree.map(jnp.copy, (rows.keys, rows.values))
  hidden = jnp.zeros((slots, config.embed_dim), config.dtype)
  return Pool(keys=keys, values=values, hidden=hidden)


def rows_of(
  pool: jax.Array, slots: jax.Array, length: int, data_shards: int = 1
) -> jax.Array:
  """Returns the first `length` tokens of slots: [B, K, length, H].

  Args:
    pool: [P, K, T, H].
    slots: int32 [B], indices in the row's data shard; see `Pool`.
    length: at most T.
    data_shards: divides P and B.
  """
  _, heads, _, dim = pool.shape

  def take(shard, slot):
    return jax.lax.dynamic_slice(
      shard, (slot, 0, 0, 0), (1, heads, length, dim)
    )[0]

  taken = jax.vmap(jax.vmap(take, (None, 0)))
  rows = move(taken, *_split(data_shards, pool, slots))
  return rows.reshape(-1, *rows.shape[2:])


def write(
  pool: jax.Array,
  slots: jax.Array,
  starts: jax.Array,
  rows: jax.Array,
  data_shards: int = 1,
) -> jax.Array:
  """Returns the pool with rows written into slots from `starts` on.

  Args:
    pool: [P, K, T, H].
    slots: int32 [B], as in `rows_of`, all different; one past the shard's end
      is not written.
    starts: int32 [B]; starts + U is at most T.
    rows: [B, K, U, H].
    data_shards: divides P and B.
  """
  dims = jax.lax.ScatterDimensionNumbers(
    update_window_dims=(1, 2, 3),
    inserted_window_dims=(0,),
    scatter_dims_to_operand_dims=(0, 2),
  )

  def put(shard, slots, starts, rows):
    return jax.lax.scatter(
      shard,
      jnp.stack([slots, starts], axis=-1),
      rows,
      dims,
      unique_indices=True,
      mode=jax.lax.GatherScatterMode.FILL_OR_DROP,
    )

  parts = _split(data_shards, pool, slots, starts, rows.astype(pool.dtype))
  return move(jax.vmap(put), *parts).reshape(pool.shape)


def _split(data_shards: int, *arrays: jax.Array) -> list[jax.Array]:
  return [x.reshape(data_shards, -1, *x.shape[1:]) for x in arrays]


def attend_branches(
  q: jax.Array,
  path: tuple[jax.Array, jax.Array],
  path_mask: jax.Array,
  own: tuple[jax.Array, jax.Array],
  own_mask: jax.Array,
) -> jax.Array:
  """Attends to the shared path of all candidates and to their own tokens.

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
  # One matrix product per kv head has all candidates of a leaf as rows.
  on_path = jnp.einsum(
    "bcqkgh,bkth->bkcqgt", q, path[0], preferred_element_type=jnp.float32
  )
  on_own = jnp.einsum(
    "bcqkgh,bcksh->bkcqgs", q, own[0], preferred_element_type=jnp.float32
  )
  on_path = jnp.where(path_mask[:, None, None, :, None], on_path, MASKED)
  on_own = jnp.where(own_mask[:, None], on_own, MASKED)
  # One softmax over both parts. Concatenating them would copy the path at
  # every token.
  peak = jnp.maximum(jnp.max(on_path, axis=-1), jnp.max(on_own, axis=-1))
  on_path = jnp.exp(on_path - peak[..., None])
  on_own = jnp.exp(on_own - peak[..., None])
  total = jnp.sum(on_path, axis=-1) + jnp.sum(on_own, axis=-1)
  # Accumulated in float32: otherwise XLA on a CPU makes float32 copies of the
  # values.
  mixed = jnp.einsum(
    "bkcqgt,bkth->bkcqgh",
    on_path.astype(q.dtype),
    path[1],
    preferred_element_type=jnp.float32,
  )
  mixed += jnp.einsum(
    "bkcqgs,bcksh->bkcqgh",
    on_own.astype(q.dtype),
    own[1],
    preferred_element_type=jnp.float32,
  )
  mixed = (mixed / total[..., None]).astype(q.dtype)
  # [B, K, C, Q, G, H] to [B, C, Q, K, G, H].
  mixed = jnp.transpose(mixed, (0, 2, 3, 1, 4, 5))
  return mixed.reshape(leaves, candidates, queries, heads, dim)
