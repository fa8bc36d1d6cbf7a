"""Questions answered with a round, with a scripted policy."""

from unittest import mock

import numpy as np
from absl.testing import absltest

from rstar_jax import testing
from rstar_jax.hf import folders
from rstar_jax.pipeline import evaluate, solve
from rstar_jax.search import mcts
from rstar_jax.steps import grammar
from tests.pipeline.evaluate_test import SolvingCase, never_done


class SolveTest(SolvingCase):
  def test_round_0_takes_the_vote_of_the_base_model(self):
    solution = solve.solve(self.context, 0, "four")
    self.assertEqual(self.device.made, [(folders.BASE_MODEL, None)])
    self.assertIsNone(solution.values)
    (result,) = testing.run_trusted([grammar.program(solution.steps)])
    self.assertEqual(result.stdout, solution.answer)
    self.assertIn(f"Answer: {solution.answer}", solution.render())

  def test_a_base_model_that_is_shown_examples_is_searched(self):
    self.context.config.policy.prompt = "few_shot"
    with mock.patch.object(
      mcts, "search", side_effect=mcts.search, autospec=True
    ) as search:
      solution = solve.solve(self.context, 0, "four")
    self.assertEqual(search.call_args.args[1].annotation, "terminal")
    self.assertIsNone(solution.values)
    (result,) = testing.run_trusted([grammar.program(solution.steps)])
    self.assertEqual(result.stdout, solution.answer)

  def test_another_s_reward_model_makes_round_0_a_search(self):
    self.context.config.eval.reward_model = "some/model"
    evaluate.evaluate(self.context, 0)
    sources = {source for source, _ in self.rows(0)}
    self.assertEqual(sources, {"greedy", "samples", "mcts"})

  def test_a_round_searches_and_shows_the_ppm_s_values(self):
    self.finish(1)
    solution = solve.solve(self.context, 1, "four")
    self.assertLen(solution.values, len(solution.steps))
    # The fake PPM values a path by its question and text.
    expected = [
      testing.score_by_hash(["four"], [solution.steps[:i]], [[step]])[0][0]
      for i, step in enumerate(solution.steps)
    ]
    np.testing.assert_allclose(solution.values, expected, rtol=1e-6)

  def test_no_answer_is_one_line(self):
    self.device.policy = mock.Mock(side_effect=never_done)
    self.device.policy.block = never_done
    self.finish(1)
    for round_ in (0, 1):
      with self.assertRaisesRegex(ValueError, "^no candidate reached an.*$"):
        solve.solve(self.context, round_, "four")

  def test_a_round_that_is_not_finished(self):
    with self.assertRaisesRegex(ValueError, "policy is not finished"):
      solve.solve(self.context, 1, "four")

  def test_render(self):
    solution = solve.Solution(("a = 1\n", "\nprint(a)\n"), "1", [0.5, -0.25])
    self.assertEqual(
      solution.render(),
      "--- step 1, PPM +0.50\na = 1\n--- step 2, PPM -0.25\nprint(a)\n\n"
      "Answer: 1",
    )


if __name__ == "__main__":
  absltest.main()
