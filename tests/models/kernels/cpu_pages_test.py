"""Tests of attention to pages: against a softmax a token, and bit by bit."""

import hashlib
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized

from rstar_jax.models.kernels import build, cpu
from rstar_jax.models.paths import Layer, Paths
from tests.models.kernels.cpu_test import needs_compiler, normal, wide

# How far results may be, of numbers of about 1: bfloat16 has eight bits.
_CLOSE = {"float32": 2e-6, "bfloat16": 1e-2}
_LAYER, _LAYERS, _COUNT, _COLUMNS = 1, 2, 32, 6

# Tokens of four sequences. The first three have 37 tokens, and so two pages,
# in common; the third is a fork of the second within its last page.
_LENGTHS, _SHARED = (61, 83, 81, 90), (0, 37, 75, 0)


_attend = jax.jit(cpu.attend_pages, donate_argnames="pages")


class Sequences:
  """Queries, keys and values of tokens by sequence and position."""

  def __init__(self, dtype, kv_heads=2, group=3, width=32):
    self.dtype = dtype
    self.q, self.k, self.v = [], [], []
    for s, (length, shared) in enumerate(zip(_LENGTHS, _SHARED, strict=True)):
      for i, heads in enumerate((kv_heads * group, kv_heads, kv_heads)):
        kind = (self.q, self.k, self.v)[i]
        x = np.array(normal(10 * s + i, dtype, length, heads, width))
        if shared:
          x[:shared] = kind[s - 1][:shared]
        kind.append(x)

  def brute(self, s, p, window=0):
    """Attends from a token in float64."""
    q, k, v = (wide(x[s]) for x in (self.q, self.k, self.v))
    start = max(0, p + 1 - window) if window else 0
    k, v = k[start : p + 1], v[start : p + 1]
    out = np.zeros(q.shape[1:])
    for n in range(q.shape[1]):
      head = n * k.shape[1] // q.shape[1]
      scores = k[:, head] @ q[p, n] / np.sqrt(q.shape[2])
      weights = np.exp(scores - scores.max())
      out[n] = weights @ v[:, head] / weights.sum()
    return out

  def run(self, calls, seed=0, window=0, slots=0):
    """Returns results of tokens, which a list of calls runs.

    Args:
      calls: of each call (sequence, start, stop) of runs of tokens.
      seed: of the pages' ids.
      window: as in `cpu.attend_pages`.
      slots: empty slots to put between the others.

    Returns:
      (sequence, position) -> float64 [N, H], and the pages.
    """
    rng = np.random.default_rng(seed)
    ids = iter(rng.permutation(_COUNT))
    tables = np.zeros((len(_LENGTHS), _COLUMNS), np.int32)
    for s, (length, shared) in enumerate(zip(_LENGTHS, _SHARED, strict=True)):
      for column in range(-(-length // cpu.PAGE)):
        whole = (column + 1) * cpu.PAGE <= shared
        tables[s, column] = tables[s - 1, column] if whole else next(ids)
    kv_heads, width = self.k[0].shape[1:]
    pages = cpu.empty_pages(_LAYERS * _COUNT, kv_heads, width, self.dtype)
    # What nobody has written is no number, and must not count.
    pages = jnp.full_like(pages, jnp.nan)
    found = {}
    for runs in calls:
      tokens = [(s, p) for s, *ends in runs for p in range(*ends)]
      for s, p in tokens:
        # A fork begins with a copy of its page.
        if _SHARED[s] and p == _SHARED[s]:
          at = _LAYER * _COUNT + tables[:, p // cpu.PAGE]
          pages = pages.at[at[s]].set(pages[at[s - 1]])
      for at in sorted(rng.integers(0, len(tokens) + 1, slots)):
        tokens.insert(at, (tokens[min(at, len(tokens) - 1)][0], -1))
      q, k, v = (
        np.stack([x[s][max(p, 0)] for s, p in tokens])
        for x in (self.q, self.k, self.v)
      )
      # Rows of the call are in the order of its runs.
      order = [s for s, *_ in runs]
      rows = [order.index(s) for s, _ in tokens]
      # Arrays of numpy: of jax, each would be a program's call of its own.
      paths = Paths(
        tables[order],
        np.array(rows, np.int32),
        np.array([p for _, p in tokens], np.int32),
        window,
      )
      layer = Layer(np.int32(_LAYER), _COUNT)
      mixed, pages = _attend(q, k, v, pages, paths, layer)
      for token, x in zip(tokens, wide(mixed), strict=True):
        if token[1] < 0:
          np.testing.assert_array_equal(x, 0)
        else:
          found[token] = x
    return found, pages


# All tokens but those in common, by prefill of all sequences at once, in parts
# that break pages, and one token of all at a time.
_AT_ONCE = [[(0, 0, 61)], [(1, 37, 83)], [(2, 75, 81), (3, 0, 90)]]
_IN_PARTS = [
  [(3, 0, 7), (0, 0, 38)],
  [(0, 38, 61), (1, 37, 60)],
  [(3, 7, 90), (1, 60, 83)],
  [(2, 75, 81)],
]
_ONE_BY_ONE = [
  [(s, p, p + 1)]
  for s, length in enumerate(_LENGTHS)
  for p in range(_SHARED[s], length)
]
_TOGETHER = [
  [(0, 0, 37)],
  [(1, 37, 75)],
  *(
    [
      (s, p, p + 1)
      for s, start in enumerate((37, 75, 75, 0))
      if (p := start + i) < _LENGTHS[s]
    ]
    for i in range(90)
  ),
]


@needs_compiler
class PagesTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    build.load()

  @parameterized.product(
    dtype=["float32", "bfloat16"],
    # Key/value heads, query heads of each, head; and windows, one of which has
    # neither whole pages nor whole pairs.
    sizes=[
      ((3, 3, 64), 0),
      ((3, 3, 64), 29),
      ((1, 1, 32), 1),
      ((1, 50, 32), 0),
      ((2, 9, 96), 32),
    ],
  )
  def test_attends_to_positions_up_to_its_own(self, dtype, sizes):
    shape, window = sizes
    case = Sequences(dtype, *shape)
    found, _ = case.run(_TOGETHER, window=window)
    self.assertLen(found, sum(_LENGTHS) - sum(_SHARED))
    for s, p in found:
      np.testing.assert_allclose(
        *(found[s, p], case.brute(s, p, window)), atol=_CLOSE[dtype]
      )

  @parameterized.product(
    dtype=["float32", "bfloat16"],
    # Query heads of each key/value head, and windows.
    sizes=[(1, 0), (3, 0), (3, 21), (7, 16)],
  )
  def test_has_the_same_bits_in_any_company(self, dtype, sizes):
    group, window = sizes
    case = Sequences(dtype, 2, group)
    want, _ = case.run(_ONE_BY_ONE, window=window)
    for calls, seed, slots in (
      (_AT_ONCE, 0, 0),
      (_IN_PARTS, 1, 0),
      (_TOGETHER, 2, 0),
      (_TOGETHER, 3, 5),
      ([list(reversed(call)) for call in _TOGETHER], 4, 1),
    ):
      got, _ = case.run(calls, seed=seed, window=window, slots=slots)
      self.assertEqual(got.keys(), want.keys())
      for token in want:
        np.testing.assert_array_equal(got[token], want[token], str(token))

  @parameterized.parameters("float32", "bfloat16")
  def test_neighbours_that_share_pages_have_the_bits_of_one_alone(self, dtype):
    # More rows than tasks, on up to eight threads: all have one page in common,
    # the halves of them another.
    rows = np.arange(64)
    tables = np.stack([0 * rows, 1 + rows // 32, 3 + rows], axis=1)
    positions = 30 + rows % 18
    q, k, v = (normal(i, dtype, 64, n, 32) for i, n in ((1, 6), (2, 2), (3, 2)))
    pages = normal(4, dtype, 67, 2, 2, 16 * 32)
    run = jax.jit(
      lambda some: _attend(
        *(q[some], k[some], v[some], pages),
        Paths(
          jnp.asarray(tables, jnp.int32)[some],
          jnp.arange(len(some)),
          jnp.asarray(positions, jnp.int32)[some],
        ),
        Layer(jnp.int32(0), 67),
      )[0]
    )
    # Only what a row writes to its own page may be in the call.
    rows = rows[positions >= 32]
    want = {row: wide(run(np.array([row])))[0] for row in rows}
    for order in (rows, rows[::-1], np.random.default_rng(1).permutation(rows)):
      for row, got in zip(order, wide(run(order)), strict=True):
        np.testing.assert_array_equal(got, want[row])

  @parameterized.product(dtype=["float32", "bfloat16"], sign=[1, -1])
  def test_scores_may_be_far_from_zero(self, dtype, sign):
    # Of 40 tokens every fourth has the highest score, and e^71 times the
    # weight of others.
    best = np.arange(40) % 4 == 0
    key = np.where(best, 1.0, 1.0 - 0.5 * sign)
    k = jnp.zeros((40, 1, 32), dtype)
    k = k.at[:, 0, 0].set(key.astype(k.dtype))
    q, v = jnp.zeros_like(k).at[:, 0, 0].set(800 * sign), normal(1, dtype, 40)
    v = jnp.broadcast_to(v[:, None, None], k.shape)
    at = jnp.arange(40)
    mixed, _ = _attend(
      *(q, k, v, cpu.empty_pages(3, 1, 32, dtype)),
      Paths(jnp.arange(3)[None], jnp.zeros_like(at), at),
      Layer(jnp.int32(0), 3),
    )
    want = wide(v)[best].mean(axis=0)
    np.testing.assert_allclose(wide(mixed)[-1], want, atol=_CLOSE[dtype])

  @parameterized.parameters("float32", "bfloat16")
  def test_long_paths(self, dtype):
    columns, step = 256, 512
    q, k, v = (normal(i, dtype, columns * 16, 1, 32) for i in (1, 2, 3))
    pages = cpu.empty_pages(columns, 1, 32, dtype)
    tables = jnp.arange(columns, dtype=jnp.int32)[None]
    run = jax.jit(
      lambda pages, at: cpu.attend_pages(
        *(q[at], k[at], v[at], pages),
        Paths(tables, jnp.zeros_like(at), at),
        Layer(jnp.int32(0), columns),
      )
    )
    for start in range(0, columns * 16, step):
      mixed, pages = run(pages, jnp.arange(start, start + step))
    scores = wide(q[:, 0])[-step:] @ wide(k[:, 0]).T / np.sqrt(32)
    scores += np.triu(np.full(scores.shape, -np.inf), columns * 16 - step + 1)
    weights = np.exp(scores - scores.max(axis=1, keepdims=True))
    weights /= weights.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(
      wide(mixed)[:, 0], weights @ wide(v[:, 0]), atol=_CLOSE[dtype] / 2
    )
    again, _ = run(pages, jnp.arange(columns * 16)[-5:])
    np.testing.assert_array_equal(wide(again), wide(mixed)[-5:])

  def test_writes_its_tokens_and_nothing_else(self):
    case = Sequences("float32")
    args = [x[0][:3] for x in (case.q, case.k, case.v)]
    before = normal(7, "float32", _LAYERS * 3, 2, 2, 16 * 32)
    tables = jnp.asarray([[2, 1], [0, 7]], jnp.int32)
    run = jax.jit(
      lambda rows, positions: cpu.attend_pages(
        *(*args, before),
        Paths(tables, jnp.asarray(rows), jnp.asarray(positions)),
        Layer(jnp.int32(1), 3),
      )
    )
    for rows, positions, written in (
      ([0, 0, 1], [4, 5, 15], {5, 3}),
      ([0, 0, 0], [-1, -1, 16], {4}),
      # Outside of the tables, of the rows, and of the pages.
      ([0, 0, 0], [-2, 32, 2**30], set()),
      ([-1, 2, 2**30], [3, 3, 3], set()),
      ([1, 1, 1], [-1, 16, 31], set()),
    ):
      mixed, after = run(np.int32(rows), np.int32(positions))
      same = (wide(after) == wide(before)).all(axis=(1, 2, 3))
      self.assertEqual(set(np.flatnonzero(~same).tolist()), written)
      # Of a token there are as many numbers as a key and a value of each head.
      changed = (wide(after) != wide(before)).sum()
      fits = [
        0 <= r < 2 and 0 <= p < 32 and 0 <= tables[r, p // 16] < 3
        for r, p in zip(rows, positions, strict=True)
      ]
      self.assertEqual(changed, sum(fits) * 2 * 2 * 32)
      for r, p, x in zip(rows, positions, wide(mixed), strict=True):
        self.assertEqual(x.any(), 0 <= r < 2 and 0 <= p < 32)

  @parameterized.parameters(False, True)
  def test_pages_stay_where_they_are(self, scanned):
    layers, count = 30, 64
    case = Sequences("float32")
    q, k, v = (x[0][:4] for x in (case.q, case.k, case.v))
    rows = jnp.arange(4)

    def layer(carry, index):
      x, pages = carry
      paths = Paths(jnp.zeros((4, 3), jnp.int32), rows, rows)
      mixed, pages = cpu.attend_pages(
        *(x, k, v, pages, paths, Layer(index, count))
      )
      return (q + mixed, pages), None

    def step(pages):
      carry = q, pages
      if scanned:
        return jax.lax.scan(layer, carry, jnp.arange(layers))[0]
      for index in range(layers):
        carry, _ = layer(carry, index)
      return carry

    def steps(pages):
      return jax.lax.scan(lambda pages, _: step(pages)[::-1], pages, length=3)

    pages = cpu.empty_pages(layers * count, 2, 32, "float32")
    made = jax.jit(steps, donate_argnums=0).lower(pages).compile()
    sizes = made.memory_analysis()
    self.assertLess(sizes.temp_size_in_bytes, pages.nbytes / 50)
    self.assertGreaterEqual(sizes.alias_size_in_bytes, pages.nbytes)
    shape = ",".join(map(str, pages.shape))
    self.assertNotRegex(made.as_text(), rf"f32\[{shape}\]\S* copy\(")

  def test_copies_pages_in_all_layers(self):
    rng = np.random.default_rng(0)
    shape = cpu.empty_pages(3 * 5, 2, 32, "bfloat16").shape
    before = rng.integers(0, 99, shape).astype("bfloat16")
    sources = jnp.array([4, 1, 0, 4], jnp.int32)
    targets = jnp.array([2, 5, -1, 0], jnp.int32)
    call = jax.jit(
      lambda pages, *where: cpu.copy_pages(pages, *where, 3), donate_argnums=0
    )
    made = call.lower(jnp.asarray(before), sources, targets).compile()
    self.assertEqual(made.memory_analysis().temp_size_in_bytes, 0)
    pages = made(jnp.asarray(before), sources, targets)
    want = before.reshape(3, 5, -1).copy()
    for layer in want:
      layer[2] = layer[0] = layer[4]
    np.testing.assert_array_equal(np.asarray(pages).reshape(want.shape), want)
    with self.assertRaisesRegex(ValueError, "15 pages are not those of 4"):
      cpu.copy_pages(jnp.asarray(before), sources, targets, 4)
    with self.assertRaisesRegex(ValueError, "targets is"):
      cpu.copy_pages(jnp.asarray(before), sources, targets[:2], 3)

  def test_has_the_same_bits_with_one_thread(self):
    if not hasattr(os, "sched_setaffinity"):
      self.skipTest("this system does not bind processes to a processor")
    program = (
      "import os; os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])\n"
      f"from {__spec__.name} import printed; print(printed())"
    )
    done = subprocess.run(
      [sys.executable, "-c", program],
      capture_output=True,
      text=True,
      check=False,
    )
    self.assertEqual(done.stdout.split()[-1:], [printed()], done.stderr)

  def test_wants_shapes_that_fit(self):
    case = Sequences("float32")
    q, k, v = (x[0][:3] for x in (case.q, case.k, case.v))
    pages = cpu.empty_pages(6, 2, 32, "float32")
    tables, rows = jnp.zeros((3, 2), jnp.int32), jnp.arange(3)
    rest = pages, Paths(tables, rows, rows)
    run = lambda *args, count=3, **rest: cpu.attend_pages(  # noqa: E731
      *args, Layer(jnp.int32(0), count, **rest)
    )
    run(q, k, v, *rest)
    for message, args, named in (
      ("no attention of .* to 2 heads", (q[..., :16], k, v, *rest), {}),
      ("no attention of .* to 2 heads", (q[:, :5], k, v, *rest), {}),
      ("k is", (q, k[:2], v, *rest), {}),
      ("v is .* and must be float32", (q, k, v.astype("bfloat16"), *rest), {}),
      ("pages is", (q, k, v, pages[..., 1:], *rest[1:]), {}),
      (
        "tables is",
        (q, k, v, pages, Paths(tables.astype("uint32"), rows, rows)),
        {},
      ),
      ("rows is", (q, k, v, pages, Paths(tables, rows[:2], rows)), {}),
      ("positions is", (q, k, v, pages, Paths(tables, rows, rows[:2])), {}),
      ("6 pages are not layers of 4", (q, k, v, *rest), {"count": 4}),
      ("window is -1", (q, k, v, pages, Paths(tables, rows, rows, -1)), {}),
      ("softcap or sinks", (q, k, v, *rest), {"softcap": 1.0}),
      ("softcap or sinks", (q, k, v, *rest), {"sinks": jnp.zeros(6)}),
    ):
      with self.assertRaisesRegex(ValueError, message):
        run(*args, **named)

  def test_says_what_it_is_for(self):
    self.assertTrue(cpu.can_attend_pages(jnp.ones((1, 98, 64))))
    self.assertFalse(cpu.can_attend_pages(jnp.ones((1, 6, 48))))
    self.assertFalse(cpu.can_attend_pages(jnp.ones((1, 6, 64), jnp.float16)))


def printed() -> str:
  """Returns a hash of results and pages."""
  build.load()
  digest = hashlib.sha256()
  for dtype in ("float32", "bfloat16"):
    found, pages = Sequences(dtype).run(_TOGETHER)
    digest.update(np.stack([found[token] for token in sorted(found)]).tobytes())
    digest.update(np.asarray(pages).tobytes())
  return digest.hexdigest()


if __name__ == "__main__":
  absltest.main()
