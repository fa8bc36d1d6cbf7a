"""A study's cost, with the shipped model: what records say the engine made."""

import pathlib
import types

from absl.testing import absltest

from rstar_jax import testing
from rstar_jax.config import schema as config_lib
from rstar_jax.data import problems
from rstar_jax.evaluation import solvers
from rstar_jax.pipeline import backends
from rstar_jax.search import driver
from tests import tiny_run


class TokensTest(absltest.TestCase):
  def test_records_count_what_the_engine_generated(self):
    folder = pathlib.Path(self.create_tempdir().full_path)
    config = tiny_run.make_config("synthetic:train", "synthetic:test")
    config.eval.data.count = 3
    config.engine.temperature = 0.7
    config.engine.max_block_tokens = 96
    config.study = config_lib.StudyConfig(
      trajectories=2, samples=2, beam_width=2, beam_groups=2
    )
    context = tiny_run.make_context(config, folder)
    context.sandbox = types.SimpleNamespace(run=testing.run_trusted)
    context.grader = types.SimpleNamespace(grade=testing.grade_equal)

    def guided(calls):
      """Returns callables with values that need no PPM."""
      return calls.replace(score=testing.score_by_hash)

    for method in config.study.methods:
      with self.subTest(method):
        backend = backends.ModelBackend(context, 0)
        calls = backends.calls_of(backend, method)
        if method not in ("greedy", "samples"):
          calls = guided(calls)
        counted = calls.expand.engine
        chosen = problems.load_problems(config.eval.data)
        setting = solvers.Setting("s", config, ("study",))
        records = driver.run_searches(
          [solvers.METHODS[method](each, setting) for each in chosen],
          calls,
          solvers.in_flight(method, config),
        )
        spent = sum(record["tokens"] for record in records)
        self.assertGreater(counted.generated_tokens, 0)
        if method == "samples":
          # Equal solutions are answered once, and each pays for it.
          self.assertGreaterEqual(spent, counted.generated_tokens)
        else:
          self.assertEqual(spent, counted.generated_tokens)


if __name__ == "__main__":
  absltest.main()
