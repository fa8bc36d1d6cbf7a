"""Attention in rows of packed prefix trees on a TPU, for training.

A Pallas kernel that makes the mask of `ends` on the fly, and skips blocks of
which no query sees a key; scores never leave the chip's fast memory. Letters: B
rows, T tokens, N query heads, K key/value heads, G = N / K, H head.

Scores are [keys, queries], so that a query's maximum, sum and gradient are
numbers of one row, and a key's end is a number of a column. One backward pass
makes all three gradients: it has the keys and values of a row, and the sums of
their gradients over a group of heads, in fast memory. That bounds T: 16,384
tokens of bfloat16 compile for v5e, and 4,096 for v4, which has the least.

FlashAttention-2: Dao, 2023, arXiv:2307.08691.
"""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from rstar_jax.models import sharding
from rstar_jax.models.attention import MASKED, capped

# The name, for checkpoint policies, of what the backward pass needs from the
# forward pass: the result, and the logarithms of the sums of weights.
KEPT = "attended"

# Queries, and keys, of a block.
_BLOCK = 512
_LANES = 128
# The initial running maximum: exp(MASKED - _START) is 0, so that a query that
# sees no key has weights of 0.
_START = MASKED / 2
_VMEM = 64 * 2**20


@dataclasses.dataclass(frozen=True)
class Options:
  """Static arguments of a call.

  Attributes:
    window: tokens that a token attends to, itself included; 0 is no limit.
    softcap: see `ModelConfig.attention_softcap`.
    block: queries and keys that are computed at once, a multiple of 128.
    interpret: runs on any device, slowly; see `pl.pallas_call`.
  """

  window: int = 0
  softcap: float = 0.0
  block: int = _BLOCK
  interpret: bool = False


def attend(
  q: jax.Array,
  k: jax.Array,
  v: jax.Array,
  sinks: jax.Array | None,
  trees: tuple[jax.Array, jax.Array],
  options: Options,
) -> jax.Array:
  """Attends along the paths of prefix trees; see `Transformer.hidden`.

  Args:
    q: [B, T, N, H].
    k: [B, T, K, H].
    v: [B, T, K, H].
    sinks: [N], scores of no key; None is none.
    trees: ends, int32 [B, T]: token i sees itself and tokens j < i with
      i < ends[j]; and positions, int32 [B, T], used if there is a window.
    options: see `Options`.

  Returns:
    [B, T, N, H] in q's dtype; 0 for a token that sees none, as in padding.
  """
  length, dim = q.shape[1], q.shape[3]
  block = min(options.block, pl.cdiv(length, _LANES) * _LANES)
  more = -length % block

  def filled(x):
    return jnp.pad(x, [(0, 0), (0, more)] + [(0, 0)] * (x.ndim - 2))

  ends, positions = map(filled, trees)
  # Of each block of keys, one past the last query that sees any of them.
  latest = jnp.max(ends.reshape(len(ends), -1, block), axis=2)
  rows = [latest.reshape(-1), ends[:, None]]
  if options.window:
    rows += [positions[:, None], positions[:, None]]
  by_head = (jnp.swapaxes(filled(x), 1, 2) for x in (q * dim**-0.5, k, v))
  if sinks is not None:
    sinks = sinks.astype(jnp.float32)[:, None, None]
  options = dataclasses.replace(options, block=block)
  mixed = _attend(*by_head, sinks, rows, options)
  return jnp.swapaxes(mixed, 1, 2)[:, :length]


def attend_on_mesh(
  q: jax.Array,
  k: jax.Array,
  v: jax.Array,
  sinks: jax.Array | None,
  trees: tuple[jax.Array | None, jax.Array],
  options: Options,
) -> jax.Array:
  """Calls `attend`, under `jax.set_mesh` with each device's rows and heads.

  Args:
    q: [B, T, N, H].
    k: [B, T, K, H].
    v: [B, T, K, H].
    sinks: see `attend`.
    trees: ends, None for one sequence a row; and positions [B or 1, T].
    options: see `Options`.
  """
  ends, positions = trees
  if ends is None:
    ends = jnp.full(q.shape[:2], q.shape[1], jnp.int32)
  trees = ends, jnp.broadcast_to(positions, q.shape[:2])
  mesh = jax.sharding.get_abstract_mesh()
  if mesh.empty:
    return attend(q, k, v, sinks, trees, options)
  by_head = sharding.spec(q.shape, ("batch", None, "heads"), mesh)
  if len(by_head) > 2 and by_head[2] is not None:
    # Each device has the keys and values of its queries.
    heads, parts = k.shape[2], mesh.shape[by_head[2]]
    copies = math.lcm(heads, parts) // heads
    if q.shape[2] % (copies * heads):
      copies = q.shape[2] // heads
    k, v = (jnp.repeat(x, copies, axis=2) for x in (k, v))
  by_row, of_heads = jax.P(by_head[0]), jax.P(*by_head[2:3])
  # Kernels do not declare the mesh axes over which their results vary.
  return jax.shard_map(
    functools.partial(attend, options=options),
    mesh=mesh,
    in_specs=(by_head, by_head, by_head, of_heads, by_row),
    out_specs=by_head,
    check_vma=False,
  )(q, k, v, sinks, trees)


