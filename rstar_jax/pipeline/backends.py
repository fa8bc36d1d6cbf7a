"""Model backends: the callables of a search, on local devices or servers.

Host rooms (search, sandbox, grading) meet device rooms (models, inference)
here, as plain callables.
"""

import dataclasses
import threading
import time
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp

from rstar_jax.config import plugins
from rstar_jax.config.schema import Config, EngineConfig
from rstar_jax.evaluation import sources
from rstar_jax.hf import folders
from rstar_jax.hf.tokenizers import load_tokenizer
from rstar_jax.inference import completions_client, reward
from rstar_jax.inference.busy import Busy
from rstar_jax.inference.engine import Engine
from rstar_jax.inference.engine_client import ServedEngine
from rstar_jax.inference.few_shot import FewShot
from rstar_jax.inference.paged_model import PagedModel
from rstar_jax.inference.plugin_backends import (
  Blocks,
  PluginPolicy,
  PluginScore,
)
from rstar_jax.inference.policy import Policy
from rstar_jax.inference.ppm import Scorer
from rstar_jax.inference.reward import RewardModel
from rstar_jax.inference.scoring import ScoringEngine
from rstar_jax.models import sharding
from rstar_jax.models.config import ModelConfig
from rstar_jax.models.transformer import (
  arrays_in,
  arrays_of,
  from_arrays,
)
from rstar_jax.pipeline import deploy, models
from rstar_jax.pipeline.context import Context
from rstar_jax.search.mcts import Calls
from rstar_jax.steps import grammar
from rstar_jax.storage import compiled, journal, metrics, store
from rstar_jax.training import ppm as ppm_lib
from rstar_jax.types import Expand, Score

# Marks the folder of a PPM that this package trained: "ppm:FOLDER".
PPM = "ppm:"
# A reward model of any kind, as a search calls it.
Scores = Scorer | RewardModel | PluginScore


def score_of(
  name: str,
  config: Config,
  field: str,
  ppm: Callable[[str], Scorer],
  **shared: Any,
) -> Scores:
  """Loads a reward model of any kind by its name.

  Args:
    name: "module:function", a plugin; the folder or name of a published reward
      model, see `reward.load_reward`; or the folder of a PPM that this package
      trained, with or without "ppm:" before it.
    config: of the run. Where `servers.reward` is set, a published model is
      there.
    field: what the name stands for, or its flag, for error messages.
    ppm: loads a PPM that this package trained from its folder.
    **shared: the engine's `mesh`, `busy` and `lock`; see `PagedModel`.
  """
  if plugins.names_one(name):
    return PluginScore(config, name, field)
  if folder := own_ppm(name):
    return ppm(folder)
  if config.servers.reward:
    return deploy.reward(config, name)
  dtype = jnp.dtype(config.policy.dtype)
  return reward.load_reward(name, config.engine, dtype, **shared)


def check_score(name: str, config: Config) -> None:
  """Checks what `score_of` loads, without reading the values of its tensors.

  Raises:
    ValueError: it is no reward model, its form is not known, or the config's
      engine cannot hold it; one line.
  """
  if plugins.names_one(name):
    return  # Validation has loaded the function.
  if folder := own_ppm(name):
    folders.check_ppm(folder)
    served = config.servers.ppm
  else:
    folder, served = reward.described(name).folder, config.servers.reward
  if not served:
    models.check_engine(config, folder)


def own_ppm(name: str) -> str:
  """Returns the folder of a PPM of this package, "" for another's model."""
  folder = name.removeprefix(PPM)
  ours = folder != name or not reward.is_of_others(name)
  return folder if ours else ""


