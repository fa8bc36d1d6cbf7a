"""What trees say of problems: mastered, unsolved, or perhaps labelled wrong."""

import collections
from collections.abc import Hashable, Iterable
from typing import Any

from rstar_jax.data import trajectories as trajectories_lib
from rstar_jax.grading.voting import vote_key
from rstar_jax.search.tree import Tree
from rstar_jax.types import Trajectory

# A gold answer is suspected where so many solutions give another one, and so
# large a share of all: different ways to err seldom end in the same number.
_VOTES, _SHARE = 4, 0.6


def mastered(trees: Iterable[Tree]) -> set[str]:
  """Returns the ids of problems of which every graded answer is right."""
  found = set()
  for group in trajectories_lib.by_problem(trees):
    right, wrong, undecided = trajectories_lib.graded(group)
    if right and not wrong and not undecided:
      found.add(group[0].problem.id)
  return found


def report(trees: Iterable[Tree]) -> list[dict[str, Any]]:
  """Lists the problems that no tree solved, the most suspicious first.

  Args:
    trees: searched trees with graded answers; several may share a problem.

  Returns:
    Rows with problem_id, question, gold, level; rollouts and tokens spent;
    answers, how many solutions ended in one, and distinct, how many different
    ones; agreed, the most frequent, with votes; and suspect, whether so many
    agree on it that the gold answer may be wrong. (Or all err alike: a person
    has to look.)
  """
  rows = []
  for group in trajectories_lib.by_problem(trees):
    right, wrong, undecided = trajectories_lib.graded(group)
    if right:
      continue
    votes: dict[Hashable, list[Trajectory]] = collections.defaultdict(list)
    for each in trajectories_lib.distinct([*wrong, *undecided]):
      votes[vote_key(each.answer)].append(each)
    # `max` takes the first of equals, and a dict keeps the order.
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
  return sorted(rows, key=lambda row: (not row["suspect"], -row["votes"]))
