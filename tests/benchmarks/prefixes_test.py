"""Tokens of prefix trees: each prefix of a question counted once, by sets."""

import contextlib
import io
import json

import numpy as np
from absl.testing import absltest, parameterized

from benchmarks import prefixes
from rstar_jax.config.schema import Config, SearchConfig, TrainConfig
from rstar_jax.data import sides
from rstar_jax.search.tree import ANSWERED, RIGHT, WRONG

TOKENIZER = prefixes.TOKENIZER


def shown(function, *arguments) -> dict:
  """Returns the line that a function prints."""
  with contextlib.redirect_stdout(io.StringIO()) as text:
    function("name", *arguments)
  return json.loads(text.getvalue())


def counted(groups: list[list[list[int]]]) -> dict[str, int]:
  """Returns what a line has to say of rows of ids, by question."""
  separate = paths = trees = 0
  for rows in groups:
    begun = {
      tuple(row[:size]) for row in rows for size in range(1, len(row) + 1)
    }
    longer = {prefix[:-1] for prefix in begun}
    separate += sum(map(len, rows))
    paths += sum(len(row) for row in set(map(tuple, rows)) - longer)
    trees += len(begun)
  return {"separate": separate, "paths": paths, "trees": trees}


class PrefixesTest(parameterized.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    config = SearchConfig(rollouts=4, candidates=3, max_depth=6)
    cls.trees = prefixes.made_up(5, config, seed=1)

  def prompt(self, tree) -> list[int]:
    return TOKENIZER.encode(TOKENIZER.prompt(tree.problem.question))

  def test_what_is_made_up(self):
    again = prefixes.made_up(
      5, SearchConfig(rollouts=4, candidates=3, max_depth=6), seed=1
    )
    for tree, other in zip(self.trees, again, strict=True):
      self.assertEqual(tree.to_record(), other.to_record())
      self.assertLen(self.prompt(tree), 120)
      self.assertLen(tree.draws, 3 * tree.expansions)
      for draw in tree.draws:
        self.assertBetween(len(draw.token_ids), 60, 120)
      self.assertLessEqual(tree.depth.max(), 6)
    found = np.concatenate([tree.correct for tree in self.trees])
    self.assertContainsSubset({RIGHT, WRONG}, set(found.tolist()))

  def test_solutions(self):
    config = TrainConfig(length=4096)
    solutions, groups = [], []
    for tree in self.trees:
      ended = [
        tree.prefix(node) for node in np.flatnonzero(tree.terminal == ANSWERED)
      ]
      solutions += [(tree.problem.question, steps) for steps in ended]
      groups.append(
        [
          [*self.prompt(tree), *TOKENIZER.encode("".join(steps)), 1]
          for steps in ended
        ]
      )
    found = shown(prefixes.show_sft, TOKENIZER, solutions, config)
    self.assertEqual(found, found | counted(groups))

  def test_scored_prefixes(self):
    items, groups = [], []
    for tree in self.trees:
      nodes = range(1, len(tree))
      items += [(tree.problem.question, tree.prefix(n), 0.0) for n in nodes]
      groups.append(
        [
          [*self.prompt(tree), *TOKENIZER.encode("".join(tree.prefix(n)))]
          for n in nodes
        ]
      )
    # One batch, and one row for each tree.
    config = TrainConfig(length=1 << 14, batch_size=len(items))
    encoded = sides.encode_scored(TOKENIZER, items, config.length)
    found = shown(prefixes.show_sides, encoded, config)
    self.assertEqual(found, found | counted(groups))
    self.assertLess(found["trees"], found["paths"])

  def test_reinforcement(self):
    config = Config()
    config.reinforce.train.length = 1 << 14
    found = shown(prefixes.show_draws, self.trees, config)
    groups = []
    for tree in self.trees:
      answered = [tree.reward[n] for n in range(len(tree)) if tree.answers[n]]
      rows = []
      for draw in tree.draws:
        below = {
          n
          for n in range(len(tree))
          if tree.answers[n] and draw.node in tree.path(n)
        }
        # Nothing was dropped, so that what ends is an answer.
        if below and len(set(answered)) > 1:
          before = TOKENIZER.encode("".join(tree.prefix(draw.parent)))
          rows.append([*self.prompt(tree), *before, *draw.token_ids])
      groups.append(rows)
    self.assertEqual(found, found | counted(groups))


if __name__ == "__main__":
  absltest.main()
