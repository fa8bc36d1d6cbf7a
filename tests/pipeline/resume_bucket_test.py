"""A run in a bucket, killed again and again, ends in the bytes of one on disk.

The bucket is a server in this process that stands in for Google's. The run is a
program of its own, with a scripted search; its models are trained.
"""

import pathlib
import signal
import threading
from unittest import mock

from absl.testing import absltest

from rstar_jax.config import schema as config_lib
from rstar_jax.pipeline import backends, checks, run
from rstar_jax.storage import (
  append_only,
  compiled,
  layout,
  manifests,
  metrics,
  store,
)
from tests import fake_gcs, forked, tiny_run
from tests import run as runner


def evolve(folder: str, train: str, test: str, base: str) -> None:
  """Runs a round.

  Args:
    folder: the workdir.
    train, test: problems.
    base: the base model.
  """
  workdir = store.path(folder)
  store.check(workdir)
  config = tiny_run.make_config(
    train,
    test,
    policy=config_lib.PolicyConfig(path=base),
    rounds=(config_lib.RoundConfig(rollouts=12, candidates=4),),
  )
  # Each process lives for less than the half minute between two sendings.
  append_only.Mirror.__init__.__defaults__ = (0.2,)
  compiled.keep(workdir / "programs")
  checks.check_workdir(config, workdir)
  context = tiny_run.make_context(config, workdir)
  with (
    mock.patch.object(backends, "ModelBackend", tiny_run.ScriptedBackend),
    metrics.MetricsWriter(workdir) as context.writer,
  ):
    run.evolve(context)


# When to kill: as soon as an object is there whose name holds this.
MOMENTS = (
  "round_1/trees/shard-00000-of-",
  # A checkpoint is half there.
  "round_1/policy/checkpoints/2/state/",
  # The next one is, and one is whole.
  "round_1/ppm/checkpoints/4/state/",
  "round_1/ppm/model.safetensors",
  "round_1/eval/MANIFEST.json",
)


def setUpModule():
  forked.prepare(7)


class ResumeInABucketTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    self.folder = pathlib.Path(self.create_tempdir().full_path)
    self.bucket, self.environment = self.enter_context(fake_gcs.serve("bucket"))
    train = tiny_run.write_problems(
      self.folder / "train.jsonl",
      {"four": "4", "five": "5", "never": "99", "six": "6"},
    )
    # Problems and models may be in a bucket, wherever the run is.
    test = self.folder / "test.jsonl"
    tiny_run.write_problems(test, {"three": "3", "four too": "4"})
    self.bucket.put("bucket", "problems/test.jsonl", test.read_bytes())
    base = pathlib.Path(tiny_run.make_base(self.folder / "base"))
    for file in base.iterdir():
      self.bucket.put("bucket", f"models/base/{file.name}", file.read_bytes())
    self.arguments = [
      train,
      "gs://bucket/problems/test.jsonl",
      "gs://bucket/models/base",
    ]

  def start(self, workdir: str) -> forked.Program:
    """Starts the run, or goes on with it."""
    process = forked.Program(
      evolve, [workdir, *self.arguments], self.folder / "log", self.environment
    )
    self.addCleanup(process.wait)
    self.addCleanup(process.kill)
    return process

  def log(self) -> str:
    return (self.folder / "log").read_text()[-3000:]

  def finish(self, workdir: str) -> None:
    code = self.start(workdir).wait(runner.PATIENCE)
    self.assertEqual(code, 0, self.log())

  def kill_at(self, part: str) -> None:
    self.assertFalse(any(part in each for each in self.bucket.names()))
    reached = threading.Event()

    def hook(operation: str, name: str) -> None:
      if operation == "write done" and part in name:
        reached.set()
      if reached.is_set():
        # What comes now comes from a process that is about to die.
        raise fake_gcs.Refused(503)

    self.bucket.hook = hook
    process = self.start("gs://bucket/run")
    while not reached.wait(1):
      self.assertIsNone(process.poll(), f"no {part}; {self.log()}")
    process.send_signal(signal.SIGKILL)
    self.assertEqual(process.wait(), -signal.SIGKILL)
    self.bucket.hook = lambda *_: None

  def test_killed_again_and_again(self):
    straight = self.folder / "straight"
    self.finish(str(straight))
    # What was compiled is taken from a bucket too.
    for path in (straight / "programs").rglob("*"):
      if path.is_file():
        name = f"run/{path.relative_to(straight).as_posix()}"
        self.bucket.put("bucket", name, path.read_bytes())
    for part in MOMENTS:
      self.kill_at(part)
    self.finish("gs://bucket/run")
    reads = {name for kind, name in self.bucket.calls if kind == "read"}
    self.assertTrue(any(each.startswith("run/programs/") for each in reads))

    wanted = {
      path.relative_to(straight).as_posix(): path.read_bytes()
      for path in straight.glob("round_*/**/*")
      if path.is_file()
      and "checkpoints" not in path.parts
      and not path.name.startswith(layout.VERIFIED)
    }
    self.assertGreater(len(wanted), 20)
    found = {
      name.removeprefix("run/"): data
      for (_, name), (data, _) in self.bucket.objects.items()
      if name.startswith("run/round_")
      and "/checkpoints/" not in name
      and layout.VERIFIED not in name
    }
    self.assertCountEqual(found, wanted)
    for name, data in wanted.items():
      with self.subTest(name):
        self.assertEqual(found[name], data)
    for name in ("config.json", "results.json"):
      data, _ = self.bucket.objects["bucket", f"run/{name}"]
      self.assertEqual(data, (straight / name).read_bytes())
    lines, _ = self.bucket.objects["bucket", "run/metrics.jsonl"]
    self.assertIn(b'"round_1_ppm/loss"', lines)
    self.assertTrue(self.bucket.names("bucket/run/tensorboard/events"))
    self.assertIsNotNone(manifests.read("gs://bucket/run/round_1/eval"))


if __name__ == "__main__":
  absltest.main()
