"""Trains a round's PPM, or an ORM or PQM in its place (paper Table 8).

All kinds start from the round's policy, with the same trees and trainer. Some
problems are held out of this training, and pairs of them measured. The policy
was trained on their right solutions all the same, unless `sft.held_out` is the
same number.
"""

import collections
import contextlib
import dataclasses
import typing
from collections.abc import Sequence
from typing import Any

from absl import logging
from flax import nnx

from rstar_jax import rng
from rstar_jax.config.schema import Config, TrainConfig
from rstar_jax.data import held_out, pools, sides, stored_sides
from rstar_jax.data import pairs as pairs_lib
from rstar_jax.data import trajectories as trajectories_lib
from rstar_jax.data.stored_sides import StoredSides
from rstar_jax.hf import saving
from rstar_jax.models.transformer import ppm_from_policy
from rstar_jax.pipeline import extract, models
from rstar_jax.pipeline.context import Context
from rstar_jax.pipeline.reading import rows_of
from rstar_jax.pipeline.shards import finish, finish_model
from rstar_jax.search.tree import Tree
from rstar_jax.storage import (
  json_io,
  layout,
  manifests,
  scalars,
  stopping,
  store,
)
from rstar_jax.training import loop
from rstar_jax.training import ppm as ppm_lib
from rstar_jax.types import PairKind

# One problem in this many is held out, unless the config sets it.
_ONE_IN = 10
# Folders of held-out pairs, by kind.
_KINDS: tuple[str, ...] = typing.get_args(PairKind)


def one_in(config: Config) -> int:
  """Returns N where one problem in N is held out; 0 holds out none."""
  count = config.ppm.held_out
  return _ONE_IN if count < 0 else count


def kept_out_of(context: Context, round_: int, name: str) -> int:
  """Returns N where one problem in N was held out of a training; 0 is none.

  A model of an earlier version does not say that it learnt from all problems.

  Args:
    context: the run.
    round_: from 1.
    name: the model's folder in the round.
  """
  manifest = json_io.read(context.folder(round_, name) / layout.MANIFEST) or {}
  return manifest.get("held_out", one_in(context.config))


class NothingToLearn(ValueError):
  """A round has no data to train a reward model on."""


def train_ppm(context: Context, round_: int) -> None:
  """Trains the round's reward model, of kind `config.reward`: round_k/ppm.

  A round without data for it has none; see `models.ppm_round`.
  """
  try:
    train(context, round_, "ppm", context.config.reward)
  except NothingToLearn as error:
    logging.warning("%s: that of the round before is used, if any", error)
    # The rows are removed once all hosts have read that they are none.
    context.host.agree(True)
    info = {"kind": context.config.reward, "pairs": 0}
    finish_model(context.host, context.folder(round_, "ppm"), info)


def train(
  context: Context,
  round_: int,
  name: str,
  kind: ppm_lib.Kind,
  *,
  updates: int = 0,
) -> None:
  """Trains a reward model from the round's policy, unless it is finished.

  Args:
    context: the run.
    round_: from 1.
    name: the model's folder in the round.
    kind: see `config.reward`.
    updates: number of updates, instead of what `config.ppm` says.

  Raises:
    NothingToLearn: there are no pairs, or no graded answers.
    ValueError: the run has this model already, with another `updates`.
  """
  folder = context.folder(round_, name)
  rows = folder / layout.ROWS
  finished = manifests.read(folder)
  made = finished or manifests.read(rows)
  if made is not None and made.get("updates", 0) != updates:
    raise ValueError(
      f"{folder} was made with study.updates={made.get('updates', 0)} and not "
      f"{updates}: give that, or delete the folder to have it trained again"
    )
  if context.host.agree(finished is not None):
    return
  config, seed = context.config, context.config.seed
  settings, given = config.ppm, {}
  if updates:
    settings = dataclasses.replace(settings, updates=updates)
    given = {"updates": updates}
  packed = _packed(context, round_, kind, rows, settings, given)
  mesh = models.train_mesh(config)
  model = ppm_from_policy(
    models.load_policy(context, round_, train=settings, mesh=mesh),
    config.ppm_head,
    rngs=nnx.Rngs(rng.seed_for(seed, "ppm head", round_)),
  )
  with contextlib.ExitStack() as stack:

    def opened(name: str) -> StoredSides:
      return StoredSides(stack.enter_context(store.local(rows / name)))

    training = opened(packed["training"])
    info: dict[str, Any] = {
      "kind": kind,
      # Without those that are too long.
      "pairs" if kind == "ppm" else "items": int(training.counts.sum()),
    } | given
    if packed["training"] == "held_out":
      info["held_out"] = 0
    model = ppm_lib.train_sides(
      model,
      training,
      settings,
      loop.Session(
        scalars.training(round_, name),
        _seed(context, round_),
        mesh,
        folder / layout.CHECKPOINTS,
        context.writer,
        adapter=models.adapter_saver(context, folder, round_, settings),
      ),
      kind=kind,
      balanced=config.reward_balanced,
      held_out=opened(packed["held_out"])
      if settings.eval_every
      else sides.Encoded([]),
      sizes=packed["sizes"],
    )
    for each in packed["measured"]:
      measured = ppm_lib.pair_accuracy(
        model, opened(each), length=settings.length, mesh=mesh
      )
      info[f"held_out_{each}"] = measured
      if context.host.leads:
        context.writer.write(round_, measured, f"{name}/held_out_{each}")
  with stopping.deferred():
    saving.save_ppm(model, folder, tokenizer=context.tokenizer)
    finish_model(context.host, folder, info)


