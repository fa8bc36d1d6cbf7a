"""What every stage is given: the config, the folder, sandbox and grader."""

import contextlib
import dataclasses
import pathlib
import tempfile
from collections.abc import Iterator

import jax
import jax.numpy as jnp
from absl import logging

from rstar_jax.config.schema import Config, TrainConfig
from rstar_jax.grading.grader import Grader
from rstar_jax.hf import folders, gguf_tokenizer
from rstar_jax.hf.gguf import GgufFile
from rstar_jax.models import sharding, vocabulary
from rstar_jax.models.transformer import Transformer
from rstar_jax.pipeline.hosts import Host
from rstar_jax.sandbox.pool import Limits, Sandbox
from rstar_jax.steps.tokenizer import HfTokenizer
from rstar_jax.storage import metrics, records, store

_ALONE = Host()
BASE_MODEL = pathlib.Path(__file__).parents[1] / "base_model"

# Which stage, by its name on the command line, writes a folder of a round.
WRITERS = {
  "trees": "rollout",
  "sft": "extract",
  "pairs": "extract",
  "policy": "sft",
  "ppm": "ppm",
  "eval": "evaluate",
  **dict.fromkeys(("orm", "pqm"), "study"),
}


@dataclasses.dataclass
class Context:
  """What every stage is given.

  Attributes:
    config: the run's config.
    workdir: the run's folder.
    writer: of metrics.
    sandbox: runs candidates' code.
    grader: compares answers.
    tokenizer: the base model's.
    host: which process of the run this is.
  """

  config: Config
  workdir: store.Path
  writer: metrics.Writer
  sandbox: Sandbox
  grader: Grader
  tokenizer: HfTokenizer
  host: Host = _ALONE

  def folder(self, round_: int, stage: str) -> store.Path:
    """Returns where a stage of a round writes."""
    return self.workdir / f"round_{round_}" / stage

  def finished(self, round_: int, name: str) -> store.Path:
    """Returns a folder of a round that is to be read.

    Args:
      round_: from 1.
      name: of `WRITERS`.

    Raises:
      ValueError: the folder is not there, not whole or not finished.
    """
    folder = self.folder(round_, name)
    if records.read_manifest(folder) is None:
      raise ValueError(
        f"{folder} is not finished: run --stage={WRITERS[name]} "
        f"--round={round_} first"
      )
    return folder

  def base(self) -> store.Path | str:
    """Returns the folder or name of the base model."""
    return self.config.policy.path or BASE_MODEL

  def policy(self, start: int | str) -> store.Path | str:
    """Returns where the policy of a round is, 0 being the base model, or it.

    Args:
      start: a round, or a Hugging Face folder or name.
    """
    if isinstance(start, str):
      return start
    return self.finished(start, "policy") if start else self.base()

  def search_mesh(self) -> jax.sharding.Mesh | None:
    """Returns the mesh of this host's devices, None where it has just one."""
    return sharding.mesh_over(
      self.config.search_mesh, jax.local_devices(), "config.search_mesh"
    )

  def train_mesh(self) -> jax.sharding.Mesh | None:
    """Returns the mesh of the devices of all hosts, None for a single one."""
    return sharding.mesh_over(
      self.config.train_mesh, jax.devices(), "config.train_mesh"
    )

  def load_policy(
    self,
    start: int | str,
    *,
    train: TrainConfig | None = None,
    mesh: jax.sharding.Mesh | None = None,
  ) -> Transformer:
    """Loads the policy of a round, or any other; round 0 is the base model.

    Args:
      start: a round, or a Hugging Face folder or name.
      train: of a training that it is loaded for: the parameters are float32
        then, whatever `policy.dtype` says of the activations.
      mesh: where the parameters go; None is one device.

    Returns:
      A model with a row for each of the tokenizer's tokens.

    Raises:
      ValueError: a model that is named has other tokens.
    """
    tokenizer = self.tokenizer
    if isinstance(start, str):
      tokenizer = load_tokenizer(start)
      if not tokenizer.has_ids_of(self.tokenizer):
        raise ValueError(
          f"{start} has another tokenizer than {self.base()}: name a model of "
          "the same family, or make it policy.path, in another --workdir"
        )
    dtype = jnp.dtype(self.config.policy.dtype)
    model = folders.load_policy(
      self.policy(start),
      jnp.float32 if train else dtype,
      compute_dtype=dtype,
      mesh=mesh,
    )
    if train is not None:
      model.config = dataclasses.replace(model.config, **train.of_model)
    if isinstance(start, int) and start > 0:
      return model
    return vocabulary.resize(
      model,
      known=tokenizer.known,
      used=tokenizer.vocab_size,
      multiple=self.config.policy.vocab_multiple,
    )


@contextlib.contextmanager
def open_context(
  config: Config, workdir: store.Path, host: Host = _ALONE
) -> Iterator[Context]:
  """Starts the sandbox, the grader and the writer, and ends them."""
  with contextlib.ExitStack() as stack:
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
      Grader(workers=config.grader.workers, seconds=config.grader.seconds)
    )
    # Where time went is worth knowing of each host.
    folder = workdir if host.leads else workdir / f"host_{host.index}"
    writer = stack.enter_context(metrics.MetricsWriter(folder))
    tokenizer = load_tokenizer(config.policy.path or BASE_MODEL)
    yield Context(config, workdir, writer, sandbox, grader, tokenizer, host)


def load_tokenizer(
  base: store.Path | str, *, add_markers: bool = True
) -> HfTokenizer:
  """Loads a model's tokenizer, that of a GGUF file too; see `HfTokenizer`."""
  with store.local(base, folders.WEIGHTS) as base:
    file = folders.gguf_file(base)
    if file is None:
      return HfTokenizer(base, add_markers=add_markers)
    with tempfile.TemporaryDirectory() as folder:
      gguf_tokenizer.save(GgufFile(file).metadata, folder)
      return HfTokenizer(folder, add_markers=add_markers)
