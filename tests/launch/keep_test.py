"""tpu_vm.sh keep: a run is seen through, whatever happens to its TPU."""

import subprocess

from absl.testing import absltest

from tests.launch import cloud as cloud_lib


class KeepTest(cloud_lib.TpuCase):
  def starts(self):
    """Returns the command lines of the runs that worker 0 was given."""
    return [line for line in self.cloud.said() if line.startswith("main ")]

  def verbs(self, *which):
    return [verb for verb in self.cloud.verbs() if verb in which]

  def test_from_nothing_to_the_end(self):
    self.cloud.runs("well")
    self.tpu("keep", "--config.seed=1", says="the run has ended well")
    self.assertEqual(
      self.verbs("create", "scp", "ssh setup", "ssh run"),
      ["create", "scp", "ssh setup", "ssh run"],
    )
    self.tpu("keep", "--config.seed=1", says="has ended well already")
    self.assertLen(self.starts(), 1)
    self.assertLen(self.cloud.state()["tpus"], 1)

  def test_a_tpu_taken_away_in_the_middle_of_a_run(self):
    self.cloud.runs("long", "well")
    # The first look is before the start, the third comes too late.
    self.cloud.plan(ssh_state=["", "", "preempted"])
    done = self.tpu("keep", "--config.seed=1", TIER="spot", says="ended well")
    self.assertRegex(done.stderr, "rstar: (WAITING SUSPENDING|TAKEN SUSPENDED)")
    self.assertIn("start 2 of 20", done.stderr)
    self.assertEqual(
      self.verbs("create", "delete", "ssh setup", "ssh run"),
      ["create", "ssh setup", "ssh run", "delete", "create"]
      + ["ssh setup", "ssh run"],
    )
    creates = [words for words in self.cloud.calls() if "create" in words]
    self.assertEqual(creates[0], creates[1])
    self.assertIn("--spot", creates[1])
    # The same command resumes it; and it had its time to save.
    first, second = self.starts()
    self.assertEqual(first, second)
    self.assertIn("saved after 1", self.cloud.said())

  def test_a_tpu_taken_away_in_the_middle_of_setup(self):
    self.cloud.plan(ssh_setup=["preempted"])
    self.tpu("keep", TIER="spot", says="the run has ended well")
    self.assertEqual(
      self.verbs("create", "delete", "ssh setup", "ssh run"),
      ["create", "ssh setup", "delete", "create", "ssh setup", "ssh run"],
    )

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

  def test_not_more_often_than_wanted(self):
    self.cloud.plan(ssh_setup=["preempted"] * 2)
    self.tpu("keep", status=1, KEEP_TIMES="2", says="started 2 times")
    self.assertEqual(self.verbs("create"), ["create"] * 2)

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
