"""A run that goes on while it is watched, step by step.

Its stages are the product's, with a scripted policy and no training; what a
training writes is written by the product's writer.
"""

import contextlib
import pathlib
import threading
import time
from collections.abc import Iterator
from unittest import mock

from rstar_jax import testing
from rstar_jax.config import schema as config_lib
from rstar_jax.pipeline import backends, checks, run
from rstar_jax.storage import metrics, scalars
from tests import tiny_run

# Two additions of 1, 2 or 3 give 2 to 6: one problem has no right answer.
TRAIN = {"four": "4", "five": "5", "never": "99", "six": "6"}
TEST = {"three": "3", "four too": "4"}


class _Policy:
  """Waits before it answers to a question, while it is told to."""

  def __init__(self):
    self._scripted = testing.ToySum()
    self.waits_at, self.goes_on = "", threading.Event()

  def __call__(self, questions, prefixes, seeds):
    if self.waits_at in questions:
      self.goes_on.wait()
    return self._scripted(questions, prefixes, seeds)

  def block(self, questions, prefixes, seeds):
    return self._scripted.block(questions, prefixes, seeds)


class Run:
  """A run; as a context manager its models are scripted.

  Attributes:
    workdir: its folder, which `begin` makes.
  """

  def __init__(self, folder: pathlib.Path):
    self.workdir = folder / "grows"
    self._policy = _Policy()
    self._config = tiny_run.make_config(
      tiny_run.write_problems(folder / "train.jsonl", TRAIN),
      tiny_run.write_problems(folder / "test.jsonl", TEST),
      rounds=(config_lib.RoundConfig(rollouts=3, candidates=3),),
      search=config_lib.SearchConfig(in_flight=1),
    )
    self._stack = contextlib.ExitStack()

  def __enter__(self) -> "Run":
    device = tiny_run.ScriptedBackend.scripted(self._policy)
    patched = mock.patch.object(backends, "ModelBackend", device)
    self._stack.enter_context(patched)
    return self

  def __exit__(self, *_) -> None:
    self._stack.close()

  def begin(self) -> None:
    """Binds the folder to the config, and opens the metrics."""
    checks.check_workdir(self._config, self.workdir)
    self._context = tiny_run.make_context(self._config, self.workdir)
    writer = metrics.MetricsWriter(self.workdir)
    self._context.writer = self._stack.enter_context(writer)

  def stage(self, name: str, round_: int) -> None:
    """Runs a stage."""
    run.STAGES[name](self._context, round_)

  @contextlib.contextmanager
  def midway(self) -> Iterator[None]:
    """Runs the search of round 1, which waits at its third problem."""
    self._policy.waits_at = "never"
    searches = threading.Thread(target=self.stage, args=("rollout", 1))
    searches.start()
    while self._lines("round_1/trees/begun-*") < 2:
      time.sleep(0.02)
    try:
      yield
    finally:
      self._policy.goes_on.set()
      searches.join()

  def _lines(self, pattern: str) -> int:
    paths = self.workdir.glob(pattern)
    return sum(each.read_bytes().count(b"\n") for each in paths)

  def train(self, *losses: float) -> None:
    """Writes what updates of the policy write."""
    name = scalars.training(1, "sft")
    for step, loss in enumerate(losses, 1):
      values = {"loss": loss, "seconds": 1.0 * step, "tokens_per_second": 70.0}
      self._context.writer.write(step, values, name)