def _nothing(round_: int, kind: str) -> NothingToLearn:
  """Returns the error of missing training data, with its remedy."""
  if kind == "ppm":
    return NothingToLearn(
      f"round {round_} made no preference pairs, so there is nothing to "
      "train the PPM on: no problem had both right and wrong answers"
    )
  return NothingToLearn(
    f"round {round_} has no graded answer, so there is nothing to train a "
    "reward model on: in another --workdir give easier problems, or more "
    "rollouts"
  )


def _seed(context: Context, round_: int) -> int:
  return rng.seed_for(context.config.seed, "ppm", round_)


def _packed(
  context: Context,
  round_: int,
  kind: str,
  folder: store.Path,
  settings: TrainConfig,
  given: dict[str, Any],
) -> dict[str, Any]:
  """Returns the manifest of a model's training data, made at its first call.

  Args:
    context: the run.
    round_: from 1.
    kind: see `config.reward`.
    folder: the folder of the data.
    settings: of the training.
    given: further fields of the manifest.

  Raises:
    NothingToLearn: see `train`.
  """
  if manifests.read(folder) is None:
    context.finished(round_, "pairs")  # Each host says so if it is not.
    finish(
      context.host,
      folder,
      lambda: pack(context, round_, kind, folder, settings) | given,
    )
  packed = manifests.read(folder)
  if not packed["items"]:
    raise _nothing(round_, kind)
  return packed


def pack(
  context: Context,
  round_: int,
  kind: str,
  folder: store.Path,
  settings: TrainConfig,
) -> dict[str, Any]:
  """Encodes a model's training data, and the held-out pairs by their kind.

  Args:
    context: the run.
    round_: from 1.
    kind: see `config.reward`.
    folder: the folder to write.
    settings: of the training.

  Returns:
    "training" and "held_out", the folders' names; "measured", the names of the
    folders of held-out pairs; "items", the number of training items, with
    those that are too long; and "sizes", see `training.ppm.largest`.
  """
  tokenizer, length = context.tokenizer, settings.length
  ranked = map(pairs_lib.from_dict, rows_of(context.finished(round_, "pairs")))
  # Numbers by part.
  items: collections.Counter[str] = collections.Counter()
  with store.staged(folder) as local:
    with contextlib.ExitStack() as stack:
      files = {
        name: stack.enter_context(stored_sides.Writer(local / name))
        for name in (*held_out.PARTS, *_KINDS)
      }

      def put(part: str, encoded: sides.Encoded, count: int) -> None:
        files[part].put(encoded)
        items[part] += count

      for name, group in held_out.by_problem(ranked):
        part = _part_of(context, name)
        if kind == "ppm":
          put(part, sides.encode_pairs(tokenizer, group, length), len(group))
        for each in _KINDS if part == "held_out" else ():
          chosen = [pair for pair in group if pair.kind == each]
          files[each].put(sides.encode_pairs(tokenizer, chosen, length))
      if kind != "ppm":
        # One problem's trees are in memory at a time.
        for pool in pools.parts(extract.tree_folders(context, round_)):
          for trees in pools.problems(pool):
            targets = scored(trees, kind)
            encoded = sides.encode_scored(tokenizer, targets, length)
            part = _part_of(context, trees[0].problem.id)
            put(part, encoded, len(targets))
    # Nothing is held out where nothing would be left to train on.
    training, kept = (
      held_out.PARTS if items["training"] else held_out.PARTS[::-1]
    )
    measured = [
      each
      for each in _KINDS
      if items["training"] and len(StoredSides(local / each).counts)
    ]
    sizes = ppm_lib.largest(
      StoredSides(local / training),
      StoredSides(local / kept) if settings.eval_every else sides.Encoded([]),
      settings,
      _seed(context, round_),
    )
  return {
    "training": training,
    "held_out": kept,
    "measured": measured,
    "items": items[training],
    "sizes": sizes,
  }


def _part_of(context: Context, problem_id: str) -> str:
  """Returns the part that has a problem's items."""
  config = context.config
  return held_out.part_of(config.seed, problem_id, one_in(config))


def scored(trees: Sequence[Tree], kind: str) -> list[ppm_lib.Scored]:
  """Returns the training data of an ORM or a PQM, from graded trees."""
  solutions = []
  for group in trajectories_lib.by_problem(trees):
    right, wrong, _ = trajectories_lib.graded(group)
    solutions += trajectories_lib.distinct([*right, *wrong])
  convert = ppm_lib.outcomes if kind == "orm" else ppm_lib.q_values
  return convert(solutions)