@functools.partial(jax.custom_vjp, nondiff_argnums=(5,))
def _attend(q, k, v, sinks, rows, options):
  """Returns [B, N, T, H], of q [B, N, T, H] and k and v [B, K, T, H].

  A sink is a key whose value is 0, so that it only adds to the sums.
  """
  return _with_sinks(sinks, *_forward(q, k, v, rows, options))[0]


def _with_sinks(sinks, out, sums):
  """Returns what `_forward` does, with sinks [N, 1, 1] or None."""
  if sinks is None:
    return out, sums
  more = jnp.logaddexp(sums, sinks)
  kept = jnp.exp(sums - more).swapaxes(2, 3)
  return (out * kept).astype(out.dtype), more


def _keep(q, k, v, sinks, rows, options):
  out, sums = _with_sinks(sinks, *_forward(q, k, v, rows, options))
  out, sums = checkpoint_name(out, KEPT), checkpoint_name(sums, KEPT)
  return out, (q, k, v, sinks, rows, out, sums)


def _back(options, kept, grad):
  _, _, _, sinks, _, out, sums = kept
  wide = grad.astype(jnp.float32) * out.astype(jnp.float32)
  change = jnp.sum(wide, axis=-1)[:, :, None]
  of_sinks = None
  if sinks is not None:
    shares = jnp.exp(sinks - sums)
    of_sinks = -jnp.sum(shares * change, axis=(0, 3))[..., None]
  return *_backward(options, kept, grad, change), of_sinks, None


_attend.defvjp(_keep, _back)


