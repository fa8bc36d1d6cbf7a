"""Tests of the callables that a policy and a reward model give."""

import json
import sys
from unittest import mock

import numpy as np
from absl.testing import absltest
from flax import nnx

from rstar_jax import testing
from rstar_jax.config.schema import SearchConfig
from rstar_jax.hf import folders, reward_heads, saving
from rstar_jax.inference.few_shot import FewShot
from rstar_jax.inference.ppm import Scorer
from rstar_jax.models.transformer import ppm_from_policy
from rstar_jax.pipeline import backends, models, solve
from rstar_jax.search import mcts
from rstar_jax.search.requests import Calls
from rstar_jax.steps import grammar
from rstar_jax.tasks.code import CODE
from rstar_jax.tasks.task import Task
from rstar_jax.types import Problem
from tests import tiny_run
from tests.models.jitted import call
from tests.pipeline.context_test import ContextCase
from tests.pipeline.models_test import OtherModelCase


class DeviceTest(ContextCase):
  def test_random_weights(self):
    self.config.engine.max_step_tokens = 5
    self.config.engine.max_block_tokens = 11
    self.config.policy.path = str(tiny_run.make_base(self.folder / "base"))
    context = self.context()
    context.sandbox = context.grader = mock.Mock()
    backend = backends.ModelBackend(context, 0)
    self.assertIsNone(backend.score)
    seeds = np.array([[3, 5, 7], [11, 13, 17]], np.uint32)

    def lengths(calls):
      rows = calls.expand(["how many?"] * 2, [(), ()], seeds)
      self.assertEqual([len(row) for row in rows], [3, 3])
      return [len(each.token_ids) for row in rows for each in row], rows

    found, rows = lengths(backend.steps())
    # A random policy hardly ever draws a marker: the limit ends its steps.
    self.assertEqual(max(found), 5)
    self.assertLen({each.text for row in rows for each in row}, 6)
    for calls, longest in ((backend.steps, 5), (backend.blocks, 11)):
      found, rows = lengths(calls(temperature=0.0))
      self.assertEqual(max(found), longest)
      self.assertLen({each.text for row in rows for each in row}, 1)
    usage = backend.usage()
    self.assertBetween(usage["device_idle_share"], 0, 1)
    self.assertGreater(usage["generated_tokens_per_second"], 0)
    self.assertBetween(usage["device_seconds"], 1e-6, usage["seconds"])
    # Twice six steps of 5 tokens, and six blocks of 11.
    self.assertEqual(usage["generated_tokens"], 6 * (5 + 5 + 11))
    self.assertEqual(usage["scored_tokens"], 0)

  def test_what_ends_a_step_and_a_block(self):
    self.config.policy.path = str(tiny_run.make_base(self.folder / "base"))
    context = self.context()
    context.sandbox = context.grader = mock.Mock()
    backend = backends.ModelBackend(context, 0)
    ids = {
      marker: context.tokenizer.id_of(marker) for marker in grammar.MARKERS
    }
    ends = {ids[grammar.END_OF_CODE], ids[grammar.END_OF_ANSWER]}
    ends.add(context.tokenizer.eos_id)
    stops = [
      set(calls.expand._stop.ids)
      for calls in (backend.blocks(), backend.steps())
    ]
    self.assertEqual(stops, [ends, ends | {ids[grammar.END_OF_STEP]}])


class OtherModelTest(OtherModelCase):
  def test_shown_examples_it_sees_no_new_token(self):
    self.config.policy.prompt = "few_shot"
    self.config.task = "code"
    solver = solve.Solver(self.other(), 0)
    backend = solver.backend
    calls = backend.steps()
    self.assertIsInstance(calls.expand, FewShot)
    self.assertEqual(calls.expand._prompt("q"), CODE.few_shot("q"))
    engine = calls.expand.engine
    with mock.patch.object(engine, "submit", wraps=engine.submit) as submit:
      rows = calls.expand(["how many?"], [()], np.array([[3, 5]], np.uint32))
    self.assertEqual([len(row) for row in rows], [2])
    # A server counts the tokens that the engine gets.
    prefix = submit.call_args.args[0]
    self.assertLen(prefix, solver.prompt_tokens("how many?"))
    self.assertLess(backend.usage()["device_idle_share"], 1)

  def test_a_reward_model_scores_in_the_ppm_s_place(self):
    ppm = ppm_from_policy(
      folders.load_policy(self.base), "logit", rngs=nnx.Rngs(0)
    )
    folder = self.folder / "reward"
    saving.save_ppm(ppm, folder, tokenizer=self.plain)
    made = backends.ModelBackend(self.other(), 0, reward=str(folder))
    self.assertIsInstance(made.score, Scorer)
    # Without its mark it is any classifier, which reads a dialogue.
    file = folder / "config.json"
    said = json.loads(file.read_text())
    del said[reward_heads.HEAD]
    file.write_text(json.dumps(said))
    backend = backends.ModelBackend(self.other(), 0, reward=str(folder))
    (values,) = backend.steps().score(["a"], [()], [["text", "of words"]])
    ids = np.array([self.plain.encode("a\n\nof words")])
    np.testing.assert_allclose(values[1], call(ppm, ids)[0, -1], atol=1e-6)
    self.config.eval.reward_model = str(folder)
    calls = backends.load_calls(self.other(), 0)
    (again,) = calls.score(["a"], [()], [["text", "of words"]])
    np.testing.assert_array_equal(values, again)


