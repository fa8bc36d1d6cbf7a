"""Enumerable toy problems, and callables, for the tests of searches."""

import concurrent.futures
import dataclasses
import random
import time

from rstar_jax import testing
from rstar_jax.config.schema import SearchConfig
from rstar_jax.search.mcts import Calls
from rstar_jax.types import Problem

PROBLEMS = [Problem(f"p{i}", f"make {i}", str(i)) for i in range(2, 9)]


def calls_of(policy=None, **overrides) -> Calls:
  calls = Calls(
    expand=policy or testing.ToySum(),
    verify=testing.run_trusted,
    grade=testing.grade_equal,
    score=testing.score_by_hash,
  )
  return dataclasses.replace(calls, **overrides)


def config_of(**overrides) -> SearchConfig:
  return SearchConfig(
    **{"rollouts": 7, "candidates": 3, "in_flight": 5} | overrides
  )


def texts_of(trees) -> list[str]:
  return [tree.to_json() for tree in trees]


class Streamed:
  """A callable with `submit`, which answers single rows in another order."""

  def __init__(self, call, seed):
    self._call = call
    self._random = random.Random(seed)
    self.threads = concurrent.futures.ThreadPoolExecutor(8)
    self.asked = 0

  def __call__(self, *columns):
    raise AssertionError("rows go to submit")

  def submit(self, *row):
    self.asked += 1
    return self.threads.submit(self._answer, self._random.random(), row)

  def _answer(self, delay, row):
    time.sleep(delay / 200)
    (answer,) = self._call(*([each] for each in row))
    return answer
