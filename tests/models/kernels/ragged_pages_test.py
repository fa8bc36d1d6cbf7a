"""Tests of what jax's kernel is given, against its reference."""

from unittest import mock

import numpy as np
from absl.testing import absltest, parameterized
from jax.experimental.pallas.ops.tpu.ragged_paged_attention import kernel

from rstar_jax.models.kernels import ragged_pages
from tests.models.kernels import paths


class RaggedPagesTest(parameterized.TestCase):
  @parameterized.parameters(
    dict(positions=[22, 21, 30, -1, 7], more=4),
    # Rows without tokens, first, between and last, and an empty slot behind.
    dict(positions=[4, 5, 6, 12, -1, 9], rows=[1, 1, 1, 3, 3, 5]),
  )
  def test_arguments_of_the_kernel(self, **options):
    # jax's kernel cannot be interpreted, its reference in plain jax can.
    args = paths.case(7, **options)
    args["tables"] = np.concatenate([args["tables"], args["tables"][:2]])

    def reference(*args, sm_scale, sliding_window, **_):
      lengths, starts, count = args[2], args[4], int(args[5][0])
      queries = np.diff(starts[: count + 1])
      self.assertTrue((np.asarray(lengths[:count]) >= 1).all())
      self.assertTrue((np.asarray(lengths[:count]) >= queries).all())
      return kernel.ref_ragged_paged_attention(
        *args, sm_scale=sm_scale, sliding_window=sliding_window
      )

    for window in (0, 6):
      planned = paths.planned(ragged_pages.plan, args, window=window)
      with mock.patch.object(
        ragged_pages.ragged, "ragged_paged_attention", reference
      ):
        got = paths.attended(ragged_pages.attend, planned, args)
      paths.check(self, args, got, window=window)

  def test_bytes_read(self):
    args = paths.leaves(8)
    width, size = args["tables"].shape[1], paths.PAGE * 2 * 8 * 4
    _, reads = ragged_pages.plan(*paths.where(args))
    # 64 of these pages at a time, but a row has no more than 19, and what reads
    # nothing in `attend_shared` reads a block here.
    self.assertEqual(
      ragged_pages.bytes_read(reads, args["pages"], width),
      17 * width * size,
    )

  def test_has_no_sinks(self):
    args = paths.leaves()
    planned = paths.planned(ragged_pages.plan, args)
    with self.assertRaisesRegex(ValueError, "no sinks"):
      paths.attended(ragged_pages.attend, planned, args, sinks=np.zeros(3))


if __name__ == "__main__":
  absltest.main()
