"""Tests of attention to pages: against a softmax a query, in numpy."""

import functools
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized
from jax.experimental.pallas import tpu as pltpu
from jax.experimental.pallas.ops.tpu.ragged_paged_attention import kernel

from rstar_jax.config.schema import MeshConfig
from rstar_jax.models import sharding
from rstar_jax.models.kernels import pages
from rstar_jax.models.paged_attention import PagedAttention

jax.config.update("jax_num_cpu_devices", 8)

# Simulates a core's memory: what was not written is no number, and a copy that
# is read before it was waited for is a race.
SIMULATED = pltpu.InterpretParams(
  uninitialized_memory="nan", out_of_bounds_reads="raise", detect_races=True
)
PAGE, BLOCK, LAYERS = 4, 16, 2


def case(seed, positions, *, heads=(1, 3), dim=8, rows=None, dtype=np.float32):
  """Returns random arguments; rows have pages of their own."""
  rng = np.random.default_rng(seed)
  positions = np.asarray(positions, np.int32)
  rows = np.arange(positions.size) if rows is None else np.asarray(rows)
  kv_heads, group = heads
  width = int(positions.max()) // PAGE + 2
  count = (int(rows.max()) + 1) * width

  def draw(*shape):
    return jnp.asarray(rng.normal(size=shape), dtype)

  tokens = positions.size
  return dict(
    q=draw(tokens, kv_heads * group, dim),
    k=draw(tokens, kv_heads, dim),
    v=draw(tokens, kv_heads, dim),
    pages=draw(LAYERS * count, PAGE, 2 * kv_heads, dim),
    tables=rng.permutation(count).reshape(-1, width).astype(np.int32),
    rows=rows.astype(np.int32),
    positions=positions,
  )


