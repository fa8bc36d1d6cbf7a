"""Deploys the run's models: loads them into servers, and checks that they are.

A server's name for its model does not prove which weights it has. So the model
is loaded here once, and its outputs for a few prompts are compared with the
server's.
"""

import time
from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from absl import logging

from rstar_jax.config import plugins
from rstar_jax.config.schema import Config, urls_of
from rstar_jax.hf import folders, reward_heads
from rstar_jax.inference import loading
from rstar_jax.inference import reward as reward_lib
from rstar_jax.inference.engine_client import (
  Expected,
  ServedEngine,
  ServedScores,
)
from rstar_jax.inference.reward import RewardModel
from rstar_jax.inference.server_pool import FIRST_WAIT, Servers
from rstar_jax.models.transformer import Transformer, outputs
from rstar_jax.pipeline import models
from rstar_jax.pipeline.context import Context
from rstar_jax.steps import prompts
from rstar_jax.steps.tokenizer import encode_solution
from rstar_jax.storage import store

# Prompts of random ids: on text like the training data all rounds' models are
# confident and alike, so random ids tell them apart better.
_PROMPTS, _LONGEST = 12, 32
# The likeliest tokens of each prompt, among which a server's has to be.
_LIKELIEST = 16
# Prompts are padded to a multiple of this many tokens.
_MULTIPLE = 64


def policy(
  context: Context, start: int | str, few_shot: bool = False
) -> ServedEngine:
  """Returns an engine on the servers of a policy, once they have loaded it.

  Args:
    context: the run.
    start: a round, 0 being the base model; or a Hugging Face folder or name.
    few_shot: whether the base model is prompted with examples, without markers.

  Raises:
    ValueError: a server has another model or speaks another protocol; or the
      base model lacks the step markers, which servers cannot add.
    ConnectionError: no server answers.
  """
  config = context.config
  folder = str(models.policy_of(context, start))
  tokenizer = context.tokenizer
  if start == 0 and not few_shot and tokenizer.known < tokenizer.vocab_size:
    raise ValueError(
      f"{folder} has no tokens for the step markers before it is trained, and "
      "a server cannot add them: leave out config.servers.policy here, or in "
      "another --workdir set config.policy.prompt='few_shot'"
    )
  expected = None
  if config.servers.compare:
    if few_shot:
      dtype = jnp.dtype(config.policy.dtype)
      model = folders.load_policy(folder, dtype)
    else:
      model = models.load_policy(context, start)
    probes = _prompts(context)
    expected = Expected(folder, probes, tokens=_tokens(model, probes))
  engine = ServedEngine(config.servers, config.engine, expected)
  _ready(context, "policy", folder, engine.servers)
  return engine


def ppm(context: Context, folder: store.Path | str) -> ServedScores:
  """Returns a scorer on the servers of a PPM; see `policy`."""
  config = context.config
  head = folders.merged_fields(folder).get(reward_heads.HEAD)
  if head is None:
    raise ValueError(f"{folder} lacks rstar_head: it is not a PPM of ours")
  expected = None
  if config.servers.compare:
    model = folders.load_ppm(folder, jnp.dtype(config.policy.dtype))
    probes = _prompts(context)
    values = [float(each) for each in _last_outputs(model, probes)]
    expected = Expected(str(folder), probes, values=values)
  scores = ServedScores(config.servers, head, expected)
  _ready(context, "ppm", str(folder), scores.servers)
  return scores


def reward(config: Config, name: str) -> RewardModel:
  """Returns a published reward model on the servers of `servers.reward`.

  Args:
    config: of the run.
    name: see `reward.load_reward`; its tokenizer and config.json are read here.

  Raises:
    ValueError: a server has another model or speaks another protocol.
    ConnectionError: no server answers.
  """
  described = reward_lib.described(name)
  probes = [
    described.path(question, steps[:count])
    for question, steps in prompts.DEMONSTRATIONS
    for count in (1, 2)
  ]
  values: list[float] = []
  if config.servers.compare:
    model = described.model(jnp.dtype(config.policy.dtype))
    values = [float(each) for each in _last_outputs(model, probes)]
  scores = ServedScores(
    config.servers,
    described.head,
    Expected(described.folder, probes, values=values),
    role="reward",
    reading=described.reading,
  )
  scores.servers.check()
  return RewardModel(scores, described)


def _ready(context: Context, role: str, folder: str, servers: Servers) -> None:
  """Waits until all servers have a model.

  The first searcher loads it, or the first host that has shards left.
  """
  config = context.config.servers
  if not config.load:
    servers.check()
    return
  if config.compare:
    try:
      servers.check(patience=0.0)
      return
    except (ValueError, ConnectionError) as error:
      logging.info("%s; %s has the %s put there", error, config.load, role)
  # On Ray the first searcher is host 1.
  first = 1 if context.config.ray.address else 0
  if context.loads or context.host.index <= first:
    load = loading.LOADS.get(config.load) or plugins.load(
      config.load, "config.servers.load"
    )
    urls = urls_of(getattr(config, role))
    without = load(context.config, role, folder, urls)
    servers.check(without=without or ())
    return
  until = time.monotonic() + config.patience_seconds
  while True:
    try:
      servers.check()
      return
    except ValueError:
      if time.monotonic() >= until:
        # Perhaps one that could not load the model, which others have.
        servers.check(all_right=False)
        return
    time.sleep(FIRST_WAIT)


def _prompts(context: Context) -> list[list[int]]:
  """Returns prompts as token ids: random ones, and one of the task."""
  tokenizer = context.tokenizer
  draw = np.random.default_rng(7)
  random_ids = [
    draw.integers(tokenizer.known, size=size).tolist()
    for size in np.linspace(4, _LONGEST, _PROMPTS).astype(int)
  ]
  question, steps = prompts.DEMONSTRATIONS[0]
  solved = encode_solution(tokenizer, tokenizer.prompt(question), steps[:1])
  return [*random_ids, *([solved] if max(solved) < tokenizer.known else [])]


def _last_outputs(
  model: Transformer, rows: Sequence[Sequence[int]]
) -> np.ndarray:
  """Returns a model's output at the last token of each prompt."""
  last = [len(ids) - 1 for ids in rows]
  return np.asarray(outputs(model, rows, _MULTIPLE))[np.arange(len(rows)), last]


def _tokens(
  model: Transformer, rows: Sequence[Sequence[int]]
) -> list[dict[int, float]]:
  """Returns log-probabilities of the likeliest next tokens of each prompt."""
  logits = _last_outputs(model, rows).astype(np.float64)
  logits -= logits.max(-1, keepdims=True)
  logprobs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
  return [
    {int(token): float(row[token]) for token in np.argsort(row)[-_LIKELIEST:]}
    for row in logprobs
  ]