class ModelBackend:
  """A policy and a reward model as callables, with counts of their work.

  Attributes:
    tokenizer: the policy's; without markers where it is shown examples.
  """

  def __init__(
    self,
    context: Context,
    round_: int,
    *,
    reward: str = "",
    policy: str = "",
    engine: EngineConfig | None = None,
  ):
    """Loads the models.

    Args:
      context: the run.
      round_: the round that trained the policy; 0 is the base model.
      reward: the reward model: "ppm", "orm" or "pqm" is the round's own, any
        other a name, see `score_of`; "" for none.
      policy: folder or name of a policy that replaces the round's.
      engine: config of the policy's engine; None is the run's.
    """
    self._context = context
    self._folder = str(models.policy_of(context, policy or round_))
    self._mesh = mesh = models.search_mesh(context.config)
    config = context.config
    dtype = jnp.dtype(config.policy.dtype)
    # Few-shot prompting of the base model adds no tokens to its vocabulary.
    self._few_shot = (
      round_ == 0 and not policy and config.policy.prompt == "few_shot"
    )
    model = None
    self.tokenizer = context.tokenizer
    if self._few_shot:
      self.tokenizer = load_tokenizer(self._folder, add_markers=False)
    if config.policy.backend or config.servers.policy:
      pass  # A plugin or a server loads its own model.
    elif self._few_shot:
      model = folders.load_policy(self._folder, dtype, mesh=mesh)
    else:
      model = models.load_policy(context, policy or round_, mesh=mesh)
    # Shared by all models on the devices.
    self._shared = {"mesh": mesh, "lock": threading.Lock(), "busy": Busy()}
    self._engine: Engine | ServedEngine | None = None
    # The engine may copy the parameters, so this object keeps no reference.
    self._parameters: int | None = None
    self._model_config: ModelConfig | None = None
    if model is not None:
      self._model_config = model.config
      self._parameters = sum(each.size for each in arrays_of(model).values())
      self._engine = Engine(model, engine or config.engine, **self._shared)
    elif config.servers.policy:
      self._engine = deploy.policy(context, policy or round_, self._few_shot)
    self._plugins: list[PluginPolicy] = []
    self._began = time.perf_counter()
    self._compiled = compiled.counter()
    self._before = self._compiled.programs, self._compiled.seconds
    self.score: Scores | None = None
    if reward in ppm_lib.KINDS:
      trained_in = models.trained_in(context, round_, reward)
      if not trained_in:
        raise ValueError(
          f"no round up to {round_} made preference pairs, so there is no "
          "PPM yet: in another --workdir set rounds.annotation='terminal'"
        )
      self.score = self._ppm(context.finished(trained_in, reward))
    elif reward:
      self.score = score_of(
        reward, config, "reward model", self._ppm, **self._shared
      )

  def load_policy(self, params: Any) -> None:
    """Copies the parameters of a policy in training into the engine.

    Nothing is compiled. Every process of the training's mesh calls this.

    Args:
      params: float32 parameters of a model of the same config, on any mesh.
    """
    config = self._context.config.policy
    assert isinstance(self._engine, Engine) and self._model_config is not None
    copies = sharding.copied(params, self._mesh, jnp.dtype(config.dtype))
    self._engine.load(from_arrays(self._model_config, "lm", arrays_in(copies)))

  def _ppm(self, folder: store.Path | str) -> Scorer:
    """Loads a PPM that this package trained, or connects to its servers."""
    config = self._context.config
    if config.servers.ppm:
      scores = deploy.ppm(self._context, folder)
    else:
      dtype = jnp.dtype(config.policy.dtype)
      model = folders.load_ppm(folder, dtype, mesh=self._mesh)
      scores = ScoringEngine(model, config.engine, **self._shared)
    return Scorer(scores, self._context.tokenizer)

  def _models(self) -> list[PagedModel]:
    """Returns the models on the devices."""
    scores = isinstance(self.score, Scorer | RewardModel)
    both = self._engine, self.score.engine if scores else None
    return [each for each in both if isinstance(each, PagedModel)]

  def warm_up(self) -> None:
    """Compiles the models' programs, if `engine.warm_up` is set."""
    if not self._context.config.engine.warm_up:
      return
    jobs = [job for each in self._models() for job in each.warm_up_calls()]
    with metrics.Progress(len(jobs), "compiling", unit="program") as bar:
      for job in jobs:
        job()
        bar.update()

  @property
  def any_temperature(self) -> bool:
    """Whether `steps` and `blocks` accept a temperature of their own."""
    return not self._context.config.policy.backend

  def steps(self, temperature: float | None = None) -> Calls:
    """Returns callables whose `expand` writes one step.

    Args:
      temperature: sampling temperature, at least 0; 0 takes the likeliest
        token, None is the config's.

    Raises:
      ValueError: `policy.backend` is set, and the temperature is neither 0 nor
        None.
    """
    return self._calls(False, temperature)

  def blocks(self, temperature: float | None = None) -> Calls:
    """Returns callables whose `expand` writes a whole code block or an answer.

    Args:
      temperature: see `steps`.
    """
    return self._calls(True, temperature)

  def _calls(self, whole: bool, temperature: float | None) -> Calls:
    make = self._policy if self.any_temperature else self._plugin_policy
    return _with_host(self._context, make(whole, temperature), self.score)

  def _plugin_policy(
    self, whole: bool, temperature: float | None
  ) -> PluginPolicy | Blocks:
    """Returns the user's policy backend, opened on the policy's folder."""
    config = self._context.config
    engine = config.engine
    if temperature == 0:
      engine = dataclasses.replace(
        engine, temperature=0.0, top_k=0, top_p=1.0, min_p=0.0
      )
    elif temperature is not None:
      raise ValueError(
        f"temperature={temperature}: config.policy.backend has the config's "
        "alone, or 0"
      )
    config = dataclasses.replace(config, engine=engine)
    expand = PluginPolicy(config, self._folder)
    self._plugins.append(expand)
    return Blocks(expand, engine.max_block_tokens) if whole else expand

  def _policy(self, whole: bool, temperature: float | None) -> Policy | FewShot:
    config = self._context.config.engine
    options = {
      "limit": config.max_block_tokens if whole else config.max_step_tokens,
      "temperature": temperature,
    }
    finishes = ["code", "answer"] if whole else ["step", "code", "answer"]
    if not self._few_shot:
      return Policy(self._engine, self.tokenizer, finishes=finishes, **options)
    markers = [
      marker
      for marker, finish in grammar.FINISHES.items()
      if finish in finishes
    ]
    options["prompt"] = self._context.task.few_shot
    return FewShot(self._engine, self.tokenizer, markers, **options)

  def parameters(self) -> int | None:
    """Returns the policy's number of parameters, None if it is not loaded."""
    return self._parameters

  def usage(self) -> dict[str, float]:
    """Returns the elapsed seconds, token counts and the device's idle share.

    Counts are since this object was made, but for `rows_used` and `pages_used`.
    Of what servers compute only `generated_tokens` is counted.

      seconds: wall time
      device_seconds: during which any model computed or compiled
      device_idle_share: the rest of `seconds`, from 0 to 1
      generated_tokens: written by the policy; also per second
      scored_tokens: computed by the reward model
      prefix_tokens: of all prefixes
      prefilled_tokens: of prefixes, those that the prefix cache lacked
      useful_slots: share of token slots whose result was needed, 0 to 1
      host_seconds: CPU time of the threads that plan batches
      rows_used: candidates that are being sampled now
      pages_used: pages that hold tokens now
      pages_dropped: pages evicted because none was free
      too_long: prefixes that got no candidates because of their length
      set_aside: requests to servers that got no candidates
      programs: compiled, or loaded from the compilation cache
      compile_seconds: that these programs took
    """
    seconds = time.perf_counter() - self._began
    models = self._models()
    engines = [self._engine] if self._engine else []
    generated = sum(
      each.generated_tokens for each in (*engines, *self._plugins)
    )
    scored = sum(e.prefilled_tokens for e in models if e is not self._engine)
    slots = sum(each.slots for each in models)
    busy = self._shared["busy"].seconds
    return {
      "seconds": seconds,
      "device_seconds": busy,
      "device_idle_share": 1 - busy / seconds,
      "generated_tokens": generated,
      "scored_tokens": scored,
      "generated_tokens_per_second": generated / seconds,
      "prefix_tokens": sum(each.prefix_tokens for each in models),
      "prefilled_tokens": sum(each.prefilled_tokens for each in models),
      "useful_slots": sum(each.useful for each in models) / max(slots, 1),
      "host_seconds": sum(each.host_seconds for each in models),
      "rows_used": sum(getattr(each, "rows_used", 0) for each in models),
      "pages_used": sum(each.memory.used for each in models),
      "pages_dropped": sum(each.memory.dropped for each in models),
      "too_long": sum(each.too_long for each in engines),
      "set_aside": sum(getattr(each, "set_aside", 0) for each in engines),
      "programs": self._compiled.programs - self._before[0],
      "compile_seconds": self._compiled.seconds - self._before[1],
    }


