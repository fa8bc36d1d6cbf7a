"""Requests, one row each, as the callables' protocols have them."""

import numpy as np
from absl.testing import absltest

from rstar_jax import testing
from rstar_jax.grading import judging
from rstar_jax.search import requests
from rstar_jax.types import Problem
from tests.search import toys


class RequestsTest(absltest.TestCase):
  def test_they_are_rows_of_what_the_callables_take(self):
    seeds = np.arange(3, dtype=np.uint32)
    problem = Problem("p", "q", "7")
    for request, call in (
      (requests.expand("q", (), seeds), testing.ToySum()),
      (requests.score("q", ("a",), ["b", "c"]), testing.score_by_hash),
    ):
      (row,) = call(*([each] for each in request.args))
      self.assertLen(row, len(request.args[-1]))
    (result,) = testing.run_trusted(*requests.verify([["print(1)"]]).args)
    self.assertEqual(result.stdout, "1")
    asked = requests.judge([(problem, "7"), (problem, "8")])
    judged = judging.judge(*asked.args, testing.grade_equal)
    self.assertEqual(judged, [("equal", 1.0), ("different", -1.0)])

  def test_kinds(self):
    made = (
      requests.expand("q", (), np.zeros(1, np.uint32)),
      requests.verify([]),
      requests.score("q", (), []),
      requests.judge([]),
    )
    self.assertEqual(tuple(each.to for each in made), requests.KINDS)


class CallsTest(absltest.TestCase):
  def test_replace(self):
    calls = toys.calls_of()
    found = calls.replace(score=None)
    self.assertIsNone(found.score)
    self.assertIs(found.expand, calls.expand)
    self.assertIs(calls.score, testing.score_by_hash)


if __name__ == "__main__":
  absltest.main()
