"""Tests of the slots' bookkeeping, on pools that are lists of tokens."""

import numpy as np
from absl.testing import absltest, parameterized
from hypothesis import given, settings
from hypothesis import strategies as st

from rstar_jax.inference.slots import CachedCandidates, Slots


def ids(*values):
  return np.array(values, np.int32)


def place(slots, *paths, hidden=True, reuse=True):
  return slots.place(paths, [0] * len(paths), hidden=hidden, reuse=reuse)


class Device:
  """A pool whose keys and values are the tokens themselves."""

  def __init__(self, count):
    self.paths = [[] for _ in range(count)]

  def carry_out(self, moves, paths):
    """Does what moves say, and returns how many tokens were run."""
    for move in moves:
      if move.source not in (-1, move.slot):
        assert all(move.slot != other.source for other in moves)
        self.paths[move.slot] = list(self.paths[move.source])
    run = 0
    for move in moves:
      path = self.paths[move.slot][: move.reused]
      if move.candidate:
        cached, column = move.candidate
        assert move.appended <= cached.usable[column]
        path += cached.source[cached.row][column][: move.appended]
      tail = paths[move.index][len(path) :].tolist()
      run += len(tail)
      self.paths[move.slot] = path + tail
    return run


class SlotsTest(parameterized.TestCase):
  def test_a_child_appends_a_candidate_and_runs_the_rest(self):
    slots = Slots(2, 32)
    (first,) = place(slots, ids(*range(1, 11)))
    self.assertEqual((first.slot, first.source, first.start), (0, -1, 0))
    candidates = np.array([[21, 22, 23, 24], [31, 32, 33, 34]], np.int32)
    cached = CachedCandidates(object(), 0, candidates, np.array([3, 2]))
    slots.cache_candidates(0, slots.version(0), cached)
    (move,) = place(slots, ids(*range(1, 11), 31, 32, 33, 50))
    self.assertEqual((move.slot, move.source), (0, 0))
    self.assertEqual((move.reused, move.appended), (10, 2))
    self.assertEqual(move.candidate, (cached, 1))
    # The candidates belonged to the old path.
    (again,) = place(slots, ids(*range(1, 11), 21, 22, 23))
    self.assertEqual((again.slot, again.reused, again.candidate), (0, 10, None))

  def test_another_branch_reuses_the_ancestors(self):
    slots = Slots(1, 32)
    place(slots, ids(*range(20)))
    (move,) = place(slots, ids(*range(13), 77))
    self.assertEqual((move.slot, move.source, move.reused), (0, 0, 13))

  def test_the_last_token_is_run_where_its_state_is_not_there(self):
    for hidden, kept in ((True, 19), (False, 20)):
      slots = Slots(1, 32)
      place(slots, ids(*range(20)), hidden=False)
      (move,) = place(slots, ids(*range(20)), hidden=hidden)
      self.assertEqual(move.reused, kept)
    # And now it is there.
    slots = Slots(1, 32)
    place(slots, ids(*range(20)))
    (move,) = place(slots, ids(*range(20)))
    self.assertEqual(move.start, 20)

  def test_siblings_copy_the_path_that_one_of_them_takes_over(self):
    slots = Slots(4, 32)
    place(slots, ids(*range(10)))
    moves = place(
      slots, ids(*range(10), 1), ids(*range(10), 2), ids(*range(10), 3)
    )
    self.assertEqual([each.source for each in moves], [0, 0, 0])
    self.assertEqual(moves[0].slot, 0)
    self.assertLen({each.slot for each in moves}, 3)

  def test_the_slot_longest_unused_is_given_away(self):
    slots = Slots(3, 32)
    paths = [ids(*[tree] * 10) for tree in (1, 2, 3)]
    place(slots, *paths)
    place(slots, paths[0], paths[2])
    (move,) = place(slots, ids(*[4] * 10))
    self.assertEqual((move.slot, move.source), (1, -1))

  def test_a_few_words_make_no_successor(self):
    slots = Slots(2, 32)
    place(slots, ids(1, 2, 3, *[5] * 10))
    (move,) = place(slots, ids(1, 2, 3, *[6] * 10))
    self.assertEqual((move.slot, move.source), (1, -1))

  @parameterized.parameters(
    # Of a path of 12 tokens 7 are not worth a copy, and 8 are.
    (12, 7, 0),
    (12, 8, 8),
    # All of a short one are.
    (5, 5, 5),
    (5, 4, 0),
    (8, 7, 0),
    (8, 8, 8),
  )
  def test_how_much_is_worth_a_copy(self, length, shared, reused):
    slots = Slots(2, 32)
    place(slots, ids(*range(length)))
    (move,) = place(slots, ids(*range(shared), 77, 78))
    self.assertEqual((move.source, move.reused), (0 if reused else -1, reused))

  def test_cached_candidates_make_a_short_beginning_worth_it(self):
    slots = Slots(2, 32)
    place(slots, ids(*range(20)))
    tokens = np.array([[50, 51, 52, 53]], np.int32)
    cached = CachedCandidates(object(), 0, tokens, np.array([4]))
    slots.cache_candidates(0, slots.version(0), cached)
    # Candidates follow the whole path, and not a part of it.
    (move,) = place(slots, ids(*range(19), 50, 51))
    self.assertEqual((move.reused, move.candidate), (19, None))

  def test_the_first_of_equals_takes_over_and_the_others_copy(self):
    slots = Slots(4, 32)
    place(slots, ids(*range(10)), ids(*range(10), 30))
    # Eleven tokens of slot 1 are more than ten of slot 0.
    first, second, third = place(
      slots,
      ids(*range(10), 30, 1),
      ids(*range(10), 30, 2),
      ids(*range(10), 40),
    )
    self.assertEqual((first.slot, first.source, first.reused), (1, 1, 11))
    self.assertEqual((second.slot, second.source, second.reused), (2, 1, 11))
    self.assertEqual((third.slot, third.source, third.reused), (0, 0, 10))

  def test_a_longer_match_takes_over(self):
    slots = Slots(4, 32)
    place(slots, ids(*range(12)))
    first, second = place(slots, ids(*range(9), 1), ids(*range(12), 2))
    self.assertEqual((second.slot, second.source), (0, 0))
    self.assertEqual((first.slot, first.source), (1, 0))

  def test_a_version_is_of_one_path(self):
    slots = Slots(2, 32)
    path = ids(*range(10))
    place(slots, path)
    version = slots.version(0)
    place(slots, ids(*range(10), 1))
    self.assertNotEqual(slots.version(0), version)
    self.assertEqual(slots.version(1), Slots(2, 32).version(1))

  def test_emptied_slots_are_given_away_from_the_first(self):
    slots = Slots(3, 32)
    paths = [ids(*[tree] * 10) for tree in (1, 2, 3)]
    for path in paths:
      place(slots, path)
    tokens = np.array([[50, 51]], np.int32)
    cached = CachedCandidates(object(), 0, tokens, np.array([2]))
    slots.cache_candidates(1, slots.version(1), cached)
    slots.reset()
    moves = place(slots, *paths)
    self.assertEqual([each.slot for each in moves], [0, 1, 2])
    self.assertEqual([each.start for each in moves], [0, 0, 0])
    (move,) = place(slots, ids(*paths[1], 50, 51))
    self.assertIsNone(move.candidate)

  def test_a_candidate_matches_as_far_as_it_is_usable(self):
    rng = np.random.default_rng(3)
    for _ in range(300):
      tokens = rng.integers(0, 2, (4, 5)).astype(np.int32)
      usable = rng.integers(0, 6, 4)
      tail = rng.integers(0, 2, rng.integers(0, 8)).astype(np.int32)
      common = []
      for row, most in zip(tokens.tolist(), usable, strict=True):
        n = 0
        while n < min(len(tail), most) and row[n] == tail[n]:
          n += 1
        common.append(n)
      best = max(common)
      found = CachedCandidates(None, 0, tokens, usable).match(tail)
      self.assertEqual(found, (common.index(best), best))

  def test_the_last_token_of_a_candidate_is_run_for_its_state(self):
    for hidden, appended in ((True, 2), (False, 3)):
      slots = Slots(1, 32)
      place(slots, ids(*range(10)), hidden=hidden)
      tokens = np.array([[50, 51, 52, 53]], np.int32)
      cached = CachedCandidates(object(), 0, tokens, np.array([4]))
      slots.cache_candidates(0, slots.version(0), cached)
      (move,) = place(slots, ids(*range(10), 50, 51, 52), hidden=hidden)
      self.assertEqual((move.reused, move.appended), (10, appended))
      self.assertIsNotNone(move.candidate)

  def test_a_path_goes_to_the_shard_with_most_free_slots(self):
    slots = Slots(6, 32, data_shards=3)
    moves = place(slots, *(ids(*[tree] * 10) for tree in range(1, 5)))
    # The first of shards that have as many.
    self.assertEqual([each.slot for each in moves], [0, 2, 4, 1])

  def test_kinds_of_positions_are_apart(self):
    slots = Slots(2, 32)
    path = ids(*range(20))
    slots.place([path], [0], hidden=False)
    (move,) = slots.place([path], [1], hidden=False)
    self.assertEqual((move.source, move.reused), (-1, 0))

  def test_more_paths_than_slots_wait(self):
    slots = Slots(2, 32)
    paths = [ids(*[tree] * 10) for tree in range(1, 6)]
    done = []
    while paths:
      moves = place(slots, *paths)
      self.assertBetween(len(moves), 1, 2)
      done += [paths[each.index][0] for each in moves]
      chosen = {each.index for each in moves}
      paths = [each for i, each in enumerate(paths) if i not in chosen]
    self.assertCountEqual(done, range(1, 6))

  def test_a_source_is_not_given_away_before_all_have_copied_it(self):
    slots = Slots(2, 32)
    place(slots, ids(*range(10)))
    paths = [ids(*range(10), i) for i in (1, 2, 3)]
    moves = place(slots, *paths)
    self.assertLen(moves, 2)
    (last,) = place(slots, paths[2])
    self.assertEqual(last.reused, 10)

  def test_reset_and_reuse(self):
    slots = Slots(2, 32)
    path = ids(*range(10))
    place(slots, path)
    (move,) = place(slots, path, reuse=False)
    self.assertEqual((move.source, move.start), (-1, 0))
    slots.reset()
    (move,) = place(slots, path)
    self.assertEqual((move.slot, move.source, move.start), (0, -1, 0))

  def test_data_shards(self):
    with self.assertRaisesRegex(ValueError, "7 slots cannot be split into 2"):
      Slots(7, 8, 2)
    slots = Slots(6, 32, data_shards=2)
    moves = place(slots, *(ids(*[tree] * 10) for tree in range(1, 5)))
    # Dealt evenly.
    self.assertEqual(sorted(each.slot for each in moves), [0, 1, 3, 4])
    # A copy stays in the data shard of its source.
    (third,) = (each.slot for each in moves if each.index == 1)
    moves = place(slots, ids(*[2] * 10, 7), ids(*[2] * 10, 8))
    self.assertEqual({each.slot // 3 for each in moves}, {third // 3})

  @settings(max_examples=60, deadline=None)
  @given(
    st.integers(0, 2**32 - 1),
    st.integers(1, 7),
    st.sampled_from([1, 2]),
    st.booleans(),
  )
  def test_random_searches_end_in_the_paths_asked_for(
    self, seed, size, data_shards, hidden
  ):
    """What slots hold is always what a pool holds that obeys the moves."""
    rng = np.random.default_rng(seed)
    slots, device = (
      Slots(size * data_shards, 40, data_shards),
      Device(size * data_shards),
    )
    # Few ids, so that paths share beginnings by chance too.
    draw = lambda count: rng.integers(1, 4, count).astype(np.int32)  # noqa: E731
    nodes = [[draw(rng.integers(1, 9))] for _ in range(3)]
    for _ in range(13):
      paths = []
      for tree in nodes:
        picks = rng.integers(0, len(tree), rng.integers(1, 3))
        paths += [tree[i] for i in picks]
      waiting, results = list(range(len(paths))), {}
      while waiting:
        asked = [paths[i] for i in waiting]
        moves = place(slots, *asked, hidden=hidden)
        self.assertLen({each.slot for each in moves}, len(moves))
        device.carry_out(moves, asked)
        for move in moves:
          path = asked[move.index]
          self.assertEqual(device.paths[move.slot], path.tolist())
          if hidden:
            at_end = move.start == len(path)
            self.assertLessEqual(at_end, move.candidate is None)
          results[waiting[move.index]] = move.slot
        waiting = [
          i for n, i in enumerate(waiting) if n not in {m.index for m in moves}
        ]
        source = [draw((2, 5)).tolist() for _ in moves]
        for row, move in enumerate(moves):
          tokens = np.array(source[row], np.int32)
          usable = rng.integers(0, 6, 2)
          cached = CachedCandidates(source, row, tokens, usable)
          slots.cache_candidates(move.slot, slots.version(move.slot), cached)
          tree = nodes[row % 3]
          child = np.concatenate(
            [asked[move.index], tokens[row % 2], draw(rng.integers(0, 4))]
          )
          if len(child) <= 40:
            tree.append(child)
      self.assertLen(results, len(paths))


if __name__ == "__main__":
  absltest.main()
