"""Trees of independent samples against the samples themselves."""

import collections
import dataclasses

import numpy as np
from absl.testing import absltest, parameterized

from rstar_jax import testing
from rstar_jax.search import driver, sampled_tree, sampling
from rstar_jax.search import tree as tree_lib
from rstar_jax.search.tree import NO_END, NO_NODE, Tree
from rstar_jax.steps import grammar
from rstar_jax.types import Candidate, Problem
from tests.search import toys

PROBLEM = Problem("p", "make 4", "4")
COUNT = 40


@dataclasses.dataclass
class Policy:
  """A toy whose blocks are dropped for each reason, and its answers too."""

  toy: testing.ToySum = testing.ToySum(
    ("x += 1", "x += 2", "x += 3", "x += nope"), offsets=(0, 0, 1)
  )

  def __call__(self, questions, prefixes, seeds):
    rows = self.toy.block(questions, prefixes, seeds)
    return [
      [self._spoilt(each, int(seed)) for each, seed in zip(*both, strict=True)]
      for both in zip(rows, seeds, strict=True)
    ]

  def _spoilt(self, each: Candidate, seed: int) -> Candidate:
    # Ids and their log-probabilities are of the sample, not of the text.
    ids = tuple(np.random.default_rng(seed).integers(0, 99, 5).tolist())
    text, finish = each.text, each.finish
    match seed % 11:
      case 0:
        finish = "length"
      case 1:
        text = text.replace(grammar.CODE, "").replace("\\boxed", "")
      case 2 | 3 | 4 | 5 if finish == "answer":
        text, ids, finish = "", (), "length"
    logprobs = tuple(-float(np.float32(i / 7)) for i in ids)
    return Candidate(text, ids, sum(logprobs), finish, logprobs)


def drawn(keeps_draws=True, count=COUNT):
  """Returns the tree of some samples, and the samples."""
  calls = toys.calls_of(Policy(), score=None)
  tree = Tree(PROBLEM, keeps_draws=keeps_draws)
  search = sampled_tree.sample_tree(tree, count, 3, ("a", 1))
  (found,) = driver.run_searches([search], calls, 1)
  assert found is tree
  search = sampling.solutions(PROBLEM, count, 3, name=("a", 1))
  (samples,) = driver.run_searches([search], calls, 1)
  return tree, samples


class SampledTreeTest(parameterized.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    cls.tree, cls.samples = drawn()
    cls.prefixes = [cls.tree.prefix(node) for node in range(len(cls.tree))]

  def test_the_toy_has_each_case(self):
    status = collections.Counter(each.status for each in self.samples)
    self.assertContainsSubset(
      ("ok", "length", "malformed", "error", "no_answer"), status
    )
    answers = [each.steps for each in self.samples if each.answer]
    self.assertGreater(len(answers), len(set(answers)))
    self.assertLen({each.reward for each in self.samples}, 3)

  def test_a_node_for_each_prefix_of_a_solution_whose_code_ran(self):
    ran = [each.steps for each in self.samples if len(each.written) > 1]
    expected = {steps[:n] for steps in ran for n in range(len(steps) + 1)}
    self.assertCountEqual(self.prefixes, expected)
    for node, prefix in enumerate(self.prefixes):
      ends = grammar.END_OF_CODE in prefix[-1] if prefix else False
      answer = prefix in [each.steps for each in self.samples if each.answer]
      kind = (
        tree_lib.ROOT
        if not prefix
        else tree_lib.ANSWER
        if answer
        else tree_lib.CODE
        if ends
        else tree_lib.STEP
      )
      self.assertEqual(self.tree.kind[node], kind)

  def test_q_is_the_mean_reward_of_the_solutions_below(self):
    for node, prefix in enumerate(self.prefixes):
      below = [
        each.reward
        for each in self.samples
        if each.answer and each.steps[: len(prefix)] == prefix
      ]
      self.assertEqual(self.tree.visits[node], len(below))
      if below:
        self.assertAlmostEqual(self.tree.q(node), np.mean(below))
      self.assertEqual(
        self.tree.terminal[node],
        tree_lib.ANSWERED
        if self.tree.kind[node] == tree_lib.ANSWER
        else tree_lib.DEAD
        if not self.tree.num_children[node]
        else tree_lib.OPEN,
      )
    for node in np.flatnonzero(self.tree.kind == tree_lib.ANSWER):
      each = next(s for s in self.samples if s.steps == self.prefixes[node])
      self.assertEqual(self.tree.answers[node], each.answer)
      self.assertEqual(self.tree.reward[node], each.reward)
      right = tree_lib.RIGHT if each.answer == "4" else tree_lib.WRONG
      self.assertEqual(self.tree.correct[node], right)

  def test_counts(self):
    tree, samples = self.tree, self.samples
    self.assertEqual(tree.tokens, sum(each.tokens for each in samples))
    self.assertEqual(tree.expansions, COUNT)
    failed = [each for each in samples if each.answer is None]
    self.assertEqual(tree.failed_rollouts, len(failed))
    self.assertEqual(
      tree.dropped, collections.Counter(each.status for each in failed)
    )
    tokens = np.cumsum([each.tokens for each in samples]).tolist()
    ends = [
      self.prefixes.index(each.steps) if each.answer else NO_END
      for each in samples
    ]
    self.assertEqual(
      tree.growth,
      [
        (count, len(tree), end) for count, end in zip(tokens, ends, strict=True)
      ],
    )

  def test_draws_are_all_that_was_written(self):
    expected = []
    for each in self.samples:
      block, *answer = each.written
      if not answer:
        expected.append((0, NO_NODE, block))
        continue
      code = each.steps[:-1] if each.answer else each.steps
      at = self.prefixes.index(code)
      end = self.prefixes.index(each.steps) if each.answer else NO_NODE
      expected += [(0, at, block), (at, end, answer[0])]
    found = [
      (each.parent, each.node, each.token_ids, each.logprobs)
      for each in self.tree.draws
    ]
    self.assertEqual(
      found,
      [(*where, each.token_ids, each.logprobs) for *where, each in expected],
    )
    # An answer that found no room has ended all the same.
    self.assertIn((), [ids for _, _, ids, _ in found])

  def test_round_trip(self):
    record = self.tree.to_record()
    kept = tree_lib.from_record(record, draws=True)
    self.assertEqual(kept.to_record(), record)
    for one, other in zip(self.tree.draws, kept.draws, strict=True):
      self.assertEqual(
        (one.parent, one.node, one.token_ids),
        (other.parent, other.node, other.token_ids),
      )
      self.assertEqual(*(np.float32(x.logprobs).tolist() for x in (one, other)))
    without = tree_lib.from_record(record)
    self.assertIsNone(without.draws)
    plain, _ = drawn(keeps_draws=False)
    self.assertEqual(without.to_json(), plain.to_json())
    self.assertEqual(without.exhausted.tolist(), plain.exhausted.tolist())
    self.assertNotIn("draws", plain.to_record())

  def test_fewer_samples_are_the_first_ones(self):
    tree, samples = drawn(count=7)
    self.assertEqual(samples, self.samples[:7])
    self.assertEqual(
      [each.logprobs for each in tree.draws],
      [each.logprobs for each in self.tree.draws[: len(tree.draws)]],
    )


if __name__ == "__main__":
  absltest.main()
