"""The newest problems of a run in progress, with their trees.

A large run has more problems than anyone looks at. So only the end of the news
is read: a part of some journals, and the newest whole shard of a set. Only the
newest few hundred problems are kept; the records hold the others.
"""

import collections
import itertools
import re
import time
from collections.abc import Iterable, Mapping
from typing import Any

from etils import epath

from rstar_jax import outside
from rstar_jax.report import forest
from rstar_jax.search import tree as tree_lib
from rstar_jax.storage import layout, store
from rstar_jax.storage.records import each_row
from rstar_jax.storage.snapshot import Snapshot

Record = dict[str, Any]
# Where rows are from: the round, "trees" or "eval", and the folder in it.
_Place = tuple[int, str, str]

# Most problems that are kept, bytes of their packed trees, and samples.
_PROBLEMS, _BYTES, _SAMPLES = 300, 8_000_000, 6
# Most journals per look, and bytes of the news in each.
_JOURNALS, _PART = 4, 1 << 22
# Most rows of a shard.
_ROWS = 300
# A journal or shard of a round's trees, or of its evaluation's records of a
# split.
_OF_ROUND = re.compile(
  rf"round_(\d+)/(trees|eval)/(?:(.*)/)?({layout.BEGUN})?shard-[^/]*"
)


class Newest:
  """The newest problems; see the module's docstring.

  Attributes:
    samples: the model's latest solutions, the newest first: "set", "round",
      "id", "question" ("" if unknown), "by" (a method), "steps" and "verdict".
  """

  def __init__(self, workdir: store.Path):
    """Creates an empty list for a run's folder."""
    self.samples: collections.deque[Record] = collections.deque(maxlen=_SAMPLES)
    self._workdir = workdir
    # Rows of the list, and packed trees by block, the oldest first.
    self._rows: dict[tuple, Record] = {}
    self._trees: dict[int, str] = {}
    # Records of each evaluated problem by source.
    self._sources: dict[tuple, dict[str, Record]] = {}
    self._ends: dict[str, int] = {}
    # Another process must not reuse block numbers, which browsers may hold.
    self._numbers = itertools.count(int(1000 * time.time()))
    self._config: Mapping[str, Any] = {}

  @property
  def problems(self) -> list[Record]:
    """The rows of the list, the newest first; see `Forest`."""
    return list(self._rows.values())[::-1]

  def tree(self, block: int) -> str | None:
    """Returns a packed tree, None if it is no longer kept."""
    return self._trees.get(block)

  def read(
    self,
    files: Snapshot,
    changed: Iterable[str],
    config: Mapping[str, Any],
  ) -> None:
    """Reads the news.

    Args:
      files: the run's folder.
      changed: files that were written since the last call.
      config: the run's config as JSON; any field may be missing.
    """
    self._config = config
    journals, shards = [], {}
    for name in files.newest(each for each in changed):
      match = _OF_ROUND.fullmatch(name)
      if match:
        place = int(match[1]), match[2], match[3] or ""
        if match[4]:
          journals.append((name, place))
        else:
          shards.setdefault(match[2], (name, place))
    for name, place in shards.values():
      self._shard(name, place)
    # The newest journal is read last, so that its problems come first.
    for name, place in reversed(journals[:_JOURNALS]):
      for entry in self._new_of(name, files.size(name) or 0):
        self._put(place, entry)
    self._ends = {n: end for n, end in self._ends.items() if n in files}

  def _shard(self, name: str, place: _Place) -> None:
    path = epath.Path(self._workdir / name)
    rows = itertools.islice(each_row(path), _ROWS)
    if place[1] == "trees":
      # The trees of a problem are adjacent, and numbered by their places.
      for _, group in itertools.groupby(rows, _problem_of):
        self._put(place, {"": list(group)})
      return
    trees = path.with_name(layout.TREES_OF + path.name)
    for row in rows:
      self._put(place, {"": [row]})
    for tree in itertools.islice(each_row(trees), _ROWS):
      self._put(place, {layout.TREES_OF: [tree]})

  def _new_of(self, name: str, size: int) -> Iterable[Mapping[str, Any]]:
    """Yields the rows of a journal's new entries, or of the last of these."""
    start = self._ends.get(name, 0)
    if start > size:
      start = 0
    skips = size - start > _PART
    start = size - _PART if skips else start
    data = b""
    if size > start:
      data = store.read(self._workdir / name, size - start, start) or b""
    end = data.rfind(b"\n") + 1
    self._ends[name] = start + end
    for line in data[:end].splitlines()[skips:]:
      try:
        entry = outside.parse(line, most=_PART, depth=outside.DEPTH + 1)
        rows = entry["answer"]["rows"]
      except (outside.Bad, LookupError, TypeError):
        continue
      if isinstance(rows, dict):
        yield rows

  def _put(self, place: _Place, entry: Mapping[str, list[Record]]) -> None:
    """Adds the rows of a unit; unreadable ones are left out."""
    round_, set_, folder = place
    try:
      if set_ == "trees":
        for number, record in enumerate(entry[""]):
          self._searched(round_, number, record)
      else:
        self._evaluated(round_, folder, entry)
    except (LookupError, TypeError, ValueError):
      # Written by another version, or damaged.
      return

  def _searched(self, round_: int, number: int, record: Record) -> None:
    tree_lib.check_schema(record)
    packed = forest.training_tree(record)
    row = forest.training_row(round_, record, number, False)
    self._add(("training", round_, row["id"], number), row, packed)
    self._sample("training", round_, record)

  def _evaluated(
    self, round_: int, split: str, entry: Mapping[str, list[Record]]
  ) -> None:
    record = next(iter(entry.get(layout.TREES_OF, ())), None)
    row = next(iter(entry.get("", ())), None)
    if record is not None:
      tree_lib.check_schema(record)
    name = record["problem"]["id"] if row is None else row["problem_id"]
    # Splits may have problems of the same id.
    key = "test", round_, split, name
    known = dict(self._sources.get(key, {}))
    packed = ""
    if row is not None:
      known[row["source"]] = row
    if record is not None:
      packed = forest.evaluation_tree(record, self._config)
    if not known:
      return  # A tree without records of solutions.
    shown = forest.evaluation_row(round_, known, record, self._config)
    self._sources[key] = known  # Of a problem in the list alone.
    self._add(key, shown, packed)
    if record is not None:
      self._sample("test", round_, record)
    elif row is not None and row["source"] != "mcts":
      self._solution(round_, row)

  def _add(self, key: tuple, row: Record, packed: str) -> None:
    before = self._rows.pop(key, None)
    if packed:
      row["block"] = next(self._numbers)
      self._trees[row["block"]] = packed
      if before:
        self._trees.pop(before["block"], None)
    elif before:
      # These fields came from its tree.
      kept = ("block", "question", "nodes", "rollouts", "answers", "right")
      row |= {each: before[each] for each in kept if each in before}
    self._rows[key] = row
    while (
      len(self._rows) > _PROBLEMS
      or sum(map(len, self._trees.values())) > _BYTES
    ):
      oldest = next(iter(self._rows))
      self._trees.pop(self._rows.pop(oldest)["block"], None)
      self._sources.pop(oldest, None)

  def _sample(self, set_: str, round_: int, record: Record) -> None:
    """Keeps the path of a tree's last rollout that reached an end."""
    tree = tree_lib.from_record(record)
    ends = [end for *_, end in tree.growth if end != tree_lib.NO_END]
    if not ends:
      return
    verdict = tree_lib.VERDICTS[int(tree.correct[ends[-1]])]
    self._write(
      *(set_, round_, tree.problem.id, tree.problem.question, "search"),
      *(list(tree.prefix(ends[-1])), verdict),
    )

  def _solution(self, round_: int, row: Record) -> None:
    """Keeps the first solution of a method that has no tree."""
    for each in row["trajectories"][:1]:
      self._write(
        *("test", round_, row["problem_id"], "", row["source"]),
        *(each["steps"], each["verdict"]),
      )

  def _write(
    self,
    set_: str,
    round_: int,
    name: str,
    question: str,
    by: str,
    steps: list[str],
    verdict: str,
  ) -> None:
    sample = {"set": set_, "round": round_, "id": name, "question": question}
    sample |= {"by": by, "steps": steps, "verdict": verdict}
    self.samples.appendleft(sample)


def _problem_of(record: Record) -> Any:
  """Returns the id of a tree's problem, None in a record of another form."""
  problem = record.get("problem")
  return problem.get("id") if isinstance(problem, dict) else None
