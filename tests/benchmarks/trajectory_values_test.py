"""Solutions of both kinds by all values, and gaps worked out by hand."""

import types
from unittest import mock

import numpy as np
from absl.testing import absltest, flagsaver

from benchmarks import lines as lines_lib
from benchmarks import trajectory_values
from rstar_jax import testing
from rstar_jax.config.schema import Config, EvalConfig, SearchConfig
from rstar_jax.search import mcts
from rstar_jax.types import Problem


class _Backend:
  """Scripted models that count the samples which they are asked for."""

  score = staticmethod(testing.score_by_hash)

  def __init__(self):
    self._policy = testing.ToySum(levels=2, offsets=(0, 1))
    self.samples = 0

  def _calls(self, expand):
    return mcts.Calls(
      expand, testing.run_trusted, testing.grade_equal, self.score
    )

  def steps(self):
    return self._calls(self._policy)

  def blocks(self):
    def expand(questions, prefixes, seeds):
      # An answer is asked for once the code has run.
      self.samples += sum(
        len(row)
        for row, prefix in zip(seeds, prefixes, strict=True)
        if not prefix
      )
      return self._policy.block(questions, prefixes, seeds)

    return self._calls(expand)


class TrajectoryValuesTest(absltest.TestCase):
  @flagsaver.flagsaver(backups=["min", "last"])
  def test_as_many_samples_as_a_runs_evaluation_takes(self):
    search = SearchConfig(
      rollouts=3, candidates=2, annotation="ppm", in_flight=2
    )
    problems = [Problem(f"p{i}", f"sum {i}", "4") for i in range(3)]
    for samples, count in ((0, 6), (4, 4)):
      config = Config(eval=EvalConfig(samples=samples, search=search))
      backend = _Backend()
      verdicts, tokens = trajectory_values.solved(
        types.SimpleNamespace(config=config), backend, problems
      )
      self.assertEqual(backend.samples, count * len(problems))
      made = ["samples", "search, min", "search, last"]
      self.assertEqual([*tokens], made)
      self.assertEqual(
        [*verdicts],
        [
          (each, how, choice)
          for each in made
          for how in ("last", "mean", "min")
          for choice in ("best", "weighted")
        ],
      )

  @flagsaver.flagsaver(backups=["min", "last", "mean"])
  def test_gaps(self):
    right = {"last": [1, 0, 0, 0], "mean": [1, 1, 0, 1], "min": [0, 0, 0, 0]}
    verdicts = {}
    for made in ("search, min", "search, last", "search, mean"):
      for how, row in right.items():
        # What is backed up by the mean solves the third problem, too.
        row = np.array(row) | [0, 0, made.endswith("mean"), 0]
        for choice in ("best", "weighted"):
          verdicts[made, how, choice] = row.astype(bool)
    tokens = dict.fromkeys({made for made, _, _ in verdicts}, 5.0)
    with mock.patch.object(lines_lib, "show") as show:
      trajectory_values.report(4, verdicts, tokens)
    lines = [(each.args[0], each.kwargs) for each in show.call_args_list]
    shares = {
      (each["of"], each["by"], each["choice"]): each["right"]
      for line, each in lines
      if line == "right"
    }
    self.assertEqual(shares["search, last", "mean", "best"], 0.75)
    self.assertEqual(shares["search, mean", "last", "weighted"], 0.5)
    gaps = [
      (each["of"], each["by"], each["points"][0])
      for line, each in lines
      if line == "gap"
    ]
    self.assertIn(("search, last, best", "mean", 50.0), gaps)
    self.assertIn(("search, mean, weighted", "min", -25.0), gaps)
    # As the flag has them: a run's lines are the same each time.
    self.assertEqual(
      gaps[-4:],
      [
        ("whole, best", "min", -25.0),
        ("whole, weighted", "min", -25.0),
        ("whole, best", "mean", 75.0),
        ("whole, weighted", "mean", 75.0),
      ],
    )


if __name__ == "__main__":
  absltest.main()
