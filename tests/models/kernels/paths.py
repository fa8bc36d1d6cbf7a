"""Arguments of attention to pages, and its results by numpy, for tests."""

import dataclasses

import jax.numpy as jnp
import numpy as np

from rstar_jax.models.paths import Layer, Paths

PAGE, BLOCK, LAYERS = 4, 16, 2


def case(
  seed,
  positions,
  *,
  heads=(1, 3),
  dim=8,
  rows=None,
  dtype=np.float32,
  more=0,
):
  """Returns random arguments; rows have pages of their own.

  Heads have `dim` numbers, and `more` zeros in pages.
  """
  rng = np.random.default_rng(seed)
  positions = np.asarray(positions, np.int32)
  rows = np.arange(positions.size) if rows is None else np.asarray(rows)
  kv_heads, group = heads
  width = int(positions.max()) // PAGE + 2
  count = (int(rows.max()) + 1) * width

  def draw(*shape):
    return jnp.asarray(rng.normal(size=shape), dtype)

  tokens = positions.size
  kept = draw(LAYERS * count, PAGE, 2 * kv_heads, dim)
  return dict(
    q=draw(tokens, kv_heads * group, dim),
    k=draw(tokens, kv_heads, dim),
    v=draw(tokens, kv_heads, dim),
    pages=jnp.pad(kept, [(0, 0)] * 3 + [(0, more)]),
    tables=rng.permutation(count).reshape(-1, width).astype(np.int32),
    rows=rows.astype(np.int32),
    positions=positions,
  )


def brute(
  q,
  k,
  v,
  pages,
  tables,
  rows,
  positions,
  *,
  layer,
  count,
  window=0,
  softcap=0.0,
  sinks=None,
):
  """Writes a token and attends a query at a time, in float64."""
  q, k, v, pages = (np.array(each, np.float64) for each in (q, k, v, pages))
  where = [(row, at) for row, at in zip(rows, positions, strict=True)]
  dim = q.shape[-1]
  for token, (row, at) in enumerate(where):
    if at >= 0:
      page = pages[layer * count + tables[row][at // PAGE], at % PAGE]
      page[0::2, :dim], page[1::2, :dim] = k[token], v[token]
  out = np.zeros_like(q)
  group = q.shape[1] // k.shape[1]
  for token, (row, at) in enumerate(where):
    for head in range(q.shape[1]) if at >= 0 else ():
      path = np.concatenate([pages[layer * count + i] for i in tables[row]])
      path = path[max(0, at - window + 1) if window else 0 : at + 1]
      both = path[:, 2 * (head // group) :][:, :2, :dim]
      keys, values = both[:, 0], both[:, 1]
      scores = keys @ q[token, head] / np.sqrt(dim)
      if softcap:
        scores = softcap * np.tanh(scores / softcap)
      weights = np.exp(scores)
      lost = 0 if sinks is None else np.exp(np.float64(sinks[head]))
      out[token, head] = weights @ values / (weights.sum() + lost)
  return out, pages


def count_of(args):
  return args["pages"].shape[0] // LAYERS


def share(args, rows, pages_):
  """Lets rows begin with the pages of the first of them."""
  args["tables"][rows, :pages_] = args["tables"][rows[0], :pages_]


def leaves(seed=0, **options):
  """Returns candidates of three leaves, of a row alone, and empty slots."""
  positions = [37, 41, 38, 52, 39, 40, 47, -1]
  positions += [33, 21, 22, 23, 70, 5, -1, 20, 20]
  args = case(seed, positions, **options)
  # Within a page, at the end of a block, and within a block.
  share(args, list(range(8)), 9)
  share(args, [9, 10, 11], 4)
  share(args, [15, 16], 3)
  return args


def check(test, args, got, atol=2e-6, **options):
  """Compares what attention in layer 1 returns with `brute`."""
  mixed, kept = got
  test.assertEqual(mixed.dtype, args["q"].dtype)
  want, written = brute(**args, layer=1, count=count_of(args), **options)
  np.testing.assert_allclose(np.asarray(mixed, np.float64), want, atol=atol)
  np.testing.assert_array_equal(np.asarray(kept, np.float64), written)


def where(args, **more):
  """Returns the arguments of a plan."""
  arrays = (args[each] for each in ("tables", "rows", "positions"))
  return args["pages"], Paths(*arrays, **more)


def planned(plan, args, **more):
  """Returns paths with what a kernel's `plan` makes of them."""
  pages, paths = where(args, **more)
  places, reads = plan(pages, paths)
  return dataclasses.replace(paths, places=places, reads=reads)


def attended(attend, paths, args, **more):
  """Calls attention in layer 1."""
  arrays = (args[each] for each in ("q", "k", "v", "pages"))
  return attend(*arrays, paths, Layer(jnp.int32(1), count_of(args), **more))
