"""Reads a workdir into one plain dict, which is all that the report is made of.

Nothing here needs a model, a config file or a finished run: what is there is
read. Trees are read shard by shard and packed as they come, since a real run
has more of them than memory holds, or a page that a browser opens.
"""

import collections
import dataclasses
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from etils import epath

from rstar_jax import methods
from rstar_jax.report import trees as trees_lib
from rstar_jax.search import tree as tree_lib
from rstar_jax.search.tree import Tree

_ROUND = re.compile(r"round_(\d+)")
_TREES = "trees-"
_QUESTION = 160
_SUSPECT = "unsolved.jsonl"


@dataclasses.dataclass(frozen=True)
class Budget:
  """How much the page may hold.

  Attributes:
    tree_bytes: of packed trees. What is above it is listed without its tree.
    rows: problems listed. What is above it is only counted.
  """

  tree_bytes: int = 16_000_000
  rows: int = 20_000


def read(workdir: epath.PathLike, budget: Budget | None = None) -> dict:
  """Reads all that the report shows.

  The newest rounds come first, and in a round the evaluation before the
  training problems. Each of these sets takes at most half of what the budget
  has left, the last one all, so that every set has some.

  Args:
    workdir: of a run, finished or not.
    budget: None takes the default.

  Returns:
    {"name", "results", "metrics", "rounds", "problems", "trees", "sets"}:
    results.json, or its shape with nothing in it; rows of metrics.jsonl; for
    each round what its manifests, `unsolved.jsonl` and its study say; rows of
    the list, of which "block" is the index in "trees" (-1: no tree); trees as
    `trees.encode` packs them; for each set of trees how many there are, are
    listed and are drawn, and what became of the candidates of those read.
  """
  workdir = epath.Path(workdir)
  if not workdir.is_dir():
    raise ValueError(f"{workdir} is no folder: give the --workdir of a run")
  results = _json(workdir / "results.json") or {}
  results = {"config": {}, "rows": [], "solved": [], "ppm": []} | results
  config = _json(workdir / "config.json") or results["config"]
  numbers = sorted(
    int(match[1])
    for each in workdir.iterdir()
    if (match := _ROUND.fullmatch(each.name))
  )
  rounds = [_round(workdir / f"round_{number}", number) for number in numbers]
  groups = [
    (kind, each)
    for each in reversed(rounds)
    for kind in ("eval", "trees")
    if (workdir / f"round_{each['round']}" / kind).is_dir()
  ]
  page = _Page(budget or Budget(), config)
  for index, (kind, round_) in enumerate(groups):
    page.begin(kind, round_["round"], last=index == len(groups) - 1)
    folder = workdir / f"round_{round_['round']}"
    suspects = {
      row["problem_id"] for row in round_["unsolved"] if row["suspect"]
    }
    if kind == "eval":
      page.evaluation(folder)
    else:
      page.training(folder, suspects)
  return {
    "name": workdir.name,
    "results": results,
    "metrics": list(rows(workdir / "metrics.jsonl")),
    "rounds": rounds,
    "problems": page.problems,
    "trees": page.trees,
    "sets": page.sets,
  }


def rows(path: epath.PathLike) -> Iterator[dict[str, Any]]:
  """Yields the rows of a JSONL file one by one, without the footer of a shard.

  A last line that is cut short ends it: a run may be writing it.
  """
  path = epath.Path(path)
  if not path.exists():
    return
  with path.open("r") as file:
    for line in file:
      try:
        row = json.loads(line, parse_constant=_no_number)
      except ValueError:
        return
      if "footer" not in row:
        yield row


