"""What every stage is given: the config, the folder, and the callables.

Here the host tower (search, sandbox, records) meets the device tower (models,
generation): plain callables are handed from one to the other.
"""

import contextlib
import dataclasses
import pathlib
import tempfile
import threading
import time
from collections.abc import Iterator

import jax
import jax.numpy as jnp
from absl import logging

from rstar_jax.config import Config, EngineConfig, TrainConfig
from rstar_jax.generate.engine import Engine
from rstar_jax.generate.few_shot import FewShot, stop_words
from rstar_jax.generate.policy import Policy
from rstar_jax.generate.ppm import Scorer
from rstar_jax.generate.remote import Remote
from rstar_jax.generate.reward import RewardModel
from rstar_jax.generate.weights import Busy
from rstar_jax.hosts import Host
from rstar_jax.io import hf, journal, metrics, records, store
from rstar_jax.io.gguf import GgufFile
from rstar_jax.models import sharding, vocabulary
from rstar_jax.models.transformer import Transformer, arrays_of
from rstar_jax.search.mcts import Calls
from rstar_jax.text import gguf_tokenizer, steps
from rstar_jax.text.tokenizer import HfTokenizer
from rstar_jax.verify import Grader, Limits, Sandbox

_ALONE = Host()
BASE_MODEL = pathlib.Path(__file__).parent / "base_model"

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

  def policy(self, round_: int) -> store.Path | str:
    """Returns where the policy of a round is; round 0 is the base model."""
    return self.finished(round_, "policy") if round_ else self.base()

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
    round_: int,
    *,
    train: TrainConfig | None = None,
    mesh: jax.sharding.Mesh | None = None,
  ) -> Transformer:
    """Loads the policy of a round; round 0 is the base model.

    Args:
      round_: from 0.
      train: of a training that it is loaded for: the parameters are float32
        then, whatever `policy.dtype` says of the activations.
      mesh: where the parameters go; None is one device.

    Returns:
      A model with a row for each of the tokenizer's tokens.
    """
    dtype = jnp.dtype(self.config.policy.dtype)
    model = hf.load_policy(
      self.policy(round_),
      jnp.float32 if train else dtype,
      compute_dtype=dtype,
      mesh=mesh,
    )
    if train is not None:
      model.config = dataclasses.replace(model.config, remat=train.remat)
    if round_:
      return model
    return vocabulary.resize(
      model,
      known=self.tokenizer.known,
      used=self.tokenizer.vocab_size,
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
  with store.local(base, hf.WEIGHTS) as base:
    file = hf.gguf_file(base)
    if file is None:
      return HfTokenizer(base, add_markers=add_markers)
    with tempfile.TemporaryDirectory() as folder:
      gguf_tokenizer.save(GgufFile(file).metadata, folder)
      return HfTokenizer(folder, add_markers=add_markers)


class Device:
  """A policy's and a reward model's callables, and where time went."""

  def __init__(
    self,
    context: Context,
    round_: int,
    *,
    score: str = "",
    reward_model: str = "",
  ):
    """Loads the models.

    Args:
      context: the run.
      round_: whose policy; 0 is the base model.
      score: folder of the round's reward model, e.g. "ppm"; "" for none.
      reward_model: loaded in its place, and in round 0, where there is none.
    """
    self._context = context
    self._mesh = mesh = context.search_mesh()
    dtype = jnp.dtype(context.config.policy.dtype)
    # A base model that is shown examples sees no token that it does not know.
    self._few_shot = round_ == 0 and context.config.policy.prompt == "few_shot"
    if self._few_shot:
      self._model = hf.load_policy(context.base(), dtype, mesh=mesh)
      self._tokenizer = load_tokenizer(context.base(), add_markers=False)
    else:
      self._model = context.load_policy(round_, mesh=mesh)
      self._tokenizer = context.tokenizer
    # Of all that use the device.
    self._shared = {"lock": threading.Lock(), "busy": Busy()}
    config = context.config
    self._slots = max(config.search.slots, config.eval.search.slots)
    self._engines: list[Engine] = []
    self._began = time.perf_counter()
    self.score: Scorer | RewardModel | None = None
    if reward_model:
      _, fields = hf.read_config(reward_model)
      self.score = RewardModel(
        hf.load_reward_model(reward_model, dtype, mesh=mesh),
        load_tokenizer(reward_model, add_markers=False),
        unread_id=fields.get("pad_token_id"),
        **self._shared,
      )
    elif score:
      self.score = Scorer(
        hf.load_ppm(context.finished(round_, score), dtype, mesh=mesh),
        context.tokenizer,
        context.config.engine,
        slots=self._slots,
        mesh=mesh,
        **self._shared,
      )

  def compile_ahead(self, calls: Calls, *candidates: int) -> None:
    """Compiles what calls will run, if the config says so.

    Args:
      calls: of `steps` or `blocks`.
      *candidates: numbers of candidates of a leaf.
    """
    if not self._context.config.engine.ahead:
      return
    jobs = [job for n in candidates for job in calls.expand.engine.ahead(n)]
    if isinstance(calls.score, Scorer):
      jobs += calls.score.ahead(max(candidates))
    with metrics.progress(len(jobs), "compiling", unit="program") as bar:
      for job in jobs:
        job()
        bar.update()

  def steps(self) -> Calls:
    """Returns callables whose `expand` writes one step."""
    return self._calls(self._context.config.engine, whole=False)

  def blocks(self, greedy: bool = False) -> Calls:
    """Returns callables whose `expand` writes a whole code block, or answer."""
    engine = self._context.config.engine
    if greedy:
      engine = dataclasses.replace(
        engine, temperature=0.0, top_k=0, top_p=1.0, min_p=0.0
      )
    return self._calls(engine, whole=True)

  def _calls(self, config: EngineConfig, whole: bool) -> Calls:
    tokenizer = self._tokenizer
    markers = [steps.END_OF_CODE, steps.END_OF_ANSWER]
    if not whole:
      markers.append(steps.END_OF_STEP)
    stop_ids, words = [], []
    if self._few_shot:
      words = stop_words(tokenizer, markers)
    else:
      stop_ids = [tokenizer.id_of(marker) for marker in markers]
    engine = Engine(
      self._model,
      config,
      stop_ids=(*stop_ids, tokenizer.eos_id),
      stop_words=words,
      max_new_tokens=(
        config.max_block_tokens if whole else config.max_step_tokens
      ),
      pad_id=tokenizer.pad_id,
      slots=self._slots,
      mesh=self._mesh,
      **self._shared,
    )
    self._engines.append(engine)
    expand: FewShot | Policy = (
      FewShot(engine, tokenizer, markers)
      if self._few_shot
      else Policy(engine, tokenizer)
    )
    calls = Calls(
      expand=expand,
      verify=self._context.sandbox.run,
      grade=self._context.grader.grade,
      score=self.score,
    )

    def begin(group: int) -> Calls:
      return dataclasses.replace(
        calls,
        expand=expand.begin(group),
        score=self.score and self.score.begin(group),
      )

    return dataclasses.replace(calls, begin=begin)

  def parameters(self) -> int:
    """Returns how many numbers the policy has."""
    return sum(each.size for each in arrays_of(self._model).values())

  def usage(self) -> dict[str, float]:
    """Returns the seconds so far, what was done, and the device's idle share.

    The prefixes of all leaves have `prefix_tokens`; of these `prefilled_tokens`
    had to be run, since the rest was there. `too_long` leaves got no
    candidates.
    """
    seconds = time.perf_counter() - self._began
    generated = sum(each.generated_tokens for each in self._engines)
    return {
      "seconds": seconds,
      "device_idle_share": 1 - self._shared["busy"].seconds / seconds,
      "generated_tokens_per_second": generated / seconds,
      "prefix_tokens": sum(each.prefix_tokens for each in self._engines),
      "prefilled_tokens": sum(
        each.path_tokens["prefilled"] for each in self._engines
      ),
      "too_long": sum(each.too_long for each in self._engines),
    }


class RemoteDevice:
  """The callables of a larger model behind a server; loads no model here."""

  def __init__(self, context: Context, folder: store.Path):
    """Opens the journal of this host; what others wrote is read too.

    Args:
      context: the run.
      folder: of the journals.
    """
    self._context = context
    answers = journal.of_host(folder, context.host.index)
    self._remote = Remote(context.config.remote, answers)
    self._began = time.perf_counter()

  def compile_ahead(self, calls: Calls, *candidates: int) -> None:
    """Does nothing: what is compiled is compiled elsewhere."""
    del calls, candidates

  def steps(self) -> Calls:
    """Returns callables whose `expand` writes one step."""
    return Calls(
      expand=self._remote,
      verify=self._context.sandbox.run,
      grade=self._context.grader.grade,
    )

  def usage(self) -> dict[str, float]:
    """Returns the seconds so far, and the server's speed in them."""
    seconds = time.perf_counter() - self._began
    generated = self._remote.generated_tokens
    return {
      "seconds": seconds,
      "generated_tokens_per_second": generated / seconds,
    }
