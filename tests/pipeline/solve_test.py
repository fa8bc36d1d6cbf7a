"""Questions answered with a round, with a scripted policy."""

import collections
import concurrent.futures
import dataclasses
import json
import threading
from unittest import mock

import numpy as np
from absl.testing import absltest, parameterized

from rstar_jax import testing
from rstar_jax.evaluation import methods
from rstar_jax.hf import folders
from rstar_jax.pipeline import evaluate, solve
from rstar_jax.search import mcts, sampling
from rstar_jax.search.tree import Tree
from rstar_jax.steps import grammar
from rstar_jax.steps.tokenizer import encode_piece, encode_solution
from rstar_jax.storage import manifests
from rstar_jax.types import Problem
from tests.pipeline.evaluate_test import SolvingCase, never_done


def searched(problems, config, calls, *, seed, name):
  """A search of the user's own, which refuses a problem that comes twice."""
  return mcts.search(problems, config, calls, seed, name=name)


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
      mcts, "search_tree", side_effect=mcts.search_tree, autospec=True
    ) as search:
      solution = solve.solve(self.context, 0, "four")
    self.assertEqual(search.call_args.args[1].annotation, "terminal")
    self.assertIsNone(solution.values)
    (result,) = testing.run_trusted([grammar.program(solution.steps)])
    self.assertEqual(result.stdout, solution.answer)

  def test_the_examples_are_for_the_base_model_alone(self):
    self.context.config.policy.prompt = "few_shot"
    manifests.write(self.context.folder(1, "policy"), {}, [])
    manifests.write(self.context.folder(1, "ppm"), {"pairs": 0}, [])
    base, trained = (solve.Solver(self.context, each) for each in (0, 1))
    self.assertEqual(
      (base.methods[0], trained.methods[0]), ("search", "majority")
    )
    self.assertGreater(
      base.prompt_tokens("four"), trained.prompt_tokens("four")
    )

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

  def test_a_search_that_values_answers_alone(self):
    self.finish(1)
    search = self.context.config.eval.search
    search.annotation, search.terminal_reward = "terminal", "ppm"
    search.trajectory_value = "last"
    solution = solve.solve(self.context, 1, "four")
    *steps, last = solution.values
    self.assertNotEmpty(steps)
    self.assertEqual(set(steps), {None})
    *before, text = solution.steps
    [[expected]] = testing.score_by_hash(["four"], [before], [[text]])
    self.assertAlmostEqual(last, float(expected), places=6)
    json.dumps(solution.to_record(), allow_nan=False)
    self.assertEqual(solution.render().count("PPM"), 1)

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
    for values in (None, [None]):
      solution = solve.Solution(("a = 1\n",), None, values)
      self.assertEqual(solution.render(), "--- step 1\na = 1\n\nAnswer: None")


