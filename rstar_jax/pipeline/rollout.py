"""The stage that searches: problems to trees.

Round k searches with the policy of round k - 1 (round 0 is the base model, or
the larger one at `remote.url`) and, where it is annotated by one, the PPM of
round k - 1 (paper section 3.4, A.1).
"""

import dataclasses
from collections.abc import Sequence

from rstar_jax.config import identity
from rstar_jax.config.schema import Config, SearchConfig
from rstar_jax.data import training
from rstar_jax.data import trajectories as trajectories_lib
from rstar_jax.data import unsolved as unsolved_lib
from rstar_jax.pipeline import backends
from rstar_jax.pipeline import units as units_lib
from rstar_jax.pipeline.context import Context
from rstar_jax.pipeline.shards import cut, finish, read_trees
from rstar_jax.search import mcts, named
from rstar_jax.search import tree as tree_lib
from rstar_jax.search.requests import Calls, Search
from rstar_jax.search.tree import ROOT_INDEX, Tree
from rstar_jax.storage import layout, records
from rstar_jax.types import Problem


def rollout(context: Context, round_: int) -> None:
  """Searches all training problems: round_k/trees.

  Problems of an evaluation set are left out and listed in decontamination.json.
  """
  config, spec = context.config, context.config.rounds[round_ - 1]
  folder = context.folder(round_, "trees")
  if records.read_manifest(folder) is not None:
    return
  backend: backends.ModelBackend | backends.RemoteBackend
  if round_ == 1 and config.remote.url:
    backend = backends.RemoteBackend(
      context, context.workdir / layout.round_name(round_)
    )
  else:
    guide = "ppm" if spec.annotation == "ppm" else ""
    backend = backends.ModelBackend(
      context, round_ - 1, score=guide, policy=spec.policy, ppm=spec.ppm
    )
  problems, report = training.load(config)
  if report and context.host.leads:
    records.write_json(context.workdir / layout.DECONTAMINATION, report)
  mastered = _mastered(context, round_)
  retired = [each for each in problems if each.id in mastered]
  problems = [each for each in problems if each.id not in mastered]
  if not problems:
    raise ValueError(
      f"round {round_} has no problem left: all were mastered before; in "
      "another --workdir give harder ones, or leave rounds.retire off"
    )
  search_config = dataclasses.replace(
    config.search,
    rollouts=spec.rollouts,
    candidates=spec.candidates,
    annotation=spec.annotation,
    terminal_reward="truth",
  )
  calls = backend.steps()
  backend.warm_up()
  shards = cut(problems, config.shard_size, folder)
  made_with = identity.identity(spec)
  with units_lib.of_stage(
    context, round_, "rollout", backend, shards, "rollout", made_with
  ) as units:
    if search_config.method == "mcts":
      mcts.check(problems, search_config, calls)
      units.search(
        lambda unit: (
          _trees(unit.problem, search_config, config, round_),
          calls,
        ),
        search_config.in_flight,
      )
    else:
      units.search_shards(
        lambda part: _own_trees(
          [unit.problem for unit in part], search_config, calls, config, round_
        )
      )

  def info() -> dict:
    trees = read_trees(folder)
    stats = trajectories_lib.sft_rows(trees, config.extract)[1]
    levels = stats["levels"]
    for problem in retired:
      level = levels.setdefault(
        str(problem.level), {"problems": 0, "solved": 0}
      )
      level["problems"] += 1
      level["solved"] += 1
    known = stats["problems"] + len(retired)
    solved = (stats["solved"] + len(retired)) / known
    context.writer.write(round_, {"solved": solved}, "rollout")
    return {
      "problems": stats["problems"],
      "retired": len(retired),
      "solved": solved,
      "levels": levels,
      # Paper section 3.4: how its rollouts ended sorts a problem.
      "easy": stats["easy"] + len(retired),
      "medium": stats["medium"],
      "hard": stats["hard"],
      "generated_tokens": sum(tree.tokens for tree in trees),
    }

  finish(context.host, folder, info, shards)


def _mastered(context: Context, round_: int) -> set[str]:
  """Returns the ids of the problems that a round leaves out.

  What a round left out is in none of its trees, and was mastered in an earlier
  one: each problem is judged by the last round that searched it.
  """
  found: set[str] = set()
  seen: set[str] = set()
  number = round_
  while number > 1 and context.config.rounds[number - 1].retire:
    number -= 1
    trees = [
      tree
      for tree in read_trees(context.finished(number, "trees"))
      if tree.problem.id not in seen
    ]
    found |= unsolved_lib.mastered(trees)
    seen.update(tree.problem.id for tree in trees)
  return found


def _trees(
  problem: Problem, search_config: SearchConfig, config: Config, round_: int
) -> Search[units_lib.Rows]:
  """Searches a problem, and goes on while it is unsolved.

  Extra rollouts continue the newest tree; where nothing is left in it to
  select, they go into a new one with seeds of its own.
  """
  spec = config.rounds[round_ - 1]
  trees: list[Tree] = []

  def search(rollouts: int) -> Search[Tree]:
    # Trees continue under the name that they began with.
    name = ("rollout", round_, len(trees) - 1)
    return mcts.search_tree(
      trees[-1], search_config, config.seed, name, rollouts
    )

  for _ in range(spec.trees):
    trees.append(Tree(problem))
    yield from search(spec.rollouts)
  for extra in spec.extra_rollouts:
    if any(map(tree_lib.solved, trees)):
      break
    if trees[-1].exhausted[ROOT_INDEX]:
      trees.append(Tree(problem))
    yield from search(extra)
  return {"": [tree.to_record() for tree in trees]}


def _own_trees(
  problems: Sequence[Problem],
  search_config: SearchConfig,
  calls: Calls,
  config: Config,
  round_: int,
) -> list[units_lib.Rows]:
  """Does the same with a search of the user's, which continues no tree."""
  spec = config.rounds[round_ - 1]
  forest: list[list[Tree]] = [[] for _ in problems]
  budgets = (*[spec.rollouts] * spec.trees, *spec.extra_rollouts)
  for number, rollouts in enumerate(budgets):
    going = [
      i
      for i, trees in enumerate(forest)
      if number < spec.trees or not any(map(tree_lib.solved, trees))
    ]
    found = named.search(
      [problems[i] for i in going],
      dataclasses.replace(search_config, rollouts=rollouts),
      calls,
      config.seed,
      name=("rollout", round_, number),
    )
    for i, tree in zip(going, found, strict=True):
      forest[i].append(tree)
  return [{"": [tree.to_record() for tree in trees]} for trees in forest]
