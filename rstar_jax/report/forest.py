"""Chooses the problems that the page lists, and the trees that it draws.

A large run has more trees than fit into memory, or into a page that a browser
can open. So shards are read one by one, a row of the list is made from a record
alone, and a tree is built and packed only while the budget has room.
"""

import collections
import dataclasses
import functools
from collections.abc import Iterable, Mapping
from typing import Any

from etils import epath

from rstar_jax.evaluation import choices
from rstar_jax.report import trees as trees_lib
from rstar_jax.search import tree as tree_lib
from rstar_jax.storage import layout
from rstar_jax.storage.records import CorruptShard, each_row, header

Record = dict[str, Any]

# Most characters of a question in the list.
_QUESTION = 160


@dataclasses.dataclass(frozen=True)
class Budget:
  """Size limits of the page.

  Attributes:
    tree_bytes: most bytes of packed trees; further problems have none.
    rows: most problems in the list; further ones are only counted.
  """

  tree_bytes: int = 16_000_000
  rows: int = 20_000


class Forest:
  """The problems and trees of the page.

  Attributes:
    problems: rows of the list; "block" is an index into `trees`, -1 without a
      tree.
    trees: trees packed by `trees.encode`.
    sets: for each set the numbers of all problems, of those listed, read and
      drawn, and the numbers of nodes and dropped candidates in the trees read.
  """

  def __init__(self, budget: Budget, config: Mapping[str, Any]):
    """Creates an empty page.

    Args:
      budget: size limits of all sets together.
      config: the run's config as JSON; any field may be missing.
    """
    self.problems: list[Record] = []
    self.trees: list[str] = []
    self.sets: list[Record] = []
    self._bytes, self._rows = budget.tree_bytes, budget.rows
    self._bytes_of_set = self._rows_of_set = 0
    self._config = config

  def evaluation(self, folder: epath.Path, round_: int, last: bool) -> None:
    """Adds the problems of an evaluation, with or without a tree.

    Args:
      folder: the round's folder.
      round_: from 0.
      last: whether this is the last set. Any other set takes at most half of
        the remaining budget.
    """
    self._begin("test", round_, last)
    for path in sorted((folder / "eval").glob("*/shard-*")):
      by_problem: dict[str, dict[str, Record]] = {}
      for row in each_row(path):
        by_problem.setdefault(row["problem_id"], {})[row["source"]] = row
      by_id = {
        record["problem"]["id"]: record
        for record in trees_lib.records(
          path.with_name(layout.TREES_OF + path.name)
        )
      }
      for name, sources in by_problem.items():
        record = by_id.get(name)
        if not self._count(record):
          continue
        row = evaluation_row(round_, sources, record, self._config)
        self._list(row)
        if record is not None and self._bytes_of_set > 0:
          self._draw(row, evaluation_tree(record, self._config))

  def training(
    self, folder: epath.Path, round_: int, last: bool, suspects: set[str]
  ) -> None:
    """Adds the trees of training problems.

    Args:
      folder, round_, last: see `evaluation`.
      suspects: ids of problems whose gold answer may be wrong.
    """
    self._begin("training", round_, last)
    seen: collections.Counter[str] = collections.Counter()
    trees = folder / "trees"
    both = [_TrainingRows(folder / name) for name in ("sft", "pairs")]
    # Each turn of reinforcement has a subfolder.
    for path in sorted([*trees.glob("shard-*"), *trees.glob("*/shard-*")]):
      if self._rows_of_set <= 0:
        self.sets[-1]["problems"] += _count(path)
        continue
      records = list(trees_lib.records(path))
      names = {record["problem"]["id"] for record in records}
      draws = self._bytes_of_set > 0
      sft, pairs = (made.of(path, names) if draws else {} for made in both)
      for record in records:
        name = record["problem"]["id"]
        seen[name] += 1
        if not self._count(record):
          continue
        row = training_row(round_, record, seen[name] - 1, name in suspects)
        self._list(row)
        if self._bytes_of_set > 0:
          made_of = sft.get(name, ()), pairs.get(name, ())
          self._draw(row, training_tree(record, *made_of))

  def _begin(self, name: str, round_: int, last: bool) -> None:
    share = 1 if last else 2
    self._bytes_of_set = self._bytes // share
    self._rows_of_set = self._rows // share
    counts = dict.fromkeys(("problems", "listed", "read", "drawn", "nodes"), 0)
    self.sets.append({"set": name, "round": round_, **counts, "dropped": {}})

  def _count(self, record: Record | None) -> bool:
    """Counts a problem; returns whether the list has room for it."""
    counts = self.sets[-1]
    counts["problems"] += 1
    if record is not None:
      counts["read"] += 1
      counts["nodes"] += len(record["nodes"]["text"])
      dropped = counts["dropped"]
      for reason, number in record["dropped"].items():
        dropped[reason] = dropped.get(reason, 0) + number
    return self._rows_of_set > 0

  def _list(self, row: Record) -> None:
    self._rows -= 1
    self._rows_of_set -= 1
    self.sets[-1]["listed"] += 1
    self.problems.append(row)

  def _draw(self, row: Record, packed: str) -> None:
    """Adds a packed tree if the remaining budget of its set allows it."""
    if len(packed) > self._bytes_of_set:
      # Later trees are not drawn either, so that the first ones are.
      self._bytes_of_set = 0
      return
    self._bytes -= len(packed)
    self._bytes_of_set -= len(packed)
    row["block"] = len(self.trees)
    self.trees.append(packed)
    self.sets[-1]["drawn"] += 1


