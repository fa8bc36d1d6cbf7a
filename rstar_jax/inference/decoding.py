"""The decode loop: steps of all candidates of all leaves, in one program.

Rows that have ended are left behind: once half of them have, the layers, the LM
head and the sampler go on with half as many rows. The keys and values stay
where they are; only the index of the rows that go on is made anew. Letters: B
leaves, C candidates per leaf, R rows that go on, S step, D model, V vocab.
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
    lengths: int32 [B, C], the stop id included; 0 for leaves of padding.
    logprobs: float32 [B, C], sums of the tokens' log-probabilities (nats)
      under softmax(logits), whatever the sampling method.
    stops: int32 [B, C], the stop id that ended it, -1 if none did.
  """

  tokens: jax.Array
  lengths: jax.Array
  logprobs: jax.Array
  stops: jax.Array


@dataclasses.dataclass(frozen=True)
class Options:
  """What a decode program is compiled for; hashable.

  Attributes:
    method: draws tokens.
    stop_ids: ids that end a step; they are part of it.
    max_new_tokens: S, at least 1.
    pad_id: fills rows that have ended.
    stop_words: runs of ids; a step ends with the token after one.
    least_rows: rows are not halved below so many.
    keep: whether the candidates' keys and values are returned.
    attention: see `branch_attention.attend_of`.
    mesh: what keys and values are spread over; None is one device.
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


def halvings(rows: int, least: int, banks: int = 1) -> list[int]:
  """Returns the numbers of rows that a loop goes through, each half the last.

  Args:
    rows: of all candidates.
    least: no number after the first is below.
    banks: divides all of them.
  """
  stages = [rows]
  while stages[-1] % (2 * banks) == 0 and stages[-1] // 2 >= least:
    stages.append(stages[-1] // 2)
  return stages


@dataclasses.dataclass(frozen=True)
class _Rows:
  """Which of all B x C rows a stage of the loop goes on with.

  Attributes:
    shape: (B, C).
    index: int32 [banks, R / banks], places among the rows of each bank, past
      the end where there are fewer; None for all rows.
  """

  shape: tuple[int, int]
  index: jax.Array | None = None

  def take(self, x: jax.Array) -> jax.Array:
    """Returns [R, ...] of [B, C, ...]."""
    x = x.reshape(-1, *x.shape[2:])
    if self.index is None:
      return x
    banks = self.index.shape[0]
    x = x.reshape(banks, -1, *x.shape[1:])
    picked = jax.vmap(lambda x, i: jnp.take(x, i, axis=0, mode="clip"))
    return picked(x, self.index).reshape(-1, *x.shape[2:])

  def put(self, x: jax.Array) -> jax.Array:
    """Returns [B, C, ...] of [R, ...], zeros elsewhere."""
    if self.index is not None:
      banks = self.index.shape[0]
      x = x.reshape(banks, -1, *x.shape[1:])
      zeros = jnp.zeros(
        (banks, self.shape[0] * self.shape[1] // banks, *x.shape[2:]), x.dtype
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
  """Runs one token of every candidate that goes on.

  Args:
    model: any head.
    path: the leaves' paths, of the same model.
    own: the candidates' tokens before `index`, [B, C, K, S, H].
    tokens: int32 [B, C], the candidates' tokens at `index`.
    index: int32 scalar.
    rows: those that go on; None is all.
    branches: how to attend.

  Returns:
    [R, D] after the final norm, and the rows with the tokens added.
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
  """Says whether the first `length` of tokens [..., S] end in a run of ids."""
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
  banks: int = 1,
) -> tuple[Sampled, cache.KeyValues | None]:
  """Samples C steps of every leaf until each has stopped.

  Args:
    model: with an LM head.
    path: the leaves' paths.
    hidden: [B, D], after the final norm at each path's last token.
    seeds: uint32 [B, C]; a row's randomness comes of its seed only.
    limits: int32 [B], longest step of each leaf; 0 is a leaf of padding.
    options: see `Options`.
    banks: see `cache.Pool`; rows are halved in each bank by itself.

  Returns:
    What was sampled; and the keys and values [B, C, K, S', H] of all tokens but
    the last of each step, S' = max(S - 1, 1), None where they are not kept.
  """
  shape = seeds.shape
  size = options.max_new_tokens
  stops_at = jnp.asarray(options.stop_ids or (-1,), jnp.int32)
  # A run as long as the step would end it with its last token.
  words = [word for word in options.stop_words if len(word) < size]
  chances = sampler.uniforms(seeds, size)
  branches = branch_attention.attend_of(options.attention, options.mesh)

  def draw(index, rows, logits):
    """Returns tokens and their log-probabilities [R] of logits [R, V]."""
    tokens = options.method(logits, rows.take(chances)[:, index])
    logprobs = jnp.take_along_axis(logits, tokens[:, None], -1)[:, 0]
    return tokens, logprobs - jax.nn.logsumexp(logits, axis=-1)

  def note(index, tokens, logprobs, done, out):
    """Writes down the tokens [B, C] at `index`."""
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

  stages = halvings(shape[0] * shape[1], options.least_rows, banks)
  for count, fewer in zip(stages, [*stages[1:], 0], strict=True):
    if count < stages[0]:
      rows = _Rows(shape, _unfinished(state[2], count, banks))

    def more(state, most=fewer // banks):
      index, _, done, _, _ = state
      left = jnp.sum(~done.reshape(banks, -1), axis=1)
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


def _unfinished(done: jax.Array, count: int, banks: int) -> jax.Array:
  """Returns which rows are not done, `count` in all, in order."""
  left = ~done.reshape(banks, -1)
  size = left.shape[1]
  find = lambda x: jnp.nonzero(  # noqa: E731
    x, size=count // banks, fill_value=size
  )[0].astype(jnp.int32)
  return jax.vmap(find)(left)
