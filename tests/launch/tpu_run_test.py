"""tpu_vm.sh and the run on its workers: started, followed, stopped."""

import signal
import subprocess

from absl.testing import absltest, parameterized

from tests.launch import cloud as cloud_lib


class RunTest(cloud_lib.TpuCase):
  def test_run_on_every_worker_and_only_once(self):
    self.begin("long")
    self.tpu("run", "--config.seed=1")
    for worker in range(2):
      self.cloud.await_said("main", worker)
      self.assertEqual(
        self.cloud.said(worker)[-1],
        "main -u -m rstar_jax.main --distributed --config=configs/tiny.py "
        "--workdir=gs://bucket/a b --config.seed=1",
      )
    self.tpu("run", "--config.seed=1", says="it is running already")
    self.tpu("run", "--config.seed=2", status=1, says="another command is runn")
    self.assertEqual(self.cloud.verbs().count("ssh run"), 1)
    # Its code is not pulled from under it.
    self.cloud.commit("a second one")
    self.tpu("setup", status=1, says="a run of another commit is going on")

  def test_a_run_that_has_ended_well_is_not_run_again(self):
    self.begin("well")
    self.tpu("run")
    self.await_status("w-0: done", "w-1: done")
    self.tpu("run", says="has ended well already")
    self.tpu("resume", says="has ended well already")
    self.assertEqual(self.cloud.verbs().count("ssh run"), 1)
    self.tpu("run", "--stage=study")  # Another command is another matter.
    self.assertEqual(self.cloud.verbs().count("ssh run"), 2)

  def test_status(self):
    self.assertEqual(self.tpu("status").stdout, "rstar: NONE\n")
    self.begin("3", "3")
    self.assertIn("w-1: idle, commit", self.tpu("status").stdout)
    self.tpu("run")
    said = self.await_status("w-0: failed 3", "w-1: failed 3")
    self.assertIn("rstar: READY", said)
    self.assertIn("a line of the run", said)

  def test_stop_lets_the_run_save_and_leaves_the_tpu(self):
    self.begin("long")
    self.tpu("run")
    for worker in range(2):
      self.cloud.await_said("main", worker)
    self.tpu("stop")
    for worker in range(2):
      self.assertEqual(
        self.cloud.said(worker)[-2:], ["SIGTERM", "saved after 1"]
      )
    self.await_status("READY", "w-0: stopped", "w-1: stopped")
    self.assertIn("w-0: nothing is running", self.tpu("stop").stdout)
    self.tpu("resume")
    self.assertEqual(self.cloud.verbs().count("ssh run"), 2)

  def test_workers_that_do_not_all_answer(self):
    self.begin("well")
    self.cloud.plan(ssh_state=["lost 1"], ssh_stop=["lost 0"])
    self.tpu("run", status=1, says="not every worker answers: see status")
    self.tpu("stop", status=255)
    self.assertNotIn("ssh run", self.cloud.verbs())

  def test_a_run_on_some_workers_only(self):
    self.begin("long")
    self.cloud.plan(ssh_run=["lost 1"])
    self.tpu("run", status=255)
    self.cloud.await_said("main")
    self.tpu("run", status=1, says="it runs on some workers only")

  @parameterized.parameters(({}, {0, 1}), ({"TPU_WORKER": "1"}, {1}))
  def test_logs_of_all_workers_or_one(self, variables, workers):
    self.begin("long")
    self.tpu("run")
    for worker in range(2):
      self.cloud.await_said("main", worker)
    following = subprocess.Popen(
      ["bash", self.cloud.repository / "launch" / "tpu_vm.sh", "logs"],
      env=self.cloud.environment(**cloud_lib.TPU, **variables),
      stdout=subprocess.PIPE,
      stderr=subprocess.DEVNULL,
      text=True,
      start_new_session=True,
    )
    lines = {following.stdout.readline() for _ in workers}
    self.assertEqual(lines, {f"w-{w}: a line of the run\n" for w in workers})
    following.send_signal(signal.SIGINT)
    following.terminate()
    following.wait()
    following.stdout.close()


if __name__ == "__main__":
  absltest.main()
