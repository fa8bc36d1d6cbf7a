"""Tests of the two ways to attend: equal, and on a mesh."""

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized

from rstar_jax.config.schema import MeshConfig
from rstar_jax.models import branch_attention, sharding
from rstar_jax.models.kernels import build
from tests.models.kernels.branch_test import brute, case
from tests.models.kernels.cpu_test import needs_compiler

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

  @needs_compiler
  @parameterized.parameters(32, 16)
  def test_a_step_is_the_same_by_the_kernel_for_cpus(self, dim):
    build.load()
    args = case(5, shape=(3, 5, 1, 2, 3, dim), path=37, own=23)
    q, path, lengths, own = (
      args[key] for key in ("q", "path", "lengths", "own")
    )
    new = own[0][:, :, :, 7], own[1][:, :, :, 11]
    steps = [
      jax.jit(
        branch_attention.step_of(branch_attention.attend_masked, native=native)
      )
      for native in (False, True)
    ]
    args = q[:, :, 0], new, path, lengths, own, jnp.int32(11)
    (want, kept), (got, same) = (step(*args) for step in steps)
    np.testing.assert_allclose(got, want, atol=2e-6)
    for a, b in zip(same, kept, strict=True):
      np.testing.assert_array_equal(a, b)
    # Heads of other widths are XLA's.
    text = steps[1].lower(*args).as_text()
    self.assertEqual("rstar_attend" in text, dim == 32)

  def test_wants_a_kind_that_there_is(self):
    with self.assertRaisesRegex(ValueError, "'xla' or 'pallas'"):
      branch_attention.attend_of("flash")


if __name__ == "__main__":
  absltest.main()
