"""Units: each is kept once it is found, and files do not show in what order."""

import dataclasses
import itertools
import pathlib
import random
import threading
from collections.abc import Sequence
from unittest import mock

from absl.testing import absltest, parameterized

from rstar_jax.config import closed
from rstar_jax.config.schema import Config, RoundConfig
from rstar_jax.pipeline import hosts, shards, units
from rstar_jax.pipeline.hosts import Host
from rstar_jax.pipeline.shards import Unit
from rstar_jax.search import requests
from rstar_jax.search.requests import Calls
from rstar_jax.storage import (
  append_only,
  json_io,
  manifests,
  records,
  store,
)
from rstar_jax.types import Problem
from tests import fake_gcs

ALONE = Host()
CALLS = Calls(expand=None, verify=list, grade=None)
PROBLEMS = [Problem(f"p{i}", f"What is {i}?", str(i)) for i in range(8)]


class Killed(BaseException):
  """Ends a process here, as a signal does."""


def methods(problems: Sequence[Problem]) -> list[Unit]:
  """Even problems are solved by two methods, odd ones by one."""
  even = [each for each in problems if int(each.id[1:]) % 2 == 0]
  return [
    *(Unit(each, "short") for each in problems),
    *(Unit(each, "long") for each in even),
  ]


def rows_of(unit: Unit) -> units.Rows:
  """Returns the rows of a unit, some of them in a second file."""
  row = {"id": unit.problem.id, "method": unit.method, "value": 0.1}
  more = {"more-": [row | {"of": i} for i in range(int(unit.problem.id[1:]))]}
  return {"": [row], **(more if unit.method == "long" else {})}


class UnitsCase(parameterized.TestCase):
  """Stages of 8 problems and 12 units in shards of 3 problems.

  Attributes:
    found: the units that were begun, in order.
  """

  def setUp(self):
    super().setUp()
    self.folder = pathlib.Path(self.create_tempdir().full_path)
    self.found = []

  def shards(self, folder, problems=PROBLEMS, size=3):
    return shards.cut(problems, size, folder, ("more-", ""), methods)

  def run_stage(
    self,
    folder,
    *,
    host=ALONE,
    identity="one",
    in_flight=2,
    steps=lambda unit: 2,
    killed_after=None,
    cut=None,
  ) -> units.Units:
    """Runs a stage whose searches take some steps; `Killed` ends it."""
    taken = 0

    def search(unit):
      nonlocal taken
      self.found.append(unit)
      for _ in range(steps(unit)):
        taken += 1
        if taken == killed_after:
          raise Killed
        yield requests.verify([])
      return rows_of(unit)

    cut = cut or self.shards(folder)
    with units.Units(host.share(cut), identity, "test") as stage:
      stage.search(lambda unit: (search(unit), CALLS), in_flight)
    shards.finish(host, folder, lambda: {"made": True}, cut)
    return stage

  def contents(self, folder) -> dict[str, bytes]:
    return {name: store.read(folder / name) for name in store.files(folder)}

  def straight(self) -> dict[str, bytes]:
    """Returns what any run of the stage has to leave."""
    folder = self.folder / "straight"
    for shard in (cut := self.shards(folder)):
      found = [rows_of(unit) for unit in shard.units]
      for path, prefix in zip(shard.files, shard.prefixes, strict=True):
        rows = [row for each in found for row in each.get(prefix, ())]
        records.write_shard(path, rows)
    manifests.write(folder, {"made": True})
    self.assertLen(cut, 3)
    return self.contents(folder)


