"""Tests of what attention to pages is told: by hand."""

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest

from rstar_jax.models.paths import Layer, Paths


class PathsTest(absltest.TestCase):
  def test_places_are_counted_in_tokens(self):
    paths = Paths(
      jnp.array([[3, 7, 9], [1, 1, 1], [6, 2, 8]]),
      jnp.array([0, 0, 0, 2, 2]),
      jnp.array([0, 5, -1, 4, 11]),
    )
    # Pages of 4 tokens: the second of page 7 is 29, the last of page 8 is 35.
    np.testing.assert_array_equal(paths.at(4), [12, 29, -1, 8, 35])

  def test_arrays_are_traced_and_the_rest_is_not(self):
    zeros = jnp.zeros(3, jnp.int32)
    paths, layer = Paths(zeros, zeros, zeros, 5), Layer(zeros[0], 7, 0.5)

    @jax.jit
    def run(paths, layer):
      return paths.window, layer.count, layer.softcap, paths.rows, layer.first

    found, again = jax.eval_shape(run, paths, layer), run(paths, layer)
    self.assertEqual([x.shape for x in found], [(), (), (), (3,), ()])
    self.assertEqual(again[:3], (5, 7, 0.5))
    self.assertLen(jax.tree.leaves((paths, layer)), 4)

  def test_the_first_page_of_a_layer(self):
    self.assertEqual(Layer(jnp.int32(3), 11).first, 33)


if __name__ == "__main__":
  absltest.main()
