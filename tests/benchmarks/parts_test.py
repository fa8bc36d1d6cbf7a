"""What parts make of the seconds of their calls, which are given here."""

import itertools
import types
from unittest import mock

import numpy as np
from absl.testing import absltest

from benchmarks import parts
from tests.inference import small


class PartsTest(absltest.TestCase):
  def test_the_least_of_the_calls_after_the_first(self):
    clock = itertools.accumulate([0.0, 5.0, 1.0, 3.0, 1.0, 4.0])
    calls = []
    with mock.patch.object(parts.time, "perf_counter", clock.__next__):
      found = parts.seconds_of(lambda: calls.append(1), repeats=3)
    self.assertEqual((found, len(calls)), (3.0, 4))

  def given(self, *seconds):
    left = iter(seconds)

    def seconds_of(run):
      run()
      return next(left)

    return mock.patch.object(parts, "seconds_of", seconds_of)

  def test_a_step_is_a_part_of_a_loop(self):
    with self.given(0.016, 0.032, 0.080):
      found = parts.of_step(small.model("lm"), 2, 3, place=5)
    # Sampling is timed with the unembedding.
    self.assertSameElements(found, ["layers", "unembed", "sample"])
    self.assertAlmostEqual(found["layers"], 1.0)
    self.assertAlmostEqual(found["unembed"], 2.0)
    self.assertAlmostEqual(found["sample"], 3.0)

  def test_rates(self):
    # In the place of numpy, of which a copy takes 256 MiB.
    small_arrays = types.SimpleNamespace(
      **{name: getattr(np, name) for name in ("copyto", "empty_like")},
      float32=np.float32,
      zeros=lambda size, dtype: np.zeros(size >> 22, dtype),
    )
    with (
      self.given(4.0, 2.0, 1.0, 8.0, 0.5),
      mock.patch.object(parts, "np", small_arrays),
    ):
      found = parts.roofline(3)
    # 27 products and as many sums, by the better layout; 64 bytes, twice.
    self.assertEqual(found, {"float32": 27.0, "bfloat16": 54.0, "copy": 256.0})


if __name__ == "__main__":
  absltest.main()
