"""A run in a bucket, killed again and again, ends in the bytes of one on disk.

The bucket is a server in this process that stands in for Google's; the run is a
program of its own, with the shipped base model.
"""

import os
import pathlib
import signal
import subprocess
import sys
import threading

from absl.testing import absltest

from rstar_jax.io import records
from tests import fake_gcs, resume_test, tiny_run

CONFIG = """
from rstar_jax import config as config_lib
from tests import tiny_run

def get_config():
  config = tiny_run.make_config(
    {train!r},
    {test!r},
    shard_size=2,
    rounds=(config_lib.RoundConfig(rollouts=6, candidates=8),),
  )
  config.engine.temperature = 1.2
  config.engine.score_buckets = (8,)
  config.eval.search.candidates = 8
  config.sft.learning_rate = config.ppm.learning_rate = 1e-5
  return config
"""

# When to kill: as soon as an object is there whose name holds this.
MOMENTS = (
  "round_1/trees/shard-00000-of-",
  # A checkpoint is half there.
  "round_1/policy/checkpoints/2/state/",
  # The next one is, and one is whole.
  "round_1/policy/checkpoints/4/state/",
  "round_1/ppm/model.safetensors",
  "round_1/eval/MANIFEST.json",
)


class ResumeInABucketTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    self.folder = pathlib.Path(self.create_tempdir().full_path)
    self.bucket, self.environment = self.enter_context(fake_gcs.serve("b"))
    train = tiny_run.write_problems(
      self.folder / "train.jsonl",
      resume_test.problems("train", (1, 2, 2, 3, 3)),
    )
    # Problems may be in a bucket too.
    test = self.folder / "test.jsonl"
    tiny_run.write_problems(test, resume_test.problems("test", (1, 2)))
    self.bucket.put("b", "problems/test.jsonl", test.read_bytes())
    self.config = self.folder / "config.py"
    self.config.write_text(
      CONFIG.format(train=train, test="gs://b/problems/test.jsonl")
    )

  def start(self, workdir: str) -> subprocess.Popen:
    arguments = [f"--config={self.config}", f"--workdir={workdir}"]
    log = (self.folder / "log").open("a")
    self.addCleanup(log.close)
    process = subprocess.Popen(
      [sys.executable, "-m", "rstar_jax.main", *arguments],
      cwd=resume_test.ROOT,
      env=os.environ | self.environment,
      stdout=log,
      stderr=log,
      start_new_session=True,
    )
    self.addCleanup(process.wait)
    self.addCleanup(process.kill)
    return process

  def finish(self, workdir: str) -> None:
    code = self.start(workdir).wait(resume_test.SECONDS)
    self.assertEqual(code, 0, (self.folder / "log").read_text()[-3000:])

  def kill_at(self, part: str) -> None:
    self.assertFalse(any(part in each for each in self.bucket.names()))
    reached = threading.Event()

    def hook(operation: str, name: str) -> None:
      if operation == "write done" and part in name:
        reached.set()
      if reached.is_set():
        # No answer; what comes now comes from a process about to die.
        raise fake_gcs.Refused(503)

    self.bucket.hook = hook
    process = self.start("gs://b/run")
    self.assertTrue(
      reached.wait(resume_test.SECONDS),
      f"no {part}; {(self.folder / 'log').read_text()[-3000:]}",
    )
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
        self.bucket.put("b", name, path.read_bytes())
    for part in MOMENTS:
      self.kill_at(part)
    self.finish("gs://b/run")
    reads = {name for kind, name in self.bucket.calls if kind == "read"}
    self.assertTrue(any(each.startswith("run/programs/") for each in reads))

    wanted = {
      str(path.relative_to(straight)): path.read_bytes()
      for path in straight.glob("round_*/**/*")
      if path.is_file() and "checkpoints" not in path.parts
    }
    self.assertGreater(len(wanted), 20)
    found = {
      name.removeprefix("run/"): data
      for (_, name), (data, _) in self.bucket.objects.items()
      if name.startswith("run/round_") and "/checkpoints/" not in name
    }
    self.assertCountEqual(found, wanted)
    for name, data in wanted.items():
      with self.subTest(name):
        self.assertEqual(found[name], data)
    for name in ("config.json", "results.json"):
      data, _ = self.bucket.objects["b", f"run/{name}"]
      self.assertEqual(data, (straight / name).read_bytes())
    # Those of the processes that were killed are cut short, and not lost.
    lines, _ = self.bucket.objects["b", "run/metrics.jsonl"]
    self.assertIn(b'"round_1_ppm/loss"', lines)
    self.assertTrue(self.bucket.names("b/run/tensorboard/events"))
    self.assertIsNotNone(records.read_manifest("gs://b/run/round_1/eval"))


if __name__ == "__main__":
  absltest.main()
