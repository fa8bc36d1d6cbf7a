"""The engine's device programs.

Each is a pure function of a model, a pool of paths and small arrays, and runs
inside one `jax.jit`. Letters: P slots, B leaves (rows of a call), C candidates,
T path, U tail, S step, D model. Two arguments are static: `path`, the bucket of
the longest path, in tokens; and `data_shards`, see `cache.Pool`. Slots are
indices within a row's data shard.
"""

import jax
import jax.numpy as jnp

from rstar_jax.inference import decoding
from rstar_jax.models import cache, layers
from rstar_jax.models.transformer import Transformer


def paths_of(
  pool: cache.Pool,
  slots: jax.Array,
  lengths: jax.Array,
  spans: jax.Array,
  *,
  path: int,
  data_shards: int = 1,
) -> cache.PathCache:
  """Returns the paths of leaves, padded to `path` tokens.

  Args:
    pool: paths.
    slots: int32 [B].
    lengths: int32 [B], valid tokens of each path.
    spans: int32 [B]; see `rotary.rotary`.
    path: at least the longest of `lengths`.
    data_shards: see `cache.Pool`.
  """
  rows = lambda arrays: tuple(  # noqa: E731
    cache.rows_of(each, slots, path, data_shards) for each in arrays
  )
  return cache.PathCache(rows(pool.keys), rows(pool.values), lengths, spans)


def prefill(
  model: Transformer,
  pool: cache.Pool,
  slots: jax.Array,
  starts: jax.Array,
  tokens: jax.Array,
  counts: jax.Array,
  spans: jax.Array,
  *,
  path: int,
  data_shards: int = 1,
) -> cache.Pool:
  """Prefills tails after the cached tokens of their paths.

  Args:
    model: with any head.
    pool: paths of the same model.
    slots: int32 [B], all different; past the end for a row of padding.
    starts: int32 [B], cached tokens of each path. Later entries are overwritten
      or never read.
    tokens: int32 [B, U], padded on the right.
    counts: int32 [B], tokens of each tail; at least 1, except in padding.
    spans: int32 [B], most tokens of a path with its steps. LongRoPE has other
      frequencies for sequences above a certain length. A path whose step may
      exceed it has those from its first token on, since its keys stay cached.
      (`transformers` recomputes the prefix at that point.)
    path: at least the longest of `starts`; 0 where all are 0.
    data_shards: see `cache.Pool`.

  Returns:
    The pool, with `hidden` set to the states at the tails' last tokens.
  """
  steps = jnp.arange(tokens.shape[1])
  window = model.config.sliding_window
  own_mask = layers.causal_mask(steps[None], window)
  if path:
    before = paths_of(
      pool, slots, starts, spans, path=path, data_shards=data_shards
    )
    path_mask = before.mask(steps, window)
  keys, values = [], []

  def attend(layer, q, k, v):
    own = jnp.swapaxes(k, 1, 2), jnp.swapaxes(v, 1, 2)
    for grown, old, new in zip(
      (keys, values), (pool.keys, pool.values), own, strict=True
    ):
      grown.append(cache.write(old[layer], slots, starts, new, data_shards))
    if not path:
      return layers.attend_causal(q, k, v, own_mask)
    return cache.attend_branches(
      q[:, None],
      (before.keys[layer], before.values[layer]),
      path_mask,
      (own[0][:, None], own[1][:, None]),
      own_mask[0],
    )[:, 0]

  hidden = model.trunk(
    tokens, starts[:, None] + steps, attend, spans=spans[:, None]
  )
  last = jnp.maximum(counts - 1, 0)
  hidden = jnp.take_along_axis(hidden, last[:, None, None], axis=1)[:, 0]
  put = jax.vmap(lambda old, i, new: old.at[i].set(new, mode="drop"))
  split = lambda x: x.reshape(data_shards, -1, *x.shape[1:])  # noqa: E731
  states = put(split(pool.hidden), split(slots), split(hidden))
  return cache.Pool(
    tuple(keys), tuple(values), states.reshape(pool.hidden.shape)
  )


def append(
  pool: cache.Pool,
  cached: cache.KeyValues,
  slots: jax.Array,
  leaves: jax.Array,
  columns: jax.Array,
  starts: jax.Array,
  *,
  data_shards: int = 1,
) -> cache.Pool:
  """Appends cached candidates to paths, without computing a token again.

  Args:
    pool: paths.
    cached: candidates [B', C, K, S, H] of an earlier call on the same pool.
    slots: int32 [B], all different; past the end for a row of padding.
    leaves: int32 [B], rows of the earlier call, within their data shard.
    columns: int32 [B], the candidate of that row.
    starts: int32 [B], lengths of the paths.
    data_shards: see `cache.Pool`.
  """

  def take(rows):
    split = lambda x: x.reshape(data_shards, -1, *x.shape[1:])  # noqa: E731
    pick = jax.vmap(lambda rows, i, j: rows[i, j])
    picked = layers.move(pick, split(rows), split(leaves), split(columns))
    return picked.reshape(-1, *picked.shape[2:])

  def put(old, rows):
    return cache.write(old, slots, starts, take(rows), data_shards)

  return cache.Pool(
    tuple(map(put, pool.keys, cached.keys)),
    tuple(map(put, pool.values, cached.values)),
    pool.hidden,
  )