class RemoteBackend:
  """A larger policy behind a server, as callables; loads no model."""

  def __init__(self, context: Context, folder: store.Path):
    """Opens this host's journal, and reads the journals of all hosts.

    Args:
      context: the run.
      folder: the folder of the journals.
    """
    self._context = context
    config = context.config.remote
    answers = journal.of_host(
      folder, context.host.index, completions_client.readable(config)
    )
    self._remote = completions_client.Remote(
      config, answers, context.task.few_shot
    )
    self._passed_over = answers.passed_over
    self._began = time.perf_counter()

  def warm_up(self) -> None:
    """Does nothing: the server compiles its own programs."""

  def steps(self) -> Calls:
    """Returns callables whose `expand` writes one step."""
    return _with_host(self._context, self._remote)

  def usage(self) -> dict[str, float]:
    """Returns the elapsed seconds and the server's tokens per second.

    `set_aside` counts requests that got no candidates, and `passed_over` lines
    of the journals that could not be read.
    """
    seconds = time.perf_counter() - self._began
    generated = self._remote.generated_tokens
    return {
      "seconds": seconds,
      "generated_tokens_per_second": generated / seconds,
      "set_aside": self._remote.set_aside,
      "passed_over": self._passed_over,
    }


def _with_host(
  context: Context, expand: Expand, score: Score | None = None
) -> Calls:
  """Adds sandbox, grader and the task's reward to a model's callables."""
  return Calls(
    expand=expand,
    score=score,
    verify=context.sandbox.run,
    grade=context.grader.grade,
    reward=context.task.reward,
  )


