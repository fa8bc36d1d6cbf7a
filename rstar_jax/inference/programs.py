"""The device's programs: what is compiled, and nothing that is not.

Each is a pure function of a model, a pool of paths and small arrays, to run
inside one `jax.jit`. Letters: P slots, B leaves (rows of a call), C candidates,
T path, U tail, S step, D model. `path` is static: how many tokens of each path
are read, a bucket that holds the longest. `banks` is static too; see
`cache.Pool`.
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
  banks: int = 1,
) -> cache.PathCache:
  """Returns the paths of leaves, padded to `path` tokens.

  Args:
    pool: paths.
    slots: int32 [B].
    lengths: int32 [B], tokens of each path that count.
    spans: int32 [B]; see `rotary.rotary`.
    path: at least the longest of `lengths`.
    banks: see `cache.Pool`.
  """
  rows = lambda arrays: tuple(  # noqa: E731
    cache.rows_of(each, slots, path, banks) for each in arrays
  )
  return cache.PathCache(rows(pool.keys), rows(pool.values), lengths, spans)


def advance(
  model: Transformer,
  pool: cache.Pool,
  slots: jax.Array,
  starts: jax.Array,
  tokens: jax.Array,
  counts: jax.Array,
  spans: jax.Array,
  *,
  path: int,
  banks: int = 1,
) -> cache.Pool:
  """Makes paths longer: prefill of tails after what is there.

  Args:
    model: any head.
    pool: paths, of the same model.
    slots: int32 [B], all different; past the end for a row of padding.
    starts: int32 [B], tokens of each path that are kept. What was behind them
      is written over or never read.
    tokens: int32 [B, U], padded on the right.
    counts: int32 [B], tokens of each tail; at least 1 but for padding.
    spans: int32 [B], tokens that a path and its steps may have together.
      LongRoPE has other frequencies for a sequence above a certain length; a
      path that its step may take above it has those from its first token on,
      since its keys are kept. (`transformers` begins again when it comes to
      pass.)
    path: at least the longest of `starts`; 0 where all are 0.
    banks: see `cache.Pool`.

  Returns:
    The pool, with `hidden` set at the tails' last tokens.
  """
  steps = jnp.arange(tokens.shape[1])
  window = model.config.sliding_window
  own_mask = layers.causal_mask(steps[None], window)
  if path:
    before = paths_of(pool, slots, starts, spans, path=path, banks=banks)
    path_mask = before.mask(steps, window)
  keys, values = [], []

  def attend(layer, q, k, v):
    own = jnp.swapaxes(k, 1, 2), jnp.swapaxes(v, 1, 2)
    for grown, old, new in zip(
      (keys, values), (pool.keys, pool.values), own, strict=True
    ):
      grown.append(cache.write(old[layer], slots, starts, new, banks))
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
  split = lambda x: x.reshape(banks, -1, *x.shape[1:])  # noqa: E731
  kept = put(split(pool.hidden), split(slots), split(hidden))
  return cache.Pool(tuple(keys), tuple(values), kept.reshape(pool.hidden.shape))


def commit(
  pool: cache.Pool,
  kept: cache.KeyValues,
  slots: jax.Array,
  leaves: jax.Array,
  columns: jax.Array,
  starts: jax.Array,
  *,
  banks: int = 1,
) -> cache.Pool:
  """Copies candidates to the ends of paths: no token is run again.

  Args:
    pool: paths.
    kept: candidates [B', C, K, S, H] of an earlier call on the same pool.
    slots: int32 [B], all different; past the end for a row of padding.
    leaves: int32 [B], rows of the earlier call, in their part of it.
    columns: int32 [B], which candidate.
    starts: int32 [B], lengths of the paths.
    banks: see `cache.Pool`.
  """

  def take(rows):
    split = lambda x: x.reshape(banks, -1, *x.shape[1:])  # noqa: E731
    pick = jax.vmap(lambda rows, i, j: rows[i, j])
    picked = layers.move(pick, split(rows), split(leaves), split(columns))
    return picked.reshape(-1, *picked.shape[2:])

  def put(old, rows):
    return cache.write(old, slots, starts, take(rows), banks)

  return cache.Pool(
    tuple(map(put, pool.keys, kept.keys)),
    tuple(map(put, pool.values, kept.values)),
    pool.hidden,
  )


def fork(
  pool: cache.Pool, sources: jax.Array, targets: jax.Array, *, banks: int = 1
) -> cache.Pool:
  """Copies paths to other slots.

  Args:
    pool: paths.
    sources: int32 [B] slots.
    targets: int32 [B] slots, all different, none of them a source; past the end
      for a row of padding.
    banks: see `cache.Pool`.
  """

  def copy(array):
    bank = array.reshape(banks, -1, *array.shape[1:])
    put = jax.vmap(
      lambda x, i, j: x.at[j].set(x[i], mode="drop", unique_indices=True)
    )
    split = lambda x: x.reshape(banks, -1)  # noqa: E731
    moved = layers.move(put, bank, split(sources), split(targets))
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
  banks: int = 1,
) -> tuple[decoding.Sampled, cache.KeyValues | None]:
  """Samples C next steps after each path; see `decoding.decode`.

  Args:
    model: with an LM head.
    pool: paths; `hidden` is that of their last tokens.
    slots: int32 [B].
    lengths: int32 [B].
    spans: int32 [B].
    seeds: uint32 [B, C].
    limits: int32 [B]; 0 is a leaf of padding.
    path: at least the longest of `lengths`.
    options: see `decoding.Options`.
    banks: see `cache.Pool`.
  """
  rows = paths_of(pool, slots, lengths, spans, path=path, banks=banks)
  split = lambda x: x.reshape(banks, -1, *x.shape[1:])  # noqa: E731
  hidden = jax.vmap(lambda x, i: x[i])(split(pool.hidden), split(slots))
  hidden = hidden.reshape(-1, hidden.shape[-1])
  return decoding.decode(model, rows, hidden, seeds, limits, options, banks)


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
  banks: int = 1,
) -> tuple[jax.Array, cache.KeyValues | None]:
  """Values whole steps after shared paths.

  Args:
    model: with a scalar head.
    pool: paths.
    slots: int32 [B].
    lengths: int32 [B].
    spans: int32 [B].
    steps: int32 [B, C, S], padded on the right.
    step_lengths: int32 [B, C].
    path: at least the longest of `lengths`.
    keep: whether the steps' keys and values are returned.
    banks: see `cache.Pool`.

  Returns:
    float32 [B, C], the values at the steps' last tokens; and the steps' keys
    and values [B, C, K, S, H], None where they are not kept.
  """
  rows = paths_of(pool, slots, lengths, spans, path=path, banks=banks)
  hidden, own = extend(model, rows, steps)
  last = jnp.maximum(step_lengths - 1, 0)[..., None, None]
  hidden = jnp.take_along_axis(hidden, last, axis=2)[:, :, 0]
  return model.values(hidden), own if keep else None


def extend(
  model: Transformer, path: cache.PathCache, tokens: jax.Array
) -> tuple[jax.Array, cache.KeyValues]:
  """Runs whole steps after shared paths.

  Args:
    model: any head.
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
