"""Selects SFT rows from trees: the best right solutions of each problem."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rstar_jax import rng
from rstar_jax.config.schema import ExtractConfig
from rstar_jax.data import outcomes
from rstar_jax.search import tree as tree_lib
from rstar_jax.search.tree import Tree
from rstar_jax.types import Problem, Trajectory


def sft_rows(
  trees: Iterable[Tree], config: ExtractConfig, seed: int = 0
) -> tuple[list[Trajectory], dict[str, Any]]:
  """Keeps each problem's best correct trajectories (paper section 3.4.1, A.1).

  All trees of a problem are pooled. Its correct trajectories are ranked by
  `rank`, and the first `config.sft_per_problem` with distinct texts are kept.
  `config.sft_choice` can select another rule.

  Args:
    trees: searched trees with graded answers; several may share a problem.
    config: `sft_choice`, `sft_per_problem`, `min_correct_share` and
      `min_correct_of` are used. The share is that of right answers among
      those graded right or wrong; undecided answers count as neither.
    seed: the run's seed, for the choice "random".

  Returns:
    The rows, by problem in order of first appearance, best first; and counts:
    those of `outcomes.counts` but tokens, low_share (solved problems left out),
    duplicates (trajectories left out for equal text) and rows.
  """
  rows = []
  found: list[outcomes.Outcome] = []
  low_share = duplicates = 0
  for group in by_problem(trees):
    right, wrong, undecided = graded(group)
    problem = group[0].problem
    found.append(
      outcomes.Outcome(
        problem.id, problem.level, len(right), len(wrong), len(undecided)
      )
    )
    answers = len(right) + len(wrong)
    # Not a product: 0.28 * 25 is above 7.
    if right and len(right) / answers < _least(problem, config):
      low_share += 1
      continue
    candidates = _ordered(config.sft_choice, right, wrong, seed)
    different = distinct(candidates)
    duplicates += len(candidates) - len(different)
    everything = config.sft_choice == "all"
    rows += different[: None if everything else config.sft_per_problem]
  stats = outcomes.counts(found)
  del stats["tokens"]  # The search has counted them.
  stats |= {"low_share": low_share, "duplicates": duplicates, "rows": len(rows)}
  return rows, stats


def _least(problem: Problem, config: ExtractConfig) -> float:
  """Returns the least share of right answers for a problem to be kept."""
  sources = config.min_correct_of
  return config.min_correct_share * (not sources or problem.source in sources)


def _ordered(
  choice: str,
  right: Sequence[Trajectory],
  wrong: Sequence[Trajectory],
  seed: int,
) -> list[Trajectory]:
  """Returns the candidate trajectories, in the order of `sft_choice`."""
  # Trees of rounds without a reward model have no values.
  valued = [each for each in (*right, *wrong) if each.value is not None]
  if choice == "reward" and valued:
    return sorted(valued, key=lambda each: -each.value)
  if choice == "random":
    # Keys derive from texts, so that equal texts have equal keys.
    return sorted(
      right,
      key=lambda each: rng.seed_for(seed, "sft", each.problem_id, *each.steps),
    )
  return sorted(right, key=rank)


def rank(trajectory: Trajectory) -> tuple[float, float, int]:
  """Returns a sort key: highest mean Q, highest minimum Q, shortest text."""
  return (
    -trajectory.mean_q,
    -min(trajectory.q_values),
    sum(map(len, trajectory.steps)),
  )


def distinct(trajectories: Iterable[Trajectory]) -> list[Trajectory]:
  """Returns the first of the trajectories with equal text."""
  first: dict[str, Trajectory] = {}
  for trajectory in trajectories:
    first.setdefault("".join(trajectory.steps), trajectory)
  return list(first.values())


def by_problem(trees: Iterable[Tree]) -> list[list[Tree]]:
  """Groups trees by problem id, in order of first appearance."""
  groups: dict[str, list[Tree]] = {}
  for tree in trees:
    groups.setdefault(tree.problem.id, []).append(tree)
  return list(groups.values())


def graded(
  trees: Sequence[Tree],
) -> tuple[list[Trajectory], list[Trajectory], list[Trajectory]]:
  """Returns the right, the wrong and the undecided trajectories of trees."""
  groups = {tree_lib.RIGHT: [], tree_lib.WRONG: [], tree_lib.UNKNOWN: []}
  for tree in trees:
    # `trajectories` follows the order of the answered nodes.
    verdicts = tree.correct[tree.terminal == tree_lib.ANSWERED]
    for verdict, trajectory in zip(
      verdicts.tolist(), tree_lib.trajectories(tree), strict=True
    ):
      groups[verdict].append(trajectory)
  return tuple(groups.values())


def from_dict(row: Mapping[str, Any]) -> Trajectory:
  """Returns the trajectory of a stored row.

  Raises:
    TypeError: if a field is missing or unknown.
  """
  return Trajectory(
    **{
      **row,
      "steps": tuple(row["steps"]),
      "q_values": tuple(row["q_values"]),
    }
  )
