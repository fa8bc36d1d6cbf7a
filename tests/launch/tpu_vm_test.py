"""tpu_vm.sh and a TPU that is not there: asked for, set up, deleted."""

import shlex

from absl.testing import absltest, parameterized

from tests.launch import cloud as cloud_lib
from tests.launch import fake_gcloud


class TpuTest(cloud_lib.TpuCase):
  @parameterized.parameters(
    ({}, []),
    ({"TIER": "on-demand"}, []),
    ({"TIER": "spot"}, ["--spot"]),
    ({"TIER": "reserved"}, ["--reserved"]),
    ({"CREATE_FLAGS": "--network=a --internal-ips"},
     ["--network=a", "--internal-ips"]),
  )  # fmt: skip
  def test_create_asks_and_waits(self, variables, more):
    self.cloud.plan(create=["slow"])
    done = self.tpu("create", says="rstar is there", **variables)
    for state in ("NONE", "WAITING WAITING_FOR_RESOURCES", "WAITING PROVIS"):
      self.assertIn(f"rstar: {state}", done.stderr)
    self.assertEqual(
      self.cloud.verbs(), ["list", "create", *["list"] * 4, "list"]
    )
    self.assertEqual(
      self.cloud.calls()[1],
      [
        *"gcloud compute tpus queued-resources create rstar".split(),
        "--node-id=rstar",
        "--accelerator-type=v4-16",
        "--runtime-version=tpu-ubuntu2204-base",
        *more,
        "--zone=us-central2-b",
      ],
    )
    self.tpu("create", says="rstar is there")
    self.assertEqual(self.cloud.verbs().count("create"), 1)

  def test_a_tpu_is_asked_for_once_the_check_finds_nothing_wrong(self):
    self.cloud.checks(1)
    for verb in ("resume", "keep", "check"):
      self.tpu(verb, status=1, says="see the errors above")
    self.assertEmpty(self.cloud.calls())
    self.assertLen(self.cloud.checked(), 3)
    self.cloud.checks(0)
    self.tpu("resume", "--config.seed=1")
    self.assertEndsWith(self.cloud.checked()[-1], "--config.seed=1")
    self.assertIn("--topology=v4-16", self.cloud.checked()[-1])
    self.assertIn("create", self.cloud.verbs())

  def test_a_quota_refused(self):
    self.cloud.plan(create=["quota"])
    done = self.tpu("create", status=1, says="RESOURCE_EXHAUSTED")
    self.assertIn("set another TPU_ZONE", done.stderr)
    self.assertEqual(self.cloud.verbs(), ["list", "create"])

  def test_a_request_that_fails_in_the_queue(self):
    self.cloud.plan(create=["fails"])
    done = self.tpu("create", status=1, says="'delete' removes it")
    self.assertIn("state: FAILED", done.stdout)
    done = self.tpu("create", status=1, says="'resume' replaces it")
    self.tpu("delete")
    self.assertEmpty(self.cloud.state()["tpus"])

  def test_what_is_set_wrongly(self):
    self.tpu("create", TIER="cheap", status=2, says="TIER=cheap: want on-dem")
    self.tpu("create", TPU_TYPE="v9-8", status=2, says="set TPU_IMAGE first")
    said = "TPU_TYPE=v5e-16: gcloud calls it v5litepod-16\n"
    self.tpu("create", TPU_TYPE="v5e-16", status=2, says=said)
    self.tpu("setup", "now", status=2, says="takes no more words: now")
    self.tpu("bucket", WORKDIR="/mnt/a", status=2, says="is in no bucket")

  def test_setup_once_for_a_commit(self):
    self.tpu("create")
    commit = self.cloud.commit("a second one")
    self.tpu("setup")
    self.assertEqual(self.cloud.verbs()[-3:], ["ssh has", "scp", "ssh setup"])
    for worker in range(2):
      self.assertEqual(
        self.cloud.said(worker),
        ["pip install --quiet --upgrade -e ./rstar_jax[tpu,hub,gcs]"],
      )
      home = self.cloud.folder / "rstar" / f"worker-{worker}"
      self.assertEqual((home / "rstar_run/commit").read_text(), commit + "\n")
      self.assertEqual((home / "rstar_jax/file").read_text(), "a second one")
    self.tpu("setup", says="every worker has")
    self.assertEqual(self.cloud.verbs()[-1], "ssh has")
    self.assertLen(self.cloud.said(), 1)

    self.cloud.commit("a third one")
    self.tpu("setup", EXTRAS="tpu")
    self.assertIn("./rstar_jax[tpu]", self.cloud.said()[-1])
    self.cloud.commit("a fourth one")
    self.tpu("setup", EXTRAS="tpu, gcs")
    self.assertEndsWith(self.cloud.said()[-1], "./rstar_jax[tpu, gcs]")

  def test_an_extra_that_there_is_not(self):
    for verb in ("setup", "resume", "keep"):
      for extras, wrong in (("tpu, gs", "gs"), ("tpu;reboot", "tpu;reboot")):
        said = f"tpu_vm.sh: {wrong} is no extra of setup.py: give EXTRAS such"
        self.tpu(verb, EXTRAS=extras, status=2, says=said)
    self.assertEmpty(self.cloud.calls())

  def test_a_worker_lost_in_the_middle_of_setup(self):
    self.tpu("create")
    self.cloud.plan(ssh_setup=["lost 1"])
    done = self.tpu("setup", status=1, says="execution on worker 1 failed")
    self.assertIn("Run it again", done.stderr)
    self.assertLen(self.cloud.said(0), 1)
    self.assertEmpty(self.cloud.said(1))
    done = self.tpu("setup")
    self.assertIn("w-0: has", done.stdout)
    # The first was set up already, the second is now.
    self.assertLen(self.cloud.said(0), 1)
    self.assertLen(self.cloud.said(1), 1)

  def test_a_worker_that_ssh_does_not_reach(self):
    self.tpu("create")
    self.cloud.plan(ssh_has=["lost 1"])
    self.tpu("setup", status=1, says="ssh-add ~/.ssh/google_compute_engine")
    self.assertNotIn("scp", self.cloud.verbs())

  def test_setup_that_did_not_install_is_not_taken_for_done(self):
    self.tpu("create")
    (self.cloud.folder / "no_pip").touch()
    self.tpu("setup", status=1, says="setup failed on a worker")
    (self.cloud.folder / "no_pip").unlink()
    self.tpu("setup")
    self.assertLen(self.cloud.said(0), 2)

  def test_delete(self):
    self.tpu("delete", status=1, says="nothing was deleted")
    self.begin("long")
    self.tpu("run")
    self.cloud.await_said("main")
    self.tpu("delete")
    self.assertEqual(
      self.cloud.calls()[-1][4:],
      ["delete", "rstar", "--force", "--quiet", "--zone=us-central2-b"],
    )
    self.assertEmpty(self.cloud.state()["tpus"])
    self.tpu("delete", status=1, TPU_ZONE="us-west4-a", says="no rstar in us-w")

  def test_bucket_in_the_region_of_the_tpu(self):
    self.tpu("bucket", TPU_PROJECT="mine")
    self.assertEqual(
      self.cloud.calls()[-1],
      [
        *"gcloud storage buckets create gs://bucket".split(),
        "--location=us-central2",
        "--uniform-bucket-level-access",
        "--public-access-prevention",
        "--project=mine",
      ],
    )
    self.tpu("bucket")
    self.assertEqual(self.cloud.verbs(), ["describe", "create", "describe"])


