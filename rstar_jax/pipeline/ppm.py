"""Trains a round's PPM, or an ORM or PQM in its place (paper Table 8).

All start from the round's policy and use the same trees and trainer.
"""

import typing
from collections.abc import Sequence
from typing import Any, Literal

from absl import logging
from flax import nnx

from rstar_jax import rng
from rstar_jax.config.schema import Config
from rstar_jax.data import held_out, pools
from rstar_jax.data import trajectories as trajectories_lib
from rstar_jax.hf import folders
from rstar_jax.models.transformer import ppm_from_policy
from rstar_jax.pipeline import extract, models
from rstar_jax.pipeline.context import Context
from rstar_jax.pipeline.shards import finish_model, read_pairs
from rstar_jax.search.tree import Tree
from rstar_jax.storage import layout, records, stopping
from rstar_jax.training import ppm as ppm_lib
from rstar_jax.types import PairKind, PreferencePair

# One problem in so many is held out, if the config says nothing.
_HELD_OUT = 10


def one_in(config: Config) -> int:
  """Says how many problems there are to one that is held out; 0 is none."""
  said = config.ppm.held_out
  return _HELD_OUT if said < 0 else said


class NothingToLearn(ValueError):
  """A round made nothing to train a reward model on."""


def train_ppm(context: Context, round_: int) -> None:
  """Trains the round's reward model, of kind `config.reward`: ppm.

  A round that made nothing to train it on has none; see `models.ppm_round`.
  """
  try:
    train(context, round_, "ppm", context.config.reward)
  except NothingToLearn as error:
    logging.warning("%s: that of the round before is used, if any", error)
    info = {"kind": context.config.reward, "pairs": 0}
    finish_model(context.host, context.folder(round_, "ppm"), info)


def train(
  context: Context,
  round_: int,
  name: str,
  kind: Literal["ppm", "orm", "pqm"],
) -> None:
  """Trains a reward model from the round's policy, unless it is finished.

  Args:
    context: the run.
    round_: from 1.
    name: name of the model's folder in the round.
    kind: the kind of model; see `config.reward`.

  Raises:
    NothingToLearn: there are no pairs, or no graded answers.
  """
  folder = context.folder(round_, name)
  if context.host.agree(records.read_manifest(folder) is not None):
    return
  config, seed = context.config, context.config.seed
  items, kept, pairs = _items(context, round_, kind)
  mesh = models.train_mesh(context.config)
  model = ppm_from_policy(
    models.load_policy(context, round_, train=config.ppm, mesh=mesh),
    config.ppm_head,
    rngs=nnx.Rngs(rng.seed_for(seed, "ppm head", round_)),
  )
  model = ppm_lib.train_ppm(
    model,
    items,
    config.ppm,
    mesh=mesh,
    seed=rng.seed_for(seed, "ppm", round_),
    tokenizer=context.tokenizer,
    kind=kind,
    balanced=config.reward_balanced,
    held_out=kept if config.ppm.eval_every else (),
    name=layout.training_name(round_, name),
    folder=folder / layout.CHECKPOINTS,
    writer=context.writer,
    adapter=models.adapter_saver(context, folder, round_, config.ppm),
  )
  info: dict[str, Any] = {
    "kind": kind,
    "pairs" if kind == "ppm" else "items": len(items),
  }
  for each in typing.get_args(PairKind):
    chosen = [pair for pair in pairs if pair.kind == each]
    if chosen:
      measured = ppm_lib.pair_accuracy(
        model,
        chosen,
        tokenizer=context.tokenizer,
        length=config.ppm.length,
        mesh=mesh,
      )
      info[f"held_out_{each}"] = measured
      if context.host.leads:
        context.writer.write(round_, measured, f"{name}/held_out_{each}")
  with stopping.deferred():
    folders.save_ppm(model, folder, tokenizer=context.tokenizer)
    finish_model(context.host, folder, info)


def _items(
  context: Context, round_: int, kind: str
) -> tuple[list, list, list[PreferencePair]]:
  """Returns a kind's items to train on and held out, and the held-out pairs."""
  seed, one = context.config.seed, one_in(context.config)
  pairs, kept = held_out.divide(
    read_pairs(context.finished(round_, "pairs")),
    lambda pair: pair.problem_id,
    *(seed, one),
  )
  if kind == "ppm":
    if not pairs:
      raise NothingToLearn(
        f"round {round_} made no preference pairs, so there is nothing to "
        "train the PPM on: no problem had both right and wrong answers"
      )
    return pairs, kept, kept
  if not context.config.extract.needs_trees:
    raise ValueError(
      f"a reward model of kind {kind!r} learns from trees, and this run has "
      "none: leave extract.sft_source or extract.pairs_source empty in another "
      "--workdir"
    )
  # Of trees what is learnt from is held, and they are read a problem at a time.
  found = [
    (trees[0].problem.id, scored(trees, kind))
    for part in pools.parts(extract.tree_folders(context, round_))
    for trees in pools.problems(part)
  ]
  items, others = (
    [item for _, group in part for item in group]
    for part in held_out.divide(found, lambda each: each[0], seed, one)
  )
  if not items:
    raise NothingToLearn(
      f"round {round_} has no graded answer, so there is nothing to train a "
      "reward model on: in another --workdir give easier problems, or more "
      "rollouts"
    )
  return items, others, kept


def scored(trees: Sequence[Tree], kind: str) -> list[ppm_lib.Scored]:
  """Returns what an ORM or a PQM learns from trees with graded answers."""
  solutions = []
  for group in trajectories_lib.by_problem(trees):
    right, wrong, _ = trajectories_lib.graded(group)
    solutions += trajectories_lib.distinct([*right, *wrong])
  made = ppm_lib.outcomes if kind == "orm" else ppm_lib.q_values
  return made(solutions)
