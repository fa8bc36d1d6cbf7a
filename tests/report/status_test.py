"""What is said of a run's folder at several moments."""

import json
import os
import pathlib
import subprocess
import sys

from absl.testing import absltest

from rstar_jax.report import progress, status
from rstar_jax.storage import store
from tests import fake_gcs
from tests.report.progress_test import RunTest


class StatusTest(RunTest):
  def test_an_empty_folder_and_none(self):
    for folder in (self.workdir, self.workdir / "nowhere"):
      found = progress.look(folder)
      self.assertEqual((found.stages, found.left), ([], None))
      self.assertIn("no run was begun here", status.render(found))
      self.assertEqual(status.kept(found), "nothing yet")
    self.assertFalse((self.workdir / "nowhere").exists())

  def test_what_is_unknown_is_said(self):
    self.begin()
    self.finish("round_1/trees")
    self.shards("round_1/eval", 1, 3)
    self.measure((40.0, 1, "rollout"), (20.0, 1, "eval"))
    text = status.render(progress.look(self.workdir))
    self.assertIsNone(progress.look(self.workdir).left)
    self.assertIn("time left: unknown, more than 3 min 20 s: no round", text)
    self.assertRegex(text, "has finished its .*extract, sft, ppm")

  def test_all_is_done(self):
    self.begin()
    self.finish("round_0/eval")
    for number in (1, 2):
      self.finish_round(number)
    found = progress.look(self.workdir)
    self.assertEqual(found.left, 0.0)
    text = status.render(found)
    self.assertIn("all is done", text)
    self.assertIn("time left: none", text)
    self.assertEqual(status.kept(found), "all of round 0, 1, 2")

  def test_studies(self):
    self.begin()
    self.shards("round_2/study/ppm/mcts/test", 1, 4)
    self.finish("round_2/study/policy/greedy")
    found = progress.look(self.workdir)
    self.assertIn(
      "studies: 1 methods done, 1/4 shards of round_2/ppm/mcts",
      status.render(found),
    )
    self.assertEqual(status.kept(found), "1/4 shards of round_2/ppm/mcts")

  def test_the_same_of_a_run_in_a_bucket(self):
    self.begin()
    self.finish("round_0/eval")
    self.finish_round(1)
    self.shards("round_2/trees", 1, 3)
    self.finish("round_1/study/policy/greedy")
    self.measure((5.0, 1, "round_1_sft"), (3.0, 1, "eval"))
    self.measure((4.0, 2, "rollout"), host="host_1")
    bucket, environment = self.enter_context(fake_gcs.serve("bucket"))
    for name in store.files(self.workdir):
      bucket.put("bucket", f"run/{name}", (self.workdir / name).read_bytes())
    wanted = progress.look(self.workdir)
    self.assertEqual(
      status.kept(wanted), "all of round 0, 1; round 2 1/3 shards of rollout"
    )
    found = progress.look(store.path("gs://bucket/run"))
    reads = [name for kind, name in bucket.calls if kind == "read"]
    self.assertNotEmpty(reads)
    self.assertCountEqual(reads, set(reads))
    for each in (wanted, found):
      each.workdir = ""
      for line in each.last.values():
        del line["age"]
    self.assertEqual(found, wanted)
    # An object of another size.
    bucket.put(
      "bucket", "run/round_1/eval/shard-00000-of-00002.jsonl.zst", b"{"
    )
    found = progress.look(store.path("gs://bucket/run"))
    self.assertIn("round 1 rollout, extract, sft, ppm", status.kept(found))

    def run(workdir: str) -> subprocess.CompletedProcess:
      return subprocess.run(
        [sys.executable, "-m", "rstar_jax.main", "--stage=status"]
        + [f"--workdir={workdir}"],
        cwd=pathlib.Path(status.__file__).parents[2],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
      )

    done = run("gs://bucket/run")
    self.assertEqual(done.returncode, 0, done.stderr)
    self.assertEqual(done.stdout.rstrip(), status.render(found))
    done = run("gs://other/run")
    self.assertEqual(done.returncode, 1)
    self.assertIn("gs://other cannot be used", done.stderr)

  def test_as_a_program(self):
    self.begin()
    self.shards("round_1/trees", 1, 2)
    program = (
      "import runpy, sys\n"
      "sys.argv[0] = 'main'\n"
      "try: runpy.run_module('rstar_jax.main', run_name='__main__')\n"
      "finally:\n"
      "  loaded = {'jax', 'flax', 'transformers'} & set(sys.modules)\n"
      "  assert not loaded, loaded\n"
    )

    def run(*arguments: str) -> str:
      done = subprocess.run(
        [sys.executable, "-c", program, f"--workdir={self.workdir}"]
        + ["--stage=status", *arguments],
        cwd=pathlib.Path(status.__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
      )
      self.assertEqual(done.returncode, 0, done.stderr)
      return done.stdout

    self.assertIn("| 1/2 shards |", run())
    stages = json.loads(run("--json"))["stages"]
    self.assertEqual(stages[1]["name"], "rollout")
    self.assertEqual((stages[1]["done"], stages[1]["of"]), (1, 2))
    names = sorted(each.name for each in self.workdir.iterdir())
    self.assertEqual(names, ["config.json", "round_1"])


if __name__ == "__main__":
  absltest.main()
