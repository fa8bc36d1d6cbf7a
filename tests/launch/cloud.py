"""A cloud in a folder, for tests of the launch scripts."""

import contextlib
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time

from absl.testing import parameterized

from tests.launch import fake_gcloud

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
LAUNCH = ROOT / "launch"
HERE = pathlib.Path(__file__).resolve().parent
TPU = {
  "TPU_NAME": "rstar",
  "TPU_ZONE": "us-central2-b",
  "TPU_TYPE": "v4-16",  # Two workers.
  "CONFIG": "configs/tiny.py",
  "WORKDIR": "gs://bucket/a b",
}


class Cloud:
  """A repository with the scripts, programs that are fakes, and their record.

  Attributes:
    folder: of the cloud, FAKE_CLOUD to the fakes.
    repository: a checkout that holds the launch scripts and little else.
  """

  def __init__(self):
    self._temporary = tempfile.TemporaryDirectory()
    root = pathlib.Path(self._temporary.name)
    self.folder, self.repository = root / "cloud", root / "repository"
    for bin_, names in (
      ("bin", {"gcloud": "gcloud", "xpk": "xpk xpk", "kubectl": "xpk kubectl"}),
      ("worker_bin", {"python3": "python", "python": "python"}),
    ):
      for name, fake in names.items():
        module, *words = fake.split()
        self._program(
          f"{bin_}/{name}",
          # -I -S: they start quickly, and nothing is theirs but the library.
          " ".join(
            ["exec", sys.executable, "-IS", str(HERE / f"fake_{module}.py")]
            + words
            + ['"$@"']
          ),
        )
    self._program("worker_bin/hostname", 'echo "t1v-n-cafe-w-$WORKER"')
    self.runs("well")
    shutil.copytree(LAUNCH, self.repository / "launch")
    shutil.copy(ROOT / "setup.py", self.repository)
    (self.repository / "configs").mkdir()
    (self.repository / "configs" / "tiny.py").touch()
    self._git("init", "--quiet")
    self.commit("a first one")

  def _program(self, name: str, line: str) -> None:
    path = self.folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{line}\n")
    path.chmod(0o755)

  def _git(self, *words: str) -> str:
    who = ("-c", "user.name=a", "-c", "user.email=a@b.c")
    return subprocess.run(
      ["git", "-C", self.repository, *who, *words],
      check=True,
      capture_output=True,
      text=True,
    ).stdout.strip()

  def commit(self, text: str) -> str:
    """Commits a change to the repository, and returns the commit."""
    (self.repository / "file").write_text(text)
    self._git("add", "--all")
    self._git("commit", "--quiet", "--message", text)
    return self._git("rev-parse", "HEAD")

  def close(self) -> None:
    """Ends what still runs there, and removes it."""
    for pid in fake_gcloud.processes(self.folder):
      # It may end by itself meanwhile.
      with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    self._temporary.cleanup()

  def plan(self, **what: list[str]) -> None:
    """Sets what goes wrong: lists by "create", "ssh_setup" and the like."""
    plan = {key.replace("_", " "): value for key, value in what.items()}
    state = self.state() | {"plan": plan}
    (self.folder / "state.json").write_text(json.dumps(state))

  def state(self) -> dict:
    file = self.folder / "state.json"
    if not file.exists():
      return {"tpus": {}, "buckets": [], "plan": {}}
    return json.loads(file.read_text())

  def runs(self, *how: str) -> None:
    """Sets how the first run behaves, the second, and so on."""
    (self.folder / "runs").write_text("\n".join(how))

  def said(self, worker: int = 0) -> list[str]:
    """Returns what pip and the runs of a worker were asked and did."""
    file = self.folder / f"said_{worker}"
    return file.read_text().splitlines() if file.exists() else []

  def await_said(self, text: str, worker: int = 0) -> None:
    until = time.monotonic() + 60
    while not any(text in line for line in self.said(worker)):
      if time.monotonic() > until:
        raise AssertionError(f"{text} is not in {self.said(worker)}")
      time.sleep(0.02)

  def environment(self, **variables: str) -> dict[str, str]:
    return {
      "PATH": f"{self.folder / 'bin'}:/usr/bin:/bin",
      "FAKE_CLOUD": str(self.folder),
      "POLL_SECONDS": "0.05",
      **variables,
    }

  def call(
    self, script: str, *words: str, **variables: str
  ) -> subprocess.CompletedProcess:
    """Calls a script of the repository, with these variables and no others."""
    return subprocess.run(
      ["bash", str(self.repository / "launch" / script), *words],
      env=self.environment(**variables),
      capture_output=True,
      text=True,
      timeout=120,
    )

  def tpu(self, *words: str, **variables: str) -> subprocess.CompletedProcess:
    return self.call("tpu_vm.sh", *words, **TPU | variables)

  def checks(self, status: int) -> None:
    """Puts the command of the package there, which finds all well, or not."""
    self._program(
      "bin/rstar_jax", f'echo "$@" >> "$FAKE_CLOUD/checked"; exit {status}'
    )

  def checked(self) -> list[str]:
    """Returns what that command was asked."""
    file = self.folder / "checked"
    return file.read_text().splitlines() if file.exists() else []

  def calls(self) -> list[list[str]]:
    """Returns all calls of programs up to now, in words."""
    file = self.folder / "calls.jsonl"
    lines = file.read_text().splitlines() if file.exists() else []
    return [json.loads(line) for line in lines]

  def verbs(self) -> list[str]:
    """Returns what was asked of gcloud: "create", "ssh setup" and so on."""
    return [verb_of(words) for words in self.calls()]


def verb_of(words: list[str]) -> str:
  """Returns what a call is about: "create", "ssh setup", "git"."""
  if words[0] == "git":
    return "git"
  verb = words[4] if words[1] == "compute" else words[3]
  for word in words:
    if word.startswith("--command=bash worker.sh "):
      verb += " " + word.split()[2]
    elif word.startswith("--command=grep "):
      verb += " has"
  return verb


class TpuCase(parameterized.TestCase):
  """A test with a cloud of its own, and tpu_vm.sh there."""

  def setUp(self):
    super().setUp()
    self.cloud = self.make_cloud()

  def make_cloud(self):
    cloud = Cloud()
    self.addCleanup(cloud.close)
    return cloud

  def tpu(self, *words, status=0, says="", **variables):
    """Calls tpu_vm.sh, and holds its exit status and a part of stderr."""
    done = self.cloud.tpu(*words, **variables)
    self.assertEqual(done.returncode, status, done.stderr + done.stdout)
    self.assertIn(says, done.stderr)
    return done

  def begin(self, *how):
    """Has a TPU that is set up, and says how its runs behave."""
    self.tpu("create")
    self.tpu("setup")
    self.cloud.runs(*how)

  def await_status(self, *texts):
    for _ in range(1000):
      said = self.tpu("status").stdout
      if all(text in said for text in texts):
        return said
    raise AssertionError(said)

  def starts(self):
    """Returns the command lines of the runs that worker 0 was given."""
    return [line for line in self.cloud.said() if line.startswith("main ")]

  def verbs(self, *which):
    return [verb for verb in self.cloud.verbs() if verb in which]
