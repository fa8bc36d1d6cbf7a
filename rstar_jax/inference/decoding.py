"""The decode loop: steps of all candidates of all leaves, in one program.

Once half of the rows have ended, the layers, the LM head and the sampler
continue with half as many rows. Keys and values are not moved; only the index
of the active rows is recomputed. Letters: B leaves, C candidates per leaf, R
active rows, S step, D model, V vocab.
"""

import dataclasses
from typing import Any, Literal

import jax
import jax.numpy as jnp

from rstar_jax.inference import sampler
from rstar_jax.models import branch_attention, cache
from rstar_jax.models.transformer import Transformer


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Sampled:
  """Sampled steps.

  Attributes:
    tokens: int32 [B, C, S], padded with the pad id.
    lengths: int32 [B, C], with the stop id; 0 for leaves of padding.
    logprobs: float32 [B, C], sums of the tokens' log-probabilities (nats)
      under softmax(logits), for every sampling method.
    stops: int32 [B, C], the stop id that ended the step, -1 if none did.
  """

  tokens: jax.Array
  lengths: jax.Array
  logprobs: jax.Array
  stops: jax.Array


@dataclasses.dataclass(frozen=True)
class Options:
  """Static arguments of a decode program; hashable.

  Attributes:
    method: draws tokens.
    stop_ids: ids that end a step, and belong to it.
    max_new_tokens: S, at least 1.
    pad_id: pads rows that have ended.
    stop_words: sequences of ids; a step ends with the token after one.
    least_rows: rows are not halved below this.
    keep: whether to return the candidates' keys and values.
    attention: see `branch_attention.attend_of`.
    mesh: the mesh of keys and values; None is one device.
  """

  method: sampler.Method
  stop_ids: tuple[int, ...]
  max_new_tokens: int
  pad_id: int
  stop_words: tuple[tuple[int, ...], ...] = ()
  least_rows: int = 32
  keep: bool = True
  attention: Literal["xla", "pallas"] = "xla"
  mesh: jax.sharding.Mesh | None = None


