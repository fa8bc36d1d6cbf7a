"""What a search's own thread takes, by a clock that only the test moves."""

import concurrent.futures
import itertools
from unittest import mock

import numpy as np
from absl.testing import absltest

from benchmarks import rollout
from rstar_jax import testing
from rstar_jax.config.schema import SearchConfig
from rstar_jax.search import mcts
from rstar_jax.types import Problem


class _Submits:
  """A callable that is asked row by row; each row takes 100 s to send."""

  def __init__(self, call, clock):
    self._call, self._clock = call, clock
    self.rows = 0

  def submit(self, *row):
    self.rows += 1
    self._clock.now += 100.0
    answer: concurrent.futures.Future = concurrent.futures.Future()
    columns = [[each] for each in row]
    if isinstance(row[-1], np.ndarray):
      columns[-1] = np.stack(columns[-1])
    answer.set_result(self._call(*columns)[0])
    return answer


class RolloutTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    self.now = 0.0

  def test_the_controller_is_what_the_callables_leave(self):
    expand = _Submits(testing.ToySum(levels=2, offsets=(0, 1)), self)
    score = _Submits(testing.score_by_hash, self)
    calls = mcts.Calls(expand, testing.run_trusted, testing.grade_equal, score)
    problems = [Problem(f"p{i}", "sum", "4") for i in range(3)]
    config = SearchConfig(
      rollouts=4, candidates=3, annotation="ppm", in_flight=2
    )
    search = mcts.search

    def slow(*args, **options):
      self.now += 6.0
      return search(*args, **options)

    with (
      mock.patch.object(rollout.time, "thread_time", lambda: self.now),
      mock.patch.object(
        rollout.time, "perf_counter", itertools.count(0, 24).__next__
      ),
      mock.patch.object(mcts, "search", slow),
    ):
      row = rollout.measure(problems, config, calls)
    self.assertGreater(expand.rows, 3)
    self.assertGreater(score.rows, 3)
    self.assertEqual(row["wall_seconds"] % 24, 0)
    self.assertAlmostEqual(row["controller_share"] * row["wall_seconds"], 6.0)
    trees = search(problems, config, calls, 0)
    self.assertEqual(row["nodes"], sum(len(each) - 1 for each in trees))
    self.assertAlmostEqual(row["controller_us_per_node"] * row["nodes"], 6e6)


if __name__ == "__main__":
  absltest.main()