def trained(context: Context, round_: int) -> ModelBackend:
  """Loads a round's policy and reward model.

  The reward model is `eval.reward_model`, or else the round's PPM, if any; see
  `models.ppm_round`.
  """
  reward = context.config.eval.reward_model
  if not reward and scores(context, round_):
    reward = "ppm"
  return ModelBackend(context, round_, reward=reward)


def searching(
  context: Context, round_: int, engine: EngineConfig | None = None
) -> ModelBackend:
  """Loads the policy and the reward model that search a round's problems.

  They are those of the last round, unless the config names others; a round
  whose trees no PPM annotates has no reward model.

  Args:
    context: the run.
    round_: from 1.
    engine: see `ModelBackend`.
  """
  spec = context.config.rounds[round_ - 1]
  guide = (spec.ppm or "ppm") if spec.annotation == "ppm" else ""
  return ModelBackend(
    context, round_ - 1, reward=guide, policy=spec.policy, engine=engine
  )


def scores(context: Context, round_: int) -> bool:
  """Returns whether `trained` has a reward model; loads none."""
  named = context.config.eval.reward_model
  return bool(named or models.ppm_round(context, round_))


def calls_of(
  backend: ModelBackend, source: str, temperature: float | None = None
) -> Calls:
  """Returns the callables that a source of solutions needs.

  Args:
    backend: the models.
    source: one of `sources.SOURCES`, or the name of a search plugin.
    temperature: see `ModelBackend.steps`; a greedy source always has 0.
  """
  kind = sources.of(source)
  if kind.guided:
    return backend.steps(temperature)
  return backend.blocks(0.0 if kind.greedy else temperature)


def load_calls(context: Context, round_: int) -> Calls:
  """Loads the models of a round as the callables of a search.

  Args:
    context: the run, as `open_run` yields it.
    round_: the round that trained the models; 0 is the base model, without PPM.
  """
  return trained(context, round_).steps()
