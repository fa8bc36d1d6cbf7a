"""Shards: the same on any number of hosts, which are threads here."""

import concurrent.futures
import pathlib
import time
from unittest import mock

from absl.testing import absltest, parameterized

from rstar_jax.pipeline import hosts, shards
from rstar_jax.pipeline.hosts import Host
from rstar_jax.pipeline.shards import Unit
from rstar_jax.storage import layout, manifests, records, store
from rstar_jax.types import Problem

PROBLEMS = [Problem(f"p{i}", "?") for i in range(8)]


class ShardsTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.folder = pathlib.Path(self.create_tempdir().full_path)

  def test_cuts_all_problems_in_order(self):
    cut = shards.cut(PROBLEMS, 3, self.folder)
    self.assertEqual(
      [(each.path.name, [u.problem.id for u in each.units]) for each in cut],
      [
        ("shard-00000-of-00003.jsonl.zst", ["p0", "p1", "p2"]),
        ("shard-00001-of-00003.jsonl.zst", ["p3", "p4", "p5"]),
        ("shard-00002-of-00003.jsonl.zst", ["p6", "p7"]),
      ],
    )

  def test_another_number_of_problems_than_before(self):
    before = shards.cut(PROBLEMS, 3, self.folder)
    records.write_shard(before[1].path, [{"row": 1}])
    self.assertEqual(shards.cut(PROBLEMS, 3, self.folder), before)
    for problems in (PROBLEMS[:6], PROBLEMS + [Problem("p8", "?")] * 2):
      with self.assertRaisesRegex(ValueError, "00001-of-00003.* restore the d"):
        shards.cut(problems, 3, self.folder)

  def test_a_shard_has_the_units_of_its_problems_in_their_order(self):
    def units(part):
      return [Unit(each, name) for name in "ba" for each in part[::-1]]

    first, _, last = shards.cut(PROBLEMS, 3, self.folder, units=units)
    self.assertEqual(
      [(unit.method, unit.problem.id) for unit in first.units],
      [(name, f"p{i}") for name in "ba" for i in (2, 1, 0)],
    )
    self.assertEqual(
      [(unit.method, unit.problem.id) for unit in last.units],
      [(name, f"p{i}") for name in "ba" for i in (7, 6)],
    )

  def test_done_if_all_files_are_whole(self):
    _, shard, _ = shards.cut(PROBLEMS, 3, self.folder, ("trees-", ""))
    path = self.folder / "shard-00001-of-00003.jsonl.zst"
    self.assertEqual(shard.files[-1], shard.path)
    self.assertFalse(shard.done())
    records.write_shard(path, [{"row": 1}])
    self.assertFalse(shard.done())
    records.write_shard(path.with_name("trees-" + path.name), [{"row": 1}])
    self.assertTrue(shard.done())
    path.write_bytes(path.read_bytes()[:-3])
    self.assertFalse(shard.done())

  def test_what_a_header_says_of_the_rows(self):
    def info(rows):
      return {"ids": [row["id"] for row in rows]}

    shard = shards.cut(PROBLEMS, 3, self.folder, info=info)[1]
    self.assertEqual(shard.info([{"id": 4}]), {"ids": [4]})

  def run_host(self, index: int, folder: pathlib.Path, count: int = 3) -> None:
    host = Host(index, count)
    cut = shards.cut(PROBLEMS, 2, folder)
    for shard in host.share(cut):
      records.write_shard(
        shard.path, [{"id": each.problem.id} for each in shard.units]
      )

    def info():
      rows = [row for each in cut for row in records.read_shard(each.path)]
      return {"rows": len(rows)}

    shards.finish(host, folder, info, cut)
    manifest = manifests.read(folder)
    self.assertIsNotNone(manifest)
    self.assertEqual(manifest["rows"], 8)

  @parameterized.parameters((0, 1, 2), (2, 1, 0))
  def test_the_first_host_waits_for_all_and_all_for_it(self, *order):
    alone = self.folder / "alone"
    self.run_host(0, alone, count=1)
    folder = self.folder / "together"
    running, early = [], []
    with (
      mock.patch.object(hosts, "_POLL_SECONDS", 0.001),
      concurrent.futures.ThreadPoolExecutor(len(order)) as pool,
    ):
      for index in order:
        running.append(pool.submit(self.run_host, index, folder))
        if len(running) < len(order):
          # A shard is missing: nobody is done.
          done, _ = concurrent.futures.wait(running, timeout=0.05)
          early += [*done, manifests.read(folder)]
    for each in running:
      each.result()
    self.assertEqual(early, [None, None])
    names = sorted(path.name for path in alone.iterdir())
    self.assertLen(names, 5)
    for name in names:
      self.assertEqual(
        (folder / name).read_bytes(), (alone / name).read_bytes()
      )

  def test_a_models_manifest_names_what_later_stages_read(self):
    # Made again: what an earlier process left, its manifest too, is there.
    model = {"model.safetensors": b"weights", "config.json": b"{}"}
    left = (
      layout.MANIFEST,
      ".model.tmp",
      "checkpoints/3/x",
      f"{layout.ROWS}/x",
    )
    for name in (*model, *left):
      store.write(self.folder / name, model.get(name, b"old"))
    shards.finish_model(Host(), self.folder, {"turns": 7})
    manifest = manifests.read(self.folder)
    self.assertIsNotNone(manifest)
    self.assertEqual(manifest["turns"], 7)
    self.assertCountEqual(manifest["files"], [*model])
    self.assertFalse((self.folder / layout.ROWS).exists())
    self.assertTrue((self.folder / "checkpoints/3/x").exists())

  def test_what_is_damaged_is_made_again_once(self):
    """Even if it gets other bytes, and the first host comes last."""
    cut = shards.cut(PROBLEMS, 4, self.folder)
    for shard in cut:
      records.write_shard(shard.path, [{"old": each} for each in range(4)])
    manifests.write(self.folder, {"round": 3})
    first, second = (shard.path for shard in cut)
    for index in (0, 1):
      found = shards.begin(Host(index, 2), self.folder)
      self.assertEqual(found["round"], 3)
    kept, data = first.read_bytes(), second.read_bytes()
    damaged = data[:-1] + bytes([data[-1] ^ 1])
    second.write_bytes(damaged)

    def run(index):
      host = Host(index, 2)
      if shards.begin(host, self.folder) is None:
        for shard in shards.unfinished(host.share(cut)):
          records.write_shard(shard.path, [{"new": n} for n in range(4)])
      shards.finish(host, self.folder, dict, cut)

    def wait_until(done, what):
      for _ in range(20_000):
        if done():
          return
        time.sleep(0.001)
      self.fail(what)

    with (
      mock.patch.object(shards, "wait_until", wait_until),
      concurrent.futures.ThreadPoolExecutor(2) as pool,
    ):
      late = pool.submit(run, 1)
      concurrent.futures.wait([late], timeout=0.05)
      # It waits for the first host.
      before = second.read_bytes(), (self.folder / layout.MANIFEST).exists()
      run(0)
      late.result()
    self.assertEqual(before, (damaged, True))
    self.assertIsNotNone(manifests.read(self.folder))
    self.assertEqual(first.read_bytes(), kept)
    self.assertEqual(
      list(records.read_shard(second)), [{"new": n} for n in range(4)]
    )

  def test_a_host_that_waits_reads_a_manifest_when_a_file_has_changed(self):
    cut = shards.cut(PROBLEMS, 4, self.folder)
    for shard in cut:
      records.write_shard(shard.path, [{"id": each} for each in range(4)])
    manifests.write(self.folder, {})
    whole = [shard.path.read_bytes() for shard in cut]
    looks, steps = [], []

    def wait_until(done, what):
      del what
      for step in [*steps, lambda: None]:
        with mock.patch.object(
          shards.manifests, "read", side_effect=manifests.read
        ) as read:
          looks.append((done(), read.call_count))
        step()

    def look(*more):
      looks[:], steps[:] = [], more
      with mock.patch.object(shards, "wait_until", wait_until):
        shards.finish(Host(1, 2), self.folder, dict, cut)
      return looks

    self.assertEqual(look(), [(True, 1)])
    first, second = (shard.path for shard in cut)
    second.write_bytes(whole[1][:-3])
    first.unlink()
    journal = first.with_name(f"{layout.BEGUN}shard-00000-of-00002-0-ab.jsonl")
    self.assertEqual(
      look(
        lambda: None,
        # As long as its problems are solved.
        lambda: journal.write_bytes(b"1"),
        lambda: first.write_bytes(whole[0]),
        lambda: None,
        # The manifest may be seen first.
        lambda: second.write_bytes(whole[1]),
      ),
      [(False, 1), (False, 0), (False, 0), (False, 1), (False, 0), (True, 1)],
    )
    data = (self.folder / layout.MANIFEST).read_bytes()
    (self.folder / layout.MANIFEST).unlink()
    self.assertEqual(
      look(lambda: (self.folder / layout.MANIFEST).write_bytes(data)),
      [(False, 0), (True, 1)],
    )


if __name__ == "__main__":
  absltest.main()
