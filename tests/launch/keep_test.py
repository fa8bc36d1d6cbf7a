"""tpu_vm.sh keep: a run is seen through, though its TPU is taken away."""

from absl.testing import absltest

from tests.launch import cloud as cloud_lib


class KeepTest(cloud_lib.TpuCase):
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

  def test_a_tpu_that_somebody_deletes_is_not_asked_for_again(self):
    self.cloud.runs("long")
    self.cloud.plan(ssh_state=["", "deleted"])
    self.tpu("keep", status=3, says="the TPU deleted: keep ends here")
    self.assertEqual(self.verbs("create"), ["create"])

  def test_not_more_often_than_wanted(self):
    self.cloud.plan(ssh_setup=["preempted"] * 2)
    self.tpu("keep", status=1, KEEP_TIMES="2", says="started 2 times")
    self.assertEqual(self.verbs("create"), ["create"] * 2)


if __name__ == "__main__":
  absltest.main()
