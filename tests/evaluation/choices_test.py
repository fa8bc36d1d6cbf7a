"""Choices among solutions, by hand."""

import itertools

import numpy as np
from absl.testing import absltest, parameterized

from rstar_jax.evaluation import choices

RIGHT, WRONG = "equal", "different"


def solution(unit, answer, verdict, value=None):
  return {
    "unit": unit,
    "steps": ["x"],
    "answer": answer,
    "verdict": verdict,
    "value": value,
    "tokens": 3,
  }


def record(*found, source="samples", spent=(3, 6, 9, 12)):
  return {
    "problem_id": "p",
    "level": 2,
    "source": source,
    "spent": list(spent),
    "trajectories": list(found),
  }


SAMPLES = record(
  solution(0, "7", WRONG, 0.1),
  solution(1, None, "failed"),
  solution(2, "4", RIGHT, -0.5),
  solution(3, "4.0", RIGHT, -0.7),
)


class ChoicesTest(parameterized.TestCase):
  @parameterized.parameters(
    ("first", 4, WRONG),
    ("pass", 2, WRONG),
    ("pass", 3, RIGHT),
    # One vote each: the first wins; then 4 and 4.0 are one answer.
    ("majority", 3, WRONG),
    ("majority", 4, RIGHT),
    ("best", 4, WRONG),
    # 0.55 against 0.25 + 0.15.
    ("weighted", 4, WRONG),
  )
  def test_of_samples(self, choice, units, verdict):
    chosen = choices.choose(SAMPLES, choice, units)
    self.assertEqual(chosen.verdict, verdict)
    self.assertEqual(chosen.tokens, 3 * units)
    self.assertEqual(chosen.right, verdict == RIGHT)

  @parameterized.parameters((1, WRONG), (2, WRONG), (3, RIGHT))
  def test_so_many_of_highest_value_vote(self, k, verdict):
    chosen = choices.choose(SAMPLES, "top_k", 4, k=k)
    self.assertEqual(chosen.verdict, verdict)

  def test_of_searches_each_gives_its_best(self):
    searches = record(
      solution(0, "1", WRONG, 0.1),
      solution(0, "4", RIGHT, 0.3),
      solution(1, "1", WRONG, 0.9),
      solution(1, "1", WRONG, 0.8),
      solution(2, "4", RIGHT, 0.2),
      source="searches",
      spent=(10, 25, 31),
    )
    # Of all five solutions three say 1; of the best of each two say 4.
    self.assertEqual(choices.choose(searches, "majority", 3).verdict, RIGHT)
    self.assertEqual(choices.choose(searches, "best", 3).verdict, WRONG)
    self.assertEqual(choices.choose(searches, "best", 1).verdict, RIGHT)
    self.assertEqual(choices.choose(searches, "pass", 2).verdict, RIGHT)

  def test_of_searches_without_values_each_gives_its_majority(self):
    searches = record(
      solution(0, "1", WRONG),
      solution(0, "4", RIGHT),
      solution(0, "4.0", RIGHT),
      solution(1, None, "failed", 0.9),
      solution(1, "1", WRONG),
      solution(2, "4", RIGHT),
      source="searches",
      spent=(10, 25, 31),
    )
    for choice in ("first", "majority", "weighted", "best", "top_k"):
      with self.subTest(choice):
        self.assertEqual(choices.choose(searches, choice).verdict, RIGHT)
    # Two say 4 and one says 1: settled by the third search.
    self.assertEqual(choices.settled(searches, "majority", 3), 3)
    self.assertEqual(choices.choose(searches, "majority", 2).verdict, RIGHT)

  def test_a_search_that_ended_early_costs_what_it_cost(self):
    chosen = choices.choose(SAMPLES, "first", 64)
    self.assertEqual(chosen.tokens, 12)

  def test_nothing_found(self):
    empty = record(spent=(5,))
    for choice in choices.CHOICES:
      with self.subTest(choice):
        self.assertEqual(choices.choose(empty, choice, 1).verdict, "failed")

  @parameterized.product(
    choice=["majority", "weighted"],
    source=["samples", "searches"],
    seed=list(range(12)),
  )
  def test_once_settled_nothing_changes_the_choice(self, choice, source, seed):
    """Against every way that the rest could have gone, for few units."""
    rng = np.random.default_rng(seed)
    units = 6

    def draw(unit):
      answer = ["1", "2", "3", None][rng.integers(4)]
      verdict = "failed" if answer is None else f"v{answer}"
      # Votes of weight 0, 1/2 or 1, so that there are ties.
      value = [-1.0, 0.0, 1.0][rng.integers(3)]
      return solution(unit, answer, verdict, value)

    given = [draw(unit) for unit in range(units)]
    spent = range(1, units + 1)
    needed = choices.settled(
      record(*given, source=source, spent=spent), choice, units
    )
    options = [
      (answer, value) for answer in ("1", "2", "3") for value in (-1.0, 1.0)
    ] + [(None, None)]

    def outcomes(known):
      found = set()
      for rest in itertools.product(options, repeat=units - known):
        tail = [
          solution(
            known + i, answer, f"v{answer}" if answer else "failed", value
          )
          for i, (answer, value) in enumerate(rest)
        ]
        whole = record(*given[:known], *tail, source=source, spent=spent)
        found.add(choices.choose(whole, choice, units).verdict)
      return found

    # Settled: one outcome. Before: more than one, or it was not noticed early.
    self.assertLen(outcomes(needed), 1)
    if needed > 1 and units - needed < 3:
      self.assertGreater(len(outcomes(needed - 1)), 1)

  def test_where_nothing_is_found_all_units_are_needed(self):
    failed = [solution(unit, None, "failed") for unit in range(3)]
    record = SAMPLES | {"trajectories": failed}
    self.assertEqual(choices.settled(record, "majority", 3), 3)

  def test_the_best_is_settled_by_the_highest_value_that_there_is(self):
    self.assertEqual(choices.settled(SAMPLES, "best", 4), 4)
    for value, needed in ((1.0, 3), (0.999, 4)):
      found = record(
        solution(0, "7", WRONG, 0.1),
        solution(2, "4", RIGHT, value),
        solution(3, "5", WRONG, 1.0),
      )
      self.assertEqual(choices.settled(found, "best", 4), needed)
    # Without values the majority is chosen.
    two = record(*(solution(unit, "7", WRONG) for unit in range(3)))
    self.assertEqual(choices.settled(two, "best", 4), 2)

  def test_a_majority_that_is_likely_enough(self):
    # 0.9375 after three that agree, 0.96875 after four.
    found = record(
      *(solution(unit, "7", WRONG) for unit in range(9)), spent=range(9, 99)
    )
    for confidence, needed in ((0.93, 3), (0.95, 4), (0.97, 5), (1.0, 9)):
      self.assertEqual(
        choices.settled(found, "majority", 17, confidence=confidence), needed
      )

  def test_weights_are_no_numbers_of_votes(self):
    found = record(
      *(solution(unit, "7", WRONG, 1.0) for unit in range(9)),
      spent=range(9, 99),
    )
    for confidence in (0.6, 1.0):
      settled = choices.settled(found, "weighted", 17, confidence=confidence)
      self.assertEqual(settled, 9)

  def test_of_what_is_not_known_before_the_end(self):
    self.assertIsNone(choices.settled(SAMPLES, "top_k", 4))
    tree = record(source="mcts")
    self.assertIsNone(choices.settled(tree, "majority", 4))

  def test_wants_a_choice_that_there_is(self):
    with self.assertRaisesRegex(ValueError, "one of first, pass"):
      choices.choose(SAMPLES, "worst", 1)


if __name__ == "__main__":
  absltest.main()
