"""A run that is ended again and again ends in the bytes of one that is not.

With the shipped base model, as a program of its own: what is killed is the real
thing, at moments that files of the run announce.
"""

import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time

from absl.testing import absltest

import rstar_jax
from rstar_jax.data import synthetic
from rstar_jax.verify import process as process_lib
from tests import tiny_run

ROOT = pathlib.Path(rstar_jax.__file__).parent.parent
SECONDS = 540.0

CONFIG = """
from rstar_jax import config as config_lib
from tests import tiny_run

def get_config():
  # Warm, wide and pooled: the PPM learns from problems with right and with
  # wrong answers, and of these there must be some whatever the base model's
  # skill.
  config = tiny_run.make_config(
    {train!r},
    {test!r},
    shard_size=2,
    extract=config_lib.ExtractConfig(rounds=2),
    rounds=(
      config_lib.RoundConfig(rollouts=6, candidates=8),
      config_lib.RoundConfig(rollouts=3, candidates=8, annotation="ppm"),
    ),
  )
  config.engine.temperature = 1.2
  config.engine.score_buckets = (8,)
  config.eval.search.candidates = 8
  config.sft.learning_rate = config.ppm.learning_rate = 1e-5
  config.sft.checkpoint_every = 1
  return config
"""

# When to kill: as soon as a file below the workdir matches.
MOMENTS = (
  # Rollout: the first shard is there.
  "round_1/trees/shard-00000-of-*",
  # Training of the policy: the first checkpoint is there, or half there.
  "round_1/policy/checkpoints/*",
  # The model is there, its manifest is not.
  "round_1/ppm/model.safetensors",
  # Evaluation after the last round.
  "round_2/eval/*/trees-shard-00000-of-*",
)


# When to tell it to end, and how: the process, or like Ctrl-C its whole group.
TOLD = (
  ("round_1/trees/shard-00000-of-*", signal.SIGTERM, "1/3 shards of rollout"),
  ("round_1/policy/checkpoints/[0-9]*", signal.SIGINT, "updates of sft"),
  ("round_1/ppm/checkpoints/[0-9]*", signal.SIGTERM, "updates of ppm"),
  ("round_2/eval/*/shard-00000-of-*", signal.SIGINT, "1/2 shards of evaluate"),
)


def problems(split: str, levels: tuple[int, ...]) -> dict[str, str]:
  """Returns {question: answer} of short problems, one for each level."""
  found = {}
  drawn = synthetic.problems(split=split, count=200, seed=3)
  for level in levels:
    problem = next(
      each
      for each in drawn
      if each.level == level
      and len(each.question) < 220
      and each.question not in found
    )
    found[problem.question] = problem.answer
  return found


def is_there(pid: int) -> bool:
  """Says whether a process runs; one that waits to be reaped does not."""
  try:
    text = pathlib.Path(f"/proc/{pid}/stat").read_text()
  except OSError:
    return False
  return text.rpartition(")")[2].split()[0] not in "ZX"