class SolverTest(SolvingCase, parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.finish(1)
    self.solver = solve.Solver(self.context, 1)

  def ask(self, *asked, **options) -> list[solve.Solution]:
    found = [None] * len(asked)
    self.solver.solve(asked, found.__setitem__, 2, **options)
    return found

  def asked(self, method, question="four", seed=7, number=0, **budget):
    budget = self.solver.budget(method, **budget)
    return solve.Asked(question, budget, seed, number)

  def samples(self, count, **options):
    """Returns the samples that a budget is spent on."""
    problem = Problem(id="four", question="four")
    calls = self.solver.backend.blocks(**options)
    (found,) = sampling.sample([problem], count, calls, 7, name=("solve",))
    return found

  def test_greedy_takes_the_one_solution(self):
    (found,) = self.ask(self.asked("greedy"))
    (sample,) = self.samples(1, temperature=0.0)
    self.assertEqual((found.steps, found.answer), (sample.steps, sample.answer))
    self.assertEqual(found.tokens, sample.tokens)
    self.assertEqual(found.outputs, [None, sample.answer, None])

  @parameterized.parameters("greedy", "majority", "best_of_n", "search")
  def test_a_temperature_is_of_one_question(self, method):
    warm = dataclasses.replace(self.asked(method), temperature=0.3)
    self.ask(self.asked(method), warm, warm)
    wanted = [] if method == "greedy" else [0.3, 0.3]
    asked = self.device.temperatures
    self.assertEqual([each for each in asked if each], wanted)
    # Values are those of the same model.
    (one,) = self.ask(self.asked(method))
    (other,) = self.ask(warm)
    self.assertEqual((one.steps, one.values), (other.steps, other.values))

  def test_a_search_of_the_user_s_has_it_too(self):
    self.context.config.eval.search.method = "tests.search.named_test:beam"
    warm = dataclasses.replace(self.asked("search"), temperature=0.3)
    five = self.asked("search", "five")
    with mock.patch.object(solve.named, "search", autospec=True) as search:
      search.side_effect = lambda problems, *_, **__: list(map(Tree, problems))
      self.ask(self.asked("search"), warm, five)
    # The first and the last go together.
    self.assertEqual(
      [len(each.args[0]) for each in search.call_args_list], [2, 1]
    )
    self.assertEqual([e for e in self.device.temperatures if e], [0.3])

  def test_a_search_of_the_user_s_gets_each_question_once(self):
    self.context.config.eval.search.method = f"{__name__}:searched"
    four, five = (self.asked("search", each) for each in ("four", "five"))
    alone, other = (self.ask(each)[0].to_record() for each in (four, five))
    self.assertNotEqual(alone["steps"], other["steps"])
    found = [each.to_record() for each in self.ask(four, five, four)]
    self.assertEqual(found, [alone, other, alone])

  def test_a_question_that_is_only_counted_is_not_kept(self):
    self.ask(self.asked("greedy"))
    before = encode_piece.cache_info()
    counts = [self.solver.prompt_tokens(f"{n} " * n) for n in (1, 9)]
    self.assertGreater(counts[1], counts[0] + 8)
    self.assertEqual(encode_piece.cache_info(), before)
    tokenizer = self.context.tokenizer
    prompt = tokenizer.prompt("four")
    self.assertLen(
      encode_solution(tokenizer, prompt, ()), self.solver.prompt_tokens("four")
    )

  @parameterized.parameters(
    # Decoding drops the special token, the second of three.
    ("a<|endoftext|>b", 1000, 15),
    ("a<|endoftext|>b", 3, 15),
    ("a<|endoftext|>b", 2, 1),
    ("12", 1, 1),
    ("", 1, 0),
  )
  def test_a_text_that_fits_is_not_cut(self, text, tokens, kept):
    self.assertEqual(self.solver.cut(text, tokens), kept)

  def test_a_budget_as_the_number_of_its_solutions(self):
    sizes = {"samples": 5, "rollouts": 3, "candidates": 4}
    found = {
      each: self.solver.budget(each, **sizes).solutions
      for each in solve.METHODS
    }
    wanted = {"greedy": 1, "majority": 5, "best_of_n": 5, "search": 12}
    self.assertEqual(found, wanted)

  def test_majority_is_the_most_frequent_answer(self):
    (found,) = self.ask(self.asked("majority", samples=9))
    counts = collections.Counter(each.answer for each in self.samples(9))
    self.assertEqual(counts[found.answer], max(counts.values()))

  def test_best_of_n_is_what_the_reward_model_prefers(self):
    (found,) = self.ask(self.asked("best_of_n", samples=5))
    samples = self.samples(5)
    best = max(samples, key=lambda each: each.value)
    self.assertEqual(found.steps, best.steps)
    self.assertLess(min(each.value for each in samples), best.value)
    # The last value is that of the whole solution.
    self.assertAlmostEqual(found.values[-1], best.value)
    self.assertLen(found.values, len(found.steps))
    self.assertEqual(found.tokens, sum(each.tokens for each in samples))

  def test_a_search_is_as_large_as_its_budget(self):
    small, large = self.ask(
      self.asked("search", rollouts=1, candidates=2),
      self.asked("search", rollouts=3, candidates=3),
    )
    self.assertEqual((small.tree.rollouts, large.tree.rollouts), (1, 3))
    self.assertEqual(small.tree.num_children.max(), 2)
    self.assertEqual(large.tree.num_children.max(), 3)
    self.assertEqual(small.tokens, small.tree.tokens)

  def test_the_default_is_what_solve_does(self):
    asked = self.asked(None, seed=self.config.seed)
    self.assertEqual(asked.budget.method, self.solver.methods[0])
    wanted = solve.solve(self.context, 1, "four")
    (found,) = self.ask(asked)
    self.assertEqual(found.steps, wanted.steps)
    self.assertEqual(found.tree.to_json(), wanted.tree.to_json())

  def test_without_a_reward_model_nothing_is_best(self):
    solver = solve.Solver(self.context, 0)
    self.assertEqual(solver.methods, ("majority", "greedy", "search"))
    with self.assertRaisesRegex(ValueError, "needs a reward model"):
      solver.budget("best_of_n")

  def test_each_method_is_a_source_and_a_choice(self):
    self.assertEqual(tuple(methods.ASKED), solve.METHODS)

  @parameterized.parameters("majority", "best_of_n", "search")
  def test_seeds_and_numbers_decide_whoever_else_asks(self, method):
    asked = [
      self.asked(method, question, seed, number)
      for question in ("four", "five")
      for seed in (1, 2)
      for number in (0, 1)
    ]
    alone = [self.ask(each)[0] for each in asked]
    self.assertGreater(len({each.steps for each in alone}), 2)
    # Each in a thread of its own, as a server asks.
    with concurrent.futures.ThreadPoolExecutor(len(asked)) as pool:
      at_once = [found for (found,) in pool.map(self.ask, asked)]
    for one, other in zip(alone, at_once, strict=True):
      self.assertEqual(one.steps, other.steps)
      self.assertEqual(one.tokens, other.tokens)

  def test_a_tree_is_seen_to_grow(self):
    sizes = []
    asked = self.asked("search", rollouts=3)
    (found,) = self.ask(asked, watch=lambda _, tree: sizes.append(len(tree)))
    self.assertEqual(sizes, sorted(sizes))
    self.assertEqual(sizes[-1], len(found.tree))
    self.assertGreater(len(set(sizes)), 2)

  def test_an_error_is_of_the_questions_that_had_it(self):
    policy = self.device.policy

    def expand(questions, prefixes, seeds):
      if "bad" in questions:
        raise RuntimeError("no such word")
      return policy(questions, prefixes, seeds)

    self.device.policy = mock.Mock(side_effect=expand)
    with self.assertRaisesRegex(RuntimeError, "no such word"):
      self.ask(self.asked("search", "bad"))
    (found,) = self.ask(self.asked("search"))
    self.assertIsNotNone(found.answer)

  def test_what_is_stopped_ends_at_once(self):
    stop: concurrent.futures.Future = concurrent.futures.Future()
    threads, trees = threading.active_count(), []

    def watch(_, tree):
      trees.append(len(tree))
      if len(trees) == 2:
        stop.cancel()

    with self.assertRaises(concurrent.futures.CancelledError):
      self.ask(self.asked("search", rollouts=99), watch=watch, stop=stop)
    self.assertLen(trees, 2)
    # But those that call for all.
    self.assertLessEqual(threading.active_count(), threads + 2)


if __name__ == "__main__":
  absltest.main()