class _Page:
  """What is on the page so far, and what it may still hold."""

  def __init__(self, budget: Budget, config: Mapping[str, Any]):
    self.problems: list[dict[str, Any]] = []
    self.trees: list[str] = []
    self.sets: list[dict[str, Any]] = []
    self._bytes, self._rows = budget.tree_bytes, budget.rows
    self._config = config
    self._bytes_of_set = self._rows_of_set = 0

  def begin(self, kind: str, round_: int, last: bool) -> None:
    """Begins a set of trees: "eval" or "trees" of a round."""
    share = 1 if last else 2
    self._bytes_of_set = self._bytes // share
    self._rows_of_set = self._rows // share
    self.sets.append(
      {
        "set": "test" if kind == "eval" else "training",
        "round": round_,
        **dict.fromkeys(("problems", "listed", "read", "drawn", "nodes"), 0),
        "dropped": {},
      }
    )

  def evaluation(self, folder: epath.Path) -> None:
    """Reads the problems of an evaluation, those without a search too."""
    config = self._config.get("eval", {})
    search = config.get("search", {})
    select = config.get("answer_select", "best")
    how = search.get("trajectory_value", "last")
    counted = _counted(search, search)
    for path in sorted((folder / "eval").glob("*/shard-*")):
      found: dict[str, dict[str, Any]] = {}
      for row in rows(path):
        found.setdefault(row["problem_id"], {})[row["source"]] = row
      trees = _trees(path.with_name(_TREES + path.name))
      by_id = {tree.problem.id: tree for tree in trees}
      for name, sources in found.items():
        tree = by_id.get(name)
        row = self._row(next(iter(sources.values())), name, tree)
        if row is None:
          continue
        row |= _answers(sources, select)
        if tree is not None:
          node = trees_lib.answer_given(tree, select, how)
          chosen = [] if node is None else [node]
          self._draw(row, trees_lib.compact(tree, chosen, (), counted))
        row["solved"] = _first(row, "search", "greedy") == "equal"

  def training(self, folder: epath.Path, suspects: set[str]) -> None:
    """Reads the trees of training problems."""
    number = self.sets[-1]["round"]
    specs = self._config.get("rounds") or []
    spec = specs[number - 1] if 0 < number <= len(specs) else {}
    counted = _counted(spec, self._config.get("search", {}))
    seen: collections.Counter[str] = collections.Counter()
    for path in sorted((folder / "trees").glob("shard-*")):
      trees = _trees(path) if self._rows_of_set > 0 else []
      if not trees:
        self.sets[-1]["problems"] += _count(path)
        continue
      names = {tree.problem.id for tree in trees}
      sft = _of(folder / "sft", names) if self._bytes_of_set > 0 else {}
      pairs = _of(folder / "pairs", names) if self._bytes_of_set > 0 else {}
      for tree in trees:
        name = tree.problem.id
        row = self._row({"split": tree.problem.source}, name, tree)
        seen[name] += 1
        if row is None:
          continue
        row["tree"] = seen[name] - 1
        row["solved"] = tree_lib.solved(tree)
        row["suspect"] = name in suspects
        nodes = trees_lib.by_prefix(tree)
        drawn = trees_lib.compact(
          tree,
          trees_lib.taken(nodes, sft.get(name, ())),
          trees_lib.pairs_within(nodes, pairs.get(name, ())),
          counted,
        )
        self._draw(row, drawn)

  def _row(
    self, record: Mapping[str, Any], name: str, tree: Tree | None
  ) -> dict[str, Any] | None:
    """Adds a problem to the list; None if there is no room for it."""
    counts = self.sets[-1]
    counts["problems"] += 1
    if tree is not None:
      counts["read"] += 1
      counts["nodes"] += len(tree)
      for reason, number in tree.dropped.items():
        dropped = counts["dropped"]
        dropped[reason] = dropped.get(reason, 0) + number
    if self._rows_of_set <= 0:
      return None
    self._rows -= 1
    self._rows_of_set -= 1
    counts["listed"] += 1
    row = {
      "set": counts["set"],
      "round": counts["round"],
      "split": record["split"],
      "id": name,
      "tree": 0,
      "level": record.get("level"),
      "gold": record.get("gold"),
      "question": "",
      "block": -1,
      "nodes": 0,
      "rollouts": 0,
    }
    if tree is not None:
      found = tree.terminal == tree_lib.ANSWERED
      row |= {
        "level": tree.problem.level,
        "gold": tree.problem.answer,
        "question": _clipped(tree.problem.question),
        "nodes": len(tree),
        "rollouts": tree.rollouts,
        "answers": int(found.sum()),
        "right": int((found & (tree.correct == tree_lib.RIGHT)).sum()),
      }
    self.problems.append(row)
    return row

  def _draw(self, row: dict[str, Any], tree: dict[str, Any]) -> None:
    """Packs a tree, if it fits into what its set has left."""
    if self._bytes_of_set <= 0:
      return
    packed = trees_lib.encode(tree)
    if len(packed) > self._bytes_of_set:
      self._bytes_of_set = 0
      return
    self._bytes -= len(packed)
    self._bytes_of_set -= len(packed)
    row["block"] = len(self.trees)
    self.trees.append(packed)
    self.sets[-1]["drawn"] += 1


