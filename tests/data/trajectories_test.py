"""Tests of rstar_jax.data.trajectories."""

import dataclasses
import json

import numpy as np
from absl.testing import absltest, parameterized

from rstar_jax.config.schema import ExtractConfig
from rstar_jax.data import trajectories
from rstar_jax.search import tree as tree_lib
from rstar_jax.search.tree import RIGHT, UNKNOWN, WRONG
from rstar_jax.storage import json_io
from rstar_jax.types import Problem, Trajectory


def make_tree(*paths, name="p", level=None, source=""):
  """Makes a tree of two-step solutions.

  Args:
    *paths: (first text, Q of the first step, answer text, Q of the answer,
      verdict); a None answer text leaves the path open.
    name: the problem's id.
    level: the problem's level.
    source: where the problem is from.
  """
  problem = Problem(name, f"question {name}", "1", source, level)
  tree = tree_lib.Tree(problem)
  firsts = tree.add_children(
    tree_lib.ROOT_INDEX,
    [
      tree_lib.Child(path[0], tree_lib.CODE, visits=4, value_sum=4 * path[1])
      for path in paths
    ],
  )
  for first, (_, _, text, q, verdict) in zip(firsts, paths, strict=True):
    if text is not None:
      answer = tree_lib.Child(
        text,
        tree_lib.ANSWER,
        visits=1,
        value_sum=q,
        answer=text,
        correct=verdict,
      )
      tree.add_children(first, [answer])
  return tree


def texts(rows):
  return ["/".join(row.steps) for row in rows]


