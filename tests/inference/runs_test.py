"""Tests of paths under way: which pages they share, copy, take and give."""

from absl.testing import absltest, parameterized

from rstar_jax.inference.runs import Request, Run, Shard


def request():
  return Request([])


def shard_of(count):
  """Returns a shard of a model whose positions are all of one kind."""
  return Shard(count, lambda span: 0)


def start(shard, of, ids, **options):
  defaults = dict(reuse=len(ids), pages=len(ids), span=len(ids))
  return shard.start(of, ids, **defaults | options)


def finish(shard, run):
  """Computes all of a run, as a call would, and ends it."""
  shard.cover(run, len(run.ids) - 1)
  run.next = len(run.ids)
  return shard.end(run)


class RunsTest(parameterized.TestCase):
  def test_a_run_takes_its_pages_as_it_goes(self):
    shard, of, ids = shard_of(5), request(), list(range(40))
    run = start(shard, of, ids)
    self.assertEqual((run.next, run.left, run.table), (0, 40, []))
    self.assertEqual((run.promised, shard.reserved), (3, 3))
    self.assertEqual(of.runs, {run})
    for position, pages in ((0, 1), (15, 1), (16, 2), (39, 3)):
      shard.cover(run, position)
      self.assertLen(set(run.table), pages)
      self.assertEqual(run.promised, 3 - pages)
      self.assertEqual(shard.reserved, 3 - pages)
    self.assertIsNone(run.copy)
    run.next = 37
    self.assertEqual(run.left, 3)
    page = shard.end(run)
    # What was not computed is in no page.
    self.assertEqual(page.indices(), run.table)
    self.assertEqual(shard.cache.match(ids)[2], 37)
    self.assertEmpty(of.runs)
    self.assertEqual(shard.cache.available, 5)

  def test_a_fork_inside_of_a_page_copies_it(self):
    shard, of, ids = shard_of(9), request(), list(range(40))
    finish(shard, start(shard, of, ids))
    fork = [*ids[:35], 99, 98]
    run = start(shard, of, fork)
    last = shard.cache.match(ids)[1]
    self.assertEqual((run.next, run.first, run.promised), (35, 2, 1))
    self.assertEqual(run.table, last.indices()[:2])
    self.assertIs(run.pinned, last)
    self.assertEqual(last.pins, 1)
    shard.cover(run, 36)
    self.assertEqual(run.copy, (last.index, run.table[2]))
    self.assertNotIn(run.table[2], last.indices())
    # Once, with the first page of its own.
    run.copy = None
    shard.cover(run, 50)
    self.assertIsNone(run.copy)
    run.next = 37
    self.assertEqual(shard.end(run).tokens, (32, 33, 34, 99, 98))
    self.assertEqual(last.pins, 0)

  def test_a_fork_between_pages_copies_none(self):
    shard, of, ids = shard_of(9), request(), list(range(40))
    finish(shard, start(shard, of, ids))
    run = start(shard, of, [*ids[:32], 99])
    shard.cover(run, 32)
    self.assertEqual((run.next, run.first, run.copy), (32, 2, None))
    self.assertIs(run.pinned, run.shared)

  def test_reuse_is_at_most_what_is_said(self):
    shard, of, ids = shard_of(9), request(), list(range(20))
    finish(shard, start(shard, of, ids))
    for reuse, next_ in ((19, 19), (16, 16), (15, 15), (0, 0)):
      run = start(shard, of, ids, reuse=reuse)
      self.assertEqual(run.next, next_)
      shard.end(run)

  def test_a_run_with_nothing_of_its_own(self):
    shard, of, ids = shard_of(9), request(), list(range(20))
    last = finish(shard, start(shard, of, ids))
    run = start(shard, of, ids)
    self.assertEqual(run.left, 0)
    self.assertIs(shard.end(run), last)
    self.assertEqual((shard.reserved, shard.cache.available), (0, 9))

  def test_waits_while_pages_are_promised_to_others(self):
    shard, of = shard_of(5), request()
    first = start(shard, of, [1] * 40, pages=48)
    self.assertIsNone(start(shard, of, [2] * 33))
    self.assertIsNone(start(shard, of, [2] * 20, margin=1))
    second = start(shard, of, [2] * 20)
    self.assertEqual((first.promised, second.promised), (3, 2))
    self.assertEqual(of.runs, {first, second})
    self.assertEqual(shard.reserved, 5)
    self.assertIsNone(start(shard, of, [3]))
    shard.end(first)
    self.assertIsNotNone(start(shard, of, [3] * 48))

  def test_a_run_that_waits_pins_nothing(self):
    shard, of = shard_of(3), request()
    finish(shard, start(shard, of, [1] * 20))
    self.assertIsNone(start(shard, of, [1] * 64))
    self.assertEqual(shard.cache.available, 3)

  def test_a_page_to_copy_is_left_if_it_takes_the_last_room(self):
    shard, of, ids = shard_of(3), request(), list(range(20))
    finish(shard, start(shard, of, ids))
    # Two pages of its own beside the one that it shares: all there are.
    run = start(shard, of, [*ids, *range(50, 70)])
    self.assertEqual((run.next, run.first, run.promised), (16, 1, 2))
    self.assertIs(run.pinned, run.shared)
    finish(shard, run)
    self.assertIsNone(run.copy)
    self.assertEqual(shard.cache.dropped, 1)
    self.assertEqual(shard.cache.available, 3)

  def test_what_is_given_up_goes_into_no_page(self):
    shard, of, other = shard_of(9), request(), request()
    run = start(shard, of, [1] * 20)
    shard.cover(run, 19)
    run.next = 20
    kept = start(shard, other, [2] * 20)
    shard.prefills += [run, kept]
    shard.waiting += [other, of]
    shard.forget(of)
    self.assertEqual(shard.prefills, [kept])
    self.assertEqual(list(shard.waiting), [other])
    self.assertEmpty(of.runs)
    self.assertEqual((shard.reserved, shard.cache.used), (2, 0))
    self.assertEqual(shard.cache.match([1] * 20)[2], 0)
    self.assertIsInstance(kept, Run)

  def test_runs_are_taken_once_all_is_planned(self):
    shard, of = shard_of(9), request()
    runs = [start(shard, of, [token] * 20) for token in range(3)]
    shard.prefills += runs
    runs[0].next = runs[2].next = 20
    self.assertEqual(shard.take_prefilled(), [runs[0], runs[2]])
    self.assertEqual(shard.prefills, [runs[1]])
    self.assertEqual(shard.take_prefilled(), [])


if __name__ == "__main__":
  absltest.main()
