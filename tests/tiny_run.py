"""A run so small that tests can afford it: config, problems, a fake device."""

import contextlib
import json
import pathlib
from unittest import mock

import numpy as np
from flax import nnx

from rstar_jax import testing
from rstar_jax.config import schema as config_lib
from rstar_jax.hf import folders, saving
from rstar_jax.models.transformer import Transformer
from rstar_jax.pipeline import context as session
from rstar_jax.pipeline import models
from rstar_jax.search.mcts import Calls
from rstar_jax.steps.tokenizer import HfTokenizer
from rstar_jax.storage import metrics


def write_problems(path: pathlib.Path, answers: dict[str, str]) -> str:
  """Writes {question: answer} as JSONL; returns the path as a source."""
  lines = [
    json.dumps({"id": f"p{i}", "question": q, "answer": a, "level": 1 + i % 2})
    for i, (q, a) in enumerate(answers.items())
  ]
  path.write_text("\n".join(lines) + "\n")
  return str(path)


def make_base(folder: pathlib.Path) -> str:
  """Saves a tiny random policy with the shipped tokenizer; returns its path."""
  model = Transformer(
    testing.tiny_model(vocab_size=768, num_layers=1), rngs=nnx.Rngs(3)
  )
  saving.save_policy(model, folder)
  HfTokenizer(folders.BASE_MODEL).save(folder)
  return str(folder)


def make_config(train: str, test: str, **overrides) -> config_lib.Config:
  """Returns the config of two rounds of very little work."""
  training = {"batch_size": 2, "learning_rate": 1e-4, "checkpoint_every": 2}
  return config_lib.Config(
    **{
      "shard_size": 3,
      "train": config_lib.DataConfig(source=train),
      # Many a test takes the same few problems for training and for test.
      "decontaminate": config_lib.DecontaminateConfig(ngram=0),
      # Far past what a busy machine takes: no verdict may depend on time.
      "sandbox": config_lib.SandboxConfig(workers=1, wall_seconds=120.0),
      "grader": config_lib.GraderConfig(seconds=120.0),
      "search": config_lib.SearchConfig(in_flight=4),
      "engine": config_lib.EngineConfig(
        # Warm enough for the base model to be wrong now and then.
        temperature=1.4,
        max_step_tokens=40,
        max_block_tokens=64,
        max_prefix_tokens=160,
        rows=32,
        prefill_tokens=64,
      ),
      "sft": config_lib.TrainConfig(length=160, **training),
      "ppm": config_lib.TrainConfig(epochs=1, length=200, **training),
      "eval": config_lib.EvalConfig(
        data=config_lib.DataConfig(source=test),
        samples=4,
        search=config_lib.SearchConfig(
          rollouts=2,
          candidates=4,
          in_flight=4,
          annotation="ppm",
          terminal_reward="ppm",
        ),
      ),
      "rounds": (
        config_lib.RoundConfig(rollouts=3, candidates=4),
        config_lib.RoundConfig(rollouts=3, candidates=4, annotation="ppm"),
      ),
    }
    | overrides
  )


def in_a_loop() -> contextlib.AbstractContextManager:
  """Trains models in a loop over their layers, as on a TPU.

  The program of an update then has one layer instead of all.
  """
  of_model = config_lib.TrainConfig.of_model
  looped = property(lambda self: of_model.fget(self) | {"scan": True})
  return mock.patch.object(config_lib.TrainConfig, "of_model", looped)


def make_context(
  config: config_lib.Config, workdir: pathlib.Path
) -> session.Context:
  """Returns a context for a `ScriptedBackend`: no sandbox and no grader."""
  return session.Context(
    config,
    workdir,
    metrics.NullWriter(),
    sandbox=None,
    grader=None,
    tokenizer=HfTokenizer(folders.BASE_MODEL),
  )


class ScriptedBackend:
  """Stands in for `backends.ModelBackend`: scripted callables.

  Attributes:
    made: class attribute; (policy, ppm), the folders of all that were made.
    policy: class attribute; the scripted policy, a `testing.ToySum`.
    expanded: class attribute; the questions of each call of `expand`.
    temperatures: class attribute; those that callables were asked for.
  """

  made: list = []
  policy = testing.ToySum()
  expanded: list = []
  temperatures: list = []
  any_temperature = True

  @classmethod
  def scripted(cls, policy=None) -> type["ScriptedBackend"]:
    """Returns a class with attributes of its own."""
    members = {"made": [], "expanded": [], "temperatures": []}
    members["policy"] = policy or cls.policy
    return type("Scripted", (cls,), members)

  def __init__(self, context, round_, *, reward="", policy="", engine=None):
    searches = models.policy_of(context, policy or round_)
    guide = reward or None
    if reward in ("ppm", "orm", "pqm"):
      guide = context.finished(round_, reward)
    self.made.append((searches, guide))
    self.score = testing.score_by_hash if reward else None
    self.tokenizer = context.tokenizer
    self.reward = context.task.reward

  def warm_up(self) -> None:
    pass

  def steps(self, temperature: float | None = None) -> Calls:
    self.temperatures.append(temperature)
    return self._calls(self.policy)

  def blocks(self, temperature: float | None = None) -> Calls:
    self.temperatures.append(temperature)

    def expand(questions, prefixes, seeds):
      seeds = np.zeros_like(seeds) if temperature == 0 else seeds
      return self.policy.block(questions, prefixes, seeds)

    return self._calls(expand)

  def usage(self) -> dict[str, float]:
    return {"seconds": 1.0}

  def parameters(self) -> int:
    return 7

  def _calls(self, expand) -> Calls:
    def counted(questions, prefixes, seeds):
      self.expanded.append(list(questions))
      return expand(questions, prefixes, seeds)

    return Calls(
      expand=counted,
      verify=testing.run_trusted,
      grade=testing.grade_equal,
      score=self.score,
      reward=self.reward,
    )
