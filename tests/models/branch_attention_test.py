"""Tests of the two ways to attend: equal, and on a mesh."""

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized

from rstar_jax.config import MeshConfig
from rstar_jax.models import branch_attention, sharding
from tests.models.branch_kernel_test import brute, case

jax.config.update("jax_num_cpu_devices", 8)


class BranchAttentionTest(parameterized.TestCase):
  @parameterized.parameters(0, 9)
  def test_both_kinds_are_equal(self, window):
    args = case(5, shape=(3, 5, 2, 2, 3, 16), path=37, own=23)
    rest = dict(index=jnp.int32(11), window=window)
    want = brute(**args, index=11, window=window)
    for kind in ("xla", "pallas"):
      attend = branch_attention.attend_of(kind, interpret=True)
      with self.subTest(kind):
        np.testing.assert_allclose(attend(**args, **rest), want, atol=2e-6)

  @parameterized.parameters(
    dict(kv_heads=2, leaves=4),
    # Neither divides its axis.
    dict(kv_heads=3, leaves=3),
  )
  def test_on_a_mesh(self, kv_heads, leaves):
    mesh = sharding.make_mesh(MeshConfig(data=2, fsdp=2, tensor=2))
    args = case(8, shape=(leaves, 2, 1, kv_heads, 3, 16), path=37, own=11)
    attend = branch_attention.attend_of("pallas", mesh, interpret=True)
    got = jax.jit(lambda args: attend(**args, index=jnp.int32(4)))(args)
    np.testing.assert_allclose(got, brute(**args, index=4), atol=2e-6)

  def test_wants_a_kind_that_there_is(self):
    with self.assertRaisesRegex(ValueError, "'xla' or 'pallas'"):
      branch_attention.attend_of("flash")


if __name__ == "__main__":
  absltest.main()
