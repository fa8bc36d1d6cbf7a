"""One answer is chosen, whoever asks: results, report, solve, study, harness.

The gold answer is 18 cents. "18 cents" is right and has a low value; "18
dollars" is wrong and has a high one. The two vote together, since a vote knows
no gold answer, and a weighted vote gives the one of highest value: the wrong
one, everywhere.
"""

import dataclasses
import json
import pathlib
import types
from unittest import mock

from absl.testing import absltest, parameterized

from rstar_jax.evaluation import accuracy, solutions, tables
from rstar_jax.grading.voting import vote_key
from rstar_jax.pipeline import backends, solve
from rstar_jax.report import inputs
from rstar_jax.report import trees as trees_lib
from rstar_jax.search import mcts
from rstar_jax.search.tree import ANSWER, RIGHT, WRONG, Child, Tree
from rstar_jax.storage import records
from rstar_jax.tools import harness
from rstar_jax.types import Problem
from tests import tiny_run

CENTS, DOLLARS = 1, 2
# Way to choose -> the node that is given.
CHOSEN = {"weighted": DOLLARS, "best": DOLLARS, "majority": CENTS}


def priced() -> Tree:
  """Returns a tree with both answers below its root."""
  tree = Tree(Problem("price", "What does it cost?", "18 cents", "toy", 1))

  def answer(text: str, correct: int, ppm: float) -> Child:
    return Child(
      f"<answer>It costs \\boxed{{{text}}}.<end_of_answer>",
      ANSWER,
      answer=text,
      correct=correct,
      ppm=ppm,
      visits=1,
    )

  tree.tokens = 20
  tree.add_children(
    0, [answer("18 cents", RIGHT, 0.1), answer("18 dollars", WRONG, 0.9)]
  )
  tree.end_rollout(CENTS)
  tree.end_rollout(DOLLARS)
  return tree


class ChooseEverywhereTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.tree = priced()
    self.record = solutions.of_tree(self.tree, "mcts", "toy", "last")
    self.folder = pathlib.Path(self.create_tempdir().full_path)

  def context(self, select: str):
    config = tiny_run.make_config("none.jsonl", "none.jsonl")
    config.eval.answer_select = select
    return types.SimpleNamespace(config=config, grader=None)

  def test_the_two_vote_together(self):
    self.assertEqual(vote_key("18 cents"), vote_key("18 dollars"))

  @parameterized.parameters(*CHOSEN.items())
  def test_results(self, select, node):
    [row] = accuracy.table([self.record], round_=1, select=select)
    self.assertEqual(row["accuracy"], float(node == CENTS))

  @parameterized.parameters(*CHOSEN.items())
  def test_study(self, select, node):
    rows = tables.table([self.record | {"reward": "ppm"}], seed=0)
    [row] = [
      each for each in rows if each["choice"] == select and each["units"] == 2
    ]
    self.assertEqual(row["accuracy"], float(node == CENTS))

  @parameterized.parameters(*CHOSEN.items())
  def test_report(self, select, node):
    config = dataclasses.asdict(self.context(select).config)
    (self.folder / "config.json").write_text(json.dumps(config))
    shard = self.folder / "round_1/eval/toy" / records.shard_name(0, 1)
    records.write_shard(shard, [self.record])
    records.write_shard(
      shard.with_name(f"trees-{shard.name}"), [self.tree.to_record()]
    )
    found = inputs.read(self.folder)
    [row] = found["problems"]
    self.assertEqual(row["solved"], node == CENTS)
    drawn = trees_lib.decode(found["trees"][row["block"]])
    self.assertEqual(drawn["chosen"], [node])

  @parameterized.parameters(*CHOSEN.items())
  def test_solve_and_harness(self, select, node):
    def searched(*_):
      yield from ()  # Asks for nothing.
      return self.tree

    device = mock.Mock()
    asked = types.SimpleNamespace(doc={}, args=("What does it cost?", {}))
    with (
      mock.patch.object(backends, "trained", return_value=device),
      mock.patch.object(mcts, "check"),
      mock.patch.object(mcts, "search_tree", searched),
    ):
      context = self.context(select)
      found = solve.solve(context, 1, "What does it cost?")
      self.assertEqual(found.answer, self.tree.answers[node])
      [text] = harness.answer_all(context, 1, [asked])
      self.assertEndsWith(text, f"#### {self.tree.answers[node]}")


if __name__ == "__main__":
  absltest.main()
