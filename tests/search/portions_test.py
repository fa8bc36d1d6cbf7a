"""Sampling in portions, against sampling all at once and hand values."""

import numpy as np
from absl.testing import absltest, parameterized

from rstar_jax import testing
from rstar_jax.config.schema import SearchConfig
from rstar_jax.search import mcts, portions
from rstar_jax.types import Candidate
from tests.search.toys import PROBLEMS, calls_of, config_of

PREFIX = ("<code>\nx = 0\n<end_of_step>",)


def step(text: str, finish: str = "step") -> Candidate:
  return Candidate(f"\n{text}\n<end_of_step>", (1,), -1.0, finish)


def answered(sampling, policy, asked: list) -> list[list[Candidate]]:
  """Runs a sampling; `asked` gets the seeds of each request, turn by turn."""
  requests, turn = next(sampling), None
  try:
    while True:
      asked.append([each.args[2].tolist() for each in requests])
      turn = [policy(*([a] for a in each.args))[0] for each in requests]
      requests = sampling.send(turn)
  except StopIteration as end:
    return end.value


class PortionsTest(parameterized.TestCase):
  @parameterized.parameters(
    (["a"], 1.0),
    (["a", "a"], 0.0),
    (["a", "b"], 1.0),
    (["a", "a", "b", "c"], 0.5),
    (["a", "a", "b", "b", "b", "c"], 1 / 6),
    # Malformed ones count as samples alone.
    (["a", "<output>", "b", "<answer>"], 0.5),
    (["a", "a", "<output>"], 0.0),
    (["<output>", "<answer>"], 1.0),
  )
  def test_unseen_mass_by_hand(self, texts, expected):
    found = portions.unseen_mass(PREFIX, [step(each) for each in texts])
    self.assertEqual(found, expected)

  def test_an_unfinished_candidate_is_not_well_formed(self):
    cut = [step("a"), step("a"), step("b", finish="length")]
    self.assertEqual(portions.unseen_mass(PREFIX, cut), 0.0)

  @parameterized.parameters(0, 1, 3)
  def test_each_seed_has_a_candidate(self, count):
    sampling = portions.sample("Q", [PREFIX], [np.arange(2)], config_of())
    next(sampling)
    with self.assertRaisesRegex(ValueError, f"return 2 .*, not {count}"):
      sampling.send([[step(str(each)) for each in range(count)]])

  @parameterized.parameters(
    # Without a threshold all seeds are asked for at once.
    (0.0, 2, [[[0, 1, 2, 3, 4], [5, 6, 7, 8, 9]]]),
    # The first leaf repeats itself; the second one has something new until
    # its last portion, which is a smaller one.
    (0.1, 2, [[[0, 1], [5, 6]], [[7, 8]], [[9]]]),
    # Of b, c, d, b half came once, which is not above the threshold.
    (0.5, 2, [[[0, 1], [5, 6]], [[7, 8]]]),
    (0.1, 3, [[[0, 1, 2], [5, 6, 7]], [[8, 9]]]),
  )
  def test_asks_for_more_while_there_is_more(self, threshold, portion, turns):
    words = ["a", "a", "a", "a", "a", "b", "c", "d", "b", "e"]

    def policy(questions, prefixes, seeds):
      return [[step(words[seed]) for seed in row] for row in seeds]

    config = SearchConfig(unseen_mass=threshold, portion=portion)
    seeds = np.arange(10, dtype=np.uint32).reshape(2, 5)
    asked = []
    sampling = portions.sample("q", [PREFIX, PREFIX], seeds, config)
    found = answered(sampling, policy, asked)
    self.assertEqual(asked, turns)
    for leaf, row in enumerate(found):
      sizes = [s for turn in turns for s in turn if s[0] // 5 == leaf]
      expected = [words[seed] for seed in sum(sizes, [])]
      self.assertEqual(row, [step(each) for each in expected])

  def test_a_tree_has_the_first_candidates_of_one_that_samples_all(self):
    policy = testing.ToySum(levels=1)
    whole, part = (
      mcts.search(
        PROBLEMS,
        config_of(candidates=9, rollouts=1, **options),
        calls_of(policy),
        seed=3,
      )
      for options in ({}, {"unseen_mass": 0.2, "portion": 2})
    )
    for one, other in zip(whole, part, strict=True):
      texts = [one.texts[each] for each in one.children(0)]
      fewer = [other.texts[each] for each in other.children(0)]
      self.assertEqual(fewer, texts[: len(fewer)])
      self.assertEqual(one.expansions, other.expansions)
      self.assertLess(other.tokens, one.tokens)


if __name__ == "__main__":
  absltest.main()