def _forward(q, k, v, rows, options):
  """Returns [B, N, T, H], and the logarithms of sums, float32 [B, N, 1, T]."""
  batch, heads, length, dim = q.shape
  group, block = heads // k.shape[1], options.block
  of_query = pl.BlockSpec(
    (None, None, block, dim), lambda b, n, i, _: (b, n, i, 0)
  )
  of_sums = pl.BlockSpec(
    (None, None, 1, block), lambda b, n, i, _: (b, n, 0, i)
  )
  of_keys = pl.BlockSpec(
    (None, None, length, dim), lambda b, n, i, _: (b, n // group, 0, 0)
  )
  return pl.pallas_call(
    functools.partial(_forward_kernel, options),
    out_shape=(
      jax.ShapeDtypeStruct(q.shape, q.dtype),
      jax.ShapeDtypeStruct((batch, heads, 1, length), jnp.float32),
    ),
    grid_spec=pltpu.PrefetchScalarGridSpec(
      num_scalar_prefetch=1,
      grid=(batch, heads, length // block),
      in_specs=[of_query, of_keys, of_keys, *_of_rows(rows, block, 2)],
      out_specs=(of_query, of_sums),
      scratch_shapes=[
        *[pltpu.VMEM((1, block), jnp.float32)] * 2,
        pltpu.VMEM((dim, block), jnp.float32),
      ],
    ),
    compiler_params=pltpu.CompilerParams(
      dimension_semantics=("parallel", "parallel", "arbitrary"),
      vmem_limit_bytes=_VMEM,
    ),
    interpret=options.interpret,
    name="tree_attention",
  )(rows[0], q, k, v, *rows[1:])


def _backward(options, kept, grad, change):
  """Returns the gradients of q, k and v, which `_keep` kept."""
  q, k, v, _, rows, _, sums = kept
  batch, heads, length, dim = q.shape
  kv_heads, block = k.shape[1], options.block
  group = heads // kv_heads

  def of_head(b, head, member, *rest):
    return (b, head * group + member, *rest)

  of_query = pl.BlockSpec(
    (None, None, block, dim), lambda b, k, g, i, _: of_head(b, k, g, i, 0)
  )
  of_sums = pl.BlockSpec(
    (None, None, 1, block), lambda b, k, g, i, _: of_head(b, k, g, 0, i)
  )
  of_keys = pl.BlockSpec(
    (None, None, length, dim), lambda b, k, g, i, _: (b, k, 0, 0)
  )
  return pl.pallas_call(
    functools.partial(_backward_kernel, options),
    out_shape=[jax.ShapeDtypeStruct(x.shape, x.dtype) for x in (q, k, v)],
    grid_spec=pltpu.PrefetchScalarGridSpec(
      num_scalar_prefetch=1,
      grid=(batch, kv_heads, group, length // block),
      in_specs=[
        *(of_query, of_keys, of_keys, of_query, of_sums, of_sums),
        *_of_rows(rows, block, 3),
      ],
      out_specs=[of_query, of_keys, of_keys],
      scratch_shapes=[
        pltpu.VMEM((block, dim), jnp.float32),
        *[pltpu.VMEM((length, dim), jnp.float32)] * 2,
      ],
    ),
    compiler_params=pltpu.CompilerParams(
      dimension_semantics=("parallel", "parallel", "arbitrary", "arbitrary"),
      vmem_limit_bytes=_VMEM,
    ),
    interpret=options.interpret,
    name="tree_attention_gradient",
  )(rows[0], q, k, v, grad, sums, change, *rows[1:])


def _of_rows(rows, block, axis):
  """Returns the blocks of ends and, with a window, of positions."""
  length = rows[1].shape[2]
  of_keys = pl.BlockSpec((None, 1, length), lambda b, *_: (b, 0, 0))
  of_query = pl.BlockSpec((None, 1, block), lambda b, *at: (b, 0, at[axis - 1]))
  return [of_keys, of_keys, of_query][: len(rows) - 1]


def _forward_kernel(options, latest, q, k, v, *refs):
  *rows, out, sums, peak, total, mixed = refs
  number = pl.program_id(2)
  peak[...] = jnp.full_like(peak, _START)
  total[...] = jnp.zeros_like(total)
  mixed[...] = jnp.zeros_like(mixed)

  def add(keys, scores):
    old = peak[...]
    now = jnp.maximum(old, jnp.max(scores, axis=0, keepdims=True))
    shares, faded = jnp.exp(scores - now), jnp.exp(old - now)
    peak[...] = now
    total[...] = faded * total[...] + jnp.sum(shares, axis=0, keepdims=True)
    some = _dot(v[keys], shares.astype(v.dtype), 0, 0)
    mixed[...] = faded * mixed[...] + some

  _each_block(options, latest, number, q[...], k, rows, add)
  weights = total[...]
  there = weights > 0
  found = mixed[...] / jnp.where(there, weights, 1)
  out[...] = found.T.astype(out.dtype)
  sums[...] = jnp.where(there, peak[...] + jnp.log(weights), 0)


def _backward_kernel(options, latest, q, k, v, grad, sums, change, *refs):
  *rows, to_q, to_k, to_v, sum_q, sum_k, sum_v = refs
  member, number = pl.program_id(2), pl.program_id(3)
  queries, grads, rates = q[...], grad[...], change[...]
  logs = sums[...]
  sum_q[...] = jnp.zeros_like(sum_q)

  @pl.when((member == 0) & (number == 0))
  def _():
    sum_k[...] = jnp.zeros_like(sum_k)
    sum_v[...] = jnp.zeros_like(sum_v)

  def add(keys, scores):
    shares = jnp.exp(scores - logs)
    sum_v[keys] += _dot(shares.astype(grads.dtype), grads, 1, 0)
    slopes = shares * (_dot(v[keys], grads, 1, 1) - rates)
    if cap := options.softcap:
      # Of what is masked, nothing is left.
      slopes *= 1 - jnp.square(jnp.clip(scores / cap, -1, 1))
    slopes = slopes.astype(queries.dtype)
    sum_k[keys] += _dot(slopes, queries, 1, 0)
    sum_q[...] += _dot(slopes, k[keys], 0, 0)

  _each_block(options, latest, number, queries, k, rows, add)
  to_q[...] = sum_q[...].astype(to_q.dtype)
  last = (pl.num_programs(2) - 1, pl.num_programs(3) - 1)

  @pl.when((member == last[0]) & (number == last[1]))
  def _():
    to_k[...] = sum_k[...].astype(to_k.dtype)
    to_v[...] = sum_v[...].astype(to_v.dtype)


def _each_block(options, latest, number, queries, k, rows, add):
  """Calls `add` with each block of keys that queries see, and the scores.

  Args:
    options: of the call.
    latest: for each block of keys of all rows, the first query that sees none.
    number: of the block of queries.
    queries: [block, H].
    k: reference to the keys of a row, [T, H].
    rows: references to ends [1, T] and, with a window, to positions of keys
      [1, T] and of queries [1, block].
    add: (slice of keys, scores [block, block] with MASKED where not seen).
  """
  block, window = options.block, options.window
  ends, *positions = rows
  before = pl.program_id(0) * (k.shape[0] // block)

  def one(at, _):
    @pl.when(latest[before + at] > number * block)
    def _():
      keys = pl.ds(pl.multiple_of(at * block, block), block)
      scores = capped(_dot(k[keys], queries, 1, 1), options.softcap)
      key, query = (
        start * block + jax.lax.broadcasted_iota(jnp.int32, scores.shape, axis)
        for axis, start in enumerate((at, number))
      )
      seen = (key <= query) & (query < _column(ends[:, keys]))
      if window:
        of_keys, of_queries = positions
        seen &= of_queries[...] - _column(of_keys[:, keys]) < window
      add(keys, jnp.where(seen, scores, MASKED))

  jax.lax.fori_loop(0, number + 1, one, None)


def _column(row: jax.Array) -> jax.Array:
  """Turns a row [1, block]: whole registers, of which a column is used."""
  return jnp.broadcast_to(row, (_LANES, row.shape[1])).T[:, :1]


def _dot(x: jax.Array, y: jax.Array, of_x: int, of_y: int) -> jax.Array:
  """Contracts an axis of x with one of y; float32 products in float32."""
  exact = jax.lax.Precision.HIGHEST if x.dtype == jnp.float32 else None
  return jax.lax.dot_general(
    x,
    y,
    (((of_x,), (of_y,)), ((), ())),
    precision=exact,
    preferred_element_type=jnp.float32,
  )
