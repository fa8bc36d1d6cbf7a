"""Evaluates a round on held-out problems."""

from rstar_jax.data import problems as problems_lib
from rstar_jax.evaluation import solutions
from rstar_jax.pipeline import backends
from rstar_jax.pipeline.context import Context
from rstar_jax.pipeline.shards import (
  Shard,
  cut,
  finish,
  missing_shards,
  write_usage,
)
from rstar_jax.search import named, sampling
from rstar_jax.storage import layout, records, stopping


def evaluate(context: Context, round_: int) -> None:
  """Solves the held-out problems by each method: eval.

  Round 0 has no PPM: without an `eval.reward_model` only the greedy policy and
  the majority vote are evaluated.
  """
  config = context.config
  folder = context.folder(round_, "eval")
  if records.read_manifest(folder) is not None:
    return
  backend = backends.trained(context, round_)
  searches = backend.score is not None
  greedy, sampled, search = (
    backend.blocks(greedy=True),
    backend.blocks(),
    backend.steps(),
  )
  backend.warm_up(greedy, 1)
  backend.warm_up(sampled, config.eval.samples, 1)
  if searches:
    backend.warm_up(search, config.eval.search.candidates)
  in_flight = sampling.in_flight_of(config.eval.search, config.eval.samples)
  early = config.eval.early_problems if round_ < len(config.rounds) else 0
  all_shards: list[Shard] = []
  for data in (config.eval.data, *config.eval.more):
    split = data.source
    name = ("eval", round_, split)
    problems = problems_lib.load_problems(
      data, needs_answer=not config.answer_reward
    )
    chosen_ids = {problem.id for problem in problems[: early or len(problems)]}
    shards = cut(
      problems,
      config.shard_size,
      folder / layout.split_name(split),
      ("", layout.TREES_OF) if searches else ("",),
    )
    for shard, progress in missing_shards(
      context.host,
      shards,
      f"round {round_} evaluation, {split}",
      first=len(all_shards),
    ):
      rows = [
        solutions.of_samples(problem, "greedy", split, found)
        for problem, found in zip(
          shard.problems,
          sampling.sample(
            shard.problems, 1, greedy, seed=config.seed, name=name
          ),
          strict=True,
        )
      ]
      chosen = [
        problem for problem in shard.problems if problem.id in chosen_ids
      ]
      rows += [
        solutions.of_samples(problem, "samples", split, found)
        for problem, found in zip(
          chosen,
          sampling.sample(
            chosen,
            config.eval.samples,
            sampled,
            seed=config.seed,
            name=name,
            in_flight=in_flight,
            trajectory_value=config.eval.search.trajectory_value,
          ),
          strict=True,
        )
      ]
      trees = []
      if searches:
        trees = named.search(
          chosen,
          config.eval.search,
          search,
          seed=config.seed,
          name=name,
          progress=progress.update,
        )
        how = config.eval.search.trajectory_value
        rows += [solutions.of_tree(tree, "mcts", split, how) for tree in trees]
      with stopping.deferred():
        if searches:
          records.write_shard(
            shard.path.with_name(layout.TREES_OF + shard.path.name),
            [tree.to_record() for tree in trees],
          )
        records.write_shard(shard.path, rows)
      progress.update(len(shard.problems) - len(trees))
      write_usage(context.writer, round_, backend.usage(), "eval", progress)
    all_shards += shards

  finish(context.host, folder, lambda: {"round": round_}, all_shards)
