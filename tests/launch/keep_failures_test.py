"""tpu_vm.sh keep: what fails while the TPU is there, and when it gives up."""

import subprocess

from absl.testing import absltest

from tests.launch import cloud as cloud_lib


class KeepFailuresTest(cloud_lib.TpuCase):
  def test_a_worker_lost_in_the_middle_of_setup(self):
    self.cloud.plan(ssh_setup=["lost 1"])
    self.tpu("keep", says="the run has ended well")
    # The TPU is there, so that it is used.
    self.assertEqual(
      self.verbs("create", "delete", "ssh setup", "ssh run"),
      ["create", "ssh setup", "ssh setup", "ssh run"],
    )

  def test_a_run_that_fails_again_and_again(self):
    self.cloud.runs("3")
    done = self.tpu("keep", status=1, says="failed 3 times in a row")
    self.assertRegex(done.stderr, "ended before its end: 2 failed")
    self.assertLen(self.starts(), 3)
    self.assertEqual(self.verbs("create", "delete"), ["create"])

  def test_a_run_that_fails_once(self):
    self.cloud.runs("1", "well")
    self.tpu("keep", says="the run has ended well")
    self.assertLen(self.starts(), 2)

  def test_one_worker_that_is_silent_for_a_while(self):
    self.cloud.runs("well")
    self.cloud.plan(ssh_state=["", "lost 0", "lost 1"])
    done = self.tpu("keep", says="the run has ended well")
    self.assertIn("not every worker answers; rstar: READY", done.stderr)
    self.assertLen(self.starts(), 1)

  def test_no_quota_is_not_asked_for_again(self):
    self.cloud.plan(create=["quota"])
    self.tpu("keep", status=1, says="set another TPU_ZONE")
    self.assertEqual(self.verbs("create"), ["create"])

  def test_a_run_that_is_stopped_is_left_alone(self):
    self.cloud.runs("long")
    keeping = subprocess.Popen(
      ["bash", self.cloud.repository / "launch" / "tpu_vm.sh", "keep"],
      env=self.cloud.environment(**cloud_lib.TPU),
      stdout=subprocess.DEVNULL,
      stderr=subprocess.PIPE,
      text=True,
    )
    for worker in range(2):
      self.cloud.await_said("main", worker)
    self.tpu("stop")
    _, said = keeping.communicate(timeout=120)
    self.assertEqual(keeping.returncode, 3)
    self.assertIn("the run was stopped", said)
    self.assertLen(self.starts(), 1)


if __name__ == "__main__":
  absltest.main()