def brute(q, k, v, pages, tables, rows, positions, *, layer, count, window=0):
  """Writes a token and attends a query at a time, in float64."""
  q, k, v, pages = (np.array(each, np.float64) for each in (q, k, v, pages))
  where = [(row, at) for row, at in zip(rows, positions, strict=True)]
  for token, (row, at) in enumerate(where):
    if at >= 0:
      page = pages[layer * count + tables[row][at // PAGE], at % PAGE]
      page[0::2], page[1::2] = k[token], v[token]
  out = np.zeros_like(q)
  group = q.shape[1] // k.shape[1]
  for token, (row, at) in enumerate(where):
    for head in range(q.shape[1]) if at >= 0 else ():
      path = np.concatenate([pages[layer * count + i] for i in tables[row]])
      path = path[max(0, at - window + 1) if window else 0 : at + 1]
      keys, values = (path[:, 2 * (head // group) + half] for half in (0, 1))
      scores = keys @ q[token, head] / np.sqrt(q.shape[-1])
      weights = np.exp(scores - scores.max())
      out[token, head] = weights @ values / weights.sum()
  return out, pages


def count_of(args):
  return args["pages"].shape[0] // LAYERS


def share(args, rows, pages_):
  """Lets rows begin with the pages of the first of them."""
  args["tables"][rows, :pages_] = args["tables"][rows[0], :pages_]


@functools.partial(jax.jit, static_argnames=("chunk", "window", "interpret"))
def shared(args, *, chunk=8, window=0, interpret=True):
  """Runs the kernel on layer 1."""
  where = [args[each] for each in ("pages", "tables", "rows", "positions")]
  plan = pages.plan_shared(*where, window=window, block=BLOCK, chunk=chunk)
  return pages.attend_shared(
    **args,
    layer=jnp.int32(1),
    count=count_of(args),
    window=window,
    plan=plan,
    block=BLOCK,
    interpret=interpret,
  )


def leaves(seed=0, **options):
  """Returns candidates of three leaves, of a row alone, and empty slots."""
  positions = [
    37,
    41,
    38,
    52,
    39,
    40,
    47,
    -1,
    33,
    21,
    22,
    23,
    70,
    5,
    -1,
    20,
    20,
  ]
  args = case(seed, positions, **options)
  # Within a page, at the end of a block, and within a block.
  share(args, list(range(8)), 9)
  share(args, [9, 10, 11], 4)
  share(args, [15, 16], 3)
  return args


class PagesTest(parameterized.TestCase):
  def check(self, args, got, atol=2e-6, **options):
    mixed, kept = got
    self.assertEqual(mixed.dtype, args["q"].dtype)
    want, written = brute(**args, layer=1, count=count_of(args), **options)
    np.testing.assert_allclose(np.asarray(mixed, np.float64), want, atol=atol)
    np.testing.assert_array_equal(np.asarray(kept, np.float64), written)

  @parameterized.parameters(
    dict(heads=(1, 1)),
    dict(heads=(2, 4)),
    dict(heads=(1, 7)),
  )
  def test_candidates_of_leaves(self, heads):
    args = leaves(heads=heads)
    self.check(args, shared(args))

  @parameterized.parameters(1, 13)
  def test_window(self, window):
    args = leaves(1)
    self.check(args, shared(args, window=window), window=window)

  def test_bfloat16(self):
    args = leaves(2, dtype=jnp.bfloat16)
    # Shares are rounded to 8 bits before they weigh values of about 1.
    self.check(args, shared(args), atol=0.02)

  def test_reads_nothing_that_has_not_arrived(self):
    args = leaves(3)
    self.check(args, shared(args, window=6, interpret=SIMULATED), window=6)

  @parameterized.parameters(range(2))
  def test_prefills_beside_candidates(self, seed):
    rng = np.random.default_rng(seed)
    rows, positions = [], []
    for row in range(6):
      first, more = rng.integers(0, 40), rng.integers(1, 14)
      positions += list(range(first, first + more))
      rows += [row] * more
    args = case(seed, [*positions, -1, -1], rows=[*rows, 5, 5])
    share(args, [2, 3, 4], 2)
    window = int(rng.integers(0, 2) * rng.integers(1, 30))
    self.check(args, shared(args, window=window), window=window)

  def test_nothing_but_empty_slots(self):
    args = case(0, [3] * 9)
    args["positions"][:] = -1
    self.check(args, shared(args))

  def test_neighbours_change_no_bit(self):
    args = leaves(4)
    want, _ = shared(args)
    rng = np.random.default_rng(0)
    for _ in range(4):
      # The same rows elsewhere, some of them gone.
      order = rng.permutation(len(args["rows"]))
      by_token = ("q", "k", "v", "positions", "tables")
      moved = args | {key: args[key][order] for key in by_token}
      moved["positions"][:3] = -1
      got, _ = shared(moved)
      np.testing.assert_array_equal(got[3:], np.asarray(want)[order][3:])

  def test_a_token_is_the_same_in_a_prefill(self):
    tokens = 21
    args = case(5, range(tokens), rows=[0] * tokens)
    want, kept = shared(args)
    for at in (0, 3, 15, 16, 20):
      one = {
        key: args[key][at : at + 1] for key in ("q", "k", "v", "positions")
      }
      one |= dict(pages=kept, tables=args["tables"], rows=args["rows"][:1])
      np.testing.assert_array_equal(shared(one)[0][0], want[at])

  def test_reads_serve_lower_positions(self):
    args = leaves(6)
    where = [args[each] for each in ("pages", "tables", "rows", "positions")]
    plan = functools.partial(pages.plan_shared, block=BLOCK, chunk=8)
    reads = plan(*where).reads
    args["positions"] = args["positions"] - 5 * (args["positions"] >= 0)
    got = pages.attend_shared(
      **args,
      layer=1,
      count=count_of(args),
      plan=plan(*where[:3], args["positions"], reads=reads),
      block=BLOCK,
      interpret=True,
    )
    self.check(args, got)

  def test_bytes_read(self):
    args = leaves(8)
    where = [args[each] for each in ("pages", "tables", "rows", "positions")]
    width, size = args["tables"].shape[1], PAGE * 2 * 8 * 4
    # In a chunk, a page once for all that have it in one place.
    read = {
      (row // 8, at, args["tables"][row, at])
      for row, position in zip(args["rows"], args["positions"], strict=True)
      for at in range(position // PAGE + 1)
    }
    plan = pages.plan_shared(*where, block=BLOCK, chunk=8)
    self.assertEqual(
      pages.bytes_read(plan, args["pages"], width), len(read) * size
    )
    # jax's kernel: 64 of these pages at a time, but a row has no more than 19,
    # and what reads nothing here reads a block there.
    plan = pages.plan_ragged(*where)
    self.assertEqual(
      pages.bytes_read(plan, args["pages"], width), 17 * width * size
    )

  @parameterized.parameters(
    dict(positions=[22, 21, 30, -1, 7]),
    # Rows without tokens, first, between and last, and an empty slot behind.
    dict(positions=[4, 5, 6, 12, -1, 9], rows=[1, 1, 1, 3, 3, 5]),
  )
  def test_arguments_of_the_ragged_kernel(self, positions, rows=None):
    # jax's kernel cannot be interpreted, its reference in plain jax can.
    args = case(7, positions, rows=rows)
    args["tables"] = np.concatenate([args["tables"], args["tables"][:2]])

    def reference(*args, sm_scale, sliding_window, **_):
      lengths, starts, count = args[2], args[4], int(args[5][0])
      queries = np.diff(starts[: count + 1])
      self.assertTrue((np.asarray(lengths[:count]) >= 1).all())
      self.assertTrue((np.asarray(lengths[:count]) >= queries).all())
      return kernel.ref_ragged_paged_attention(
        *args, sm_scale=sm_scale, sliding_window=sliding_window
      )

    for window in (0, 6):
      with mock.patch.object(pages.ragged, "ragged_paged_attention", reference):
        got = pages.attend_ragged(
          **args, layer=1, count=count_of(args), window=window
        )
      self.check(args, got, window=window)

  @parameterized.parameters(2, 3)
  def test_on_a_mesh(self, kv_heads):
    mesh = sharding.make_mesh(MeshConfig(data=2, fsdp=2, tensor=2))
    parts = [
      case(seed, [9, 21, 30, -1], heads=(kv_heads, 2)) for seed in range(4)
    ]
    for part in parts:
      share(part, [1, 2], 4)
    args = {
      key: jnp.concatenate([part[key] for part in parts]) for key in parts[0]
    }
    attention = PagedAttention("pallas", mesh)
    small = dict(
      plan_shared=functools.partial(pages.plan_shared, block=BLOCK),
      attend_shared=functools.partial(
        pages.attend_shared, block=BLOCK, interpret=True
      ),
    )

    @jax.jit
    def run(*args):
      return attention.attend(
        *args,
        layer=1,
        count=count_of(parts[0]),
        plan=attention.plan(*args[3:]),
      )

    with mock.patch.multiple(pages, **small):
      mixed, kept = run(*args.values())
    each = [np.split(np.asarray(x), 4) for x in (mixed, kept)]
    for part, *got in zip(parts, *each, strict=True):
      self.check(part, got)


if __name__ == "__main__":
  absltest.main()
