"""How the search of each problem ended, which a file of trees says of itself.

The header of such a file lists its problems (`records.header`). So what a round
solved, what it mastered, and which file has the trees of a problem is known
without reading a tree.
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
    level: its level, None without one.
    right, wrong, undecided: numbers of answers, by verdict.
    tokens: generated for the trees.
  """

  problem_id: str
  level: int | None
  right: int = 0
  wrong: int = 0
  undecided: int = 0
  tokens: int = 0

  def add(self, other: "Outcome") -> None:
    """Adds what other trees of the problem have."""
    self.right += other.right
    self.wrong += other.wrong
    self.undecided += other.undecided
    self.tokens += other.tokens

  @property
  def difficulty(self) -> str:
    """How its rollouts ended: all right, mixed or none right."""
    return "hard" if not self.right else "medium" if self.wrong else "easy"

  @property
  def mastered(self) -> bool:
    """Whether there are answers, and all are right."""
    return self.right > 0 and not self.wrong and not self.undecided


def hardest_first(
  ids: Sequence[str], before: Mapping[str, Outcome]
) -> list[int]:
  """Orders problems so that those which may take long are begun early.

  So no host is left at the end with what takes an hour. Those of which nothing
  is known come first, then those that were not solved, then the others; each
  by tokens, most first. Problems within a factor of 1.4 stay in their order, so
  that those of a file are in few files of another round.

  Args:
    ids: of the problems.
    before: what an earlier round found for them, by id.

  Returns:
    The places of the ids in that order; theirs if nothing is known of any.
  """

  def rank(place: int) -> tuple[int, int]:
    found = before.get(ids[place])
    if found is None:
      return 0, 0
    return 1 + (found.right > 0), -round(2 * math.log2(1 + found.tokens))

  return sorted(range(len(ids)), key=rank)


def header_of(rows: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
  """Returns what the header of a file of trees says.

  Args:
    rows: records of trees; several may share a problem.
  """
  found: dict[str, Outcome] = {}
  for row in rows:
    problem, nodes = row["problem"], row["nodes"]
    outcome = found.setdefault(
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
  return {_FIELD: [list(dataclasses.astuple(each)) for each in found.values()]}


def of_file(path: store.Path) -> list[Outcome]:
  """Returns the outcomes of a file of trees, by problem in order.

  Only a file that an earlier version wrote is read for it.

  Raises:
    CorruptShard: the file is missing or cut short.
  """
  info = records.header(path).get("info", {})
  if _FIELD not in info:
    info = header_of(records.rows_of(path))
  return [Outcome(*each) for each in info[_FIELD]]


def counts(outcomes: Iterable[Outcome]) -> dict[str, Any]:
  """Counts outcomes.

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
