"""Pure prefill, decode and extend over shared paths; sampling methods.

Everything here is to run inside one `jax.jit`. Letters: B leaves, C candidates
per leaf, T path, S step, D model, V vocab.
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp

from rstar_jax.config import EngineConfig
from rstar_jax.models import cache, layers
from rstar_jax.models.transformer import Transformer

# (logits [..., V] float32, uniforms [...] in [0, 1)) -> int32 ids [...].
Method = Callable[[jax.Array, jax.Array], jax.Array]

# Vocabulary entries per block of the two-level inverse CDF.
_BLOCK = 128


@dataclasses.dataclass(frozen=True)
class Greedy:
  """Takes the likeliest token, the first of equals."""

  def __call__(self, logits: jax.Array, uniforms: jax.Array) -> jax.Array:
    return jnp.argmax(logits, axis=-1).astype(jnp.int32)


@dataclasses.dataclass(frozen=True)
class Temperature:
  """Samples from softmax(logits / temperature).

  Attributes:
    temperature: above 0.
    top_k: keep the k likeliest; 0 keeps all.
    top_p: then keep the fewest likeliest tokens that sum to p; 1 keeps all.
  """

  temperature: float = 1.0
  top_k: int = 0
  top_p: float = 1.0

  def __post_init__(self):
    if self.temperature <= 0 or self.top_k < 0 or not 0 < self.top_p <= 1:
      raise ValueError(
        f"{self}: want temperature > 0, top_k >= 0 and 0 < top_p <= 1"
      )

  def __call__(self, logits: jax.Array, uniforms: jax.Array) -> jax.Array:
    logits = logits / self.temperature
    vocab = logits.shape[-1]
    if self.top_k in (0, vocab) and self.top_p == 1:
      peak = jnp.max(logits, axis=-1, keepdims=True)
      return inverse_cdf(jnp.exp(logits - peak), uniforms)
    logits, ids = jax.lax.top_k(logits, min(self.top_k or vocab, vocab))
    weights = jax.nn.softmax(logits, axis=-1)
    before = jnp.cumsum(weights, axis=-1) - weights
    weights = jnp.where(before < self.top_p, weights, 0)
    picked = inverse_cdf(weights, uniforms)
    return jnp.take_along_axis(ids, picked[..., None], axis=-1)[..., 0]


def method_of(config: EngineConfig) -> Greedy | Temperature:
  """Returns the config's sampling method; temperature 0 is greedy."""
  if config.temperature == 0:
    return Greedy()
  return Temperature(config.temperature, config.top_k, config.top_p)


