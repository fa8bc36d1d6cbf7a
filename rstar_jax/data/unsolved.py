"""Finds unsolved and possibly mislabelled problems from trees."""

import collections
from collections.abc import Hashable, Iterable, Mapping
from typing import Any

from rstar_jax.data import trajectories as trajectories_lib
from rstar_jax.grading.voting import vote_key
from rstar_jax.search.tree import Tree
from rstar_jax.types import Trajectory

# A gold answer is suspect if at least this many solutions, and this share of
# them, agree on another one: different errors seldom give the same answer.
_VOTES, _SHARE = 4, 0.6


def report(trees: Iterable[Tree]) -> list[dict[str, Any]]:
  """Lists the problems that no tree solved, the most suspicious first.

  Args:
    trees: searched trees with graded answers; several may share a problem.

  Returns:
    Rows with problem_id, question, gold, level; rollouts and tokens spent;
    answers, the number of solutions with an answer; distinct, the number of
    different answers; agreed, the most frequent answer, with votes; and
    suspect, whether enough agree on it that the gold answer may be wrong, which
    a person has to check.
  """
  rows = []
  for group in trajectories_lib.by_problem(trees):
    right, wrong, undecided = trajectories_lib.graded(group)
    if right:
      continue
    votes: dict[Hashable, list[Trajectory]] = collections.defaultdict(list)
    for each in trajectories_lib.distinct([*wrong, *undecided]):
      votes[vote_key(each.answer)].append(each)
    # `max` returns the first of equals, and a dict keeps its order.
    most = max(votes.values(), key=len, default=[])
    total = sum(map(len, votes.values()))
    problem = group[0].problem
    rows.append(
      {
        "problem_id": problem.id,
        "question": problem.question,
        "gold": problem.answer,
        "level": problem.level,
        "rollouts": sum(tree.rollouts for tree in group),
        "tokens": sum(tree.tokens for tree in group),
        "answers": total,
        "distinct": len(votes),
        "agreed": most[0].answer if most else None,
        "votes": len(most),
        "suspect": len(most) >= max(_VOTES, _SHARE * total),
      }
    )
  return sorted(rows, key=rank)


def rank(row: Mapping[str, Any]) -> tuple[bool, int]:
  """Returns a sort key of `report`'s rows: the most suspicious first."""
  return not row["suspect"], -row["votes"]
