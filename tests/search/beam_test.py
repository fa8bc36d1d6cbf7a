"""Step beam search against a beam search written down in a few lines."""

import dataclasses

import numpy as np
from absl.testing import absltest, parameterized

from rstar_jax import testing
from rstar_jax.config.schema import SearchConfig
from rstar_jax.search import beam
from rstar_jax.search import tree as tree_lib
from rstar_jax.search.requests import Calls
from rstar_jax.types import Problem

PROBLEMS = [Problem(f"p{i}", f"make {i}", str(i)) for i in range(5)]
POLICY = testing.ToySum(levels=3, covers=True)
CONFIG = SearchConfig(candidates=3, in_flight=7)


def score_of(question: str, path) -> float:
  *prefix, last = path
  return float(testing.score_by_hash([question], [prefix], [[last]])[0][0])


def reference(question: str, width: int, begin=((),)) -> set[tuple[str, ...]]:
  """The finished paths, from texts alone: all paths have the same length."""
  beams = list(begin)[:width]
  for _ in range(POLICY.levels - len(beams[0])):
    children = []
    for path in beams:
      ((*options,),) = POLICY([question], [path], [range(3)])
      for each in options:
        text = each.text
        if each.finish == "code":
          digits = "".join((*path, text)).split("x += ")[1:]
          total = sum(int(d[0]) for d in digits)
          text += f"\n<output>{total}<end_of_output>\n"
        children.append((*path, text))
    children.sort(key=lambda path: -score_of(question, path))
    beams = children[:width]
  return {
    (*path, POLICY([question], [path], [[0]])[0][0].text) for path in beams
  }


