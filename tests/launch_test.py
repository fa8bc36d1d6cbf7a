"""The launch scripts, as far as they go without a TPU: syntax and dry runs."""

import pathlib
import shlex
import subprocess

from absl.testing import absltest, parameterized

LAUNCH = pathlib.Path(__file__).resolve().parent.parent / "launch"
SCRIPTS = sorted(LAUNCH.glob("*.sh"))
VARIABLES = {
  "TPU_NAME": "rstar",
  "TPU_ZONE": "us-west4-a",
  "TPU_TYPE": "v5litepod-16",
  "TPU_IMAGE": "v2-alpha-tpuv5-lite",
  "CONFIG": "configs/tiny.py",
  "WORKDIR": "/mnt/rstar/a b",
}


def call(*arguments: str, **variables: str) -> subprocess.CompletedProcess:
  return subprocess.run(
    ["bash", str(LAUNCH / "tpu_vm.sh"), *arguments],
    env={"PATH": "/usr/bin:/bin"} | variables,
    capture_output=True,
    text=True,
  )


def commands(*arguments: str, **variables: str) -> list[list[str]]:
  """Returns what a dry run would run, split into words."""
  done = call("--dry-run", *arguments, **VARIABLES | variables)
  if done.returncode:
    raise AssertionError(done.stderr)
  return [shlex.split(line) for line in done.stdout.splitlines()]


class LaunchTest(parameterized.TestCase):
  @parameterized.parameters(*SCRIPTS)
  def test_syntax(self, script):
    done = subprocess.run(["bash", "-n", script], capture_output=True)
    self.assertEqual(done.returncode, 0, done.stderr)

  @parameterized.parameters(
    ("create", "TPU_TYPE"),
    ("create", "TPU_IMAGE"),
    ("setup", "TPU_NAME"),
    ("run", "TPU_ZONE"),
    ("run", "CONFIG"),
    ("run", "WORKDIR"),
    ("logs", "TPU_NAME"),
    ("delete", "TPU_ZONE"),
  )
  def test_a_missing_variable_is_named(self, verb, name):
    variables = {k: v for k, v in VARIABLES.items() if k != name}
    done = call("--dry-run", verb, **variables)
    self.assertEqual(done.returncode, 2)
    self.assertEqual(done.stderr, f"tpu_vm.sh: set {name} first\n")
    self.assertEmpty(done.stdout)

  def test_create(self):
    (words,) = commands("create")
    self.assertEqual(
      words[:6], "gcloud compute tpus tpu-vm create rstar".split()
    )
    self.assertIn("--accelerator-type=v5litepod-16", words)
    self.assertIn("--version=v2-alpha-tpuv5-lite", words)
    self.assertIn("--zone=us-west4-a", words)

  def test_setup_goes_to_every_worker(self):
    archive, copy, install = commands("setup")
    self.assertEqual(archive[0], "git")
    for words in (copy, install):
      self.assertIn("--worker=all", words)
    self.assertIn("rstar:rstar_jax.tar.gz", copy)

  def test_run_quotes_for_the_remote_shell(self):
    (words,) = commands("run", "--config.seed=1")
    (remote,) = [w for w in words if w.startswith("--command=")]
    self.assertEqual(
      shlex.split(remote.removeprefix("--command=")),
      [
        *"bash rstar_jax/launch/worker.sh run".split(),
        "--config=configs/tiny.py",
        "--workdir=/mnt/rstar/a b",
        "--config.seed=1",
      ],
    )
    self.assertIn("--worker=all", words)

  def test_logs_and_delete(self):
    (words,) = commands("logs", TPU_WORKER="3")
    self.assertIn("--worker=3", words)
    (words,) = commands("delete", TPU_PROJECT="mine")
    self.assertIn("delete", words)
    self.assertIn("--project=mine", words)

  def test_help_and_wrong_words(self):
    self.assertIn("TPU_NAME", call("--help").stdout)
    done = call("explode", **VARIABLES)
    self.assertEqual(done.returncode, 2)
    self.assertIn("create | setup | run", done.stderr)


if __name__ == "__main__":
  absltest.main()