class SftRowsTest(parameterized.TestCase):
  def test_the_best_by_average_q(self):
    tree = make_tree(
      ("a", 0.0, "1", 1.0, RIGHT),  # Average 0.5.
      ("b", 0.5, "1", 1.0, RIGHT),  # 0.75
      ("c", 1.0, "2", 1.0, WRONG),
      ("d", 0.25, "1", 1.0, RIGHT),  # 0.625
      ("e", 1.0, "3", 1.0, UNKNOWN),
      ("f", 1.0, None, 0.0, UNKNOWN),
    )
    rows, stats = trajectories.sft_rows([tree], ExtractConfig())
    self.assertEqual(
      rows,
      [
        Trajectory("p", "question p", ("b", "1"), (0.5, 1.0), "1", True),
        Trajectory("p", "question p", ("d", "1"), (0.25, 1.0), "1", True),
      ],
    )
    self.assertEqual(
      stats,
      {
        "problems": 1,
        "solved": 1,
        "easy": 0,
        "medium": 1,
        "hard": 0,
        "answers": 5,
        "right": 3,
        "wrong": 1,
        "undecided": 1,
        "low_share": 0,
        "duplicates": 0,
        "rows": 2,
        "levels": {"None": {"problems": 1, "solved": 1}},
      },
    )
    json.dumps(stats)

  def test_ties_go_to_the_higher_minimum_then_the_shorter_then_the_first(self):
    tree = make_tree(
      ("uneven", 0.0, "1", 1.0, RIGHT),
      ("longer", 0.5, "1", 0.5, RIGHT),
      ("even", 0.5, "1", 0.5, RIGHT),
      ("same", 0.5, "1", 0.5, RIGHT),
    )
    rows, _ = trajectories.sft_rows([tree], ExtractConfig(sft_per_problem=9))
    self.assertEqual(texts(rows), ["even/1", "same/1", "longer/1", "uneven/1"])

  def test_what_else_may_be_chosen(self):
    tree = make_tree(
      ("a", 0.0, "1", 1.0, RIGHT),
      ("b", 0.5, "1", 1.0, RIGHT),
      ("c", 1.0, "2", 1.0, WRONG),
      ("d", 0.25, "1", 1.0, RIGHT),
      ("e", 1.0, "3", 1.0, UNKNOWN),
    )

    def chosen(choice, seed=0, **options):
      config = ExtractConfig(sft_choice=choice, **options)
      return texts(trajectories.sft_rows([tree], config, seed)[0])

    self.assertEqual(chosen("all"), ["b/1", "d/1", "a/1"])
    # Without a reward model's values: as by Q.
    self.assertEqual(chosen("reward"), chosen("q"))
    answers = np.flatnonzero(tree.terminal == tree_lib.ANSWERED)
    tree.ppm[answers] = [-0.5, 0.1, 0.9, 0.3, 1.0]
    self.assertEqual(chosen("reward"), ["c/2", "d/1"])
    tree.ppm[answers[2]] = np.nan
    self.assertEqual(chosen("reward"), ["d/1", "b/1"])
    # Some of the right ones, the same for a seed; each is as likely.
    draws = [chosen("random", seed, sft_per_problem=1) for seed in range(300)]
    self.assertEqual(draws[7], chosen("random", 7, sft_per_problem=1))
    counts = [draws.count([f"{name}/1"]) for name in "abd"]
    self.assertEqual(sum(counts), 300)
    self.assertGreater(min(counts), 70)

  def test_trees_of_a_problem_are_pooled_and_equal_texts_merged(self):
    trees = [
      make_tree(("a", 0.0, "1", 1.0, RIGHT)),
      make_tree(("z", 1.0, "1", 1.0, RIGHT), name="q"),
      make_tree(("a", 0.5, "1", 1.0, RIGHT), ("b", 0.25, "1", 1.0, RIGHT)),
    ]
    rows, stats = trajectories.sft_rows(trees, ExtractConfig())
    self.assertEqual(texts(rows), ["a/1", "b/1", "z/1"])
    self.assertEqual(rows[0].q_values, (0.5, 1.0))
    self.assertEqual(
      (stats["problems"], stats["easy"], stats["duplicates"]), (2, 2, 1)
    )

  @parameterized.parameters((0.0, 1), (0.5, 1), (0.51, 0))
  def test_share_of_right_answers(self, least, rows_expected):
    # One right and one wrong: 0.5, whatever was not decided.
    trees = [
      make_tree(("a", 0.0, "1", 1.0, RIGHT), ("b", 0.0, "?", 0.0, UNKNOWN)),
      make_tree(("c", 0.0, "2", -1.0, WRONG), ("d", 0.0, None, 0.0, UNKNOWN)),
    ]
    rows, stats = trajectories.sft_rows(
      trees, ExtractConfig(min_correct_share=least)
    )
    self.assertLen(rows, rows_expected)
    self.assertEqual(stats["low_share"], 1 - rows_expected)
    self.assertEqual(stats["solved"], 1)

  @parameterized.parameters((0.28, 1), (0.2800001, 0))
  def test_a_share_that_a_float_rounds_up(self, least, rows_expected):
    # 0.28 * 25 is above 7.
    tree = make_tree(
      *[(f"a{i}", 0.0, "1", 1.0, RIGHT) for i in range(7)],
      *[(f"b{i}", 0.0, "2", -1.0, WRONG) for i in range(18)],
    )
    config = ExtractConfig(min_correct_share=least, sft_per_problem=1)
    self.assertLen(trajectories.sft_rows([tree], config)[0], rows_expected)

  def test_the_share_is_asked_of_some_sources_alone(self):
    trees = [
      make_tree(
        ("a", 0.0, "1", 1.0, RIGHT),
        *[(wrong, 0.0, "2", -1.0, WRONG) for wrong in ("b", "c")],
        name=source,
        source=source,
      )
      for source in ("made", "contest")
    ]
    for sources, kept in (((), []), (("made",), ["contest"])):
      rows, stats = trajectories.sft_rows(
        trees, ExtractConfig(min_correct_share=0.5, min_correct_of=sources)
      )
      self.assertEqual([row.problem_id for row in rows], kept)
      self.assertEqual(stats["low_share"], 2 - len(kept))

  def test_unsolved_problems_and_levels(self):
    trees = [
      make_tree(("a", 0.0, "2", -1.0, WRONG), name="x", level=1),
      make_tree(("a", 0.0, "1", 1.0, RIGHT), name="y", level=1),
      make_tree(("a", 0.0, None, 0.0, UNKNOWN), name="z", level=2),
    ]
    rows, stats = trajectories.sft_rows(trees, ExtractConfig())
    self.assertEqual([row.problem_id for row in rows], ["y"])
    self.assertEqual((stats["hard"], stats["easy"]), (2, 1))
    self.assertEqual(
      stats["levels"],
      {"1": {"problems": 2, "solved": 1}, "2": {"problems": 1, "solved": 0}},
    )

  def test_nothing(self):
    rows, stats = trajectories.sft_rows([], ExtractConfig())
    self.assertEqual((rows, stats["problems"]), ([], 0))


class DictTest(absltest.TestCase):
  def test_round_trip_through_json(self):
    for value in (None, -0.25):
      row = Trajectory("p", "Q?", ("a", "b"), (0.1, -1 / 3), "1", True, value)
      read = json.loads(json_io.line(row))
      self.assertEqual(trajectories.from_dict(read), row)

  def test_unknown_and_missing_fields(self):
    row = dataclasses.asdict(Trajectory("p", "Q", ("a",), (0.0,), "1", True))
    with self.assertRaises(TypeError):
      trajectories.from_dict(row | {"other": 1})
    del row["answer"]
    with self.assertRaises(TypeError):
      trajectories.from_dict(row)


if __name__ == "__main__":
  absltest.main()
