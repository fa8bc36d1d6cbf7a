"""How many requests are answered at once, for how long, and how they end."""

import asyncio
import contextlib
import pathlib
import threading
import types
from unittest import mock

from absl.testing import absltest

from rstar_jax import testing
from rstar_jax.pipeline import solve
from rstar_jax.search import driver, mcts
from rstar_jax.search import tree as tree_lib
from rstar_jax.search.tree import Tree
from rstar_jax.serve import service, wire
from tests import tiny_run
from tests.search.toys import PROBLEMS, calls_of, config_of
from tests.serve import served
from tests.serve.served import until


class GrowthTest(absltest.TestCase):
  def test_news_add_up_to_the_tree(self):
    tree, growth = Tree(PROBLEMS[0]), service.Growth()
    search = mcts.search_tree(tree, config_of(rollouts=4, annotation="ppm"))
    news = []

    def told():
      found = None
      while True:
        try:
          found = yield search.send(found)
        except StopIteration as end:
          return end.value
        finally:
          news.append(growth.news(tree))

    driver.run_searches([told()], calls_of(), 1)
    news = [each for each in news if each is not None]
    self.assertGreater(len(news), 4)
    self.assertIsNone(growth.news(tree))
    for name, column in (("text", tree.texts), ("parent", tree.parent)):
      told_of = [each for part in news for each in part[name]]
      self.assertEqual(told_of, list(column))
    ends = [tuple(each) for part in news for each in part["growth"]]
    self.assertEqual(ends, tree.growth)
    # A node's first visit is told with the node, and does not change later.
    own = [each for part in news for each in part["own_visits"]]
    steps = tree.terminal != tree_lib.ANSWERED
    self.assertEqual(own[1:], steps.astype(int).tolist()[1:])
    self.assertEqual(news[-1]["tokens"], tree.tokens)


class LateTest(served.ServedCase):
  limits = service.Limits(places=9, line=9, seconds=0.2)

  def test_a_request_that_takes_too_long(self):
    self.policy.go.clear()
    status, answer = self.chat()
    self.assertEqual((status, answer["error"]["code"]), (504, "timeout"))
    # As a stream it has begun.
    status, text = self.chat(stream=True)
    self.assertEqual(status, 200)
    self.assertIn('"code": "timeout"', text)
    self.policy.go.set()
    self.assertIn('outcome="timeout"', self.ask("/metrics")[1])


class PlacesTest(served.ServedCase):
  def test_a_thread_that_cannot_start_costs_no_place(self):
    limits = service.Limits(places=1, line=0, seconds=600.0)
    service_ = service.Service(self.solver, limits)
    self.addCleanup(service_.close)

    async def answered():
      asked = [solve.Asked("four", self.solver.budget("greedy"), 3)]
      async with contextlib.aclosing(service_.answer(asked)) as news:
        return [event.solution async for event in news if event]

    error = RuntimeError("can't start new thread")
    for _ in range(2):
      with (
        mock.patch.object(threading.Thread, "start", side_effect=error),
        self.assertLogs(level="ERROR"),
        self.assertRaisesRegex(wire.Refused, "no thread can be") as caught,
      ):
        asyncio.run(answered())
      self.assertEqual(caught.exception.status, 503)
      self.assertTrue(service_.idle)
    with mock.patch.object(
      self.solver, "solve", side_effect=self.solver.solve
    ) as solved:
      self.assertLen(asyncio.run(answered()), 1)
    # What was refused is not begun later, but for its end.
    stops = [each.kwargs["stop"] for each in solved.call_args_list]
    self.assertEqual([each.cancelled() for each in stops[:-1]], [True, True])


class DeadlineTest(served.ServedCase):
  def test_what_was_found_in_time_may_be_read_later(self):
    limits = service.Limits(places=1, line=0, seconds=600.0)
    service_ = service.Service(self.solver, limits)
    self.addCleanup(service_.close)

    async def answered(slow: bool):
      loop, deadlines = asyncio.get_running_loop(), []
      later = loop.call_later

      def noted(seconds, call, *args, **options):
        if seconds == limits.seconds:
          deadlines.append(call)
        return later(seconds, call, *args, **options)

      asked = [solve.Asked("four", self.solver.budget("greedy"), 3)]
      with mock.patch.object(loop, "call_later", noted):
        async with contextlib.aclosing(service_.answer(asked)) as news:
          await anext(news)
          while slow and not service_.idle:
            await asyncio.sleep(0.01)
          (expire,) = deadlines
          expire()
          return [event.solution async for event in news if event]

    (found,) = asyncio.run(answered(slow=True))
    self.assertIsNotNone(found.answer)
    self.policy.go.clear()
    with self.assertRaisesRegex(wire.Refused, "no answer within 600 s"):
      asyncio.run(answered(slow=False))
    self.policy.go.set()


class RowsTest(absltest.TestCase):
  """The engine's rows, with a tiny model of random weights."""

  def test_whoever_leaves_frees_its_rows(self):
    folder = pathlib.Path(self.create_tempdir().full_path)
    config = tiny_run.make_config("none", "none")
    config.policy.path = tiny_run.make_base(folder / "base")
    context = tiny_run.make_context(config, folder)
    context.sandbox = types.SimpleNamespace(run=testing.run_trusted)
    context.grader = types.SimpleNamespace(grade=testing.grade_equal)
    solver = solve.Solver(context, 0)
    limits = service.Limits(places=2, line=0, seconds=600.0)
    service_ = service.Service(solver, limits)
    self.addCleanup(service_.close)
    # Five times as many samples as there are rows.
    budget = solver.budget("majority", samples=160)

    def used(name="rows_used"):
      return solver.backend.usage()[name]

    async def leave():
      asked = [solve.Asked("two and two", budget, 3)]
      async with contextlib.aclosing(service_.answer(asked)) as news:
        await anext(news)
        while not used():
          await asyncio.sleep(0.01)

    asyncio.run(leave())
    until(lambda: service_.idle and not used())
    written = used("generated_tokens")
    self.assertBetween(written, 1, 160 * config.engine.max_block_tokens - 1)
    # Another has them.
    found = []
    asked = solve.Asked("two and two", solver.budget("greedy"), 3)
    solver.solve([asked], lambda *each: found.append(each), 1)
    self.assertLen(found, 1)
    self.assertGreater(used("generated_tokens"), written)
    self.assertEqual(used(), 0)


if __name__ == "__main__":
  absltest.main()
