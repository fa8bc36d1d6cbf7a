"""Questions answered with a round, with a scripted policy."""

from unittest import mock

import numpy as np
from absl.testing import absltest

from rstar_jax import testing
from rstar_jax.pipeline import context, evaluate, solve
from rstar_jax.search import mcts
from rstar_jax.search import tree as tree_lib
from rstar_jax.steps import grammar
from rstar_jax.types import Problem
from tests.pipeline.evaluate_test import ANSWERS, SolvingCase, never_done


class SolveTest(SolvingCase):
  def test_round_0_takes_the_vote_of_the_base_model(self):
    solution = solve.solve(self.context, 0, "four")
    self.assertEqual(self.device.made, [(context.BASE_MODEL, None)])
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

  def test_trees_to_look_at_are_made_as_training_data_are(self):
    problems = [
      Problem(id=name, question=name, answer=ANSWERS[name])
      for name in ("four", "six")
    ]
    trees = solve.search_all(self.context, 0, problems, rollouts=2)
    self.assertEqual([tree.problem for tree in trees], problems)
    self.finish(1)
    guided = solve.search_all(self.context, 1, problems, rollouts=2)
    for tree, valued in ((trees[0], False), (guided[0], True)):
      self.assertEqual(tree.rollouts, 2)
      self.assertEqual(np.isfinite(tree.ppm[1:]).all(), valued)
      ended = np.flatnonzero(tree.terminal == tree_lib.ANSWERED)
      self.assertNotEmpty(ended)
      for node in ended:
        right = tree.answers[node] == "4"
        self.assertEqual(tree.reward[node], 1 if right else -1)
    with self.assertRaisesRegex(ValueError, "answer"):
      solve.search_all(self.context, 0, [Problem(id="x", question="four")])

  def test_render(self):
    solution = solve.Solution(("a = 1\n", "\nprint(a)\n"), "1", [0.5, -0.25])
    self.assertEqual(
      solution.render(),
      "--- step 1, PPM +0.50\na = 1\n--- step 2, PPM -0.25\nprint(a)\n\n"
      "Answer: 1",
    )


if __name__ == "__main__":
  absltest.main()
