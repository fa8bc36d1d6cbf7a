"""The scripted policy and PPM: shares, values, and the sandbox's word."""

import dataclasses
import itertools

import numpy as np
from absl.testing import absltest, parameterized

from benchmarks import scripted
from rstar_jax import rng, testing
from rstar_jax.config.schema import SearchConfig
from rstar_jax.data.synthetic import generator, oracle
from rstar_jax.sandbox.pool import Sandbox
from rstar_jax.search import mcts, sampling
from rstar_jax.search.requests import Calls
from rstar_jax.search.tree import RIGHT, Tree
from rstar_jax.steps import grammar


def seeds(count: int) -> np.ndarray:
  return np.array([rng.seed_for(3, i) for i in range(count)], np.uint32)


def world(index: int, slip: float = 0.3, flip: float = 0.2):
  """Returns a problem of the generator and its world."""
  solved = generator.generate("test", index)
  checker = scripted.Checker(solved)
  ppm = scripted.Ppm(checker, flip, scripted.Chances(5))
  policy = scripted.Policy(solved, slip, len)
  return solved, scripted.World(policy, checker, ppm)


def paths(policy: scripted.Policy, checker: scripted.Checker):
  """Yields (path, probability, finished) of all that a policy may write."""
  waiting = [((), 1.0)]
  while waiting:
    path, chance = waiting.pop()
    options = policy.options(path)
    shares = np.diff([0.0, *options.ends, 1.0])
    for share, each in zip(shares, options.candidates, strict=True):
      text = each.text
      if each.finish != "answer":
        ran = checker.run(grammar.program((*path, text)))
        if ran.status != "ok":
          continue
        if each.finish == "code":
          text = grammar.with_output(text, ran.stdout)
      after = (*path, text), chance * share
      yield *after, each.finish == "answer"
      if each.finish != "answer":
        waiting.append(after)


class PolicyTest(parameterized.TestCase):
  @parameterized.parameters(0.0, 0.3)
  def test_slips_as_often_as_said(self, slip):
    for index in range(12):
      solved, _ = world(index)
      policy = scripted.Policy(solved, slip, len)
      path = ()
      for right in solved.steps[:-2]:
        options = policy.options(path)
        texts = [each.text for each in options.candidates]
        self.assertEqual(texts[0], right)
        self.assertLen(set(texts), len(texts))
        self.assertGreater(len(texts), 1)
        self.assertAlmostEqual(options.ends[0], 1 - slip)
        path = (*path, right)
      # It prints and boxes without a slip.
      for right in solved.steps[-2:]:
        (only,) = policy.options(path).candidates
        self.assertStartsWith(right, only.text)
        self.assertEqual(only.logprob, 0.0)
        path = (*path, right)

  def test_draws_by_shares(self):
    _, one = world(4)
    found = one.policy.expand((), seeds(4000))
    options = one.policy.options(())
    shares = np.diff([0.0, *options.ends, 1.0])
    for share, each in zip(shares, options.candidates, strict=True):
      count = sum(other is each for other in found)
      self.assertAlmostEqual(count / 4000, share, delta=0.03)
      self.assertAlmostEqual(np.exp(each.logprob), share)
      self.assertLen(each.token_ids, len(each.text))

  def test_unequal_steps_slip_as_often_in_all(self):
    rates = []
    for index in range(300):
      solved = generator.generate("test", index)
      policy = scripted.Policy(solved, 0.3, len, spread=0.25)
      rates.append(1 - policy.options(()).ends[0])
    self.assertAlmostEqual(np.mean(rates), 0.3, delta=0.04)
    self.assertAlmostEqual(np.var(rates), 0.25 * 0.3 * 0.7, delta=0.007)

  def test_a_step_that_nobody_needs_leaves_the_rest_to_do(self):
    seen = 0
    for index in range(60):
      solved, one = world(index)
      needed = {each.x for each in solved.plan}
      first = solved.steps[0]
      for each in one.policy.options((first,)).candidates:
        code = grammar.code_of(each.text).strip().splitlines()[-1]
        name = code.partition(" = ")[0]
        if each.finish != "step" or name in needed:
          continue
        self.assertIn(name, {fact.x for fact in solved.facts})
        after = one.policy.options((first, each.text)).candidates[0].text
        self.assertEqual(after, solved.steps[1])
        seen += 1
    self.assertGreater(seen, 3)

  def test_samples_are_right_as_often_as_all_ways_say(self):
    for index in (3, 12):
      solved, one = world(index)
      found = list(paths(one.policy, one.checker))
      right = sum(
        chance
        for path, chance, ended in found
        if ended and oracle.verdicts(solved, path)[-1] == RIGHT
      )
      # Slips may be harmless.
      level = solved.problem.level
      self.assertBetween(right, 0.7**level - 1e-9, 0.9**level)
      samples = one.run(sampling.solutions(solved.problem, 1500), blocks=True)
      rate = np.mean([each.verdict == "equal" for each in samples])
      self.assertAlmostEqual(rate, right, delta=0.04)

  def test_the_sandbox_agrees(self):
    programs, expected = [], []
    for index in (2, 5, 9):
      solved, one = world(index, slip=0.6)
      for each in one.policy.block((), seeds(40)):
        programs.append(grammar.program(grammar.split_block(each.text)))
        expected.append(one.checker.run(programs[-1]))
    with Sandbox(workers=1) as sandbox:
      for ran, each in zip(sandbox.run(programs), expected, strict=True):
        self.assertEqual(
          (ran.status, ran.stdout.strip()), (each.status, each.stdout)
        )
    self.assertGreater(len({each.stdout for each in expected}), 10)


