"""A run that is killed again and again ends in the bytes of one that is not.

With the shipped base model, as a program of its own: what is killed is the real
thing, at moments that files of the run announce.
"""

import json
import pathlib
import signal
import time

from absl.testing import absltest

from rstar_jax.data.synthetic import generator
from rstar_jax.storage import layout
from tests import forked, tiny_run
from tests import run as runner

CONFIG = """
from rstar_jax.config import schema as config_lib
from tests import tiny_run

def get_config():
  tiny_run.in_a_loop().__enter__()
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
    # What one process has compiled the next ones need not.
    programs={programs!r},
  )
  config.engine.temperature = 1.2
  config.eval.search.candidates = 8
  config.sft.learning_rate = config.ppm.learning_rate = 1e-5
  config.sft.checkpoint_every = 1
  return config
"""

# When to end it, as soon as one more file below the workdir matches, and how.
MOMENTS = (
  # Rollout: a problem is there; a shard is.
  ("round_1/trees/begun-shard-*", signal.SIGTERM),
  ("round_1/trees/shard-*", signal.SIGKILL),
  # Training of the policy: the first checkpoint is there, or half there.
  ("round_1/policy/checkpoints/*", signal.SIGKILL),
  # The model is there, its manifest is not.
  ("round_1/ppm/model.safetensors", signal.SIGKILL),
  # Evaluation after the last round.
  ("round_2/eval/*/trees-shard-00000-of-*", signal.SIGKILL),
)


def problems(split: str, levels: tuple[int, ...]) -> dict[str, str]:
  """Returns {question: answer} of short problems, one for each level."""
  found = {}
  drawn = generator.problems(split=split, count=200, seed=3)
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


def setUpModule():
  forked.prepare(7)


class ResumeTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    self.folder = pathlib.Path(self.create_tempdir().full_path)
    train = tiny_run.write_problems(
      self.folder / "train.jsonl", problems("train", (1, 2, 2, 3, 3, 4))
    )
    test = tiny_run.write_problems(
      self.folder / "test.jsonl", problems("test", (1, 2, 3))
    )
    self.config = self.folder / "config.py"
    programs = str(self.folder / "programs")
    self.config.write_text(
      CONFIG.format(train=train, test=test, programs=programs)
    )

  def start(self, workdir: pathlib.Path) -> forked.Program:
    """Starts the run, or goes on with it, in a process group of its own."""
    process = forked.Program(
      forked.command,
      [f"--config={self.config}", f"--workdir={workdir}"],
      self.folder / f"{workdir.name}.log",
      # Compiled as users do: this is a run as theirs.
      {"XLA_FLAGS": ""},
    )
    self.addCleanup(process.wait)
    self.addCleanup(process.kill)
    return process

  def finish(self, workdir: pathlib.Path) -> None:
    code = self.start(workdir).wait(runner.PATIENCE)
    self.assertEqual(code, 0, self.end_of_log(workdir))

  def end_of_log(self, workdir: pathlib.Path) -> str:
    text = (self.folder / f"{workdir.name}.log").read_text()
    return f"the log of {workdir.name} ends:\n{text[-3000:]}"

  def end_at(self, workdir: pathlib.Path, pattern: str, number) -> None:
    # Who was asked to end may have written a file that was nearly there.
    before = len(list(workdir.glob(pattern)))
    process = self.start(workdir)
    end = time.monotonic() + runner.PATIENCE
    while len(list(workdir.glob(pattern))) <= before:
      if process.poll() is not None:
        self.fail(f"no {pattern}; {self.end_of_log(workdir)}")
      self.assertLess(time.monotonic(), end, f"no {pattern}")
      time.sleep(0.005)
    process.send_signal(number)
    code = process.wait(runner.PATIENCE)
    self.assertEqual(code, 0 if number == signal.SIGTERM else -number)

  def test_killed_again_and_again(self):
    straight, killed = self.folder / "straight", self.folder / "killed"
    self.finish(straight)
    for moment in MOMENTS:
      self.end_at(killed, *moment)
      self.assertFalse((killed / "round_2/eval/MANIFEST.json").exists())
    self.finish(killed)

    names = sorted(
      str(path.relative_to(straight))
      for path in straight.glob("round_*/**/*")
      if path.is_file()
      and "checkpoints" not in path.parts
      and not path.name.startswith(layout.VERIFIED)
    )
    self.assertGreater(len(names), 20)
    for name in (*names, "config.json", "results.json"):
      with self.subTest(name):
        self.assertEqual(
          (killed / name).read_bytes(), (straight / name).read_bytes()
        )

    results = json.loads((straight / "results.json").read_text())
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