def fork(
  pool: cache.Pool,
  sources: jax.Array,
  targets: jax.Array,
  *,
  data_shards: int = 1,
) -> cache.Pool:
  """Copies paths to other slots.

  Args:
    pool: paths.
    sources: int32 [B] slots.
    targets: int32 [B] slots, all different, none of them a source; past the end
      for a row of padding.
    data_shards: see `cache.Pool`.
  """

  def copy(array):
    shard = array.reshape(data_shards, -1, *array.shape[1:])
    put = jax.vmap(
      lambda x, i, j: x.at[j].set(x[i], mode="drop", unique_indices=True)
    )
    split = lambda x: x.reshape(data_shards, -1)  # noqa: E731
    moved = layers.move(put, shard, split(sources), split(targets))
    return moved.reshape(array.shape)

  return jax.tree.map(copy, pool)


def expand(
  model: Transformer,
  pool: cache.Pool,
  slots: jax.Array,
  lengths: jax.Array,
  spans: jax.Array,
  seeds: jax.Array,
  limits: jax.Array,
  *,
  path: int,
  options: decoding.Options,
  data_shards: int = 1,
) -> tuple[decoding.Sampled, cache.KeyValues | None]:
  """Samples C next steps after each path; see `decoding.decode`.

  Args:
    model: with an LM head.
    pool: paths, with the states at their last tokens in `hidden`.
    slots: int32 [B].
    lengths: int32 [B], tokens of each path.
    spans: int32 [B]; see `rotary.rotary`.
    seeds: uint32 [B, C].
    limits: int32 [B], longest step of each leaf; 0 is a leaf of padding.
    path: at least the longest of `lengths`.
    options: see `decoding.Options`.
    data_shards: see `cache.Pool`.
  """
  rows = paths_of(
    pool, slots, lengths, spans, path=path, data_shards=data_shards
  )
  split = lambda x: x.reshape(data_shards, -1, *x.shape[1:])  # noqa: E731
  hidden = jax.vmap(lambda x, i: x[i])(split(pool.hidden), split(slots))
  hidden = hidden.reshape(-1, hidden.shape[-1])
  return decoding.decode(
    model, rows, hidden, seeds, limits, options, data_shards
  )


def score(
  model: Transformer,
  pool: cache.Pool,
  slots: jax.Array,
  lengths: jax.Array,
  spans: jax.Array,
  steps: jax.Array,
  step_lengths: jax.Array,
  *,
  path: int,
  keep: bool = True,
  data_shards: int = 1,
) -> tuple[jax.Array, cache.KeyValues | None]:
  """Scores steps after shared paths.

  Args:
    model: with a scalar head.
    pool: paths.
    slots: int32 [B].
    lengths: int32 [B], tokens of each path.
    spans: int32 [B]; see `rotary.rotary`.
    steps: int32 [B, C, S], padded on the right.
    step_lengths: int32 [B, C].
    path: at least the longest of `lengths`.
    keep: whether to return the steps' keys and values.
    data_shards: see `cache.Pool`.

  Returns:
    float32 [B, C] in [-1, 1], the values at the steps' last tokens; and the
    steps' keys and values [B, C, K, S, H], None without `keep`.
  """
  rows = paths_of(
    pool, slots, lengths, spans, path=path, data_shards=data_shards
  )
  hidden, own = extend(model, rows, steps)
  last = jnp.maximum(step_lengths - 1, 0)[..., None, None]
  hidden = jnp.take_along_axis(hidden, last, axis=2)[:, :, 0]
  return model.values(hidden), own if keep else None


def extend(
  model: Transformer, path: cache.PathCache, tokens: jax.Array
) -> tuple[jax.Array, cache.KeyValues]:
  """Computes steps after shared paths.

  Args:
    model: with any head.
    path: the leaves' paths.
    tokens: int32 [B, C, S], padded on the right.

  Returns:
    [B, C, S, D] after the final norm, and the keys and values [B, C, K, S, H].
  """
  steps = jnp.arange(tokens.shape[-1])
  window = model.config.sliding_window
  own_mask = layers.causal_mask(steps[None], window)[0]
  path_mask = path.mask(steps, window)
  keys, values = [], []

  def attend(layer, q, k, v):
    keys.append(jnp.swapaxes(k, 2, 3))
    values.append(jnp.swapaxes(v, 2, 3))
    return cache.attend_branches(
      q,
      (path.keys[layer], path.values[layer]),
      path_mask,
      (keys[layer], values[layer]),
      own_mask,
    )

  positions = path.lengths[:, None, None] + steps
  hidden = model.trunk(
    tokens, positions, attend, spans=path.spans[:, None, None]
  )
  return hidden, cache.KeyValues(tuple(keys), tuple(values))
