"""Checkpoints in a bucket: what a killed run left half written is no one."""

import jax.numpy as jnp
import numpy as np
from absl import logging
from absl.testing import absltest

from rstar_jax.storage import checkpoints
from tests import fake_gcs

FOLDER = "gs://bucket/run/checkpoints"


def state(step: int) -> dict:
  return {"a": jnp.arange(5.0) * step, "b": {"c": jnp.full((3, 2), step)}}


class CheckpointsInABucketTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    self.bucket, _ = self.enter_context(fake_gcs.serve("bucket"))
    level = logging.get_verbosity()
    self.addCleanup(logging.set_verbosity, level)

  def newest(self) -> int | None:
    """Returns the step of the checkpoint that a new process finds."""
    with checkpoints.Checkpoints(FOLDER) as saver:
      found = saver.restore_latest(state(0))
    if found is None:
      return None
    step, restored = found
    for name in ("a", "b"):
      np.testing.assert_array_equal(
        jnp.asarray(restored["a"]), state(step)["a"], name
      )
    np.testing.assert_array_equal(restored["b"]["c"], state(step)["b"]["c"])
    return step

  def test_the_newest_two_are_kept(self):
    with checkpoints.Checkpoints(FOLDER) as saver:
      self.assertIsNone(saver.restore_latest(state(0)))
      for step in (2, 4, 6):
        saver.save(step, state(step))
    with checkpoints.Checkpoints(FOLDER) as saver:
      self.assertEqual(saver.steps(), [6, 4])
    self.assertEqual(self.newest(), 6)

  def test_one_that_is_not_marked_as_whole_is_not_read(self):
    with checkpoints.Checkpoints(FOLDER) as saver:
      for step in (2, 4):
        saver.save(step, state(step))
    marks = [
      key
      for key in self.bucket.objects
      if key[1].endswith("commit_success.txt") and "/4/" in key[1]
    ]
    self.assertNotEmpty(marks)
    for key in marks:
      del self.bucket.objects[key]
    self.assertEqual(self.newest(), 2)


if __name__ == "__main__":
  absltest.main()
