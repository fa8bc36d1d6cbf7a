"""How requests come to callables: in batches, in streams, by threads."""

import threading
import time
from unittest import mock

import numpy as np
from absl.testing import absltest, parameterized

from rstar_jax import testing
from rstar_jax.search import driver, mcts, queues, requests
from rstar_jax.search.tree import Tree
from tests.search.toys import PROBLEMS, Streamed, calls_of, config_of


class QueuesTest(parameterized.TestCase):
  def test_what_waits_is_one_call_of_one_thread(self):
    sizes, inside = [], threading.Lock()

    def expand(questions, prefixes, seeds):
      self.assertTrue(inside.acquire(blocking=False))
      self.assertEqual(seeds.dtype, np.uint32)
      self.assertEqual(seeds.shape[0], len(questions))
      sizes.append(seeds.shape)
      found = testing.ToySum()(questions, prefixes, seeds)
      inside.release()
      return found

    def search(count):
      for _ in range(2):
        yield requests.expand("q", (), np.arange(count, dtype=np.uint32))

    driver.run_searches(list(map(search, (3, 2, 3, 3, 2))), calls_of(expand), 5)
    # Rows of a call have equally many seeds.
    self.assertEqual(sizes[:2], [(3, 3), (2, 2)])
    self.assertEqual(sum(rows for rows, columns in sizes if columns == 3), 6)
    self.assertEqual(sum(rows for rows, columns in sizes if columns == 2), 4)

  def test_a_method_is_one_callable_however_often_it_is_named(self):
    inside = threading.Lock()

    class Policy:
      def expand(self, questions, prefixes, seeds):
        assert inside.acquire(blocking=False)
        time.sleep(0.001)
        inside.release()
        return testing.ToySum()(questions, prefixes, seeds)

    policy = Policy()
    driver.run(
      (
        (
          mcts.search_tree(Tree(each), config_of(rollouts=2)),
          calls_of(policy.expand),
        )
        for each in PROBLEMS
      ),
      len(PROBLEMS),
      lambda *_: None,
    )

  def test_usage(self):
    usage, began = {}, time.perf_counter()
    searches = [
      mcts.search_tree(Tree(each), config_of(rollouts=1, annotation="ppm"))
      for each in PROBLEMS
    ]
    calls = calls_of(score=Streamed(testing.score_by_hash, 0))
    driver.run(((each, calls) for each in searches), 4, lambda *_: None, usage)
    self.assertEqual(set(usage), set(requests.KINDS))
    took = time.perf_counter() - began
    for each in usage.values():
      self.assertEqual(each.waiting, 0)
      # Some of the time of the run, for each of four searches at most.
      self.assertBetween(each.waited, 1e-9, 4 * took)

  def test_waited_is_of_each_request(self):
    times = iter([10.0, 13.0, 14.0, 19.0, 30.0, 31.0, 40.0, 42.0])
    with mock.patch.object(time, "perf_counter", lambda: next(times)):
      # From 10 to 14, from 13 to 19 and from 30 to 31; from 40 to 42.
      expand, score = queues.Usage(), queues.Usage()
      for event in "begin begin end end begin end".split():
        getattr(expand, event)()
      score.begin()
      score.end()
    self.assertEqual((expand.waited, score.waited), (4 + 6 + 1, 2))
    self.assertEqual(
      queues.shares({"expand": expand, "score": score}),
      {"waited_expand": 11 / 13, "waited_score": 2 / 13},
    )
    self.assertEqual(queues.shares({"expand": queues.Usage()}), {})

  def test_a_callable_that_is_not_there(self):
    def search():
      yield requests.score("q", (), ["a"])

    with self.assertRaisesRegex(ValueError, "calls.score, which is None"):
      driver.run_searches([search()], calls_of(score=None), 1)

  def test_no_call_begins_after_one_that_failed(self):
    ran = []

    def expand(questions, prefixes, seeds):
      ran.append(questions)
      raise RuntimeError("the policy broke")

    calls = calls_of(expand)
    request = requests.expand("q", (), np.zeros(2, np.uint32))
    with queues.Queues(2, {}) as found:
      _, first = found.send(calls, request)
      found.flush()
      self.assertIn("broke", str(first.exception()))
      _, second = found.send(calls, request)
      found.flush()
    self.assertFalse(second.done())
    self.assertEqual(ran, [["q"]])

  def test_rows_of_several_runs_share_a_call_and_no_error(self):
    began, go, sizes = threading.Event(), threading.Event(), []

    def expand(questions, prefixes, seeds):
      began.set()
      go.wait(60)
      sizes.append(len(questions))
      if "bad" in questions:
        raise RuntimeError("the policy broke")
      return testing.ToySum()(questions, prefixes, seeds)

    batched, seeds = queues.Batched(expand), np.zeros(2, np.uint32)
    first = batched.submit("bad", (), seeds)
    began.wait(60)
    rest = [batched.submit("q", (), seeds) for _ in range(5)]
    rest[0].cancel()
    go.set()
    self.assertIn("broke", str(first.exception()))
    self.assertEqual([len(each.result()) for each in rest[1:]], [2] * 4)
    self.assertEqual(sizes, [1, 4])
    both = batched(["q", "q"], [(), ()], np.stack([seeds, seeds]))
    self.assertEqual(list(map(len, both)), [2, 2])

  def test_programs_that_wait_at_the_end_are_dropped(self):
    over, ran = threading.Event(), []

    def verify(programs):
      ran.extend(programs)
      self.assertTrue(over.wait(60))
      return testing.run_trusted(programs)

    calls = calls_of(verify=verify)
    with queues.Queues(1, {}) as found:
      _, first = found.send(calls, requests.verify([["print(1)"]]))
      _, second = found.send(calls, requests.verify([["print(2)"]]))
      second.add_done_callback(lambda _: over.set())
    self.assertTrue(second.cancelled())
    self.assertEqual(ran, [["print(1)"]])
    self.assertEqual(first.result()[0].stdout, "1")

  def test_what_is_left_at_the_end_is_dropped(self):
    entered, leave, ran = threading.Event(), threading.Event(), []

    def expand(questions, prefixes, seeds):
      ran.extend(questions)
      entered.set()
      leave.wait(60)
      return testing.ToySum()(questions, prefixes, seeds)

    calls = calls_of(expand)
    request = requests.expand("q", (), np.zeros(2, np.uint32))
    threads = threading.active_count()
    with queues.Queues(2, {}) as found:
      _, first = found.send(calls, request)
      found.flush()
      entered.wait(60)
      _, second = found.send(calls, request)
      found.flush()
      second.cancel()
      leave.set()
    self.assertEqual(ran, ["q"])
    self.assertLen(first.result(), 2)
    self.assertEqual(threading.active_count(), threads)


if __name__ == "__main__":
  absltest.main()
