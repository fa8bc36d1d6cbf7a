"""The newest problems: of a part of a journal, and of several processes."""

import itertools
import json
import pathlib
from unittest import mock

from absl.testing import absltest

from rstar_jax.report import newest
from rstar_jax.report import trees as trees_lib
from rstar_jax.search import tree as tree_lib
from rstar_jax.storage import records
from rstar_jax.storage.snapshot import Snapshot
from tests.report import workdirs

TREES = "round_1/trees"
# Where records of an evaluation are from.
EVAL = (2, "eval", "toy_test")


class NewestTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    self.folder = pathlib.Path(self.create_tempdir().full_path)
    (self.folder / TREES).mkdir(parents=True)
    self.newest = newest.Newest(self.folder)
    self.files = None

  def journal(self, process: str) -> pathlib.Path:
    return self.folder / TREES / f"begun-shard-00000-of-00001-{process}.jsonl"

  def entry(self, name: str, **rows) -> bytes:
    """Returns the line that a process writes when it is done with a problem."""
    rows = rows or {"": [workdirs.apples(name).to_record()]}
    return json.dumps({"key": name, "answer": {"rows": rows}}).encode() + b"\n"

  def read(self) -> list[str]:
    """Reads what is new; returns the problems that are known then."""
    before, self.files = self.files, Snapshot(self.folder, self.files)
    self.newest.read(self.files, self.files.changed(before), {})
    return [each["id"] for each in self.newest.problems]

  def test_a_process_that_is_killed_and_the_one_after_it(self):
    first, second = self.journal("0-aa"), self.journal("0-bb")
    whole = self.entry("b")
    first.write_bytes(self.entry("a") + whole[:99])
    self.assertEqual(self.read(), ["a"])
    # It was in the middle of a line.
    with first.open("ab") as file:
      file.write(whole[99:150])
    self.assertEqual(self.read(), ["a"])
    with first.open("ab") as file:
      file.write(whole[150:])
    self.assertEqual(self.read(), ["b", "a"])
    second.write_bytes(self.entry("c"))
    first.write_bytes(first.read_bytes() + whole[:50])
    self.assertEqual(set(self.read()), {"a", "b", "c"})
    # A problem that is found again is the newest, once.
    with second.open("ab") as file:
      file.write(self.entry("a"))
    self.assertEqual(self.read()[0], "a")
    self.assertLen(self.read(), 3)
    # The shard is written, and the journals are gone.
    path = self.folder / TREES / records.shard_name(0, 1)
    names = ("a", "b", "c", "d")
    records.write_shard(path, [workdirs.apples(n).to_record() for n in names])
    first.unlink()
    second.unlink()
    self.assertEqual(self.read(), ["d", "c", "b", "a"])

  def test_of_a_long_journal_the_end_is_read(self):
    line = self.entry("p0")
    lines = [self.entry(f"p{n}") for n in range(40)]
    self.enter_context(mock.patch.object(newest, "_PART", 3 * len(line)))
    self.journal("0-aa").write_bytes(b"".join(lines))
    self.assertEqual(self.read(), ["p39", "p38"])

  def test_what_is_old_is_forgotten(self):
    self.enter_context(mock.patch.object(newest, "_PROBLEMS", 5))
    for start in range(0, 28, 4):
      with self.journal("0-aa").open("ab") as file:
        for number in range(start, start + 4):
          file.write(self.entry(f"p{number}"))
      known = self.read()
    self.assertEqual(known, ["p27", "p26", "p25", "p24", "p23"])
    self.assertLen(self.newest._trees, 5)
    self.assertLen(self.newest.samples, newest._SAMPLES)
    self.enter_context(mock.patch.object(newest, "_BYTES", 1))
    with self.journal("0-aa").open("ab") as file:
      file.write(self.entry("q"))
    self.assertEqual(self.read(), [])

  def test_only_records_of_the_problems_in_the_list_are_kept(self):
    self.enter_context(mock.patch.object(newest, "_PROBLEMS", 3))
    for number in range(9):
      name = f"p{number}"
      tree = workdirs.apples(name).to_record()
      # Trees whose records are not there, and records of another form.
      self.newest._put(EVAL, {"trees-": [tree]})
      self.newest._put(EVAL, {"": [{"problem_id": name, "source": "greedy"}]})
    self.assertEmpty(self.newest._sources)
    for number in range(9):
      row = workdirs.record(f"p{number}", "greedy", "equal")
      self.newest._put(EVAL, {"": [row]})
    self.assertEqual(
      [name for *_, name in self.newest._sources], ["p6", "p7", "p8"]
    )
    self.assertLen(self.newest.problems, 3)

  def test_trees_of_a_problem_are_numbered_in_journals_and_shards(self):
    trees = [workdirs.apples("a"), workdirs.small("a"), workdirs.small("b")]
    found = [each.to_record() for each in trees]
    lines = [self.entry("a", **{"": found[:2]}), self.entry("b")]
    self.journal("0-aa").write_bytes(b"".join(lines))
    self.read()
    path = self.folder / TREES / records.shard_name(0, 1)
    # A record of another form is left out.
    records.write_shard(path, [*found, {"problem": 3}, {}])
    for known in ({("b", 0): 10}, {("b", 0): 3}):
      self.assertEqual(
        {(e["id"], e["tree"]): e["nodes"] for e in self.newest.problems},
        {("a", 0): 10, ("a", 1): 3} | known,
      )
      self.read()
    for row in self.newest.problems:
      packed = trees_lib.decode(self.newest.tree(row["block"]))
      self.assertLen(packed["parent"], row["nodes"])

  def test_only_the_newest_shard_is_read(self):
    for index, name in enumerate("abc"):
      path = self.folder / TREES / records.shard_name(index, 3)
      records.write_shard(path, [workdirs.apples(name).to_record()])
    self.assertEqual(self.read(), ["c"])

  def test_samples_are_of_the_last_rollout(self):
    self.journal("0-aa").write_bytes(self.entry("apples"))
    self.read()
    (sample,) = self.newest.samples
    tree = workdirs.apples()
    # Its third rollout ended at the right answer.
    self.assertEqual(sample["steps"], list(tree.prefix(7)))
    self.assertEqual(sample["verdict"], "equal")
    self.assertEqual(sample["question"], tree.problem.question)

  def test_rows_are_those_of_the_report(self):
    """An evaluated problem is put together of its units, in any order."""
    tree = workdirs.apples("pears").to_record()
    units = [
      {"": [workdirs.record("pears", "greedy", "different")]},
      {"": [workdirs.record("pears", "samples", "equal", "failed")]},
      {
        "": [workdirs.record("pears", "mcts", "equal", "different")],
        "trees-": [tree],
      },
    ]
    for order in itertools.permutations(units):
      found = newest.Newest(self.folder)
      for rows in order:
        found._put(EVAL, rows)
      (row,) = found.problems
      with self.subTest([each[""][0]["source"] for each in order]):
        self.assertEqual(
          {n: row[n] for n in ("set", "round", "split", "search", "greedy")},
          {
            **{"set": "test", "round": 2, "split": workdirs.SPLIT},
            **{"search": "equal", "greedy": "different"},
          },
        )
        self.assertEqual(row["samples"], [1, 2])
        self.assertEqual(row["nodes"], len(tree["nodes"]["text"]))
        packed = trees_lib.decode(found.tree(row["block"]))
        self.assertEqual(packed["q"][7], 1.0)
        self.assertLen(found._trees, 1)

  def test_splits_may_have_the_same_ids(self):
    for split, verdict in (("a", "equal"), ("b", "different")):
      folder = self.folder / "round_2/eval" / split
      folder.mkdir(parents=True)
      row = workdirs.record("0", "greedy", verdict, split=split)
      path = folder / "begun-shard-00000-of-00001-0-aa.jsonl"
      path.write_bytes(self.entry("0", **{"": [row]}))
    self.read()
    # The search of one of them ends.
    tree = workdirs.apples("0").to_record()
    row = workdirs.record("0", "mcts", "equal", split="b")
    with path.open("ab") as file:
      file.write(self.entry("0", **{"": [row], "trees-": [tree]}))
    self.read()
    found = {each["split"]: each for each in self.newest.problems}
    self.assertLen(self.newest.problems, 2)
    self.assertEqual(found["a"]["greedy"], "equal")
    self.assertNotIn("search", found["a"])
    self.assertEqual(found["a"]["nodes"], 0)
    self.assertEqual(found["b"]["greedy"], "different")
    self.assertEqual(found["b"]["search"], "equal")
    # A tree names no split; its shard's folder does.
    name = records.shard_name(0, 1)
    row = workdirs.record("0", "mcts", "different", split="a")
    records.write_shard(self.folder / "round_2/eval/a" / name, [row])
    small = workdirs.small("0").to_record()
    records.write_shard(
      self.folder / "round_2/eval/a" / f"trees-{name}", [small]
    )
    self.read()
    found = {each["split"]: each for each in self.newest.problems}
    self.assertEqual(found["a"]["nodes"], 3)
    self.assertEqual(found["b"]["nodes"], 10)

  def test_a_tree_of_another_version_is_left_out(self):
    other = workdirs.apples("new").to_record() | {"schema": tree_lib.SCHEMA + 1}
    lines = [self.entry("new", **{"": [other]}), self.entry("old")]
    self.journal("0-aa").write_bytes(b"".join(lines))
    self.assertEqual(self.read(), ["old"])


if __name__ == "__main__":
  absltest.main()
