"""Searches that run at once: whatever the order of answers, the same results.

Callables are delayed, and called in any order, by the tests; no test waits for
a time to pass.
"""

import concurrent.futures
import dataclasses
import itertools
import os
import random
import signal
import threading
import time

import numpy as np
from absl.testing import absltest, parameterized

from rstar_jax import testing
from rstar_jax.search import (
  ab_mcts,
  beam,
  driver,
  expansion,
  mcts,
  rebase,
  requests,
  sampling,
)
from rstar_jax.search.requests import Calls
from rstar_jax.search.tree import Tree
from rstar_jax.storage import stopping
from rstar_jax.types import Problem
from tests.search.toys import PROBLEMS, Streamed, calls_of, config_of

_POLICY = testing.ToySum(("x += 1", "x += 2", "x += nope"), offsets=(0, 1))
_C = config_of()
_SEEDS = np.arange(2, dtype=np.uint32)
# The longest that a test which would hang waits.
_SECONDS = 60


def delayed(call, seed):
  """Returns a callable whose calls take different times."""
  draws, lock = random.Random(seed), threading.Lock()

  def slow(*args):
    with lock:
      delay = draws.random()
    time.sleep(delay / 200)
    return call(*args)

  return slow


def search_of(kind, problem):
  """Returns a search, the same for the same arguments."""
  match kind:
    case "mcts":
      config = config_of(annotation="ppm", rollouts=5)
      return mcts.search_tree(Tree(problem), config, 3, ("m",))
    case "beam":
      return beam.beams(Tree(problem), 4, config_of(), 3, groups=2)
    case "sample":
      return sampling.solutions(
        problem, 5, 3, scored=True, trajectory_value="min"
      )
  return sampling.solutions_until(problem, 9, 3)


def text_of(result) -> str:
  return result.to_json() if isinstance(result, Tree) else repr(result)


class ShuffleTest(parameterized.TestCase):
  @parameterized.product(
    kind=("mcts", "beam", "sample", "until"), streamed=(False, True)
  )
  def test_results_are_those_of_one_search_at_a_time(self, kind, streamed):
    expand = _POLICY if kind in ("mcts", "beam") else _POLICY.block
    calls = calls_of(expand)
    alone = [
      text_of(driver.run_searches([search_of(kind, each)], calls, 1)[0])
      for each in PROBLEMS
    ]
    for seed in range(4):
      draws = random.Random(seed)
      order = draws.sample(range(len(PROBLEMS)), len(PROBLEMS))
      make = Streamed if streamed else delayed
      slow = Calls(
        expand=make(expand, seed),
        score=make(testing.score_by_hash, seed + 10),
        verify=delayed(testing.run_trusted, seed + 20),
        grade=delayed(testing.grade_equal, seed + 30),
      )
      found = driver.run_searches(
        [search_of(kind, PROBLEMS[i]) for i in order],
        slow,
        draws.choice((1, 2, 3, 7, 64)),
      )
      self.assertEqual(list(map(text_of, found)), [alone[i] for i in order])

  def test_searches_of_many_kinds_and_callables_at_once(self):
    kinds = ("mcts", "beam", "sample", "until")
    pairs = list(itertools.product(kinds, PROBLEMS))
    calls = {
      kind: calls_of(_POLICY if kind in kinds[:2] else _POLICY.block)
      for kind in kinds
    }
    found = [""] * len(pairs)

    def done(index, result):
      found[index] = text_of(result)

    driver.run(((search_of(*each), calls[each[0]]) for each in pairs), 64, done)
    alone = [
      text_of(driver.run_searches([search_of(*each)], calls[each[0]], 1)[0])
      for each in pairs
    ]
    self.assertEqual(found, alone)


