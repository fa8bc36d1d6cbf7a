"""Tests of the kernel: against a softmax a query, in numpy."""

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized
from jax.experimental.pallas import tpu as pltpu

from rstar_jax.models.kernels import branch

# Simulates a core's memory: what was not written, or lies outside, is no
# number, and reading outside is an error.
SIMULATED = pltpu.InterpretParams(
  uninitialized_memory="nan", out_of_bounds_reads="raise"
)


def case(seed, *, shape, path, own, dtype=np.float32, slots=0):
  """Returns random arguments; the first leaf's path is empty."""
  leaves, candidates, tokens, kv_heads, group, dim = shape
  rng = np.random.default_rng(seed)

  def draw(*shape):
    return jnp.asarray(rng.normal(size=shape), dtype)

  lengths = rng.integers(0, path + 1, leaves)
  lengths[0], lengths[-1] = 0, path
  paths = (slots or leaves, kv_heads, path, dim)
  owns = (leaves, candidates, kv_heads, own, dim)
  return dict(
    q=draw(leaves, candidates, tokens, kv_heads * group, dim),
    path=(draw(*paths), draw(*paths)),
    lengths=jnp.asarray(lengths, jnp.int32),
    own=(draw(*owns), draw(*owns)),
  )


def brute(q, path, lengths, own, index, window=0):
  """Attends one query at a time over its tokens, joined, in float64."""
  q, path, own = jax.tree.map(
    lambda x: np.asarray(x, np.float64), (q, path, own)
  )
  out = np.zeros_like(q)
  group = q.shape[3] // path[0].shape[1]
  for b, c, t, n in np.ndindex(*q.shape[:4]):
    end = int(lengths[b]) + index + t + 1
    start = max(0, end - window) if window else 0
    keys, values = (
      np.concatenate(
        [x[b, n // group, : int(lengths[b])], y[b, c, n // group]]
      )[start:end]
      for x, y in zip(path, own, strict=True)
    )
    scores = keys @ q[b, c, t, n] / np.sqrt(q.shape[-1])
    weights = np.exp(scores - scores.max())
    out[b, c, t, n] = weights @ values / weights.sum()
  return out


SMALL = branch.Blocks(candidates=1, tokens=1, rows=8, path=16, own=8)


class BranchKernelTest(parameterized.TestCase):
  def check(
    self, args, index, window=0, blocks=None, interpret=True, atol=2e-6
  ):
    got = branch.attend(
      **args,
      index=jnp.int32(index),
      window=window,
      blocks=blocks,
      interpret=interpret,
    )
    self.assertEqual(got.dtype, args["q"].dtype)
    want = brute(**args, index=index, window=window)
    np.testing.assert_allclose(np.asarray(got, np.float64), want, atol=atol)

  @parameterized.parameters(
    # A step's first token, both sides of an edge of blocks, and its last.
    dict(index=0),
    dict(index=7),
    dict(index=8, window=5),
    dict(index=22, window=3),
    dict(index=22, window=41),
  )
  def test_blocks_are_skipped_and_cut(self, index, window=0):
    # 37 and 23 are no multiple of a block.
    args = case(index, shape=(3, 2, 1, 2, 3, 16), path=37, own=23)
    self.check(args, index, window, SMALL)

  def test_reads_nothing_that_is_not_there(self):
    args = case(9, shape=(2, 1, 1, 1, 3, 16), path=19, own=11)
    self.check(args, 8, 13, SMALL, SIMULATED)

  @parameterized.parameters(range(3))
  def test_random_sizes(self, seed):
    rng = np.random.default_rng(seed)
    own = int(rng.integers(1, 300))
    args = case(
      seed,
      shape=(2, *rng.integers(1, 6, 1), 1, *rng.integers(1, 8, 2), 8),
      path=int(rng.integers(1, 700)),
      own=own,
    )
    window = int(rng.integers(0, 2) * rng.integers(1, 400))
    self.check(args, int(rng.integers(own)), window)

  @parameterized.parameters(dict(), dict(window=5))
  def test_whole_steps(self, window=0):
    args = case(3, shape=(2, 3, 11, 2, 3, 16), path=37, own=13)
    blocks = branch.Blocks(candidates=3, tokens=8, rows=24, path=16, own=8)
    self.check(args, 2, window, blocks)

  def test_bfloat16(self):
    args = case(1, shape=(3, 5, 1, 2, 7, 16), path=67, own=29, dtype="bfloat16")
    # Shares are rounded to 8 bits before they weigh values of about 1.
    self.check(args, 19, atol=0.02)

  def test_slots_say_where_a_path_is(self):
    args = case(6, shape=(3, 2, 1, 1, 3, 16), path=37, own=11, slots=7)
    slots = jnp.array([5, 0, 3], jnp.int32)
    got = branch.attend(**args, index=jnp.int32(4), slots=slots, interpret=True)
    args["path"] = tuple(each[slots] for each in args["path"])
    np.testing.assert_allclose(got, brute(**args, index=4), atol=2e-6)

  def test_each_leaf_may_have_an_index(self):
    args = case(7, shape=(3, 2, 1, 1, 3, 16), path=37, own=23)
    index = [0, 22, 9]
    got = branch.attend(
      **args, index=jnp.array(index), blocks=SMALL, interpret=True
    )
    for leaf, place in enumerate(index):
      want = brute(**args, index=place)[leaf]
      np.testing.assert_allclose(got[leaf], want, atol=2e-6)

  def test_blocks_of_full_size(self):
    blocks = branch.blocks_of
    # Qwen2.5-7B over tensor=4: all candidates pass over a path together.
    self.assertEqual(
      blocks(32, 1, 7, 1024, 256, 256),
      branch.Blocks(candidates=32, tokens=1, rows=8, path=512, own=128),
    )
    # A whole step: 144 tokens x 7 heads are 1008 rows, whole tiles of 8.
    cut = blocks(32, 256, 7, 1024, 256, 256)
    self.assertEqual((cut.candidates, cut.tokens, cut.rows), (1, 144, 1008))


if __name__ == "__main__":
  absltest.main()
