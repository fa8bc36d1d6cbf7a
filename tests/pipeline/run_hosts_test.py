"""A round on two processes, a device each: the bytes of one process's search.

With the shipped base model, as programs of their own, on a disk, where one is
killed in training and the same commands go on, and in a bucket (a server that
stands in for Google's).
"""

import pathlib
import signal
import time

import numpy as np
from absl.testing import absltest
from safetensors import numpy as safetensors

from rstar_jax.data.synthetic import generator
from rstar_jax.storage import layout, manifests, store
from rstar_jax.storage.snapshot import Snapshot
from tests import fake_gcs, forked, tiny_run
from tests import run as runner
from tests.pipeline.hosts_test import TOGETHER, free_port

CONFIG = """
from rstar_jax.config import schema as config_lib
from tests import tiny_run

def get_config():
  tiny_run.in_a_loop().__enter__()
  config = tiny_run.make_config(
    {train!r},
    {test!r},
    shard_size=2,
    rounds=(config_lib.RoundConfig(rollouts=2, candidates=6),),
    # What one process has compiled the next ones need not.
    programs={programs!r},
  )
  config.engine.temperature = 1.2
  config.eval.search.candidates = 4
  config.eval.samples = 2
  for each in (config.sft, config.ppm):
    # Two rows of each device.
    each.batch_size, each.learning_rate = 4, 1e-5
    each.checkpoint_every = 1
  config.train_mesh.data, config.train_mesh.fsdp = 1, -1
  return config
"""


def problems(split: str, count: int) -> dict[str, str]:
  """Returns {question: answer} of short problems of levels 1 and 2."""
  drawn = generator.problems(split=split, count=100, seed=3)
  found = [
    each for each in drawn if each.level < 3 and len(each.question) < 220
  ]
  return {each.question: each.answer for each in found[:count]}


def setUpModule():
  forked.prepare(7)


class HostsTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    self.folder = pathlib.Path(self.create_tempdir().full_path)
    train = tiny_run.write_problems(
      self.folder / "train.jsonl", problems("train", 5)
    )
    test = tiny_run.write_problems(
      self.folder / "test.jsonl", problems("test", 3)
    )
    self.config = self.folder / "config.py"
    programs = str(self.folder / "programs")
    self.config.write_text(
      CONFIG.format(train=train, test=test, programs=programs)
    )
    self.bucket, self.environment = self.enter_context(fake_gcs.serve("bucket"))

  def start(self, workdir: store.Path, count: int) -> list[forked.Program]:
    """Starts the processes of a run, or goes on with it."""
    port, started = free_port(), []
    for index in range(count):
      arguments = [f"--config={self.config}", f"--workdir={workdir}"]
      if count > 1:
        arguments += [
          "--distributed",
          f"--coordinator=localhost:{port}",
          f"--processes={count}",
          f"--process={index}",
        ]
      log = self.folder / f"{workdir.name}-{index}.log"
      environment = self.environment | TOGETHER
      started.append(
        forked.Program(forked.command, arguments, log, environment)
      )
      self.addCleanup(started[-1].wait)
      self.addCleanup(started[-1].kill)
    return started

  def ends_of_logs(self) -> str:
    return "\n".join(
      f"{path.name}: {path.read_text()[-2500:]}"
      for path in sorted(self.folder.glob("*.log"))
    )

  def finish(self, workdir: store.Path, count: int) -> None:
    codes = [each.wait(runner.PATIENCE) for each in self.start(workdir, count)]
    self.assertEqual(codes, [0] * count, self.ends_of_logs())

  def kill_one(self, workdir: store.Path) -> None:
    """Kills one of two hosts as soon as there is a checkpoint."""
    first, second = self.start(workdir, 2)
    end = time.monotonic() + runner.PATIENCE
    while not Snapshot(workdir).checkpoints("round_1/policy/checkpoints"):
      codes = first.poll(), second.poll()
      self.assertEqual(codes, (None, None), self.ends_of_logs())
      self.assertLess(time.monotonic(), end, self.ends_of_logs())
      time.sleep(0.01)
    second.send_signal(signal.SIGKILL)
    second.wait()
    # It would notice by itself, but not for a while.
    first.send_signal(signal.SIGKILL)
    first.wait()
    self.assertIsNone(manifests.read(workdir / "round_1/policy"))

  def test_two_processes_one_of_them_killed(self):
    alone = self.folder / "alone"
    self.finish(alone, 1)
    searched = ("round_0", *(f"round_1/{n}" for n in ("trees", "sft", "pairs")))
    names = [
      name
      for name in store.files(alone)
      if name.startswith(tuple(searched)) and layout.VERIFIED not in name
    ]
    self.assertGreater(len(names), 8)
    for together in (self.folder / "disk", store.path("gs://bucket/cloud")):
      with self.subTest(str(together)):
        # In a bucket one host is killed often enough by another test.
        if not store.is_remote(together):
          self.kill_one(together)
        self.finish(together, 2)
        for name in (*names, "config.json"):
          self.assertEqual(
            store.read(together / name), store.read(alone / name), name
          )
        self.same_models(alone, together)
        for workdir in (alone, together):
          evaluation = manifests.read(workdir / "round_1/eval")
          self.assertIsNotNone(evaluation)
          for name in ("results.json", "report.html"):
            self.assertTrue((workdir / name).exists())
        first, second = (
          store.read(path / "metrics.jsonl").decode()
          for path in (together, together / "host_1")
        )
        self.assertIn("loss", first)
        self.assertNotIn("loss", second)
        for text in (first, second):
          self.assertIn("rollout/seconds", text)

  def same_models(self, alone: store.Path, together: store.Path) -> None:
    """One device trained the one, two the other."""
    for name in ("policy", "ppm"):
      old, new = (
        safetensors.load(
          store.read(each / "round_1" / name / "model.safetensors")
        )
        for each in (alone, together)
      )
      self.assertEqual(old.keys(), new.keys())
      for tensor in old:
        # Half of a learning rate: AdamW divides gradients near 0 by themselves.
        np.testing.assert_allclose(new[tensor], old[tensor], atol=5e-6)


if __name__ == "__main__":
  absltest.main()