class OwnTest(ContextCase):
  """A policy and a reward model of one's own, by name."""

  def setUp(self):
    super().setUp()
    self.main = sys.modules["__main__"]
    self.made = []

    def policy(config, folder):
      self.made.append((config.engine.temperature, folder))
      return testing.ToySum()

    self.main.own_policy = policy
    self.main.own_score = lambda config: testing.score_by_hash
    self.config.policy.backend = "__main__:own_policy"

  def test_the_search_is_given_them(self):
    context = self.context()
    context.sandbox = mock.Mock(run=testing.run_trusted)
    context.grader = mock.Mock(grade=testing.grade_equal)
    backend = backends.ModelBackend(context, 0, reward="__main__:own_score")
    self.config.engine.warm_up = True
    calls = backend.steps()
    backend.warm_up()
    self.assertIsNone(backend.parameters())
    problems = [Problem("p", "Make 3.", "3")]
    config = SearchConfig(rollouts=9, candidates=3, annotation="ppm")
    (found,) = mcts.search(problems, config, calls, seed=5)
    toy = Calls(
      expand=testing.ToySum(),
      verify=testing.run_trusted,
      grade=testing.grade_equal,
      score=testing.score_by_hash,
    )
    (expected,) = mcts.search(problems, config, toy, seed=5)
    self.assertEqual(found.to_json(), expected.to_json())
    self.assertGreater(backend.usage()["generated_tokens_per_second"], 0)
    # The greedy one is told so by its config.
    greedy = backend.blocks(temperature=0.0)
    ((block, _),) = greedy.expand(["Q"], [()], np.zeros((1, 2), np.uint32))
    self.assertEqual(block.finish, "code")
    with self.assertRaisesRegex(ValueError, "temperature=0.3: config.policy"):
      backend.steps(temperature=0.3)
    folder = str(models.base(self.config))
    self.assertEqual(
      self.made, [(self.config.engine.temperature, folder), (0.0, folder)]
    )

  def test_a_round_s_ppm(self):
    first = self.config.rounds[0]
    first.ppm = "__main__:own_score"
    # A round whose trees no PPM annotates has none, whatever it is called.
    self.assertIsNone(backends.searching(self.context(), 1).score)
    first.annotation = "ppm"
    backend = backends.searching(self.context(), 1)
    (values,) = backend.score(["a"], [()], [["b", "c"]])
    (expected,) = testing.score_by_hash(["a"], [()], [["b", "c"]])
    np.testing.assert_array_equal(values, expected)

  def test_another_s_reward_model_as_a_round_s_ppm(self):
    with mock.patch.object(backends.reward, "load_reward") as load:
      first = self.config.rounds[0]
      first.annotation, first.ppm = "ppm", "rlhflow:a/b"
      backend = backends.searching(self.context(), 1)
    self.assertIs(backend.score, load.return_value)
    self.assertEqual(load.call_args.args[0], "rlhflow:a/b")

  def test_an_answer_s_reward_goes_to_the_search(self):
    self.main.own_task = lambda: Task(reward=lambda problem, answer: 0.25)
    self.config.task = "__main__:own_task"
    context = self.context()
    context.sandbox = context.grader = mock.Mock()
    calls = backends.ModelBackend(context, 0).steps()
    self.assertEqual(calls.reward(Problem("p", "q"), "7"), 0.25)


if __name__ == "__main__":
  absltest.main()
