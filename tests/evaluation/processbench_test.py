"""Tests of ProcessBench's figures, by hand and by brute force."""

import contextlib
import itertools
import random

import numpy as np
from absl.testing import absltest, parameterized

from rstar_jax import outside
from rstar_jax.data.rows import Number, ProblemError, Row
from rstar_jax.evaluation import processbench
from rstar_jax.evaluation.step_errors import Marked
from tests.fuzz import hostile


def marked(label, steps=3):
  wrong = frozenset() if label == -1 else frozenset([label])
  return Marked("q", ("s",) * steps, wrong, "math")


class ProcessBenchTest(parameterized.TestCase):
  def test_first_wrong(self):
    chances = np.array([0.9, 0.5, 0.2, 0.4])
    for threshold, want in ((0.1, -1), (0.2, -1), (0.3, 2), (0.51, 1), (1, 0)):
      self.assertEqual(processbench.first_wrong(chances, threshold), want)

  def test_measure(self):
    both = [
      (marked(1), [0.9, 0.3, 0.2]),
      (marked(2), [0.9, 0.3, 0.2]),  # Said too early.
      (marked(0), [0.9, 0.8, 0.7]),  # Not noticed.
      (marked(0), [0.1, 0.8, 0.7]),
      (marked(-1), [0.9, 0.8, 0.7]),
      (marked(-1), [0.9, 0.8, 0.3]),
      (marked(-1), [0.9, 0.8, 0.6]),
    ]
    found = processbench.measure(*zip(*both, strict=True), 0.5)
    error, correct = 2 / 4, 2 / 3
    self.assertEqual(found["n"], [4, 3])
    self.assertAlmostEqual(found["error"], error)
    self.assertAlmostEqual(found["correct"], correct)
    self.assertAlmostEqual(found["f1"], 2 / (1 / error + 1 / correct))

  def test_nothing_of_a_kind_is_no_f1(self):
    found = processbench.measure([marked(-1)], [np.ones(3)], 0.5)
    self.assertEqual((found["correct"], found["f1"]), (1, 0))

  @parameterized.parameters(*range(5))
  def test_the_best_threshold_of_all(self, seed):
    draw = np.random.default_rng(seed)
    solutions, chances = [], []
    for _ in range(13):
      steps = int(draw.integers(1, 6))
      solutions.append(marked(int(draw.integers(-1, steps)), steps))
      chances.append(draw.integers(0, 12, steps) / 11)
    found = processbench.best_threshold(solutions, chances)

    def f1(threshold):
      return processbench.measure(solutions, chances, threshold)["f1"]

    every = [f1(threshold) for threshold in np.linspace(0, 1, 101)]
    self.assertAlmostEqual(f1(found), max(every))

  def test_equal_thresholds_are_near_half(self):
    both = [(marked(0), [0.1, 1, 1]), (marked(-1), [0.9, 1, 1])]
    found = processbench.best_threshold(*zip(*both, strict=True))
    self.assertEqual(found, 0.5)

  def test_reads_the_hub_s_rows(self):
    fields = {"problem": "p", "steps": ["a", "b"], "generator": "x"}
    for label in (1, Number("1")):
      (found,) = processbench.read(
        [Row("f:1", 0, fields | {"label": label})], "math"
      )
      self.assertEqual(found, Marked("p", ("a", "b"), frozenset([1]), "math"))
    (found,) = processbench.read([Row("f:1", 0, fields | {"label": -1})], "m")
    self.assertEqual(found.wrong, frozenset())
    wrong = itertools.product(("label",), (2, -2, "a", None, 1.5))
    for name, value in (*wrong, ("steps", []), ("steps", "a"), ("problem", 3)):
      row = Row("f:1", 0, fields | {"label": 0} | {name: value})
      with self.assertRaisesRegex(ProblemError, f"f:1 has .*{name}"):
        processbench.read([row], "math")
    for seed in range(300):
      document = hostile.document(random.Random(seed), fields | {"label": 1})
      with contextlib.suppress(ProblemError, outside.Bad):
        row = Row("f:1", 0, outside.parse(document))
        (found,) = processbench.read([row], "math")
        self.assertBetween(min(found.wrong, default=0), 0, len(found.steps) - 1)
    with self.assertRaisesRegex(ProblemError, "math of ProcessBench has no"):
      processbench.read([], "math")


if __name__ == "__main__":
  absltest.main()
