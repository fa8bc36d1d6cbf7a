"""Tests of the tree of pages, against a list of all that it was given."""

import numpy as np
from absl.testing import absltest, parameterized

from rstar_jax.inference.prefix_cache import Page, PrefixCache
from rstar_jax.models.config import PAGE


def store(cache, ids, kind=0):
  """Puts a path into the cache as a run does; returns its last page."""
  page, partial, length = cache.match(ids, kind)
  pinned = partial or page
  cache.pin(pinned)
  shared = len(page.indices())
  own = [cache.take() for _ in range(-(-len(ids) // PAGE) - shared)]
  last = cache.add(page, ids[shared * PAGE :], own) if own else pinned
  cache.unpin(pinned)
  return last


class PrefixCacheTest(parameterized.TestCase):
  def test_an_empty_cache_has_no_prefix(self):
    cache = PrefixCache(5)
    page, partial, length = cache.match([1, 2, 3])
    self.assertEqual((page.index, partial, length), (-1, None, 0))
    self.assertEqual(page.indices(), [])
    self.assertEqual((cache.available, cache.used, cache.dropped), (5, 0, 0))

  def test_finds_whole_pages_and_part_of_one(self):
    cache = PrefixCache(9)
    ids = list(range(100, 140))
    last = store(cache, ids)
    self.assertEqual(cache.used, 3)
    self.assertLen(set(last.indices()), 3)
    self.assertEqual(last.tokens, tuple(ids[32:]))
    for length in (0, 1, 15, 16, 17, 31, 32, 33, 39, 40):
      for more in ([], [7] * 20):
        page, partial, found = cache.match([*ids[:length], *more])
        self.assertEqual(found, length)
        whole = length // PAGE
        self.assertEqual(page.indices(), last.indices()[:whole])
        self.assertEqual(partial is None, length % PAGE == 0)
        if partial is not None:
          self.assertEqual(partial.index, last.indices()[whole])
          self.assertIs(partial.parent, page)

  def test_takes_the_longest_of_several(self):
    cache = PrefixCache(9)
    first, second = [1, 2, 3, 4, 5], [1, 2, 3, 9, 9, 9]
    store(cache, first)
    store(cache, second)
    for ids, want, length in (
      ([1, 2, 3, 9, 8], second, 4),
      ([1, 2, 3, 4], first, 4),
      ([1, 5], first, 1),
      ([2, 2, 3], None, 0),
    ):
      _, partial, found = cache.match(ids)
      self.assertEqual(found, length)
      self.assertEqual(partial and partial.tokens, want and tuple(want))

  def test_kinds_share_nothing(self):
    cache = PrefixCache(9)
    store(cache, list(range(20)), kind=0)
    self.assertEqual(cache.match(list(range(20)), 1)[2], 0)
    store(cache, list(range(20)), kind=1)
    self.assertEqual(cache.used, 4)
    self.assertEqual(cache.match(list(range(20)), 0)[2], 20)

  def test_what_it_has_is_not_kept_twice(self):
    cache = PrefixCache(9)
    root = cache.match([])[0]
    ids = list(range(20))
    first = cache.add(root, ids, [cache.take(), cache.take()])
    # Another run computed the same, and took a page too many.
    own = [cache.take() for _ in range(3)]
    self.assertEqual(cache.used, 5)
    self.assertIs(cache.add(root, ids, own), first)
    self.assertEqual((cache.used, cache.available), (2, 9))
    # A part of what there is, and what goes on from it.
    self.assertIs(
      cache.add(root, ids[:18], [cache.take(), cache.take()]), first
    )
    longer = cache.add(root, [*ids, 20], [cache.take(), cache.take()])
    self.assertEqual((longer.tokens, cache.used), ((16, 17, 18, 19, 20), 2))
    self.assertEqual(cache.match(ids)[1], longer)

  def test_a_pinned_page_stays_when_it_is_continued(self):
    cache = PrefixCache(9)
    root = cache.match([])[0]
    page = cache.add(root, [1, 2], [cache.take()])
    cache.pin(page)
    longer = cache.add(root, [1, 2, 3], [cache.take()])
    self.assertEqual((cache.used, cache.available), (2, 8))
    self.assertEqual(set(root.after.values()), {page, longer})
    # And is the one that is found first.
    self.assertIs(cache.match([1, 2])[1], page)
    cache.unpin(page)
    self.assertEqual(cache.available, 9)

  def test_adding_nothing(self):
    cache = PrefixCache(2)
    root = cache.match([])[0]
    self.assertIs(cache.add(root, [], [cache.take(), cache.take()]), root)
    self.assertEqual((cache.used, cache.available), (0, 2))

  def test_the_leaves_used_longest_ago_are_dropped(self):
    cache = PrefixCache(4)
    paths = [[i] * 20 for i in (1, 2)]
    for ids in paths:
      store(cache, ids)
    cache.match(paths[0])
    self.assertEqual((cache.used, cache.dropped), (4, 0))
    store(cache, [3] * 5)
    # The leaf of the second, and not the page before it.
    self.assertEqual(cache.dropped, 1)
    self.assertEqual([cache.match(ids)[2] for ids in paths], [20, 16])
    self.assertEqual(cache.match([3] * 5)[2], 5)

  def test_a_share_of_all_pages_is_dropped_at_once(self):
    cache = PrefixCache(100)
    for i in range(100):
      store(cache, [i])
    store(cache, [200])
    self.assertEqual((cache.dropped, cache.used), (5, 96))
    self.assertEqual([cache.match([i])[2] for i in range(6)], [0] * 5 + [1])

  def test_pinned_pages_are_not_dropped(self):
    cache = PrefixCache(3)
    last = store(cache, [1] * 40)
    cache.pin(last)
    cache.pin(last)
    self.assertEqual(cache.available, 0)
    for _ in range(2):
      with self.assertRaisesRegex(ValueError, "all 3 pages are in use"):
        cache.take()
      cache.unpin(last)
    self.assertEqual(cache.available, 3)
    self.assertEqual(cache.take(), last.index)
    self.assertEqual(cache.match([1] * 40)[2], 32)
    self.assertEqual((cache.available, cache.dropped), (2, 1))

  @parameterized.parameters(*range(4))
  def test_any_use_of_it(self, seed):
    """What is found was stored, pages are of one owner, none gets lost."""
    rng = np.random.default_rng(seed)
    cache = PrefixCache(12)
    # What each page has, as a device would; and the runs under way.
    memory: dict[int, list[int]] = {}
    runs = []
    for _ in range(400):
      if runs and (rng.random() < 0.5 or len(runs) > 2):
        ids, pinned, table, first = runs.pop(rng.integers(len(runs)))
        shared = pinned
        while len(shared.indices()) > first:
          shared = shared.parent
        if rng.random() < 0.8:
          page = cache.add(shared, ids[first * PAGE :], table[first:])
          self.assertEqual(page.tokens[: len(ids) % PAGE or PAGE][-1], ids[-1])
        else:
          cache.give(table[first:])
        cache.unpin(pinned)
      else:
        ids = rng.integers(0, 2, 16).tolist() * 3
        ids = ids[: rng.integers(1, 48)]
        page, partial, length = cache.match(ids[:-1])
        pinned = partial or page
        cache.pin(pinned)
        table = page.indices()
        first = len(table)
        needed = -(-len(ids) // PAGE) - first
        found = sum((memory[i] for i in table), [])
        if partial is not None:
          found = found + memory[partial.index]
        self.assertEqual(found[:length], ids[:length])
        if cache.available < needed:
          cache.unpin(pinned)
          continue
        for number in range(needed):
          at = (first + number) * PAGE
          table.append(cache.take())
          memory[table[-1]] = ids[at : at + PAGE]
        runs.append((ids, pinned, table, first))
      self.check(cache, runs)
    for _, pinned, table, first in runs:
      cache.give(table[first:])
      cache.unpin(pinned)
    self.assertEqual(cache.available, 12)
    self.assertGreater(cache.dropped, 0)

  def check(self, cache, runs):
    tree: list[Page] = []
    left = list(cache._roots.values())
    while left:
      left += (below := list(left.pop().after.values()))
      tree += below
    owned = [i for *_, table, first in runs for i in table[first:]]
    everything = [each.index for each in tree] + owned + cache._free
    self.assertCountEqual(everything, range(cache.count))
    pinned = {index for each in runs for index in each[1].indices()}
    self.assertEqual(pinned, {each.index for each in tree if each.pins})
    self.assertEqual(cache.available, cache.count - len(owned) - len(pinned))
    self.assertEqual(cache.used, cache.count - len(cache._free))


if __name__ == "__main__":
  absltest.main()