def inverse_cdf(weights: jax.Array, uniforms: jax.Array) -> jax.Array:
  """Samples by inverting the cumulative distribution, in two levels.

  Args:
    weights: float32 [..., V], at least 0, some above; need not sum to 1.
    uniforms: float32 [...] in [0, 1).

  Returns:
    int32 [...]; never an index of weight 0.
  """
  vocab = weights.shape[-1]
  blocks = -(-vocab // _BLOCK)
  padding = [(0, 0)] * (weights.ndim - 1) + [(0, blocks * _BLOCK - vocab)]
  weights = jnp.pad(weights, padding)
  weights = weights.reshape(*weights.shape[:-1], blocks, _BLOCK)
  sums = jnp.sum(weights, axis=-1)
  target = uniforms * jnp.sum(sums, axis=-1)
  block, target = _invert(sums, target)
  inside = jnp.take_along_axis(weights, block[..., None, None], axis=-2)
  token, _ = _invert(inside[..., 0, :], target)
  return block * _BLOCK + token


def _invert(
  weights: jax.Array, target: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """Returns the entry that `target` falls in, and how far into it."""
  ends = jnp.cumsum(weights, axis=-1)
  index = jnp.sum(ends <= target[..., None], axis=-1)
  # Rounding can put the target past the end: clamp to the last of weight > 0.
  last = weights.shape[-1] - 1 - jnp.argmax(weights[..., ::-1] > 0, axis=-1)
  index = jnp.minimum(index, last).astype(jnp.int32)
  pick = lambda x: jnp.take_along_axis(x, index[..., None], -1)[..., 0]  # noqa: E731
  return index, target - (pick(ends) - pick(weights))


def uniforms(seeds: jax.Array, count: int) -> jax.Array:
  """Returns numbers in [0, 1), each of its row's seed and its index only.

  Args:
    seeds: uint32 [B, C].
    count: how many for each row; a larger count starts with the same ones.

  Returns:
    float32 [B, C, count].
  """

  def draw(seed: jax.Array) -> jax.Array:
    return jax.random.uniform(jax.random.key(seed), (count,))

  # Under the partitionable generator a number depends on its index alone.
  with jax.threefry_partitionable(True):
    return jax.vmap(jax.vmap(draw))(seeds)


def prefill(
  model: Transformer, tokens: jax.Array, lengths: jax.Array, room: int
) -> tuple[jax.Array, cache.PathCache]:
  """Runs paths and keeps their keys and values.

  Args:
    model: any head.
    tokens: int32 [B, T], padded on the right.
    lengths: int32 [B]; 0 is a leaf of padding.
    room: longest step that will follow, in tokens. LongRoPE has other
      frequencies for a sequence above a certain length; a path that its step
      may take above it has those from its first token on, since its keys are
      kept. (`transformers` begins again when it comes to pass.)

  Returns:
    [B, D] after the final norm at each path's last token, and the cache.
  """
  positions = jnp.arange(tokens.shape[1])[None]
  mask = layers.causal_mask(positions, model.config.sliding_window)
  spans = lengths + room
  keys, values = [], []

  def attend(_, q, k, v):
    keys.append(jnp.swapaxes(k, 1, 2))
    values.append(jnp.swapaxes(v, 1, 2))
    return layers.attend(q, k, v, mask)

  hidden = model.trunk(tokens, positions, attend, spans=spans[:, None])
  last = jnp.maximum(lengths - 1, 0)
  hidden = jnp.take_along_axis(hidden, last[:, None, None], axis=1)[:, 0]
  return hidden, cache.PathCache(tuple(keys), tuple(values), lengths, spans)


def extend(
  model: Transformer, path: cache.PathCache, tokens: jax.Array
) -> jax.Array:
  """Runs whole steps after shared paths.

  Args:
    model: any head.
    path: from `prefill` with the same model.
    tokens: int32 [B, C, S], padded on the right.

  Returns:
    [B, C, S, D] after the final norm.
  """
  steps = jnp.arange(tokens.shape[-1])
  window = model.config.sliding_window
  own_mask = layers.causal_mask(steps[None], window)[0]
  path_mask = path.mask(steps, window)

  def attend(layer, q, k, v):
    return cache.attend_branches(
      q,
      (path.keys[layer], path.values[layer]),
      path_mask,
      (jnp.swapaxes(k, 2, 3), jnp.swapaxes(v, 2, 3)),
      own_mask,
    )

  positions = path.lengths[:, None, None] + steps
  return model.trunk(tokens, positions, attend, spans=path.spans[:, None, None])


def decode_step(
  model: Transformer,
  path: cache.PathCache,
  own: cache.CandidateCache,
  tokens: jax.Array,
  index: jax.Array,
) -> tuple[jax.Array, cache.CandidateCache]:
  """Runs one token of every candidate.

  Args:
    model: any head.
    path: from `prefill` with the same model.
    own: the candidates' tokens before `index`.
    tokens: int32 [B, C], the candidates' tokens at `index`.
    index: int32 scalar.

  Returns:
    [B, C, D] after the final norm, and the cache with the tokens added.
  """
  window = model.config.sliding_window
  columns = jnp.arange(own.keys[0].shape[3])
  own_mask = (columns <= index)[None]
  if window:
    own_mask = own_mask & (columns > index - window)
  path_mask = path.mask(jnp.reshape(index, 1), window)
  keys, values = [], []

  def attend(layer, q, k, v):
    for caches, stack, new in ((keys, own.keys, k), (values, own.values, v)):
      # [B, C, 1, K, H] into [B, C, K, S, H] at S = index.
      new = jnp.swapaxes(new, 2, 3)
      caches.append(
        jax.lax.dynamic_update_slice_in_dim(stack[layer], new, index, axis=3)
      )
    return cache.attend_branches(
      q,
      (path.keys[layer], path.values[layer]),
      path_mask,
      (keys[layer], values[layer]),
      own_mask,
    )

  positions = path.lengths[:, None, None] + index
  hidden = model.trunk(
    tokens[..., None], positions, attend, spans=path.spans[:, None, None]
  )[:, :, 0]
  return hidden, cache.CandidateCache(tuple(keys), tuple(values))


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
  *,
  method: Method,
  stop_ids: tuple[int, ...],
  max_new_tokens: int,
  pad_id: int,
  stop_words: tuple[tuple[int, ...], ...] = (),
) -> Sampled:
  """Samples C steps of every leaf until each has stopped.

  Args:
    model: with an LM head.
    path: from `prefill`.
    hidden: [B, D], from `prefill`.
    seeds: uint32 [B, C]; a row's randomness comes of its seed only.
    method: Greedy or Temperature.
    stop_ids: ids that end a step; they are part of it.
    max_new_tokens: S, at least 1.
    pad_id: fills rows that have ended.
    stop_words: runs of ids; a step ends with the token after one.

  Returns:
    What was sampled.
  """
  leaves, candidates = seeds.shape
  stops_at = jnp.asarray(stop_ids or (-1,), jnp.int32)
  # A run as long as the step would end it with its last token.
  words = [word for word in stop_words if len(word) < max_new_tokens]

  chances = uniforms(seeds, max_new_tokens)

  def pick(index, logits, done, out):
    tokens = method(logits, chances[:, :, index])
    logprobs = jnp.take_along_axis(logits, tokens[..., None], -1)[..., 0]
    logprobs -= jax.nn.logsumexp(logits, axis=-1)
    stopped = jnp.any(tokens[..., None] == stops_at, axis=-1)
    ended = done | stopped
    for word in words:
      ended |= _ends_in(out.tokens, index, word)
    tokens = jnp.where(done, pad_id, tokens)
    out = Sampled(
      tokens=jax.lax.dynamic_update_slice_in_dim(
        out.tokens, tokens[..., None], index, axis=2
      ),
      lengths=out.lengths + ~done,
      logprobs=out.logprobs + jnp.where(done, 0, logprobs),
      stops=jnp.where(~done & stopped, tokens, out.stops),
    )
    return tokens, ended, out

  def unfinished(state):
    index, _, done, _, _ = state
    return (index < max_new_tokens) & ~jnp.all(done)

  def step(state):
    index, tokens, done, out, own = state
    hidden, own = decode_step(model, path, own, tokens, index - 1)
    tokens, done, out = pick(index, model.logits(hidden), done, out)
    return index + 1, tokens, done, out, own

  shape = (leaves, candidates)
  out = Sampled(
    tokens=jnp.full((*shape, max_new_tokens), pad_id, jnp.int32),
    lengths=jnp.zeros(shape, jnp.int32),
    logprobs=jnp.zeros(shape, jnp.float32),
    stops=jnp.full(shape, -1, jnp.int32),
  )
  # All candidates of a leaf share the distribution of their first token.
  logits = model.logits(hidden)[:, None]
  logits = jnp.broadcast_to(logits, (*shape, logits.shape[-1]))
  done = jnp.broadcast_to(path.lengths[:, None] == 0, shape)
  tokens, done, out = pick(jnp.int32(0), logits, done, out)
  own = cache.empty_candidates(
    model.config, leaves, candidates, max(max_new_tokens - 1, 1)
  )
  state = (jnp.int32(1), tokens, done, out, own)
  return jax.lax.while_loop(unfinished, step, state)[3]