def halvings(rows: int, least: int, data_shards: int = 1) -> list[int]:
  """Returns the row counts of the loop's stages, each half the one before.

  Args:
    rows: B x C.
    least: lower bound of all counts but the first.
    data_shards: divides every count.
  """
  stages = [rows]
  while stages[-1] % (2 * data_shards) == 0 and stages[-1] // 2 >= least:
    stages.append(stages[-1] // 2)
  return stages


@dataclasses.dataclass(frozen=True)
class _Rows:
  """The active rows of one stage of the loop.

  Attributes:
    shape: (B, C).
    index: int32 [data_shards, R / data_shards], indices among the rows of each
      data shard, past the end for padding; None for all rows.
  """

  shape: tuple[int, int]
  index: jax.Array | None = None

  def take(self, x: jax.Array) -> jax.Array:
    """Returns [R, ...] of [B, C, ...]."""
    x = x.reshape(-1, *x.shape[2:])
    if self.index is None:
      return x
    data_shards = self.index.shape[0]
    x = x.reshape(data_shards, -1, *x.shape[1:])
    picked = jax.vmap(lambda x, i: jnp.take(x, i, axis=0, mode="clip"))
    return picked(x, self.index).reshape(-1, *x.shape[2:])

  def put(self, x: jax.Array) -> jax.Array:
    """Returns [B, C, ...] of [R, ...], zeros elsewhere."""
    if self.index is not None:
      data_shards = self.index.shape[0]
      x = x.reshape(data_shards, -1, *x.shape[1:])
      zeros = jnp.zeros(
        (
          data_shards,
          self.shape[0] * self.shape[1] // data_shards,
          *x.shape[2:],
        ),
        x.dtype,
      )
      x = jax.vmap(
        lambda zeros, i, x: zeros.at[i].set(x, mode="drop", unique_indices=True)
      )(zeros, self.index, x)
      x = x.reshape(-1, *x.shape[2:])
    return x.reshape(*self.shape, *x.shape[1:])


def decode_step(
  model: Transformer,
  path: cache.PathCache,
  own: cache.KeyValues,
  tokens: jax.Array,
  index: jax.Array,
  rows: _Rows | None = None,
  branches: branch_attention.Attend = branch_attention.attend_masked,
) -> tuple[jax.Array, cache.KeyValues]:
  """Computes one token of every active candidate.

  Args:
    model: with any head.
    path: the leaves' paths, of the same model.
    own: keys and values of the candidates' tokens before `index`,
      [B, C, K, S, H].
    tokens: int32 [B, C], the candidates' tokens at `index`.
    index: int32 scalar.
    rows: the active rows; None is all.
    branches: computes attention.

  Returns:
    [R, D] after the final norm, and `own` with the tokens at `index`.
  """
  rows = rows or _Rows(tokens.shape)
  keys, values = [], []
  step = branch_attention.step_of(branches, native=model.config.native)

  def attend(layer, q, k, v):
    mixed, (new_keys, new_values) = step(
      rows.put(q),
      (rows.put(k), rows.put(v)),
      (path.keys[layer], path.values[layer]),
      path.lengths,
      (own.keys[layer], own.values[layer]),
      index,
      window=model.config.sliding_window,
    )
    keys.append(new_keys)
    values.append(new_values)
    return rows.take(mixed)

  spread = lambda x: rows.take(  # noqa: E731
    jnp.broadcast_to(x[:, None], tokens.shape)
  )
  hidden = model.trunk(
    rows.take(tokens),
    spread(path.lengths) + index,
    attend,
    spans=spread(path.spans),
  )
  return hidden, cache.KeyValues(tuple(keys), tuple(values))


def _ends_in(
  tokens: jax.Array, length: jax.Array, word: tuple[int, ...]
) -> jax.Array:
  """Says whether the first `length` of tokens [..., S] end in `word`."""
  start = length - len(word)
  last = jax.lax.dynamic_slice_in_dim(
    tokens, jnp.maximum(start, 0), len(word), axis=-1
  )
  return (start >= 0) & jnp.all(last == jnp.asarray(word), axis=-1)


def decode(
  model: Transformer,
  path: cache.PathCache,
  hidden: jax.Array,
  seeds: jax.Array,
  limits: jax.Array,
  options: Options,
  data_shards: int = 1,
) -> tuple[Sampled, cache.KeyValues | None]:
  """Samples C steps of every leaf until each has stopped.

  Args:
    model: with an LM head.
    path: the leaves' paths.
    hidden: [B, D], after the final norm at each path's last token.
    seeds: uint32 [B, C]; a row's randomness depends on its seed alone.
    limits: int32 [B], longest step of each leaf; 0 is a leaf of padding.
    options: see `Options`.
    data_shards: see `cache.Pool`; rows are halved within each shard.

  Returns:
    The sampled steps; and the keys and values [B, C, K, S', H] of all tokens
    but the last of each step, S' = max(S - 1, 1), None without `options.keep`.
  """
  shape = seeds.shape
  size = options.max_new_tokens
  stops_at = jnp.asarray(options.stop_ids or (-1,), jnp.int32)
  # A word as long as the step could end it at its last token at the earliest.
  words = [word for word in options.stop_words if len(word) < size]
  chances = sampler.uniforms(seeds, size)
  branches = branch_attention.attend_of(options.attention, options.mesh)

  def draw(index, rows, logits):
    """Returns tokens and their log-probabilities [R] of logits [R, V]."""
    tokens = options.method(logits, rows.take(chances)[:, index])
    logprobs = jnp.take_along_axis(logits, tokens[:, None], -1)[:, 0]
    return tokens, logprobs - jax.nn.logsumexp(logits, axis=-1)

  def note(index, tokens, logprobs, done, out):
    """Records the tokens [B, C] at `index`."""
    stopped = jnp.any(tokens[..., None] == stops_at, axis=-1)
    ended = done | stopped | (index + 1 >= limits[:, None])
    for word in words:
      ended |= _ends_in(out.tokens, index, word)
    tokens = jnp.where(done, options.pad_id, tokens)
    out = Sampled(
      tokens=jax.lax.dynamic_update_slice_in_dim(
        out.tokens, tokens[..., None], index, axis=2
      ),
      lengths=out.lengths + ~done,
      logprobs=out.logprobs + jnp.where(done, 0, logprobs),
      stops=jnp.where(~done & stopped, tokens, out.stops),
    )
    return tokens, ended, out

  out = Sampled(
    tokens=jnp.full((*shape, size), options.pad_id, jnp.int32),
    lengths=jnp.zeros(shape, jnp.int32),
    logprobs=jnp.zeros(shape, jnp.float32),
    stops=jnp.full(shape, -1, jnp.int32),
  )
  rows = _Rows(shape)
  # All candidates of a leaf share the distribution of their first token.
  logits = model.logits(hidden)[:, None]
  logits = jnp.broadcast_to(logits, (*shape, logits.shape[-1]))
  done = jnp.broadcast_to(limits[:, None] == 0, shape)
  first = map(rows.put, draw(0, rows, rows.take(logits)))
  tokens, done, out = note(jnp.int32(0), *first, done, out)
  own = cache.empty(model.config, shape, max(size - 1, 1))
  state: Any = (jnp.int32(1), tokens, done, out, own)

  stages = halvings(shape[0] * shape[1], options.least_rows, data_shards)
  for count, fewer in zip(stages, [*stages[1:], 0], strict=True):
    if count < stages[0]:
      rows = _Rows(shape, _unfinished(state[2], count, data_shards))

    def more(state, most=fewer // data_shards):
      index, _, done, _, _ = state
      left = jnp.sum(~done.reshape(data_shards, -1), axis=1)
      return (index < size) & jnp.any(left > most)

    def step(state, rows=rows):
      index, tokens, done, out, own = state
      hidden, own = decode_step(
        model, path, own, tokens, index - 1, rows, branches
      )
      drawn = draw(index, rows, model.logits(hidden))
      tokens, done, out = note(index, *map(rows.put, drawn), done, out)
      return index + 1, tokens, done, out, own

    state = jax.lax.while_loop(more, step, state)
  return state[3], state[4] if options.keep else None


def _unfinished(done: jax.Array, count: int, data_shards: int) -> jax.Array:
  """Returns the rows that are not done, in order, padded to `count`."""
  left = ~done.reshape(data_shards, -1)
  size = left.shape[1]
  find = lambda x: jnp.nonzero(  # noqa: E731
    x, size=count // data_shards, fill_value=size
  )[0].astype(jnp.int32)
  return jax.vmap(find)(left)
