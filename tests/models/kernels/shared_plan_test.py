"""Tests of what is planned to be read."""

import jax
import numpy as np
from absl.testing import absltest

from rstar_jax.models.kernels import shared_plan
from rstar_jax.models.paths import Paths
from tests.models.kernels import paths


class SharedPlanTest(absltest.TestCase):
  def test_a_page_is_read_once_for_neighbours(self):
    args = paths.leaves(8)
    size = paths.PAGE * 2 * 8 * 4
    # In a chunk, a page once for all that have it in one place.
    read = {
      (row // 8, at, args["tables"][row, at])
      for row, position in zip(args["rows"], args["positions"], strict=True)
      for at in range(position // paths.PAGE + 1)
    }
    _, reads = shared_plan.plan(*paths.where(args), block=paths.BLOCK, chunk=8)
    self.assertEqual(
      shared_plan.bytes_read(reads, args["pages"]), len(read) * size
    )

  def test_scalars_of_a_chunk_do_not_grow_with_the_tokens(self):
    def sizes(tokens):
      shape = lambda *sizes: jax.ShapeDtypeStruct(sizes, np.int32)  # noqa: E731
      pages = jax.ShapeDtypeStruct((9, 16, 2, 128), np.dtype("bfloat16"))
      where = Paths(shape(tokens // 4, 320), shape(tokens), shape(tokens))
      _, reads = jax.eval_shape(shared_plan.plan, pages, where)
      moves, _, holders, *_ = (each.shape for each in reads)
      self.assertEqual([moves[0], holders[0]], [tokens // 32] * 2)
      return moves[1:], holders[1:]

    self.assertEqual(sizes(1024), ((1, 32 * 320), (1, 8 * 320)))
    self.assertEqual(sizes(4096), sizes(1024))


if __name__ == "__main__":
  absltest.main()
