"""An open run, which every stage takes: its config, folder and services."""

import contextlib
import dataclasses
import functools
from collections.abc import Iterator

from absl import logging

from rstar_jax.config import plugins
from rstar_jax.config.schema import Config
from rstar_jax.grading.grader import Grader
from rstar_jax.hf import folders
from rstar_jax.hf.tokenizers import load_tokenizer
from rstar_jax.pipeline.hosts import ALONE, Host
from rstar_jax.pipeline.work import Local, Work
from rstar_jax.sandbox.pool import Limits, Sandbox
from rstar_jax.steps.tokenizer import HfTokenizer
from rstar_jax.storage import layout, manifests, metrics, store
from rstar_jax.tasks.named import load_task
from rstar_jax.tasks.task import Task

_HERE = Local()


@dataclasses.dataclass
class Context:
  """An open run.

  Attributes:
    workdir: its folder, on a disk or in a bucket.
    writer: writes metrics.
    sandbox: runs candidates' code.
    grader: compares answers.
    tokenizer: the base model's, which all policies and PPMs share.
    host: this process, where the run has several.
    work: divides items and shards among processes.
    loads: whether it puts models on servers in the first host's place, since
      the hosts before it have no shard left.
  """

  config: Config
  workdir: store.Path
  writer: metrics.Writer
  sandbox: Sandbox
  grader: Grader
  tokenizer: HfTokenizer
  host: Host = ALONE
  work: Work = _HERE
  loads: bool = False

  @functools.cached_property
  def task(self) -> Task:
    """The task that the config names."""
    return load_task(self.config.task)

  def folder(self, round_: int, stage: str) -> store.Path:
    """Returns the folder that a stage of a round writes."""
    return layout.stage_folder(self.workdir, round_, stage)

  def finished(self, round_: int, name: str) -> store.Path:
    """Returns a folder of a round, for reading; checks that it is finished.

    Args:
      round_: from 1.
      name: a key of `layout.WRITERS`.

    Raises:
      ValueError: the folder is missing, incomplete or not finished.
    """
    folder = self.folder(round_, name)
    if manifests.read(folder) is None:
      stage = layout.WRITERS[name]
      if name == "policy" and self.reinforces(round_):
        stage = "rollout"
      raise ValueError(
        f"{folder} is not finished: run rstar_jax {stage} --round={round_} "
        "first"
      )
    return folder

  def reinforces(self, round_: int) -> bool:
    """Returns whether a round trains its policy by reinforcement."""
    return any(
      each.algorithm != "sft"
      for each in self.config.rounds[round_ - 1 : round_]
    )


@contextlib.contextmanager
def open_context(
  config: Config,
  workdir: store.Path,
  host: Host = ALONE,
  work: Work = _HERE,
  *,
  tracked: bool = False,
  writes: bool = True,
) -> Iterator[Context]:
  """Starts the sandbox, grader and metrics writer, and closes them at exit.

  Args:
    config: of the run.
    workdir: the run's folder.
    host: this process.
    work: divides items and shards among processes.
    tracked: whether trackers other than TensorBoard get metrics.
    writes: whether metrics are written at all.
  """
  tokenizer = load_tokenizer(
    config.policy.path or folders.BASE_MODEL,
    prompt=load_task(config.task).prompt,
  )
  with contextlib.ExitStack() as stack:
    # Each host writes its own metrics. They are opened first, since a tracker
    # may be missing.
    folder = layout.host_folder(workdir, host.index)
    names = [n for n in config.trackers if tracked or n == "tensorboard"]
    writer: metrics.Writer = metrics.NullWriter()
    if writes:
      writer = stack.enter_context(
        metrics.MetricsWriter(folder, names, dataclasses.asdict(config))
      )
    limits = Limits(
      wall_seconds=config.sandbox.wall_seconds,
      memory_bytes=config.sandbox.memory_bytes,
      output_bytes=config.sandbox.output_bytes,
      live=config.sandbox.live,
    )
    sandbox = stack.enter_context(
      Sandbox(
        workers=config.sandbox.workers,
        limits=limits,
        require=config.sandbox.require,
      )
    )
    logging.info("sandbox isolation: %s", sandbox.isolation)
    grader = stack.enter_context(
      Grader(
        workers=config.grader.workers,
        seconds=config.grader.seconds,
        percent_is_ratio=config.grader.percent_is_ratio,
        function=plugins.optional(
          config.grader.function, "config.grader.function"
        ),
      )
    )
    yield Context(
      config, workdir, writer, sandbox, grader, tokenizer, host, work
    )