def evaluation_row(
  round_: int,
  sources: Mapping[str, Record],
  record: Record | None,
  config: Mapping[str, Any],
) -> Record:
  """Returns the row of an evaluated problem.

  Args:
    round_: from 0.
    sources: the problem's records by source, at least one; see
      `evaluation/solutions.py`.
    record: the record of its tree, None without a search.
    config: see `Forest`.
  """
  first = next(iter(sources.values()))
  row = _row("test", round_, first["split"], first["problem_id"], record)
  row |= {"level": first.get("level"), "gold": first.get("gold")}
  row |= _answers(sources, config.get("eval", {}))
  row["solved"] = row.get("search", row.get("greedy")) == "equal"
  return row


def evaluation_tree(record: Record, config: Mapping[str, Any]) -> str:
  """Returns the packed tree of an evaluated problem."""
  evaluation = config.get("eval", {})
  tree = tree_lib.from_record(record)
  node = trees_lib.given(tree, evaluation)
  chosen = [] if node is None else [node]
  return trees_lib.encode(trees_lib.compact(tree, chosen))


def training_row(
  round_: int, record: Record, number: int, suspect: bool
) -> Record:
  """Returns the row of a training problem's tree.

  Args:
    round_: from 1.
    record: the tree's record.
    number: index of the tree among those of its problem, from 0.
    suspect: whether the problem's gold answer may be wrong.
  """
  problem = record["problem"]
  row = _row("training", round_, problem["source"], problem["id"], record)
  return row | {
    "tree": number,
    "level": problem["level"],
    "gold": problem["answer"],
    "solved": row["right"] > 0,
    "suspect": suspect,
  }


def training_tree(
  record: Record,
  sft: Iterable[Record] = (),
  pairs: Iterable[Record] = (),
) -> str:
  """Returns the packed tree of a training problem.

  Args:
    record: the tree's record.
    sft: the problem's SFT rows, which are marked.
    pairs: the problem's preference pairs, which are marked.
  """
  tree = tree_lib.from_record(record)
  nodes = trees_lib.by_prefix(tree)
  chosen = trees_lib.taken(nodes, sft)
  own = trees_lib.pairs_within(nodes, pairs)
  return trees_lib.encode(trees_lib.compact(tree, chosen, own))


def _row(
  set_: str, round_: int, split: str, name: str, record: Record | None
) -> Record:
  """Returns the fields that all rows have, without a tree."""
  measures = _measures(record) if record is not None else _NO_TREE
  return {
    **{"set": set_, "round": round_, "split": split},
    **{"id": name, "tree": 0, "block": -1},
    **measures,
  }


_NO_TREE = {"question": "", "nodes": 0, "rollouts": 0}


def _measures(record: Record) -> Record:
  """Returns the fields of a row that come from a tree."""
  question = record["problem"]["question"]
  if len(question) > _QUESTION:
    question = f"{question[: _QUESTION - 1]}…"
  nodes = record["nodes"]
  verdicts = [
    correct
    for correct, terminal in zip(
      nodes["correct"], nodes["terminal"], strict=True
    )
    if terminal == tree_lib.ANSWERED
  ]
  return {
    "question": question,
    "nodes": len(nodes["text"]),
    "rollouts": len(record["growth"]),
    "answers": len(verdicts),
    "right": verdicts.count(tree_lib.RIGHT),
  }


def _answers(
  sources: Mapping[str, Record], evaluation: Mapping[str, Any]
) -> Record:
  """Returns the verdicts on the search, the greedy solution and samples."""
  fields: Record = {}
  if "mcts" in sources:
    select, k = trees_lib.choice(evaluation)
    fields["search"] = choices.choose(sources["mcts"], select, k=k).verdict
  for row in sources.get("greedy", {}).get("trajectories", ())[:1]:
    fields["greedy"] = row["verdict"]
  samples = sources.get("samples", {}).get("trajectories")
  if samples:
    right = sum(each["verdict"] == "equal" for each in samples)
    fields["samples"] = [right, len(samples)]
  return fields


class _TrainingRows:
  """The rows of training data in a folder, by problem."""

  def __init__(self, folder: epath.Path):
    self._folder = folder

  def of(self, trees: epath.Path, names: set[str]) -> dict[str, list[Record]]:
    """Returns the rows of some problems, by problem id.

    Args:
      trees: the file of these problems' trees.
      names: the problems' ids.
    """
    # A file has the name of the file of trees that it was made from, unless the
    # trees are of several rounds or turns.
    same = self._folder / trees.name
    paths = (
      {same}
      if same.exists()
      else {path for name in names for path in self._files.get(name, ())}
    )
    by_problem: dict[str, list[Record]] = {}
    for path in sorted(paths):
      for row in each_row(path):
        if row["problem_id"] in names:
          by_problem.setdefault(row["problem_id"], []).append(row)
    return by_problem

  @functools.cached_property
  def _files(self) -> dict[str, set[epath.Path]]:
    """The files with rows of a problem, by its id; this reads all files."""
    files: dict[str, set[epath.Path]] = {}
    if self._folder.is_dir():
      for path in self._folder.glob("shard-*"):
        for row in each_row(path):
          files.setdefault(row["problem_id"], set()).add(path)
    return files


def _count(path: epath.Path) -> int:
  """Counts the rows of a shard; 0 if it is damaged."""
  try:
    return header(path)["rows"]
  except CorruptShard:
    return 0
