"""Outcomes of searches, by problem, from the headers of files of trees.

The header of such a file lists its problems (`records.header`). So it is known
without reading a tree what a round solved and mastered, and which file has a
problem's trees.
"""

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rstar_jax.data import counts as counts_lib
from rstar_jax.search import tree as tree_lib
from rstar_jax.storage import records, store

_FIELD = "problems"


@dataclasses.dataclass(slots=True)
class Outcome:
  """Counts of the answers in a problem's trees.

  Attributes:
    problem_id: id of the problem.
    level: the problem's level, None without one.
    right, wrong, undecided: numbers of answers, by verdict.
    tokens: tokens generated for the trees.
  """

  problem_id: str
  level: int | None
  right: int = 0
  wrong: int = 0
  undecided: int = 0
  tokens: int = 0

  def add(self, other: "Outcome") -> None:
    """Adds the counts of further trees of the problem."""
    self.right += other.right
    self.wrong += other.wrong
    self.undecided += other.undecided
    self.tokens += other.tokens

  @property
  def difficulty(self) -> str:
    """The difficulty: "easy" (all right), "medium" (mixed), "hard" (none)."""
    return "hard" if not self.right else "medium" if self.wrong else "easy"

  @property
  def mastered(self) -> bool:
    """Whether there are answers, and all are right."""
    return self.right > 0 and not self.wrong and not self.undecided


def hardest_first(
  ids: Sequence[str], before: Mapping[str, Outcome]
) -> list[int]:
  """Orders problems so that those that may take long start early.

  So no host is left at the end with an hour of work. Unknown problems come
  first, then unsolved ones, then solved ones, each by tokens, most first.
  Problems whose tokens are within a factor of 1.4 keep their order, so that a
  file's problems are in few files of another round.

  Args:
    ids: the problems' ids.
    before: outcomes of an earlier round, by id.

  Returns:
    Indices into `ids` in that order.
  """

  def rank(place: int) -> tuple[int, int]:
    outcome = before.get(ids[place])
    if outcome is None:
      return 0, 0
    return 1 + (outcome.right > 0), -round(2 * math.log2(1 + outcome.tokens))

  return sorted(range(len(ids)), key=rank)


def header_of(rows: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
  """Returns the header's fields for a file of trees.

  Args:
    rows: records of trees, of which several may share a problem.
  """
  by_id: dict[str, Outcome] = {}
  for row in rows:
    problem, nodes = row["problem"], row["nodes"]
    outcome = by_id.setdefault(
      problem["id"], Outcome(problem["id"], problem["level"])
    )
    outcome.tokens += row["tokens"]
    for terminal, correct in zip(
      nodes["terminal"], nodes["correct"], strict=True
    ):
      if terminal == tree_lib.ANSWERED:
        outcome.right += correct == tree_lib.RIGHT
        outcome.wrong += correct == tree_lib.WRONG
        outcome.undecided += correct == tree_lib.UNKNOWN
  return {_FIELD: [list(dataclasses.astuple(each)) for each in by_id.values()]}


def of_file(path: store.Path) -> list[Outcome]:
  """Returns the outcomes of a file of trees, by problem, in order.

  The rows are read only if an earlier version wrote the file.

  Raises:
    CorruptShard: the file is missing or truncated.
  """
  info = records.header(path).get("info", {})
  if _FIELD not in info:
    info = header_of(records.rows_of(path))
  return [Outcome(*each) for each in info[_FIELD]]


def counts(outcomes: Iterable[Outcome]) -> dict[str, Any]:
  """Sums outcomes over problems.

  Returns:
    problems, solved, easy, medium, hard (see `Outcome.difficulty`), answers,
    right, wrong, undecided, tokens, and levels {level: {"problems", "solved"}}.
  """
  names = "problems", "solved", "easy", "medium", "hard"
  total: dict[str, Any] = dict.fromkeys(
    (*names, "answers", "right", "wrong", "undecided", "tokens"), 0
  )
  total["levels"] = {}
  for each in outcomes:
    problem = {"problems": 1, "solved": int(each.right > 0)}
    counts_lib.add(
      total,
      {
        **problem,
        each.difficulty: 1,
        "answers": each.right + each.wrong + each.undecided,
        "right": each.right,
        "wrong": each.wrong,
        "undecided": each.undecided,
        "tokens": each.tokens,
        "levels": {str(each.level): problem},
      },
    )
  return total
