"""Tests of attention to shared paths, against plain numpy."""

import jax.numpy as jnp
import numpy as np
from absl.testing import absltest

from rstar_jax.models import cache
from rstar_jax.testing import tiny_model
from tests.models.layers_test import naive_attention, normal


class CacheTest(absltest.TestCase):
  def test_branch_attention_matches_loops(self):
    q = normal(0, 2, 3, 5, 6, 4)
    path = normal(1, 2, 2, 7, 4), normal(2, 2, 2, 7, 4)
    own = normal(3, 2, 3, 2, 5, 4), normal(4, 2, 3, 2, 5, 4)
    lengths = np.array([7, 4])
    path_mask = np.arange(7) < lengths[:, None]
    own_mask = np.tril(np.ones((5, 5), bool))
    out = cache.attend_branches(
      jnp.asarray(q),
      path,
      jnp.asarray(path_mask[:, None]),
      own,
      jnp.asarray(own_mask),
    )
    for b in range(2):
      for c in range(3):
        k, v = (
          np.concatenate([on[b], mine[b, c]], axis=1).swapaxes(0, 1)
          for on, mine in zip(path, own, strict=True)
        )
        allowed = np.concatenate(
          [np.broadcast_to(path_mask[b], (5, 7)), own_mask], axis=1
        )
        np.testing.assert_allclose(
          out[b, c], naive_attention(q[b, c], k, v, allowed), atol=2e-6
        )

  def test_mask_of_paths(self):
    rows = (jnp.zeros((3, 2, 5, 4)),)
    lengths = jnp.array([5, 0, 2])
    path = cache.PathCache(rows, rows, lengths, lengths)
    np.testing.assert_array_equal(
      path.mask(jnp.arange(2)),
      [[[1, 1, 1, 1, 1]], [[0, 0, 0, 0, 0]], [[1, 1, 0, 0, 0]]],
    )
    # The step's tokens are at positions 5 and 7, and see four each.
    np.testing.assert_array_equal(
      path.mask(jnp.array([0, 2]), 4)[0], [[0, 0, 1, 1, 1], [0, 0, 0, 0, 1]]
    )

  def test_empty_candidates(self):
    empty = cache.empty_candidates(tiny_model(dtype="bfloat16"), 3, 5, 7)
    self.assertLen(empty.keys, 2)
    self.assertEqual(empty.values[1].shape, (3, 5, 2, 7, 4))
    self.assertEqual(empty.keys[0].dtype, jnp.bfloat16)


if __name__ == "__main__":
  absltest.main()
