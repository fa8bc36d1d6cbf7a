"""The reinforcement stage: from problems to trees and a policy, in turns.

In each turn the current policy rolls out some problems, and is then updated on
all that it wrote. A turn's trees are written before training on them starts. So
a killed run goes on from its last checkpoint with the trees on disk, and rolls
out nothing twice.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from absl import logging

from rstar_jax import rng
from rstar_jax.config import identity
from rstar_jax.data import batches, experience, outcomes
from rstar_jax.hf import saving
from rstar_jax.models import sharding
from rstar_jax.models.transformer import Transformer
from rstar_jax.pipeline import backends, models, rollout
from rstar_jax.pipeline import units as units_lib
from rstar_jax.pipeline.context import Context
from rstar_jax.pipeline.reading import read_trees
from rstar_jax.pipeline.shards import cut, finish, finish_model
from rstar_jax.search import tree as tree_lib
from rstar_jax.search.requests import Search
from rstar_jax.search.tree import Tree
from rstar_jax.storage import (
  checkpoints,
  layout,
  manifests,
  scalars,
  stopping,
  store,
)
from rstar_jax.training import loop
from rstar_jax.training import reinforce as reinforce_lib
from rstar_jax.types import Problem

# A turn's trees are in at least so many files, which hosts divide, of at most
# so many problems.
_FILES, _MOST = 8, 4


def reinforce(context: Context, round_: int) -> None:
  """Trains a round's policy from the last round's: round_k/trees, policy.

  Each turn's trees are in a folder of their own below `trees`. Preference pairs
  and the PPM are made from these trees as in other rounds.

  Raises:
    ValueError: trees are lost that cannot be made again; see `_check_turns`.
  """
  trees, policy = (context.folder(round_, each) for each in ("trees", "policy"))
  written = manifests.read(trees), manifests.read(policy)
  if context.host.agree(None not in written):
    return
  _check_turns(context, trees, policy)
  config, settings = context.config, context.config.reinforce
  problems, retired = rollout.problems_of(context, round_)
  mesh = models.train_mesh(config)
  turns = _Turns(context, round_, problems, mesh)
  model = loop.fit_model(
    models.load_policy(context, turns.start, train=settings.train, mesh=mesh),
    reinforce_lib.Loss(settings),
    turns.batch_at,
    settings.iterations * settings.updates,
    settings.train,
    loop.Session(
      scalars.training(round_, "reinforce"),
      rng.seed_for(config.seed, "reinforce", round_),
      mesh,
      policy / layout.CHECKPOINTS,
      context.writer,
      progress=False,
      adapter=models.adapter_saver(
        context, policy, turns.start, settings.train
      ),
    ),
    at_once=turns.at_once,
    before=turns.before,
  )
  with stopping.deferred():
    saving.save_policy(model, policy, tokenizer=context.tokenizer)
    finish_model(context.host, policy, {"turns": settings.iterations})
  finish(
    context.host, trees, lambda: rollout.info(context, round_, trees, retired)
  )


def _check_turns(
  context: Context, trees: store.Path, policy: store.Path
) -> None:
  """Checks that the newest checkpoint's turns are whole; loads no model.

  A later turn, or one that no update has learned from, is rolled out again.

  Raises:
    ValueError: trees of an earlier turn are lost or damaged, and so is the
      policy that wrote them.
  """
  with checkpoints.Checkpoints(policy / layout.CHECKPOINTS) as saver:
    done = max(saver.steps(), default=0)
  for turn in range(-(-done // context.config.reinforce.updates)):
    folder = trees / layout.turn_name(turn)
    if not context.host.agree(manifests.read(folder) is not None):
      raise ValueError(
        f"{folder} has lost trees that the policy has learned from: restore "
        f"them, or delete {trees} and {policy} to have the round made again"
      )


def shard_size(problems: int) -> int:
  """Returns how many of a turn's problems go into one file, 1 to 4.

  The number of hosts, which may change, has no influence.
  """
  return min(-(-problems // _FILES), _MOST)


class _Turns:
  """The batches of all updates; a turn's updates share its rollouts.

  Attributes:
    start: the policy that the round starts from; see `models.load_policy`.
    at_once: packed rows per micro-batch.
  """

  def __init__(
    self,
    context: Context,
    round_: int,
    problems: Sequence[Problem],
    mesh: jax.sharding.Mesh | None,
  ):
    self._context, self._round, self._mesh = context, round_, mesh
    self._problems = list(problems)
    self._spec = context.config.rounds[round_ - 1]
    self._settings = context.config.reinforce
    self.start = self._spec.policy or round_ - 1
    self.at_once = reinforce_lib.rows_of_update(
      0, self._settings.train.batch_size, sharding.row_shards(mesh)
    )
    self._turn, self._batches = -1, []
    # Samples come from the distribution that the loss trains: untruncated.
    engine = dataclasses.replace(
      context.config.engine,
      temperature=self._settings.temperature,
      top_k=0,
      top_p=1.0,
      min_p=0.0,
    )
    self._backend = backends.searching(context, round_, engine)
    self._backend.warm_up()
    samples = self._spec.rollout == "samples"
    self._calls = self._backend.blocks() if samples else self._backend.steps()
    self._first: Transformer | None = None
    if self._settings.kl:
      self._first = models.load_policy(context, self.start, mesh=mesh)

  def before(self, k: int, params: Any) -> None:
    """Rolls out the turn of update k, if its batches are not there yet.

    Args:
      k: number of the update, from 0.
      params: the policy's parameters before that update.
    """
    turn = k // self._settings.updates
    if turn == self._turn:
      return
    trees = self._rolled_out(turn, params)
    self._turn = turn
    # Each update gets its share of the problems.
    count = self._settings.updates
    parts = [self._batch(trees[n::count]) for n in range(count)]
    self._batches = [batch for batch, _ in parts]
    rewards = [
      float(tree.reward[node])
      for tree in trees
      for _, _, node in tree.growth
      if node != tree_lib.NO_END
    ]
    failed = sum(tree.failed_rollouts for tree in trees)
    metrics = {
      "reward": (sum(rewards) - failed) / max(len(rewards) + failed, 1),
      "solved": sum(map(tree_lib.solved, trees)) / len(trees),
      "generated_tokens": sum(tree.tokens for tree in trees),
    }
    for name in parts[0][1]:
      metrics[name] = sum(counts[name] for _, counts in parts)
    self._context.writer.write(
      turn + 1, metrics, scalars.training(self._round, "rollout")
    )
    if not metrics["rows"]:
      logging.warning(
        "round %d turn %d: nothing to learn: all rollouts of each problem were "
        "worth the same",
        self._round,
        turn + 1,
      )

  def batch_at(self, k: int) -> batches.Batch:
    """Returns the batch of update k; `before(k, ...)` has been called."""
    return self._batches[k % self._settings.updates]

  def _rolled_out(self, turn: int, params: Any) -> list[Tree]:
    """Returns the trees of a turn, on every process."""
    context, host = self._context, self._context.host
    folder = context.folder(self._round, "trees") / layout.turn_name(turn)
    if not host.agree(host.leads and manifests.reopen(folder) is not None):
      self._backend.load_policy(params)
      problems = self._problems_of(turn)
      shards = cut(
        problems,
        shard_size(len(problems)),
        folder,
        info=outcomes.header_of,
      )
      name = ("reinforce", self._round, turn)
      with units_lib.of_stage(
        context,
        self._round,
        "rollout",
        self._backend,
        host.share(shards),
        f"turn {turn + 1} of {self._settings.iterations}",
        identity.changes(self._spec),
        turn,
      ) as units:
        units.search(
          lambda unit: (self._search(unit.problem, name), self._calls),
          context.config.search.in_flight,
        )
      finish(host, folder, dict, shards)
    return read_trees(folder, draws=True)

  def _search(
    self, problem: Problem, name: Sequence[int | str]
  ) -> Search[units_lib.Rows]:
    """Rolls out a problem."""
    tree = Tree(problem, keeps_draws=True)
    yield from rollout.grow(tree, self._context.config, self._round, name)
    return {"": [tree.to_record()]}

  def _problems_of(self, turn: int) -> list[Problem]:
    """Returns the problems of a turn.

    The problems are shuffled, and turns take consecutive parts of them. When no
    whole part is left, the problems are shuffled anew.
    """
    size = min(self._settings.problems, len(self._problems))
    turns = len(self._problems) // size
    seed = rng.seed_for(
      self._context.config.seed, "reinforce", self._round, turn // turns
    )
    order = np.random.default_rng(seed).permutation(len(self._problems))
    at = turn % turns * size
    return [self._problems[n] for n in order[at : at + size]]

  def _batch(self, trees: Sequence[Tree]) -> tuple[batches.Batch, dict]:
    """Returns a batch made of trees, and `experience.batch`'s counts."""
    settings = self._settings
    kind = settings.advantage if self._spec.algorithm == "tree" else "grpo"
    arrays, counts = experience.batch(
      trees,
      self._context.tokenizer,
      kind,
      normalize=settings.normalize,
      length=settings.train.length,
    )
    parts = sharding.row_shards(self._mesh)
    rows = reinforce_lib.rows_of_update(
      len(arrays["tokens"]), settings.train.batch_size, parts
    )
    arrays = reinforce_lib.spread(arrays, rows, self.at_once)
    if self._first is not None:
      arrays["reference"] = reinforce_lib.reference(
        self._first, arrays, self.at_once, self._mesh, settings.temperature
      )
    return arrays, counts