class ResumeTest(absltest.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    cls.folder = pathlib.Path(
      cls.enterClassContext(tempfile.TemporaryDirectory())
    )
    train = tiny_run.write_problems(
      cls.folder / "train.jsonl", problems("train", (1, 2, 2, 3, 3, 4))
    )
    test = tiny_run.write_problems(
      cls.folder / "test.jsonl", problems("test", (1, 2, 3))
    )
    cls.config = cls.folder / "config.py"
    cls.config.write_text(CONFIG.format(train=train, test=test))
    # What the others are compared with.
    cls.straight = cls.folder / "straight"
    process = cls.start(cls.straight)
    if process.wait(SECONDS):
      raise AssertionError(cls.end_of_log(cls.straight))

  @classmethod
  def start(cls, workdir: pathlib.Path) -> subprocess.Popen:
    """Starts the run, or goes on with it, in a process group of its own."""
    environment = os.environ | {
      # What one process has compiled the next ones need not.
      "JAX_COMPILATION_CACHE_DIR": str(cls.folder / "cache"),
      "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
      "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }
    arguments = [f"--config={cls.config}", f"--workdir={workdir}"]
    with (cls.folder / f"{workdir.name}.log").open("a") as log:
      process = subprocess.Popen(
        [sys.executable, "-m", "rstar_jax.main", *arguments, "--grace=500"],
        cwd=ROOT,
        env=environment,
        stdout=log,
        stderr=log,
        start_new_session=True,
      )
    cls.addClassCleanup(process.wait)
    cls.addClassCleanup(process.kill)
    return process

  @classmethod
  def end_of_log(cls, workdir: pathlib.Path) -> str:
    text = (cls.folder / f"{workdir.name}.log").read_text()
    return f"the log of {workdir.name} ends:\n{text[-3000:]}"

  def start_until(self, workdir: pathlib.Path, pattern: str):
    """Starts the run; returns it as soon as a file matches."""
    self.assertEmpty(list(workdir.glob(pattern)), "it is there already")
    process = self.start(workdir)
    end = time.monotonic() + SECONDS
    while not any(workdir.glob(pattern)):
      if process.poll() is not None:
        self.fail(f"no {pattern}; {self.end_of_log(workdir)}")
      self.assertLess(time.monotonic(), end, f"no {pattern}")
      time.sleep(0.005)
    return process

  def assert_ends_as_straight(self, workdir: pathlib.Path) -> None:
    """Lets the run go on to its end, and compares its folder."""
    self.assertFalse((workdir / "round_2/eval/MANIFEST.json").exists())
    code = self.start(workdir).wait(SECONDS)
    self.assertEqual(code, 0, self.end_of_log(workdir))
    names = sorted(
      str(path.relative_to(self.straight))
      for path in self.straight.glob("round_*/**/*")
      if path.is_file() and "checkpoints" not in path.parts
    )
    self.assertGreater(len(names), 20)
    for name in (*names, "config.json", "results.json"):
      with self.subTest(name):
        self.assertEqual(
          (workdir / name).read_bytes(), (self.straight / name).read_bytes()
        )

  def test_killed_again_and_again(self):
    workdir = self.folder / "killed"
    for pattern in MOMENTS:
      process = self.start_until(workdir, pattern)
      process.send_signal(signal.SIGKILL)
      self.assertEqual(process.wait(), -signal.SIGKILL)
    self.assert_ends_as_straight(workdir)

  def test_told_to_end_again_and_again(self):
    workdir = self.folder / "told"
    for pattern, number, kept in TOLD:
      process = self.start_until(workdir, pattern)
      below = process_lib._descendants(process.pid)
      self.assertNotEmpty(below)
      if number == signal.SIGINT:
        os.killpg(process.pid, number)
      else:
        process.send_signal(number)
      self.assertEqual(process.wait(SECONDS), 0, self.end_of_log(workdir))
      last = self.end_of_log(workdir).splitlines()[-1]
      self.assertStartsWith(last, "rstar_jax: stopped; the same command goes")
      self.assertIn(kept, last)
      end = time.monotonic() + SECONDS
      while any(map(is_there, below)) and time.monotonic() < end:
        time.sleep(0.01)
      self.assertEmpty([each for each in below if is_there(each)])
    self.assertNotIn("Traceback", (self.folder / "told.log").read_text())
    self.assert_ends_as_straight(workdir)

  def test_what_it_shows(self):
    results = json.loads((self.straight / "results.json").read_text())
    rows = {(row["round"], row["method"]) for row in results["rows"]}
    self.assertContainsSubset(
      {(0, "policy"), (0, "majority")}
      | {
        (round_, method)
        for round_ in (1, 2)
        for method in ("policy", "majority", "mcts")
      },
      rows,
    )
    self.assertEqual([each["round"] for each in results["solved"]], [1, 2])
    self.assertGreater(results["solved"][0]["share"], 0)
    self.assertLen(results["ppm"], 2)


if __name__ == "__main__":
  absltest.main()
