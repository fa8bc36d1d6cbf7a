"""Solving problems with a trained round: the evaluation, and questions."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from rstar_jax.config.schema import EvalConfig
from rstar_jax.data import problems as problems_lib
from rstar_jax.evaluation import methods, solutions
from rstar_jax.grading import choose
from rstar_jax.pipeline.backends import Device
from rstar_jax.pipeline.context import Context
from rstar_jax.pipeline.shards import (
  Shard,
  account,
  cut,
  finish,
  unwritten,
)
from rstar_jax.search import mcts, sampling
from rstar_jax.search import tree as tree_lib
from rstar_jax.storage import records, stopping
from rstar_jax.types import Prefix, Problem

# What the name of a shard of the evaluation's search trees begins with.
_TREES = "trees-"


@dataclasses.dataclass(frozen=True)
class Solution:
  """The chosen trajectory of one question.

  Attributes:
    steps: its node texts.
    answer: its boxed answer.
    values: the PPM's value after each step, None without a PPM.
  """

  steps: Prefix
  answer: str
  values: list[float] | None

  def render(self) -> str:
    """Returns the steps as text, each with its value."""
    lines = []
    for number, text in enumerate(self.steps, 1):
      value = f", PPM {self.values[number - 1]:+.2f}" if self.values else ""
      lines += [f"--- step {number}{value}", text.strip("\n")]
    return "\n".join([*lines, "", f"Answer: {self.answer}"])


def evaluate(context: Context, round_: int) -> None:
  """Solves the held-out problems in every way: eval.

  Round 0 has no PPM: without an `eval.reward_model` it is measured by its
  policy and by majority vote alone.
  """
  config = context.config
  folder = context.folder(round_, "eval")
  if records.read_manifest(folder) is not None:
    return
  device = _device(context, round_)
  searches = device.score is not None
  greedy, sampled, search = (
    device.blocks(greedy=True),
    device.blocks(),
    device.steps(),
  )
  device.warm_up(greedy, 1)
  device.warm_up(sampled, config.eval.samples, 1)
  if searches:
    device.warm_up(search, config.eval.search.candidates)
  slots = sampling.slots_of(config.eval.search, config.eval.samples)
  early = config.eval.early_problems if round_ < len(config.rounds) else 0
  every: list[Shard] = []
  for data in (config.eval.data, *config.eval.more):
    split = data.source
    name = ("eval", round_, split)
    problems = problems_lib.load(data)
    costly = {problem.id for problem in problems[: early or len(problems)]}
    shards = cut(
      problems,
      config.shard_size,
      folder / split.replace("/", "_").replace(":", "_"),
      ("", _TREES) if searches else ("",),
    )
    for shard, progress in unwritten(
      context.host,
      shards,
      f"round {round_} evaluation, {split}",
      first=len(every),
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
      chosen = [problem for problem in shard.problems if problem.id in costly]
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
            slots=slots,
            trajectory_value=config.eval.search.trajectory_value,
          ),
          strict=True,
        )
      ]
      trees = []
      if searches:
        trees = mcts.search(
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
            shard.path.with_name(_TREES + shard.path.name),
            [tree.to_record() for tree in trees],
          )
        records.write_shard(shard.path, rows)
      progress.update(len(shard.problems) - len(trees))
      account(context.writer, round_, device.usage(), "eval", progress)
    every += shards

  finish(context.host, folder, lambda: {"round": round_}, every)


def _device(context: Context, round_: int) -> Device:
  return Device(
    context,
    round_,
    score="ppm" if round_ else "",
    reward_model=context.config.eval.reward_model,
  )


def solve(context: Context, round_: int, question: str) -> Solution:
  """Searches one question with the models of a round; see `solve_all`.

  Raises:
    ValueError: no candidate of the search reached an answer.
  """
  (found,) = solve_all(context, round_, [question])
  if found is None:
    raise ValueError(
      "no candidate reached an answer: ask in the words of the training "
      "problems, or give the search more rollouts or candidates"
    )
  return found


def solve_all(
  context: Context, round_: int, questions: Sequence[str]
) -> list[Solution | None]:
  """Searches questions with the models of a round.

  Args:
    context: the run.
    round_: whose policy and PPM; 0 is the base model, which has no PPM. Without
      an `eval.reward_model` the majority of its sampled solutions answers; one
      that is shown examples (`policy.prompt`) seldom writes a whole solution
      that runs, so that its steps are searched, and the majority of what is
      found answers.
    questions: plain text; the same one is answered in the same way.

  Returns:
    For each the chosen trajectory, and the PPM's value after each of its steps;
    None where no candidate reached an answer.
  """
  config = context.config
  problems = [Problem(id=each, question=each) for each in questions]
  device = _device(context, round_)
  options = {"seed": config.seed, "name": ("solve",)}
  if device.score is None and config.policy.prompt == "trained":
    sampled = sampling.sample_until(
      problems,
      config.eval.samples,
      device.blocks(),
      config.eval.search,
      **options,
    )
    return list(map(_agreed, sampled))
  calls, search = device.steps(), config.eval.search
  select = config.eval.answer_select
  if device.score is None:
    calls = dataclasses.replace(calls, score=_no_opinion)
    search = dataclasses.replace(search, annotation="terminal")
    select = "majority"
  trees = mcts.search(problems, search, calls, **options)
  return [
    _chosen(tree, config.eval, select, valued=device.score is not None)
    for tree in trees
  ]


def search_all(
  context: Context, round_: int, problems: Sequence[Problem], **changes: Any
) -> list[tree_lib.Tree]:
  """Searches problems as the data of the next round are made: to be looked at.

  Args:
    context: the run.
    round_: whose policy, and whose PPM guides it; 0 is the base model, which is
      guided by none.
    problems: with their answers, by which terminals are rewarded.
    **changes: fields of `config.search` that are to differ, e.g. rollouts=4.

  Returns:
    One tree for each problem, in order.

  Raises:
    ValueError: a problem without an answer, or a field that cannot be so.
  """
  device = _device(context, round_)
  guided = "terminal" if device.score is None else "ppm"
  search = dataclasses.replace(
    context.config.search,
    **{"annotation": guided, "terminal_reward": "truth"} | changes,
  )
  return mcts.search(
    problems,
    search,
    device.steps(),
    seed=context.config.seed,
    name=("search", round_),
  )


def _agreed(samples: Sequence[sampling.Sample]) -> Solution | None:
  """Returns the first sample of the majority's answer."""
  chosen = choose.majority([each.answer for each in samples])
  if chosen is None:
    return None
  return Solution(samples[chosen].steps, samples[chosen].answer or "", None)


def _chosen(
  tree: tree_lib.Tree, config: EvalConfig, select: methods.Select, valued: bool
) -> Solution | None:
  """Returns the trajectory that a search answers with."""
  found = tree_lib.trajectories(tree, how=config.search.trajectory_value)
  chosen = choose.choose(
    select,
    [each.answer for each in found],
    [each.value for each in found],
    k=config.top_k,
  )
  if chosen is None:
    return None
  node = int(np.flatnonzero(tree.terminal == tree_lib.ANSWERED)[chosen])
  values = [float(tree.ppm[each]) for each in tree.path(node)[1:]]
  return Solution(
    found[chosen].steps, found[chosen].answer, values if valued else None
  )


def _no_opinion(questions, prefixes, rows) -> list[np.ndarray]:
  """Scores every step the same, where nothing is known of any."""
  del questions, prefixes
  return [np.zeros(len(row), np.float32) for row in rows]
