"""Maps: every item once, with its result, whoever computes it."""

import functools
import itertools
import os
import pathlib
import threading
import types

from absl.testing import absltest, parameterized

from rstar_jax.pipeline import hosts, shards, work
from rstar_jax.storage import records
from rstar_jax.types import Problem
from tests.pipeline import mapped


class LocalTest(parameterized.TestCase):
  @parameterized.parameters(1, 2)
  def test_every_item_once_with_its_result(self, processes):
    function = functools.partial(mapped.shifted, 100)
    found = list(work.Local(processes).map(function, range(9)))
    self.assertCountEqual(
      [(item, result) for item, (result, _) in found],
      [(n, 100 + n) for n in range(9)],
    )
    here = {pid == os.getpid() for _, (_, pid) in found}
    self.assertEqual(here, {processes == 1})

  @parameterized.parameters(1, 2)
  def test_items_are_taken_as_there_is_room(self, processes):
    taken = itertools.count()
    items = (next(taken) for _ in range(1000))
    results = work.Local(processes).map(mapped.fails, items)
    self.assertEqual(next(results)[0] // 3, 0)
    results.close()
    self.assertLess(next(taken), 10)

  @parameterized.parameters(1, 2)
  def test_what_the_function_raises(self, processes):
    with self.assertRaisesRegex(ValueError, "three"):
      list(work.Local(processes).map(mapped.fails, range(9)))

  def test_a_process_that_dies(self):
    with self.assertRaisesRegex(OSError, "was killed"):
      list(work.Local(2).map(mapped.dies, range(9)))

  def test_no_items(self):
    self.assertEmpty(list(work.Local(2).map(mapped.fails, [])))

  def test_a_file_of_each_item(self):
    folder = pathlib.Path(self.create_tempdir().full_path)
    paths = [folder / str(n) for n in range(4)]
    self.assertLen(list(work.Local(2).map(pathlib.Path.touch, paths)), 4)
    self.assertCountEqual(folder.iterdir(), paths)

  def test_models_are_loaded_where_a_shard_is_left(self):
    folder = pathlib.Path(self.create_tempdir().full_path)
    cut = shards.cut([Problem(f"p{n}", "?") for n in range(6)], 2, folder)
    searched = []
    for shard in cut[::2]:
      records.write_shard(shard.path, [{}, {}])
      for index in (0, 1):
        config = types.SimpleNamespace(servers=types.SimpleNamespace(load=""))
        run = types.SimpleNamespace(config=config, host=hosts.Host(index, 2))
        work.Local(1).search(run, lambda _: searched.append, cut)
    # The first host has the first and the third, of which it gets both: its
    # progress begins with the one that is done. The second host has the second.
    first, second = cut[::2], cut[1::2]
    self.assertEqual(searched, [first, second, second])
    self.assertEqual(shards.unfinished(cut), second)
    work.Local(1).search(run, lambda _: searched.append, [])
    self.assertLen(searched, 3)


class TurnsTest(absltest.TestCase):
  def test_whose_turn_it_is(self):
    turns = work.Turns("abcd")
    self.assertEmpty(list(turns.take()))
    for searcher in (7, 5, 7, 3):
      turns.has_room(searcher)
    turns.gone(7)
    self.assertEqual(list(turns.take()), [(5, "a"), (3, "b")])
    # What was lost comes first, and the last one of it before the others.
    turns.lost("a")
    turns.lost("b")
    given = []
    turns.has_room(1)
    for searcher, shard in turns.take():
      given.append((searcher, shard))
      # One that has room even then has a turn at once.
      turns.has_room(searcher + 1)
    self.assertEqual(given, [(1, "b"), (2, "a"), (3, "c"), (4, "d")])
    self.assertEmpty(turns.left)


class LoadTest(absltest.TestCase):
  def test_waits_until_few_are_left_of_all_calls(self):
    load, waited = work.Load(3), []
    waits = threading.Thread(target=lambda: waited.append(load.wait(2)))
    load.begin(2)
    waits.start()
    load.begin(4)
    for _ in range(3):
      # There is room for no more than the second call has brought.
      waits.join(0.02)
      self.assertEmpty(waited)
      load.end(1)
    load.end(1)
    waits.join(10)
    self.assertLen(waited, 1)
    load.wait(1)


if __name__ == "__main__":
  absltest.main()