class NothingIsDoneTest(cloud_lib.TpuCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    cls.shared = cloud_lib.Cloud()
    cls.addClassCleanup(cls.shared.close)

  def make_cloud(self):
    return self.shared  # Nothing is done to it.

  @parameterized.parameters(
    ("bucket", ["describe", "create"]),
    ("create", ["list", "create", "list", "list"]),
    ("setup", ["ssh has", "git", "scp", "ssh setup"]),
    ("run", ["ssh state", "ssh run"]),
    ("logs", ["ssh logs"]),
    ("status", ["list", "list", "ssh status"]),
    ("stop", ["ssh stop"]),
    ("delete", ["list", "list", "delete"]),
    ("resume", ["list", "create", "list", "list", "ssh has", "git", "scp",
                "ssh setup", "ssh state", "ssh run"]),
    ("keep", ["list", "create", "list", "list", "ssh has", "git", "scp",
              "ssh setup", "ssh state", "ssh run", "ssh state"]),
  )  # fmt: skip
  def test_dry_run_prints_what_would_be_called(self, verb, wanted):
    done = self.tpu("--dry-run", verb, TPU_PROJECT="mine")
    self.assertEmpty(self.cloud.calls())
    lines = [shlex.split(line) for line in done.stdout.splitlines()]
    printed = [words for words in lines if words[0] in ("gcloud", "git")]
    self.assertEqual([cloud_lib.verb_of(words) for words in printed], wanted)
    for words in printed:
      if words[0] == "gcloud" and "--uniform-bucket-level-access" not in words:
        fake_gcloud.grammar().parse_args(words[1:])

  @parameterized.parameters(
    ("create", "TPU_NAME"),
    ("create", "TPU_TYPE"),
    ("setup", "TPU_ZONE"),
    ("run", "CONFIG"),
    ("run", "WORKDIR"),
    ("logs", "TPU_NAME"),
    ("status", "TPU_ZONE"),
    ("stop", "TPU_NAME"),
    ("resume", "TPU_TYPE"),
    ("keep", "WORKDIR"),
    ("delete", "TPU_ZONE"),
    ("bucket", "WORKDIR"),
  )
  def test_a_missing_variable_is_named_before_anything_is_done(self, *what):
    verb, name = what
    done = self.tpu(verb, **{name: ""}, status=2, says=f"set {name} first: ")
    self.assertEmpty(self.cloud.calls())
    self.assertEmpty(done.stdout)

  @parameterized.product(
    verb=("run", "resume", "keep"),
    config=("configs/tinny.py", "tinny.py:full", "../tiny.py"),
  )
  def test_a_config_that_no_worker_has(self, verb, config):
    file = config.partition(":")[0]
    file = file if "/" in file else f"configs/{file}"
    says = f"CONFIG={config}: the commit has no {file}, so no worker will"
    self.tpu(verb, CONFIG=config, status=2, says=says)
    self.assertEmpty(self.cloud.calls())

  @parameterized.product(
    verb=["check", "run", "resume", "keep"],
    workdir=["runs/tiny", "./a", "~/a", "s3://bucket/a"],
  )
  def test_a_workdir_that_is_elsewhere_on_a_worker(self, verb, workdir):
    says = f"WORKDIR={workdir}: set gs://BUCKET/NAME, or a folder from / on"
    self.tpu(verb, WORKDIR=workdir, status=2, says=says)
    self.assertEmpty(self.cloud.calls())

  def test_a_workdir_that_all_workers_see(self):
    for workdir in ("/mnt/a b", "gs://bucket/a"):
      self.tpu("--dry-run", "run", WORKDIR=workdir)

  def test_a_config_by_its_name_and_that_of_a_run(self):
    for config in ("tiny.py", "configs/tiny.py:full", "gs://b/run/config.json"):
      self.tpu("--dry-run", "run", CONFIG=config)


if __name__ == "__main__":
  absltest.main()