class SeedTest(parameterized.TestCase):
  @parameterized.named_parameters(
    ("mcts", lambda *seed: mcts.search_tree(Tree(PROBLEMS[0]), _C, *seed)),
    ("beam", lambda *seed: beam.beams(Tree(PROBLEMS[0]), 2, _C, *seed)),
    ("one", lambda *seed: expansion.grow(Tree(PROBLEMS[0]), 0, _C, *seed)),
    (
      "all",
      lambda *seed: expansion.grow_all(Tree(PROBLEMS[0]), [0], _C, *seed),
    ),
    (
      "child",
      lambda *s: expansion.sample_child(Tree(PROBLEMS[0]), (), (), _C, *s),
    ),
    ("rebase", lambda *s: rebase.rebase(Tree(PROBLEMS[0]), 3, 0.2, _C, *s)),
    ("ab_mcts", lambda *s: ab_mcts.search_tree(Tree(PROBLEMS[0]), _C, *s)),
    ("sample", lambda *seed: sampling.solutions(PROBLEMS[0], 2, *seed)),
    ("until", lambda *seed: sampling.solutions_until(PROBLEMS[0], 2, *seed)),
  )
  def test_it_is_0_unless_given(self, search):
    none, zero, other = (
      repr(next(search(*seed))) for seed in ((), (0,), (-1,))
    )
    self.assertEqual(none, zero)
    self.assertNotEqual(none, other)


class QueueTest(parameterized.TestCase):
  def test_a_slow_program_delays_its_own_tree_alone(self):
    others = threading.Event()
    slow = PROBLEMS[2]

    def expand(questions, prefixes, seeds):
      rows = testing.ToySum(covers=True)(questions, prefixes, seeds)
      return [
        [dataclasses.replace(e, text=e.text.replace("x =", f"q = '{q}'\nx ="))
         for e in row]
        for q, row in zip(questions, rows, strict=True)
      ]  # fmt: skip

    def verify(programs):
      if slow.question in programs[0][0]:
        self.assertTrue(others.wait(_SECONDS))
      return testing.run_trusted(programs)

    ended = []

    def done(index, tree):
      ended.append(tree.problem)
      self.assertGreater(len(tree), 1)
      if len(ended) == len(PROBLEMS) - 1:
        others.set()

    calls = calls_of(expand, verify=verify)
    driver.run(
      ((mcts.search_tree(Tree(each), config_of()), calls) for each in PROBLEMS),
      2,
      done,
    )
    self.assertCountEqual(ended, PROBLEMS)
    self.assertEqual(ended[-1], slow)

  def test_an_answer_moves_its_search_on_while_others_wait(self):
    first, ended = concurrent.futures.Future(), []

    class Expand:
      def submit(self, question, prefix, seeds):
        if question == "first":
          return first
        found = concurrent.futures.Future()
        found.set_result(question)
        return found

    def search(question):
      for _ in range(3):
        answer = yield requests.expand(question, (), _SEEDS)
      return answer

    def done(index, result):
      ended.append(result)
      if len(ended) == 2:
        first.set_result("first")

    calls = Calls(Expand(), None, None)
    names = ("first", "second", "third")
    driver.run([(search(each), calls) for each in names], 3, done)
    self.assertEqual(ended, ["second", "third", "first"])

  def test_no_more_are_in_flight_than_asked_for(self):
    going, most = set(), []

    def search(number):
      going.add(number)
      for _ in range(3):
        most.append(len(going))
        yield requests.verify([["print(1)"]])
      going.discard(number)

    for in_flight in (1, 3, 64):
      most.clear()
      driver.run_searches(list(map(search, range(11))), calls_of(), in_flight)
      self.assertEqual(max(most), min(in_flight, 11))
    with self.assertRaisesRegex(ValueError, "in_flight=0 must be"):
      driver.run_searches([], calls_of(), 0)

  def test_a_search_that_forgets_to_yield_from(self):
    def searched(tree):
      expansion.grow(tree, 0, _C)
      return tree

    def yields(tree):
      yield expansion.grow(tree, 0, _C)

    for search, found in ((searched, "Tree"), (yields, "generator object gro")):
      with self.assertRaisesRegex(TypeError, f"{found}.*write `yield from"):
        driver.run_searches([search(Tree(PROBLEMS[0]))], calls_of(), 1)

  def test_searches_are_asked_for_when_there_is_room(self):
    begun, ended = [], []

    def search(number):
      yield requests.verify([["print(1)"]])
      return number

    def searches():
      for number in range(5):
        self.assertLess(len(begun) - len(ended), 2)
        begun.append(number)
        yield search(number), calls_of()

    driver.run(searches(), 2, lambda index, found: ended.append(index))
    self.assertCountEqual(ended, range(5))

  def test_a_list_is_answered_in_its_order(self):
    def search():
      none = yield []
      one = yield [requests.verify([["print(7)"]])]
      many = yield [
        requests.score("q", (), ["a", "b"]),
        requests.verify([["print(8)"], ["print(9)"]]),
        requests.judge([(Problem("p", "q", "1"), "1")]),
        requests.expand("q", (), _SEEDS),
        requests.expand("q", (), _SEEDS[:1]),
      ]
      return none, one, many

    calls = calls_of(score=Streamed(testing.score_by_hash, 0))
    ((none, one, many),) = driver.run_searches([search()], calls, 1)
    self.assertEqual(none, [])
    self.assertEqual([each.stdout for (each,) in one], ["7"])
    scores, ran, judged, two, single = many
    self.assertEqual(scores.shape, (2,))
    self.assertEqual([each.stdout for each in ran], ["8", "9"])
    self.assertEqual(judged, [("equal", 1.0)])
    (expected,) = testing.ToySum()(["q"], [()], _SEEDS[None])
    self.assertEqual((two, single), (expected, expected[:1]))


class EndTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.before = set(threading.enumerate())
    self.addCleanup(self.check_threads)

  def check_threads(self):
    """Fails if a thread does not end, for which a run may not wait.

    A signal may come between the start of a thread and what is noted of it.
    """
    for each in set(threading.enumerate()) - self.before:
      each.join(_SECONDS)
      self.assertFalse(each.is_alive())

  def run_all(self, calls, in_flight=5, done=lambda *_: None):
    config = config_of(annotation="ppm", rollouts=3000)
    policy = testing.ToySum(tuple(f"x += {i}" for i in range(9)), 9)
    calls = dataclasses.replace(calls_of(policy), **calls)
    searches = [mcts.search_tree(Tree(each), config) for each in PROBLEMS]
    driver.run(((each, calls) for each in searches), in_flight, done)

  @parameterized.product(
    name=("expand", "verify", "grade", "score", "reward"),
    in_flight=(1, 5),
    streamed=(False, True),
  )
  def test_an_exception_of_a_callable_ends_all(self, name, in_flight, streamed):
    count = itertools.count()

    def broken(*args):
      if next(count) < 3:
        return good(*args)
      raise RuntimeError(f"{name} broke")

    good = getattr(calls_of(), name) or (lambda problem, answer: 0.5)
    call = broken
    if streamed and name in ("expand", "score"):
      call = Streamed(broken, 0)
      self.addCleanup(call.threads.shutdown)
    changes = {name: call}
    if name in ("grade", "reward"):
      changes["expand"] = testing.ToySum()
    with self.assertRaisesRegex(Exception, f"{name} broke"):
      self.run_all(changes, in_flight)

  @parameterized.parameters("expand", "score", "verify")
  def test_other_numbers_of_answers_than_were_asked_for(self, name):
    good = getattr(calls_of(), name)
    with self.assertRaisesRegex(ValueError, "zip"):
      self.run_all({name: lambda *args: good(*args)[1:]})

  def test_no_call_begins_after_an_exception(self):
    calls = []

    def expand(*args):
      calls.append(args)
      raise RuntimeError("the policy broke")

    with self.assertRaisesRegex(RuntimeError, "the policy broke"):
      self.run_all({"expand": expand})
    self.assertLen(calls, 1)

  def test_calls_that_are_being_made_are_waited_for(self):
    """Nothing uses a callable after the run."""
    entered, ended = threading.Event(), []

    def verify(programs):
      entered.set()
      time.sleep(0.01)
      ended.append(1)
      return testing.run_trusted(programs)

    def search(kind):
      if kind == "slow":
        yield requests.verify([["print(1)"]])
      yield requests.score("q", (), ["a"])

    def score(*_):
      entered.wait(_SECONDS)
      raise RuntimeError("the PPM broke")

    calls = calls_of(verify=verify, score=score)
    with self.assertRaisesRegex(RuntimeError, "the PPM broke"):
      driver.run_searches(list(map(search, ("slow", "quick"))), calls, 2)
    self.assertEqual(ended, [1])

  def test_what_is_streamed_is_cancelled(self):
    asked = []

    class Expand:
      def submit(self, question, prefix, seeds):
        asked.append(concurrent.futures.Future())
        return asked[-1]

    def search(kind):
      if kind == "broken":
        yield requests.verify([["print(1)"]])
        raise RuntimeError("the search broke")
      yield [requests.expand("q", (), _SEEDS)] * 2

    calls = calls_of(Expand())
    with self.assertRaisesRegex(RuntimeError, "the search broke"):
      driver.run_searches(list(map(search, ("fine", "broken"))), calls, 2)
    self.assertLen(asked, 2)
    self.assertTrue(all(each.cancelled() for each in asked))
    with self.assertRaises(concurrent.futures.InvalidStateError):
      asked[0].set_result([])

  def test_one_of_several_answers_that_fails_ends_all_at_once(self):
    class Expand:
      def submit(self, question, prefix, seeds):
        found = concurrent.futures.Future()
        if len(seeds) == 1:
          found.set_exception(RuntimeError("one row broke"))
        return found

    def search():
      # The first is never answered.
      yield [requests.expand("q", (), _SEEDS[:n]) for n in (2, 1)]

    with self.assertRaisesRegex(RuntimeError, "one row broke"):
      driver.run_searches([search()], calls_of(Expand()), 1)

  def test_an_exception_of_a_search_closes_the_others(self):
    ended = []

    def search(number):
      try:
        while True:
          yield requests.verify([["print(1)"]])
          if number == 3:
            raise RuntimeError("the search broke")
      finally:
        ended.append(number)

    with self.assertRaisesRegex(RuntimeError, "the search broke"):
      driver.run_searches(list(map(search, range(5))), calls_of(), 5)
    self.assertCountEqual(ended, range(5))

  def test_an_exception_of_done_or_of_the_searches(self):
    def done(index, found):
      raise RuntimeError("done broke")

    with self.assertRaisesRegex(RuntimeError, "done broke"):
      driver.run(
        ((search_of("mcts", each), calls_of()) for each in PROBLEMS), 3, done
      )

    def searches():
      yield search_of("mcts", PROBLEMS[0]), calls_of()
      raise RuntimeError("the searches broke")

    with self.assertRaisesRegex(RuntimeError, "the searches broke"):
      driver.run(searches(), 3, lambda *_: None)

  @parameterized.parameters(1, 5)
  def test_an_interrupt(self, in_flight):
    # A program that a shell starts behind itself ignores it.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    self.addCleanup(signal.signal, signal.SIGINT, before)
    numbers = itertools.count()
    policy = testing.ToySum(tuple(f"x += {i}" for i in range(9)), 9)

    def expand(*args):
      if next(numbers) == 2:
        os.kill(os.getpid(), signal.SIGINT)
      return policy(*args)

    with self.assertRaises(KeyboardInterrupt):
      self.run_all({"expand": expand}, in_flight)
    self.assertLess(next(numbers), 3000)

  def test_sigterm_while_all_wait(self):
    numbers = itertools.count()

    def verify(programs):
      if next(numbers) == 0:
        os.kill(os.getpid(), signal.SIGTERM)
      return testing.run_trusted(programs)

    with stopping.listening(), self.assertRaises(stopping.Stopped):
      self.run_all({"verify": verify})

  def test_what_is_done_before_the_end_is_delivered(self):
    found = []

    def search(number):
      yield requests.verify([["print(1)"]])
      if number == 4:
        raise RuntimeError("the search broke")
      return number

    with self.assertRaisesRegex(RuntimeError, "the search broke"):
      driver.run(
        ((search(i), calls_of()) for i in range(9)),
        1,
        lambda index, result: found.append((index, result)),
      )
    self.assertEqual(found, [(i, i) for i in range(4)])

  def test_a_stop_ends_what_waits_for_an_answer(self):
    waiting: concurrent.futures.Future = concurrent.futures.Future()
    stop: concurrent.futures.Future = concurrent.futures.Future()

    class Policy:
      def submit(self, *row):
        threading.Timer(0.01, stop.cancel).start()
        return waiting

    search = mcts.search_tree(Tree(PROBLEMS[0]), _C)
    with self.assertRaises(concurrent.futures.CancelledError):
      driver.run([(search, calls_of(Policy()))], 1, self.fail, stop=stop)
    self.assertTrue(waiting.cancelled())


if __name__ == "__main__":
  absltest.main()