class BeamTest(parameterized.TestCase):
  def calls(self, **overrides):
    return Calls(
      **{
        "expand": POLICY,
        "verify": testing.run_trusted,
        "grade": testing.grade_equal,
        "score": testing.score_by_hash,
      }
      | overrides
    )

  @parameterized.parameters(1, 2, 5)
  def test_finished_paths_are_the_reference(self, width):
    trees = beam.beam_search(PROBLEMS, width, CONFIG, self.calls(), seed=0)
    for tree in trees:
      found = tree_lib.trajectories(tree, visited_only=True)
      self.assertEqual(
        {each.steps for each in found},
        reference(tree.problem.question, width),
      )
      self.assertEqual(tree.rollouts, width)
      for each in found:
        self.assertAlmostEqual(
          each.value, score_of(tree.problem.question, each.steps)
        )

  @parameterized.parameters({}, {"ppm_counts_visit": True, "annotation": "ppm"})
  def test_visits_are_finished_beams_whatever_the_config_says(self, **options):
    config = dataclasses.replace(CONFIG, **options)
    for tree in beam.beam_search(PROBLEMS, 2, config, self.calls(), seed=0):
      ends = np.flatnonzero((tree.terminal == tree_lib.ANSWERED) & tree.visits)
      self.assertLen(ends, 2)
      self.assertTrue(tree.exhausted[ends].all())
      np.testing.assert_array_equal(tree.reward[ends], tree.ppm[ends])
      for node in range(len(tree)):
        below = [end for end in ends if node in tree.path(int(end))]
        self.assertEqual(tree.visits[node], len(below))
        self.assertAlmostEqual(
          tree.value_sum[node], sum(tree.reward[end] for end in below)
        )

  @parameterized.parameters((4, 2), (6, 3), (3, 3))
  def test_diverse_beams_are_beams_of_first_steps_of_their_own(
    self, width, groups
  ):
    trees = beam.beam_search(
      PROBLEMS, width, CONFIG, self.calls(), seed=0, groups=groups
    )
    for tree in trees:
      question = tree.problem.question
      firsts = sorted(
        {path[:1] for path in reference(question, 99)},
        key=lambda path: -score_of(question, path),
      )
      expected = set()
      for group in range(groups):
        expected |= reference(question, width // groups, firsts[group::groups])
      found = tree_lib.trajectories(tree, visited_only=True)
      self.assertEqual({each.steps for each in found}, expected)

  def test_groups_that_do_not_divide_the_width(self):
    for groups in (2, 0, -3):
      with self.assertRaisesRegex(
        ValueError, f"groups={groups} must divide width=3"
      ):
        beam.beam_search(
          PROBLEMS, 3, CONFIG, self.calls(), seed=0, groups=groups
        )

  def test_children_hang_below_the_beam_they_continue(self):
    # The released code's bug: after a finished answer, children went to the
    # wrong parent. Here a first step may close the code, so depths differ.
    def expand(questions, prefixes, seeds):
      short = testing.ToySum(levels=1, covers=True)
      return [
        (short if "x += 3" in "".join(prefix) else POLICY)([q], [prefix], [s])[
          0
        ]
        if prefix
        else [*short([q], [()], [s])[0][:1], *POLICY([q], [()], [s])[0][1:]]
        for q, prefix, s in zip(questions, prefixes, seeds, strict=True)
      ]

    trees = beam.beam_search(
      PROBLEMS, 3, CONFIG, self.calls(expand=expand), seed=0
    )
    depths = set()
    for tree in trees:
      # Three beams: each finished answer takes one place, however early.
      self.assertEqual(tree.rollouts, 3)
      for each in tree_lib.trajectories(tree):
        digits = "".join(each.steps).split("x += ")[1:]
        self.assertEqual(each.answer, str(sum(int(d[0]) for d in digits)))
        depths.add(len(each.steps))
    self.assertGreater(len(depths), 1)

  def test_each_answer_narrows_the_beam(self):
    # One answer is finished at depth 2 where it ranks first; width 1 is then
    # used up, though other beams are open.
    def score(questions, prefixes, rows):
      return [
        np.array([1.0 if "boxed" in t else 0.1 for t in row]) for row in rows
      ]

    short = testing.ToySum(levels=1, covers=True)
    (tree,) = beam.beam_search(
      PROBLEMS[:1], 1, CONFIG, self.calls(expand=short, score=score), seed=0
    )
    self.assertEqual((tree.expansions, tree.rollouts), (2, 1))

  def test_failing_beams_end_the_search(self):
    broken = testing.ToySum(("x += nope",))
    (tree,) = beam.beam_search(
      PROBLEMS[:1], 2, CONFIG, self.calls(expand=broken), seed=0
    )
    self.assertEqual((len(tree), tree.expansions), (1, 1))

  def test_how_many_are_in_flight_does_not_matter(self):
    texts = set()
    drawn = self.calls(expand=testing.ToySum(levels=3))
    for in_flight in (1, 2, 31):
      config = SearchConfig(candidates=5, in_flight=in_flight)
      trees = beam.beam_search(PROBLEMS, 3, config, drawn, seed=1)
      texts.add("\n".join(tree.to_json() for tree in trees))
    self.assertLen(texts, 1)

  def test_the_seed_is_0_unless_given(self):
    drawn = self.calls(expand=testing.ToySum(levels=3))
    none, zero, other = (
      [
        tree.to_json()
        for tree in beam.beam_search(PROBLEMS, 3, CONFIG, drawn, **given)
      ]
      for given in ({}, {"seed": 0}, {"seed": -1})
    )
    self.assertEqual(none, zero)
    self.assertNotEqual(none, other)

  def test_another_name_makes_other_trees(self):
    drawn = self.calls(expand=testing.ToySum(levels=3))
    texts = [
      beam.beam_search(PROBLEMS, 3, CONFIG, drawn, name=name)[0].to_json()
      for name in ((), (), ("b", 1), ("b", 2))
    ]
    self.assertEqual(texts[0], texts[1])
    self.assertLen(set(texts), 3)

  def test_gold_is_not_needed_and_changes_nothing(self):
    found = []
    for gold in ("6", None):
      (tree,) = beam.beam_search(
        [Problem("p", "make 6", gold)], 2, CONFIG, self.calls(), seed=0
      )
      found.append([t.steps for t in tree_lib.trajectories(tree, True)])
    self.assertEqual(*found)

  def test_bad_arguments(self):
    for width in (0, -1):
      with self.assertRaisesRegex(ValueError, f"width={width} must be"):
        beam.beam_search(PROBLEMS, width, CONFIG, self.calls(), seed=0)
    # Before anything is asked for, so without problems too.
    with self.assertRaisesRegex(ValueError, "needs calls.score"):
      beam.beam_search([], 1, CONFIG, self.calls(score=None), seed=0)


if __name__ == "__main__":
  absltest.main()
