"""Shards: the same on any number of hosts, which are threads here."""

import pathlib
import threading
from unittest import mock

from absl.testing import absltest, parameterized

from rstar_jax.pipeline import hosts, shards
from rstar_jax.pipeline.hosts import Host
from rstar_jax.search.tree import Tree
from rstar_jax.storage import records
from rstar_jax.types import Problem

ALONE = Host()
PROBLEMS = [Problem(f"p{i}", "?") for i in range(8)]


class ShardsTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.folder = pathlib.Path(self.create_tempdir().full_path)

  def left(self, host=ALONE, prefixes=("",), **options):
    cut = shards.cut(PROBLEMS, 3, self.folder, prefixes)
    return [
      (shard.path.name, [problem.id for problem in shard.problems])
      for shard, _ in shards.missing_shards(host, cut, "test", **options)
    ]

  def test_cuts_all_problems_in_order(self):
    self.assertEqual(
      self.left(),
      [
        ("shard-00000-of-00003.jsonl", ["p0", "p1", "p2"]),
        ("shard-00001-of-00003.jsonl", ["p3", "p4", "p5"]),
        ("shard-00002-of-00003.jsonl", ["p6", "p7"]),
      ],
    )

  @parameterized.parameters(1, 2, 3, 5)
  def test_each_is_one_host_s_and_is_the_same(self, count):
    each = [self.left(Host(index, count)) for index in range(count)]
    self.assertEqual(sorted(sum(each, [])), self.left())
    self.assertLessEqual(max(map(len, each)) - min(map(len, each)), 1)
    # The next ones of the stage go to those who had fewer.
    after = [self.left(Host(index, count), first=3) for index in range(count)]
    together = [len(a) + len(b) for a, b in zip(each, after, strict=True)]
    self.assertLessEqual(max(together) - min(together), 1)

  def test_skips_what_is_whole(self):
    path = self.folder / "shard-00001-of-00003.jsonl"
    records.write_shard(path, [{"row": 1}])
    self.assertEqual(
      [name[6:11] for name, _ in self.left()], ["00000", "00002"]
    )
    both = ("", "trees-")
    self.assertLen(self.left(prefixes=both), 3)
    records.write_shard(path.with_name("trees-" + path.name), [{"row": 1}])
    self.assertLen(self.left(prefixes=both), 2)
    path.write_bytes(path.read_bytes()[:-3])
    self.assertLen(self.left(), 3)

  def test_pools_trees_of_several_folders(self):
    trees = [Tree(each) for each in PROBLEMS]
    for folder, part in (("b", trees[:3]), ("a", trees[3:])):
      for index, tree in enumerate(part):
        path = self.folder / folder / records.shard_name(index, len(part))
        records.write_shard(path, [tree.to_record()])
    found = shards.pool_trees([self.folder / "b", self.folder / "a"], "test")
    self.assertEqual([each.problem for each in found], PROBLEMS)

  def run_host(self, index: int, folder: pathlib.Path, count: int = 3) -> None:
    host = Host(index, count)
    cut = shards.cut(PROBLEMS, 2, folder)
    for shard, _ in shards.missing_shards(host, cut, "test"):
      records.write_shard(
        shard.path, [{"id": each.id} for each in shard.problems]
      )

    def info():
      rows = [row for each in cut for row in records.read_shard(each.path)]
      return {"rows": len(rows)}

    shards.finish(host, folder, info, cut)
    manifest = records.read_manifest(folder)
    assert manifest is not None and manifest["rows"] == 8, manifest

  @parameterized.parameters((0, 1, 2), (2, 1, 0))
  def test_the_first_host_waits_for_all_and_all_for_it(self, *order):
    alone = self.folder / "alone"
    self.run_host(0, alone, count=1)
    folder = self.folder / "together"
    with mock.patch.object(hosts, "_POLL_SECONDS", 0.001):
      threads = [
        threading.Thread(target=self.run_host, args=(index, folder))
        for index in order
      ]
      for thread in threads[:2]:
        thread.start()
        thread.join(0.05)
        # One of three shards is missing: nobody is done.
        self.assertTrue(thread.is_alive())
        self.assertIsNone(records.read_manifest(folder))
      threads[2].start()
      for thread in threads:
        thread.join()
    names = sorted(path.name for path in alone.iterdir())
    self.assertLen(names, 5)
    for name in names:
      self.assertEqual(
        (folder / name).read_bytes(), (alone / name).read_bytes()
      )


if __name__ == "__main__":
  absltest.main()