class PpmTest(parameterized.TestCase):
  @parameterized.parameters(0.0, 0.1, 0.4)
  def test_is_wrong_as_often_as_said(self, flip):
    wrong = right = 0
    for index in range(6):
      solved, one = world(index, flip=flip)
      for number, (path, _, _) in enumerate(paths(one.policy, one.checker)):
        value = one.ppm(path)
        self.assertBetween(abs(value), 0.9, 1)
        is_right = oracle.verdicts(solved, path)[-1] == RIGHT
        wrong += (value > 0) != is_right
        right += (value > 0) == is_right
        if number == 400:
          break
    self.assertAlmostEqual(wrong / (wrong + right), flip, delta=0.03)

  def test_is_a_function_and_more_flips_have_those_of_fewer(self):
    _, one = world(7, flip=0.2)
    _, again = world(7, flip=0.2)
    more = dataclasses.replace(one.ppm, flip=0.5)
    flipped = 0
    for path, _, _ in paths(one.policy, one.checker):
      self.assertEqual(one.ppm(path), again.ppm(path))
      right = one.checker.right(path)
      if (one.ppm(path) > 0) != right:
        self.assertEqual(more(path), one.ppm(path))
        flipped += 1
    self.assertGreater(flipped, 3)

  def test_a_blind_one_never_sees_what_it_has_missed(self):
    solved, one = world(13)
    blind = dataclasses.replace(one.ppm, blind=True)
    signs, later = {}, 0
    every = paths(one.policy, one.checker)
    for path, _, _ in itertools.islice(every, 3000):
      right = [each == RIGHT for each in oracle.verdicts(solved, path)]
      if right[-1]:
        self.assertEqual(blind(path), one.ppm(path))
        continue
      first = path[: 1 + right.index(False)]
      sign = signs.setdefault(first, one.ppm(first) > 0)
      self.assertEqual(blind(path) > 0, sign)
      later += len(path) > len(first)
    self.assertGreater(later, 9)
    self.assertLen(set(signs.values()), 2)


class WorldTest(parameterized.TestCase):
  @parameterized.parameters("mcts", "samples")
  def test_equals_the_driver(self, method):
    solved, one = world(6)
    blocks = method == "samples"
    write = one.policy.block if blocks else one.policy.expand
    calls = Calls(
      lambda _, prefixes, rows: list(map(write, prefixes, rows)),
      testing.run_trusted,
      testing.grade_equal,
      lambda _, prefixes, rows: [
        np.array([one.ppm((*prefix, step)) for step in row], np.float32)
        for prefix, row in zip(prefixes, rows, strict=True)
      ],
    )
    if blocks:
      found = one.run(sampling.solutions(solved.problem, 9, 2), blocks=True)
      (expected,) = sampling.sample(
        [solved.problem], 9, calls.replace(score=None), 2
      )
      self.assertEqual(found, expected)
      return
    config = SearchConfig(
      rollouts=5, candidates=4, annotation="ppm", terminal_reward="ppm"
    )
    tree = one.run(mcts.search_tree(Tree(solved.problem), config, 2))
    (expected,) = mcts.search([solved.problem], config, calls, 2)
    self.assertEqual(tree.texts, expected.texts)
    np.testing.assert_array_equal(tree.visits, expected.visits)
    np.testing.assert_allclose(tree.ppm, expected.ppm, rtol=1e-6)
    self.assertEqual(tree.growth, expected.growth)


if __name__ == "__main__":
  absltest.main()
