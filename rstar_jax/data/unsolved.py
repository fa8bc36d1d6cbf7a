"""Finds unsolved and possibly mislabelled problems from trees."""

import collections
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

from rstar_jax.data import trajectories as trajectories_lib
from rstar_jax.grading.voting import vote_key
from rstar_jax.search.tree import Tree
from rstar_jax.types import Trajectory

# A gold answer is suspect if at least this many solutions, and this share of
# them, agree on another one: different errors seldom give the same answer.
_VOTES, _SHARE = 4, 0.6


def report(trees: Sequence[Tree]) -> dict[str, Any] | None:
  """Describes a problem that no tree solved; returns None for a solved one.

  Args:
    trees: all searched trees of the problem, at least one, with graded answers.

  Returns:
    A row with problem_id, question, gold, level; rollouts and tokens spent;
    answers, the number of solutions with an answer; distinct, the number of
    different answers; agreed, the most frequent answer, with votes; and
    suspect, whether enough agree on it that the gold answer may be wrong, which
    a person has to check.
  """
  right, wrong, undecided = trajectories_lib.graded(trees)
  if right:
    return None
  votes: dict[Hashable, list[Trajectory]] = collections.defaultdict(list)
  for each in trajectories_lib.distinct([*wrong, *undecided]):
    votes[vote_key(each.answer)].append(each)
  # `max` returns the first of equals, and a dict keeps its order.
  most = max(votes.values(), key=len, default=[])
  total = sum(map(len, votes.values()))
  problem = trees[0].problem
  return {
    "problem_id": problem.id,
    "question": problem.question,
    "gold": problem.answer,
    "level": problem.level,
    "rollouts": sum(tree.rollouts for tree in trees),
    "tokens": sum(tree.tokens for tree in trees),
    "answers": total,
    "distinct": len(votes),
    "agreed": most[0].answer if most else None,
    "votes": len(most),
    "suspect": len(most) >= max(_VOTES, _SHARE * total),
  }


def rank(row: Mapping[str, Any]) -> tuple[bool, int]:
  """Returns a sort key of `report`'s rows: the most suspicious first."""
  return not row["suspect"], -row["votes"]
