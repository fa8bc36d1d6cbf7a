"""Deploys the run's models: puts them on servers, and sees that they are there.

Which model a server has is not told by its name: what it computes is compared
with the model itself, which is loaded here once for a few prompts.
"""

import functools
import time
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from flax import nnx

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
from rstar_jax.models.transformer import Transformer
from rstar_jax.pipeline import models
from rstar_jax.pipeline.context import Context
from rstar_jax.steps import prompts
from rstar_jax.steps.tokenizer import encode_solution
from rstar_jax.storage import store

# Prompts of ids at random: a model is surest of itself where it was trained,
# and two rounds are most alike there.
_PROMPTS, _LONGEST = 12, 32
# Likeliest tokens of a prompt that a server may give.
_LIKELIEST = 16
# Prompts are padded to a multiple of so many tokens.
_MULTIPLE = 64


def policy(
  context: Context, start: int | str, few_shot: bool = False
) -> ServedEngine:
  """Returns the servers of a policy, once they have it.

  Args:
    context: the run.
    start: a round, 0 being the base model; or a Hugging Face folder or name.
    few_shot: whether the base model is asked by examples, without markers.

  Raises:
    ValueError: a server has another model, or is none for this; or the base
      model lacks what servers cannot add.
    ConnectionError: none answers.
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
    asked = _prompts(context)
    expected = Expected(folder, asked, tokens=_tokens(model, asked))
  found = ServedEngine(config.servers, config.engine, expected)
  _ready(context, "policy", folder, found.servers)
  return found


def ppm(context: Context, folder: store.Path | str) -> ServedScores:
  """Returns the servers of a PPM, once they have it; see `policy`."""
  config = context.config
  head = folders.merged_fields(folder).get(reward_heads.HEAD)
  if head is None:
    raise ValueError(f"{folder} lacks rstar_head: it is not a PPM of ours")
  expected = None
  if config.servers.compare:
    model = folders.load_ppm(folder, jnp.dtype(config.policy.dtype))
    asked = _prompts(context)
    values = [float(each) for each in _last(model, asked)]
    expected = Expected(str(folder), asked, values=values)
  found = ServedScores(config.servers, head, expected)
  _ready(context, "ppm", str(folder), found.servers)
  return found


def reward(config: Config, name: str) -> RewardModel:
  """Returns a published reward model behind `servers.reward`.

  Args:
    config: of the run.
    name: see `reward.load_reward`; its tokenizer and config.json are read here.

  Raises:
    ValueError: a server has another model, or is none for this.
    ConnectionError: none answers.
  """
  found = reward_lib.described(name)
  asked = [
    found.path(question, steps[:count])
    for question, steps in prompts.DEMONSTRATIONS
    for count in (1, 2)
  ]
  values: list[float] = []
  if config.servers.compare:
    model = found.model(jnp.dtype(config.policy.dtype))
    values = [float(each) for each in _last(model, asked)]
  scores = ServedScores(
    config.servers,
    found.head,
    Expected(found.folder, asked, values=values),
    role="reward",
    reading=found.reading,
  )
  scores.servers.check()
  return RewardModel(scores, found)


def _ready(context: Context, role: str, folder: str, servers: Servers) -> None:
  """Sees that all servers have a model; the first searcher puts it there."""
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
  # Searchers on Ray are counted from 1.
  if context.host.index <= bool(context.config.ray.address):
    load = loading.LOADS.get(config.load) or plugins.load(
      config.load, "config.servers.load"
    )
    load(context.config, role, folder, urls_of(getattr(config, role)))
    servers.check()
    return
  until = time.monotonic() + config.patience_seconds
  while True:
    try:
      servers.check()
      return
    except ValueError:
      if time.monotonic() >= until:
        raise
    time.sleep(FIRST_WAIT)


def _prompts(context: Context) -> list[list[int]]:
  """Returns prompts of ids: at random, and as the task has them."""
  tokenizer = context.tokenizer
  draw = np.random.default_rng(7)
  found = [
    draw.integers(tokenizer.known, size=size).tolist()
    for size in np.linspace(4, _LONGEST, _PROMPTS).astype(int)
  ]
  question, steps = prompts.DEMONSTRATIONS[0]
  solved = encode_solution(tokenizer, tokenizer.prompt(question), steps[:1])
  return [*found, *([solved] if max(solved) < tokenizer.known else [])]


@functools.partial(jax.jit, static_argnames="graphdef")
def _call(params, tokens, *, graphdef):
  return nnx.merge(graphdef, params)(tokens)


def _last(model: Transformer, asked: Sequence[Sequence[int]]) -> np.ndarray:
  """Returns what a model gives at the end of each prompt."""
  longest = -(-max(map(len, asked)) // _MULTIPLE) * _MULTIPLE
  # Padding comes last, where no token before it looks.
  tokens = np.zeros((len(asked), longest), np.int32)
  for row, ids in zip(tokens, asked, strict=True):
    row[: len(ids)] = ids
  graphdef, params = nnx.split(model)
  found = _call(params, tokens, graphdef=graphdef)
  ends = np.array([len(ids) - 1 for ids in asked])
  return np.asarray(found)[np.arange(len(asked)), ends]


def _tokens(
  model: Transformer, asked: Sequence[Sequence[int]]
) -> list[dict[int, float]]:
  """Returns the log-probabilities of the likeliest tokens after prompts."""
  logits = _last(model, asked).astype(np.float64)
  logits -= logits.max(-1, keepdims=True)
  logprobs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
  return [
    {int(token): float(row[token]) for token in np.argsort(row)[-_LIKELIEST:]}
    for row in logprobs
  ]
