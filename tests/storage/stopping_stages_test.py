"""Each stage is told to end in its middle, and the same command goes on.

The search is scripted and models are tiny, but the processes, their signals and
the sandbox are real. A child of this process waits where it is to be told, so
that it is told there and nowhere else.
"""

import os
import pathlib
import signal
import sys
import tempfile
import time
import traceback
from unittest import mock

from absl.testing import absltest, flagsaver

from rstar_jax import main
from rstar_jax.config import flag
from rstar_jax.report import progress
from rstar_jax.sandbox import process as process_lib
from rstar_jax.storage import layout, stopping
from rstar_jax.training import loop
from tests import run as runner
from tests import tiny_run

CONFIG = """
from rstar_jax.config import schema as config_lib
from tests import tiny_run

def get_config():
  config = tiny_run.make_config(
    {train!r},
    {test!r},
    shard_size=2,
    rounds=(config_lib.RoundConfig(rollouts=12, candidates=4),),
    policy=config_lib.PolicyConfig(path={base!r}),
    programs={programs!r},
  )
  # One problem after the other.
  config.search.in_flight = config.eval.search.in_flight = 1
  return config
"""
# Two additions of 1, 2 or 3 give 2 to 6.
TRAIN = {"four": "4", "five": "5", "never": "99", "six": "6"}
TEST = {"three": "3", "four too": "4", "five too": "5"}

# Where: a stage, and the call of `expand` or the update; how; what is kept.
TOLD = (
  # The policy is called by a thread, which no signal interrupts.
  ("rollout", "six", signal.SIGTERM, "1/2 shards (1 begun) of rollout"),
  ("sft", 1, signal.SIGINT, "1/2 updates of sft"),
  ("ppm", 1, signal.SIGTERM, " updates of ppm"),
  ("evaluate", "five too", signal.SIGINT, "1/2 shards (1 begun) of evaluate"),
)


def is_there(pid: int) -> bool:
  """Says whether a process runs; one that waits to be reaped does not."""
  try:
    text = pathlib.Path(f"/proc/{pid}/stat").read_text()
  except OSError:
    return False
  return text.rpartition(")")[2].split()[0] not in "ZX"


class Waiting:
  """Waits once, at a place, until the process is told to end."""

  def __init__(self, mark: pathlib.Path):
    self._mark = mark

  def __call__(self) -> None:
    if not self._mark.exists():
      self._mark.touch()
      while not stopping.asked():
        time.sleep(0.01)


class ToldTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    self.folder = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))
    self.config = self.folder / "config.py"
    self.config.write_text(
      CONFIG.format(
        train=tiny_run.write_problems(self.folder / "train.jsonl", TRAIN),
        test=tiny_run.write_problems(self.folder / "test.jsonl", TEST),
        base=str(self.folder / "base"),
        programs=str(self.folder / "programs"),
      )
    )
    # This process must not wake jax, whose threads a fork would lack.
    base = self.folder / "base"
    pid = self.fork(base, lambda: tiny_run.make_base(base))
    code, log = self.end_of(pid, base)
    self.assertEqual(code, 0, log)

  def fork(self, name: pathlib.Path, work) -> int:
    """Does some work in a process of its own, which logs; returns its pid."""
    pid = os.fork()
    if pid:
      return pid
    code = 1
    try:
      os.setsid()
      log = os.open(f"{name}.log", os.O_CREAT | os.O_APPEND | os.O_WRONLY)
      os.dup2(log, 1)
      os.dup2(log, 2)
      work()
      code = 0
    except SystemExit as end:
      code = end.code
    except BaseException:
      traceback.print_exc()
    finally:
      sys.stdout.flush()
      sys.stderr.flush()
      os._exit(code)

  def start(self, workdir: pathlib.Path, stage: str = "", at=None) -> int:
    """Starts the command in a process of its own; returns its pid.

    Args:
      workdir: of the run.
      stage: in which it is to wait.
      at: the question of an `expand`, or the number of an update, where.
    """
    return self.fork(workdir, lambda: self.run_main(workdir, stage, at))

  def run_main(self, workdir: pathlib.Path, stage: str, at) -> None:
    wait = Waiting(self.folder / f"waits-{stage}")
    policy = tiny_run.ScriptedBackend.policy

    class Policy:
      def __call__(self, questions, prefixes, seeds):
        if at in questions:
          wait()
        return policy(questions, prefixes, seeds)

      def block(self, questions, prefixes, seeds):
        return policy.block(questions, prefixes, seeds)

    count = loop._tokens
    seen = []

    def counted(batch):
      trained = (workdir / "round_1/policy/MANIFEST.json").exists()
      if stage == ("ppm" if trained else "sft"):
        seen.append(1)
        if len(seen) == at:
          wait()
      return count(batch)

    device = tiny_run.ScriptedBackend.scripted(Policy())
    argv = ["main", f"--config={self.config}", f"--workdir={workdir}"]
    argv.append(f"--grace={runner.PATIENCE}")
    with (
      flagsaver.flagsaver(),
      mock.patch.object(sys, "argv", argv),
      mock.patch("rstar_jax.pipeline.backends.ModelBackend", device),
      mock.patch.object(loop, "_tokens", counted),
    ):
      main.main(flag.parse_flags(argv))

  def end_of(self, pid: int, workdir: pathlib.Path) -> tuple[int, str]:
    """Waits for a process; returns its exit code and the end of its log."""
    _, status_ = os.waitpid(pid, 0)
    log = pathlib.Path(f"{workdir}.log").read_text()
    return os.waitstatus_to_exitcode(status_), log[-3000:]

  def test_in_each_stage(self):
    straight, told = self.folder / "straight", self.folder / "told"
    code, log = self.end_of(self.start(straight), straight)
    self.assertEqual(code, 0, log)

    for stage, at, number, kept in TOLD:
      pid = self.start(told, stage, at)
      mark = self.folder / f"waits-{stage}"
      end = time.monotonic() + runner.PATIENCE
      while not mark.exists():
        self.assertEqual(os.waitpid(pid, os.WNOHANG), (0, 0), stage)
        self.assertLess(time.monotonic(), end, stage)
        time.sleep(0.01)
      below = process_lib._descendants(pid)
      self.assertNotEmpty(below)
      # Ctrl-C is for the whole group in front.
      (os.killpg if number == signal.SIGINT else os.kill)(pid, number)
      code, log = self.end_of(pid, told)
      self.assertEqual(code, 0, log)
      last = log.splitlines()[-1]
      self.assertStartsWith(last, "rstar_jax: stopped; the same command goes")
      self.assertIn(kept, last)
      self.assertNotIn("Traceback", log)
      while any(map(is_there, below)) and time.monotonic() < end:
        time.sleep(0.01)
      self.assertEmpty([each for each in below if is_there(each)])

    code, log = self.end_of(self.start(told), told)
    self.assertEqual(code, 0, log)
    names = sorted(
      str(path.relative_to(straight))
      for path in straight.glob("round_*/**/*")
      if path.is_file()
      and "checkpoints" not in path.parts
      and not path.name.startswith(layout.VERIFIED)
    )
    self.assertGreater(len(names), 15)
    for name in (*names, "config.json", "results.json"):
      with self.subTest(name):
        self.assertEqual(
          (told / name).read_bytes(), (straight / name).read_bytes()
        )
    for workdir in (straight, told):
      found = progress.look(workdir)
      self.assertEqual({each.state for each in found.stages}, {"done"})
      self.assertEqual(found.left, 0.0)


if __name__ == "__main__":
  absltest.main()
