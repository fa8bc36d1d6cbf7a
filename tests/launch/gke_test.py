"""gke.sh against an xpk and a kubectl that are not there."""

import shlex

from absl.testing import absltest, parameterized

from tests.launch import cloud as cloud_lib

GKE = {
  "CLUSTER": "rstar",
  "TPU_ZONE": "us-west4-a",
  "TPU_PROJECT": "mine",
  "TPU_TYPE": "v5litepod-16",
  "WORKLOAD": "tiny-1",
  "CONFIG": "configs/tiny.py",
  "WORKDIR": "gs://bucket/a b",
}
PLACE = ["--cluster=rstar", "--zone=us-west4-a", "--project=mine"]


class GkeTest(parameterized.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    cls.cloud = cloud_lib.Cloud()
    cls.addClassCleanup(cls.cloud.close)

  def setUp(self):
    super().setUp()
    for name in ("calls.jsonl", "xpk_status"):
      (self.cloud.folder / name).unlink(missing_ok=True)

  def gke(self, *words, status=0, says="", **variables):
    done = self.cloud.call("gke.sh", *words, **GKE | variables)
    self.assertEqual(done.returncode, status, done.stderr)
    self.assertIn(says, done.stderr)
    return done

  @parameterized.parameters(
    ({}, "--on-demand"),
    ({"TIER": "spot"}, "--spot"),
    ({"TIER": "reserved", "RESERVATION": "ours"}, "--reservation=ours"),
  )
  def test_create(self, variables, tier):
    self.gke("create", **variables)
    (words,) = self.cloud.calls()
    self.assertEqual(
      words,
      ["xpk", "cluster", "create", *PLACE, "--tpu-type=v5litepod-16"]
      + ["--num-slices=1", tier],
    )

  def test_run_with_the_commit_on_a_base_image(self):
    # The fake refuses a folder that does not hold the repository.
    self.gke("run", "--config.seed=1")
    (words,) = self.cloud.calls()
    command = words.pop(11).removeprefix("--command=")
    self.assertStartsWith(words.pop(10), "--script-dir=")
    self.assertEqual(
      words,
      ["xpk", "workload", "create", *PLACE, "--workload=tiny-1"]
      + ["--tpu-type=v5litepod-16", "--num-slices=1"]
      + ["--base-docker-image=python:3.12", "--max-restarts=20"]
      + ["--restart-on-exit-codes=1"],
    )
    # It takes the place of the shell, which would keep signals from it.
    self.assertEqual(
      shlex.split(command),
      [*"exec bash launch/pod.sh tpu,hub,gcs --config=configs/tiny.py".split()]
      + ["--workdir=gs://bucket/a b", "--config.seed=1"],
    )

  def test_nothing_runs_that_was_checked_and_is_wrong(self):
    self.cloud.checks(1)
    self.addCleanup((self.cloud.folder / "bin" / "rstar_jax").unlink)
    self.gke("run", status=1, says="CHECK=no asks for the TPU all the same")
    self.assertEmpty(self.cloud.calls())
    self.gke("run", CHECK="no")
    self.assertLen(self.cloud.calls(), 1)
    self.cloud.checks(0)
    stage = ["--stage=study", "--round=1"], ["--stage", "sft", "--round", "2"]
    self.gke("run", *stage[0], "--config.seed=1")
    self.gke("check", "--config.seed=1", *stage[1], "--grace", "9")
    # A truth value may be alone, and so has no word after it.
    truths = ["--config.engine.warm_up", "--noconfig.eval.early_stop"]
    self.gke("check", truths[0], *stage[0], *truths[::-1])
    self.assertLen(self.cloud.calls(), 2)
    self.assertIn(" ".join(stage[0]), " ".join(self.cloud.calls()[-1]))
    asked = "check --config=configs/tiny.py --topology=v5litepod-16"
    self.assertEqual(
      self.cloud.checked(),
      [f"{asked} --workdir=gs://bucket/a b"]
      + [f"{asked} --workdir=gs://bucket/a b --config.seed=1"]
      + [f"{asked} --workdir=gs://bucket/a b --config.seed=1 --grace 9"]
      + [
        f"{asked} --workdir=gs://bucket/a b {truths[0]} {truths[1]} {truths[0]}"
      ],
    )

  def test_run_with_an_image_of_ones_own(self):
    self.gke("run", DOCKER_IMAGE="gcr.io/mine/image:1", MAX_RESTARTS="2")
    (words,) = self.cloud.calls()
    self.assertIn("--docker-image=gcr.io/mine/image:1", words)
    self.assertIn("--max-restarts=2", words)
    self.assertNotIn("--script-dir", " ".join(words))
    self.gke("run", DOCKER_IMAGE="gcr.io/mine/image:1", EXTRAS="of_my_own")
    self.assertIn("pod.sh of_my_own ", " ".join(self.cloud.calls()[-1]))

  def test_the_rest(self):
    for verb in ("wait", "status", "stop", "delete", "logs"):
      self.gke(verb)
    wait, status, stop, delete, credentials, logs = self.cloud.calls()
    listed = ["xpk", "workload", "list", *PLACE]
    self.assertEqual(wait, [*listed, "--wait-for-job-completion=tiny-1"])
    self.assertEqual(status, listed)
    self.assertEqual(
      stop,
      ["xpk", "workload", "delete", *PLACE, "--workload=tiny-1", "--force"],
    )
    self.assertEqual(delete, ["xpk", "cluster", "delete", *PLACE, "--force"])
    self.assertEqual(
      credentials,
      [*"gcloud container clusters get-credentials rstar".split()]
      + ["--location=us-west4", "--project=mine"],
    )
    self.assertIn("--selector=xpk.google.com/workload=tiny-1", logs)

  def test_the_status_is_that_of_xpk(self):
    (self.cloud.folder / "xpk_status").write_text("125")
    for verb in ("create", "run", "wait"):
      self.gke(verb, status=125)
    (self.cloud.folder / "xpk_status").unlink()
    self.gke("run", WORKLOAD="Tiny_1", status=2)

  @parameterized.parameters(
    ("create", {"TIER": "reserved"}, "set RESERVATION first: "),
    ("create", {"TIER": "cheap"}, "TIER=cheap: want on-demand, spot"),
    ("create", {"CLUSTER": ""}, "set CLUSTER first: "),
    ("create", {"TPU_TYPE": ""}, "set TPU_TYPE first: "),
    ("run", {"WORKDIR": "/mnt/a"}, "pods share no folder"),
    ("run", {"WORKDIR": "runs/a"}, "pods share no folder"),
    ("run", {"WORKLOAD": ""}, "set WORKLOAD first: "),
    ("run", {"EXTRAS": "tpu,gs"}, "gke.sh: gs is no extra of setup.py"),
    ("run", {"CONFIG": "tinny.py"}, "the commit has no configs/tinny.py"),
    ("wait", {"WORKLOAD": ""}, "set WORKLOAD first: "),
    ("logs", {"TPU_PROJECT": ""}, "set TPU_PROJECT first: "),
    ("status", {"TPU_ZONE": ""}, "set TPU_ZONE first: "),
    ("stop", {"WORKLOAD": ""}, "set WORKLOAD first: "),
    ("delete", {"TPU_PROJECT": ""}, "set TPU_PROJECT first: "),
  )
  def test_what_is_missing_or_wrong(self, verb, variables, says):
    self.gke(verb, status=2, says=says, **variables)
    self.assertEmpty(self.cloud.calls())

  @parameterized.parameters(
    ("create", 1), ("run", 4), ("wait", 1), ("logs", 2), ("stop", 1)
  )  # fmt: skip
  def test_dry_run(self, verb, lines):
    done = self.gke("--dry-run", verb)
    self.assertLen(done.stdout.splitlines(), lines)
    self.assertEmpty(self.cloud.calls())


if __name__ == "__main__":
  absltest.main()