class UnitsTest(UnitsCase):
  def test_metrics_say_what_searches_waited_for(self):
    def search(unit):
      yield requests.verify([])
      return rows_of(unit)

    context = mock.Mock(config=Config(), host=ALONE, workdir=self.folder)
    backend = mock.Mock(**{"usage.return_value": {"seconds": 2.0}})
    cut = self.shards(self.folder / "run")
    with units.of_stage(context, 3, "rollout", backend, cut, "x") as stage:
      stage.search(lambda unit: (search(unit), CALLS), 2)
    numbers = {"seconds": 2.0, "waited_verify": 1.0}
    self.assertEqual(
      context.writer.write.mock_calls,
      [mock.call(3, numbers, "rollout")] * len(cut),
    )

  def test_a_later_version_finds_the_units(self):
    later = dataclasses.make_dataclass(
      "Later", [("fresh", int, closed.field(3))], bases=(Config,), kw_only=True
    )

    def bound(config):
      context = mock.Mock(config=config, host=ALONE, workdir=self.folder)
      with mock.patch.object(units, "Units") as made:
        units.of_stage(context, 3, "rollout", mock.Mock(), [], "x", "more")
      return json_io.digest(made.call_args.args[1])

    spec = RoundConfig(trees=2)
    known = bound(Config(seed=7))
    # Rounds may be added at the end, and a round's own search is in `more`.
    for same in (Config(seed=7, rounds=(spec,)), later(seed=7)):
      self.assertEqual(bound(same), known)
    for other in (Config(seed=8), Config(), later(seed=7, fresh=4)):
      self.assertNotEqual(bound(other), known)

  @parameterized.parameters(1, 2, 16)
  def test_the_files_do_not_show_how_many_were_in_flight(self, in_flight):
    shuffled = random.Random(in_flight)
    folder = self.folder / "run"
    self.run_stage(
      folder, in_flight=in_flight, steps=lambda _: shuffled.randrange(9)
    )
    self.assertEqual(self.contents(folder), self.straight())
    self.assertLen(self.found, 12)

  def test_problems_come_one_by_one_with_all_their_methods(self):
    self.run_stage(self.folder / "run", in_flight=1)
    self.assertEqual(
      [(unit.problem.id, unit.method) for unit in self.found[:5]],
      [
        *[("p0", "short"), ("p0", "long"), ("p1", "short")],
        *[("p2", "short"), ("p2", "long")],
      ],
    )

  def test_killed_anywhere(self):
    straight = self.straight()
    for point in range(1, 25):
      folder = self.folder / f"killed-{point}"
      self.found.clear()
      with self.assertRaises(Killed):
        self.run_stage(folder, killed_after=point)
      # A unit takes two steps.
      self.assertBetween(len(self.found), point // 2, point // 2 + 2)
      self.run_stage(folder)
      self.assertEqual(self.contents(folder), straight)
      # Two were in flight, but for the very start and end.
      again = len(self.found) - len(set(self.found))
      self.assertBetween(again, 1, 2)

  def test_killed_at_each_write_of_a_file(self):
    straight = self.straight()
    write = store.write
    for point in range(7):
      folder = self.folder / f"killed-{point}"
      left = [point]

      def dies(file, data, left=left):
        left[0] -= 1
        if left[0] < 0:
          raise Killed
        write(file, data)

      self.found.clear()
      with mock.patch.object(store, "write", dies), self.assertRaises(Killed):
        self.run_stage(folder)
      self.run_stage(folder)
      self.assertEqual(self.contents(folder), straight)
      self.assertLessEqual(len(self.found), 12 + 1)

  def test_a_journal_that_is_cut_or_damaged_anywhere(self):
    straight = self.straight()
    folder = self.folder / "run"
    with self.assertRaises(Killed):
      self.run_stage(folder, killed_after=8)
    (journal,) = folder.iterdir()
    whole = journal.read_bytes()
    self.assertGreater(whole.count(b"\n"), 1)
    ends = [n for n, each in enumerate(whole, 1) if each == ord("\n")]
    drawn = random.Random(7)
    for place in (*ends, *drawn.sample(range(len(whole)), 40)):
      for damage in ("cut", "flip"):
        for path in folder.iterdir():
          path.unlink()
        data = bytearray(whole[:place] if damage == "cut" else whole)
        if damage == "flip":
          data[place - 1] ^= 1 << drawn.randrange(8)
        journal.write_bytes(data)
        self.found.clear()
        stage = self.run_stage(folder)
        with self.subTest(f"{damage} at {place}"):
          self.assertEqual(self.contents(folder), straight)
          if damage == "cut":
            left = sum(end <= place for end in ends)
            self.assertLen(self.found, 12 - left)
            self.assertEqual(stage.passed_over, int(place not in (0, *ends)))
          else:
            # A line break that is gone takes the next line with it.
            lost = len(self.found) - (12 - len(ends))
            self.assertBetween(lost, 1, 2 if place in ends else 1)

  @parameterized.parameters("config", "problem", "method", "split")
  def test_what_is_of_another_identity_is_not_taken(self, other):
    folder = self.folder / "run"
    with self.assertRaises(Killed):
      self.run_stage(folder, killed_after=8)
    self.assertNotEmpty(self.contents(folder))
    self.found.clear()
    options = {}
    if other == "config":
      options["identity"] = "two"
    else:

      def renamed(problems):
        for unit in methods(problems):
          changes = {
            "problem": {"problem": Problem(unit.problem.id, "What is it?")},
            "method": {"method": unit.method + "er"},
            "split": {"split": "another"},
          }
          yield Unit(**(vars(unit) | changes[other]))

      options["cut"] = shards.cut(
        PROBLEMS, 3, folder, ("more-", ""), lambda each: list(renamed(each))
      )
    self.run_stage(folder, **options)
    self.assertLen(self.found, 12)
    names = [name for name in self.contents(folder) if "begun" in name]
    self.assertEmpty(names)

  def test_what_is_whole_is_left_alone(self):
    folder = self.folder / "run"
    self.run_stage(folder)
    self.found.clear()
    self.run_stage(folder)
    self.assertEmpty(self.found)
    path = next(folder.glob("more-shard-00001-*"))
    path.write_bytes(path.read_bytes()[:-3])
    self.run_stage(folder)
    self.assertEqual(self.contents(folder), self.straight())
    self.assertEqual(
      {unit.problem.id for unit in self.found}, {"p3", "p4", "p5"}
    )

  def test_whole_shards_together(self):
    folder, seen = self.folder / "run", []

    def make(shard):
      self.assertIn(shard.path, [each.path for each in self.shards(folder)])
      seen.append([unit.problem.id for unit in shard.units])
      return list(map(rows_of, shard.units))

    def stage(dies=False):
      cut = self.shards(folder)
      with units.Units(cut, "one", "test") as each:
        each.search(
          lambda unit: (iter_rows(unit), CALLS), 2, methods=("short",)
        )
        if dies:
          raise Killed
        each.search_shards(make, "long")
      shards.finish(ALONE, folder, lambda: {"made": True}, cut)

    def iter_rows(unit):
      self.found.append(unit)
      yield requests.verify([])
      return rows_of(unit)

    with self.assertRaises(Killed):
      stage(dies=True)
    self.assertLen(self.found, 8)
    put, count = units._Part.put, itertools.count()

    def dies(part, place, rows):
      if next(count) == 1:
        raise Killed
      return put(part, place, rows)

    with mock.patch.object(units._Part, "put", dies):
      with self.assertRaises(Killed):
        stage()
    # One of the first two is kept, but both are searched, as ever.
    stage()
    self.assertEqual(seen, [["p0", "p2"], ["p0", "p2"], ["p4"], ["p6"]])
    self.assertLen(self.found, 8)
    self.assertEqual(self.contents(folder), self.straight())


class HostsTest(UnitsCase):
  def run_hosts(self, folder, count) -> None:
    """Runs the stage on several hosts, which are threads here."""
    failed = []

    def work(index):
      try:
        self.run_stage(folder, host=Host(index, count))
      except BaseException as error:
        failed.append(error)

    threads = [
      threading.Thread(target=work, args=(index,)) for index in range(count)
    ]
    with mock.patch.object(hosts, "_POLL_SECONDS", 0.001):
      for thread in threads:
        thread.start()
      for thread in threads:
        thread.join()
    self.assertEmpty(failed)

  @parameterized.parameters(1, 2, 3, 5)
  def test_any_number_of_hosts(self, count):
    folder = self.folder / "run"
    self.run_hosts(folder, count)
    self.assertEqual(self.contents(folder), self.straight())
    self.assertCountEqual(self.found, methods(PROBLEMS))

  @parameterized.parameters((0, 1), (1, 0))
  def test_one_that_was_thought_dead(self, *ends):
    """Two processes search the same shards; one follows the other's end."""
    folder = self.folder / "run"
    cut = self.shards(folder)
    with self.assertRaises(Killed):
      self.run_stage(folder, killed_after=9)
    both = [units.Units(cut, "one", "test", host=n) for n in range(2)]

    def search(unit):
      yield requests.verify([])
      return rows_of(unit)

    with both[0], both[1]:
      # Some of each shard is in the journals of both.
      for each in both:
        for part, place in each._missing[::2]:
          each._put(part, place, rows_of(part.shard.units[place]))
      for number in ends:
        each = both[number]
        each._missing = each._missing[1::2]
        each.search(lambda unit: (search(unit), CALLS), 2)
        self.assertTrue(all(shard.done() for shard in cut))
    shards.finish(ALONE, folder, lambda: {"made": True}, cut)
    self.assertEqual(self.contents(folder), self.straight())

  def test_progress_that_another_process_has_made_needless(self):
    """It has written the shard meanwhile, and removed the journals."""
    folder = self.folder / "run"
    cut = self.shards(folder)
    with units.Units(cut, "one", "test") as first:
      for unit in cut[0].units:
        first.kept(unit).keep({"": [{"half": 1}]})
    late = units.Units(cut, "one", "test", host=1)

    def search(unit):
      yield requests.verify([])
      # What it begins anew, without its progress, may not be written.
      return {"": [{}]} if unit in cut[0].units else rows_of(unit)

    self.run_stage(folder)
    straight = self.contents(folder)
    kept = late.kept(cut[0].units[0])
    self.assertEqual((kept.times, kept.rows()), (1, {}))
    with late:
      late.search(lambda unit: (search(unit), CALLS), 2)
    self.assertEqual(self.contents(folder), straight)

  def test_progress_that_cannot_be_read_ends_a_run(self):
    cut = self.shards(self.folder / "run")
    with units.Units(cut, "one", "test") as stage:
      kept = stage.kept(cut[0].units[0])
      kept.keep({"": []})
      (journal,) = (self.folder / "run").iterdir()
      journal.unlink()
      with self.assertRaises(FileNotFoundError):
        kept.rows()

  def test_other_hosts_go_on(self):
    folder = self.folder / "run"
    for index in range(3):
      with self.assertRaises(Killed):
        self.run_stage(folder, host=Host(index, 3), killed_after=5)
    names = [name for name in self.contents(folder) if "begun" in name]
    self.assertLen(names, 3)
    begun = len(self.found)
    self.run_hosts(folder, 2)
    self.assertEqual(self.contents(folder), self.straight())
    again = len(self.found) - len(set(self.found))
    self.assertBetween(again, 1, 3 * 2)
    self.assertGreaterEqual(begun - again, 3)


class BucketTest(UnitsCase):
  def setUp(self):
    super().setUp()
    self.bucket, _ = self.enter_context(fake_gcs.serve("b"))
    self.enter_context(
      mock.patch.object(append_only.Blocks.__init__, "__defaults__", (0.0,))
    )
    self.folder_there = store.path("gs://b/run/round_1/trees")

  def test_the_bytes_of_a_disk(self):
    self.run_stage(self.folder_there)
    self.assertEqual(self.contents(self.folder_there), self.straight())

  def test_what_a_signal_ends_is_kept(self):
    with self.assertRaises(Killed):
      self.run_stage(self.folder_there, killed_after=8)
    begun = list(self.contents(self.folder_there))
    self.assertLen(begun, 1)
    self.assertRegex(
      begun[0], r"^begun-shard-00000-of-00003-0-\w+\.jsonl\.00000"
    )
    self.run_stage(self.folder_there)
    self.assertEqual(self.contents(self.folder_there), self.straight())
    self.assertBetween(len(self.found), 13, 14)

  def test_no_journal_is_sent_of_a_shard_that_is_being_written(self):
    stages = []

    class Stage(units.Units):
      def __enter__(self):
        stages.append(self)
        return super().__enter__()

    write = records.write_shard

    def slow_write(path, rows, info):
      stages[0]._save()
      write(path, rows, info)

    with (
      mock.patch.object(units, "_SECONDS", 1e6),
      mock.patch.object(units, "Units", Stage),
      mock.patch.object(records, "write_shard", slow_write),
    ):
      self.run_stage(self.folder_there, in_flight=1)
    written = [name for kind, name in self.bucket.calls if kind == "write"]
    # The shards, the manifest, and the versions that were hashed.
    self.assertLen(written, 2 * 3 + 2)
    self.assertEqual(self.contents(self.folder_there), self.straight())

  def test_what_is_found_is_sent_while_others_are_searched(self):
    sent = []

    def steps(unit):
      # The second unit lasts until the first is in the bucket.
      if unit.problem.id == "p1":
        while not sent:
          names = list(store.files(self.folder_there))
          sent.extend(name for name in names if "begun" in name)
      return 1

    with mock.patch.object(units, "_SECONDS", 0.01):
      self.run_stage(self.folder_there, steps=steps, in_flight=1)
    self.assertNotEmpty(sent)
    self.assertEqual(self.contents(self.folder_there), self.straight())


if __name__ == "__main__":
  absltest.main()
