"""Enumerable toy problems, and a search of them, for the tests of MCTS."""

import dataclasses

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