def _round(folder: epath.Path, number: int) -> dict[str, Any]:
  """Reads what a round says of itself, its trees aside."""
  found: dict[str, Any] = {"round": number}
  for name in ("trees", "sft", "pairs", "policy", "ppm", "eval"):
    manifest = _json(folder / name / "MANIFEST.json")
    if manifest is not None:
      manifest = {k: v for k, v in manifest.items() if k not in _OF_FILES}
    found[name] = manifest
  found["unsolved"] = list(rows(folder / "sft" / _SUSPECT))
  study = folder / "study"
  tables = study / "tables.md"
  found["study"] = tables.read_text() if tables.exists() else ""
  found["quality"] = (
    [
      row
      for path in sorted(study.glob("*/quality/shard-*"))
      for row in rows(path)
    ]
    if study.is_dir()
    else []
  )
  return found


_OF_FILES = ("files", "sha256")


def _trees(path: epath.Path) -> list[Tree]:
  return [tree_lib.from_record(row) for row in rows(path)]


def _of(folder: epath.Path, names: set[str]) -> dict[str, list[dict]]:
  """Returns the rows of some problems, by problem."""
  found: dict[str, list[dict]] = {}
  for path in sorted(folder.glob("shard-*")):
    for row in rows(path):
      if row["problem_id"] in names:
        found.setdefault(row["problem_id"], []).append(row)
  return found


def _count(path: epath.Path) -> int:
  """Counts the rows of a shard without parsing them."""
  with path.open("rb") as file:
    return max(sum(1 for _ in file) - 1, 0)


def _json(path: epath.Path) -> Any:
  return json.loads(path.read_text()) if path.exists() else None


def _counted(spec: Mapping[str, Any], search: Mapping[str, Any]) -> bool:
  """Says whether the PPM's value was a node's first visit."""
  return spec.get("annotation") == "ppm" and search.get(
    "ppm_counts_visit", True
  )


def _clipped(text: str) -> str:
  """Returns what the list shows of a question."""
  return text if len(text) <= _QUESTION else f"{text[: _QUESTION - 1]}…"


def _no_number(name: str) -> None:
  """Reads NaN and infinity as nothing: the JSON of a page has neither."""
  del name


def _answers(
  sources: Mapping[str, Mapping[str, Any]], select: methods.Select
) -> dict[str, Any]:
  """Returns verdicts: of the greedy solution, the search, and of samples."""
  found: dict[str, Any] = {}
  if "mcts" in sources:
    outcome = methods.solve([sources["mcts"]], "mcts", 1, select)[0]
    found["search"] = outcome.verdict
  for row in sources.get("greedy", {}).get("trajectories", ())[:1]:
    found["greedy"] = row["verdict"]
  samples = sources.get("samples", {}).get("trajectories")
  if samples:
    right = sum(each["verdict"] == "equal" for each in samples)
    found["samples"] = [right, len(samples)]
  return found


def _first(row: Mapping[str, Any], *names: str) -> Any:
  return next((row[name] for name in names if name in row), None)
