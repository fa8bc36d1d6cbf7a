"""Leads over runs and problems, worked out by hand."""

import dataclasses

from absl.testing import absltest, flagsaver

from benchmarks import selection
from rstar_jax import testing
from rstar_jax.evaluation import choices
from rstar_jax.search import mcts
from tests.search import toys


class SelectionTest(absltest.TestCase):
  def test_ways_to_answer(self):
    policy = testing.ToySum()
    calls = toys.calls_of(policy)
    config = toys.config_of(annotation="ppm", terminal_reward="ppm", c=9.0)
    with flagsaver.flagsaver(samples=3):
      found = dict(
        selection.answers(
          *(toys.PROBLEMS, config, calls),
          *(calls.replace(expand=policy.block, score=None), calls.score, 5),
        )
      )
    ways = ("puct", "uct", "best", "weighted", "majority", "pass")
    self.assertEqual([each.split()[0] for each in found], list(ways))
    for way in ("puct", "uct"):
      trees = mcts.search(
        toys.PROBLEMS,
        dataclasses.replace(config, rollouts=1, selection=way),
        *(calls, 5),
        name=("val",),
      )
      self.assertEqual(
        [each.tokens for each in found[way]], [tree.tokens for tree in trees]
      )
      self.assertEqual(
        [each.right for each in found[way]],
        [bool((tree.correct == 1).any()) for tree in trees],
      )
    right = {way: [each.right for each in found[way]] for way in found}
    for way in ("best of 3", "weighted of 3", "majority of 3"):
      for one, any_ in zip(right[way], right["pass of 3"], strict=True):
        self.assertLessEqual(one, any_)

  def test_lines(self):
    def outcomes(right: str, tokens: int) -> list[choices.Outcome]:
      return [
        choices.Outcome("p", None, "equal" if each == "1" else "failed", tokens)
        for each in right
      ]

    found = {
      "puct": [outcomes("1111", 5), outcomes("1110", 5)],
      "best of 8": [outcomes("1000", 6), outcomes("0000", 8)],
    }
    first, second = selection.lines(found)
    self.assertEqual(first["puct_less"], [0.0, 0.0, 0.0])
    self.assertEqual((first["right"], first["n"]), (87.5, 4))
    self.assertEqual((second["way"], second["tokens"]), ("best of 8", 7.0))
    self.assertEqual(second["by_run"], [25.0, 0.0])
    self.assertEqual(second["puct_less"][0], 75.0)
    self.assertGreater(second["puct_less"][1], 0)
    self.assertLess(second["puct_less"][1], 75)


if __name__ == "__main__":
  absltest.main()
