"""Tests of attention to pages, against attention to a path's own keys."""

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized

from rstar_jax.models import pages
from rstar_jax.models.config import ModelConfig
from rstar_jax.models.paths import Layer, Paths

LAYERS, COUNT, WIDTH = 3, 23, 10
HEADS, KV_HEADS, DIM = 6, 2, 8


def brute(q, keys, values, position, window):
  """Attends from one query [N, H] to keys [S, K, H] up to its position."""
  first = max(0, position + 1 - window) if window else 0
  out = np.zeros_like(q)
  for head in range(HEADS):
    group = head // (HEADS // KV_HEADS)
    k = keys[first : position + 1, group]
    scores = k @ q[head] / np.sqrt(DIM)
    shares = np.exp(scores - scores.max())
    out[head] = shares @ values[first : position + 1, group] / shares.sum()
  return out


class Case:
  """Paths of several lengths in pages that are filled with other numbers."""

  def __init__(self, seed=0, dtype="float32"):
    rng = np.random.default_rng(seed)
    normal = lambda *shape: np.asarray(  # noqa: E731
      jnp.asarray(rng.normal(size=shape), dtype), np.float64
    )
    self.dtype = dtype
    # Tokens of four rows, in slots side by side: the last one or several.
    self.before = (0, 15, 31, 140)
    self.new = (1, 3, 2, 5)
    self.rows = np.repeat(np.arange(4), self.new).astype(np.int32)
    self.positions = np.concatenate(
      [b + np.arange(n) for b, n in zip(self.before, self.new, strict=True)]
    ).astype(np.int32)
    total = max(b + n for b, n in zip(self.before, self.new, strict=True))
    self.paths = normal(2, 4, total, KV_HEADS, DIM)
    self.q = normal(len(self.rows), HEADS, DIM)
    self.pages = normal(LAYERS * COUNT, 16, 2 * KV_HEADS, DIM)
    order = rng.permutation(COUNT)
    self.tables = np.full((4, WIDTH), order[-1], np.int32)
    for row, (b, n) in enumerate(zip(self.before, self.new, strict=True)):
      for column in range(-(-(b + n) // 16)):
        self.tables[row, column], order = order[0], order[1:]
    # What is there before the step.
    for row, b in enumerate(self.before):
      for at in range(b):
        page = self.pages[COUNT + self.tables[row, at // 16]]
        page[at % 16, ::2] = self.paths[0, row, at]
        page[at % 16, 1::2] = self.paths[1, row, at]

  def run(self, window=0, **changes):
    k, v = self.paths[:, self.rows, self.positions]
    given = {
      "rows": self.rows,
      "positions": self.positions,
      "tables": self.tables,
    }
    given |= {name: jnp.asarray(each) for name, each in changes.items()}
    paths, layer = Paths(**given, window=window), Layer(jnp.int32(1), COUNT)
    arrays = [jnp.asarray(x, self.dtype) for x in (self.q, k, v, self.pages)]
    out, after = jax.jit(pages.attend)(*arrays, paths, layer)
    return np.asarray(out, np.float64), np.asarray(after, np.float64)


class PagesTest(parameterized.TestCase):
  @parameterized.product(window=[0, 1, 7, 130], dtype=["float32", "bfloat16"])
  def test_attends_to_the_path_alone(self, window, dtype):
    case = Case(dtype=dtype)
    out, _ = case.run(window)
    for slot, (row, position) in enumerate(
      zip(case.rows, case.positions, strict=True)
    ):
      want = brute(case.q[slot], *case.paths[:, row], int(position), window)
      close = 2e-6 if dtype == "float32" else 2e-2
      np.testing.assert_allclose(out[slot], want, atol=close)

  def test_writes_the_new_tokens_and_nothing_else(self):
    case = Case()
    _, after = case.run()
    want = case.pages.copy()
    for row, position in zip(case.rows, case.positions, strict=True):
      page = want[COUNT + case.tables[row, position // 16]]
      page[position % 16, ::2] = case.paths[0, row, position]
      page[position % 16, 1::2] = case.paths[1, row, position]
    np.testing.assert_array_equal(after, want.astype(np.float32))

  def test_empty_slots_write_nothing_and_are_0(self):
    case = Case()
    whole, _ = case.run()
    positions = case.positions.copy()
    positions[[0, 2]] = -1
    out, after = case.run(positions=positions)
    np.testing.assert_array_equal(out[[0, 2]], 0)
    kept = case.rows != case.rows[2]
    kept[0] = False
    np.testing.assert_array_equal(out[kept], whole[kept])
    page = COUNT + case.tables[0, 0]
    np.testing.assert_array_equal(
      after[page, 0], case.pages[page, 0].astype(np.float32)
    )
    out, after = case.run(positions=np.full_like(positions, -1))
    np.testing.assert_array_equal(out, 0)
    np.testing.assert_array_equal(after, case.pages.astype(np.float32))

  def test_bits_do_not_depend_on_other_slots(self):
    case = Case()
    whole, _ = case.run()
    for row in range(4):
      alone = np.where(case.rows == row, case.positions, -1)
      out, _ = case.run(positions=alone)
      mine = case.rows == row
      np.testing.assert_array_equal(out[mine], whole[mine])

  @parameterized.parameters("float32", "bfloat16")
  def test_copies_pages_in_every_layer(self, dtype):
    case = Case(dtype=dtype)
    before = jnp.asarray(case.pages, dtype)
    sources = jnp.array([4, 4, 0, 9], jnp.int32)
    targets = jnp.array([7, 0, COUNT, COUNT], jnp.int32)
    after = jax.jit(pages.copy, static_argnums=3)(
      before, sources, targets, LAYERS
    )
    want = np.asarray(before).reshape(LAYERS, COUNT, -1).copy()
    want[:, 7] = want[:, 0] = want[:, 4]
    after = np.asarray(after).reshape(LAYERS, COUNT, -1)
    np.testing.assert_array_equal(after, want)

  def test_empty_pages(self):
    config = ModelConfig(num_kv_heads=3, num_heads=3, dtype="bfloat16")
    made = pages.empty(config, 7)
    self.assertEqual(made.shape, (7, pages.PAGE, 6, config.head_dim))
    self.assertEqual(made.dtype, jnp.bfloat16)
    self.assertFalse(np.any(made))


if __name__ == "__main__":
  absltest.main()
