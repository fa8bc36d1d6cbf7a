"""Tests of gathers, against numpy's."""

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized
from jax import export

from rstar_jax.models import moves
from tests.models.arrays import normal


class MovesTest(parameterized.TestCase):
  @parameterized.parameters(jnp.float32, jnp.bfloat16, jnp.float16)
  def test_lookup_moves_bits_and_has_a_derivative(self, dtype):
    table = jnp.asarray(normal(0, 7, 5), dtype)
    table = table.at[1, 2].set(jnp.nan).at[2, 3].set(-0.0)
    ids = jnp.asarray([[1, 6], [2, 1]])
    found = jax.jit(moves.lookup)(table, ids)
    self.assertEqual(found.dtype, dtype)
    self.assertEqual(found.tobytes(), table[ids].tobytes())
    weight = jnp.asarray(normal(1, 2, 2, 5), dtype)
    expected = np.zeros((7, 5), np.float32)
    np.add.at(expected, ids, np.asarray(weight, np.float32))
    by_table = jax.grad(lambda x: jnp.sum(weight * moves.lookup(x, ids)))(
      jnp.nan_to_num(table)
    )
    np.testing.assert_allclose(
      np.asarray(by_table, np.float32), expected, rtol=1e-2
    )

  @parameterized.parameters(jnp.float32, jnp.bfloat16)
  def test_moves_go_as_integers_on_a_cpu_only(self, dtype):
    table = jax.ShapeDtypeStruct((7, 5), dtype)
    ids = jax.ShapeDtypeStruct((3,), jnp.int32)

    def program(platform):
      lookup = jax.jit(moves.lookup)
      return export.export(lookup, platforms=[platform])(
        table, ids
      ).mlir_module()

    self.assertEqual("ui16" in program("cpu"), dtype == jnp.bfloat16)
    self.assertNotIn("ui16", program("tpu"))

  def test_a_loop_of_lookups_makes_no_other_table(self):
    table = jnp.ones((5000, 8), jnp.bfloat16)

    def run(table, ids):
      def turn(_, ids):
        return moves.lookup(table, ids)[:, 0].astype(jnp.int32) + ids

      return jax.lax.fori_loop(0, 9, turn, ids)

    made = jax.jit(run).lower(table, jnp.arange(4)).compile()
    temporaries = made.memory_analysis().temp_size_in_bytes
    self.assertLess(temporaries, table.nbytes / 9)


if __name__ == "__main__":
  jax.config.update("jax_default_matmul_precision", "float32")
  absltest.main()
