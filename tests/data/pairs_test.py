"""Tests of rstar_jax.data.pairs."""

import dataclasses
import json

from absl.testing import absltest, parameterized
from hypothesis import given, settings
from hypothesis import strategies as st

from rstar_jax.config.schema import ExtractConfig
from rstar_jax.data import pairs
from rstar_jax.search import tree as tree_lib
from rstar_jax.search.tree import RIGHT, UNKNOWN, WRONG
from rstar_jax.storage import json_io
from rstar_jax.types import PreferencePair, Problem


def step(text, q=0.0, visits=2):
  return tree_lib.Child(
    text, tree_lib.STEP, visits=visits, value_sum=visits * q
  )


def answer(text, verdict, q=None, visits=1):
  q = {RIGHT: 1.0, WRONG: -1.0, UNKNOWN: 0.0}[verdict] if q is None else q
  return tree_lib.Child(
    text,
    tree_lib.ANSWER,
    visits=visits,
    value_sum=visits * q,
    reward=q,
    answer=text,
    correct=verdict,
  )


def new_tree(name="p"):
  return tree_lib.Tree(Problem(name, f"question {name}", "1"))


def fan(children, leaves, name="p"):
  """Makes a tree with answers below each of the root's children.

  Args:
    children: children of the root.
    leaves: for each, the verdicts of its answers.
    name: the problem's id.
  """
  tree = new_tree(name)
  nodes = tree.add_children(tree_lib.ROOT_INDEX, children)
  for node, verdicts in zip(nodes, leaves, strict=True):
    if verdicts:
      tree.add_children(
        node, [answer(f"{i}{v}", v) for i, v in enumerate(verdicts)]
      )
  return tree


def sides(made, kind="step"):
  return [
    ("".join(p.chosen), "".join(p.rejected), p.weight)
    for p in made
    if p.kind == kind
  ]


STEPS_ONLY = ExtractConfig(final_pairs=False)


class StepPairsTest(parameterized.TestCase):
  def test_two_best_against_two_worst(self):
    tree = fan(
      [step("a", 0.1), step("b", 0.9), step("c", -0.9), step("d", 0.5)]
      + [step("e", -0.1), step("f", -0.5)],
      [[RIGHT], [RIGHT], [WRONG], [RIGHT], [WRONG], [WRONG]],
    )
    made, stats = pairs.pairs([tree], STEPS_ONLY)
    self.assertEqual(
      sides(made),
      [("b", "c", 0.25), ("b", "f", 0.25), ("d", "c", 0.25), ("d", "f", 0.25)],
    )
    self.assertEqual(
      stats,
      {
        "problems": 1,
        "with_pairs": 1,
        "step": 4,
        "across": 0,
        "final": 0,
        "low_margin": 0,
        "repeated": 0,
        "over_cap": 0,
      },
    )

  def test_pairs_share_their_prefix(self):
    tree = new_tree()
    [first] = tree.add_children(0, [step("s")])
    tree.add_children(first, [answer("wrong", WRONG), answer("right", RIGHT)])
    made, _ = pairs.pairs([tree], STEPS_ONLY)
    self.assertEqual(
      made,
      [
        PreferencePair(
          "p", "question p", ("s", "right"), ("s", "wrong"), 1.0, "step"
        )
      ],
    )

  def test_a_child_on_both_sides_is_not_paired_with_itself(self):
    # Both children lead to both outcomes: 2 positives and 2 negatives, of
    # which only one pair has the right sign. It is 1 x 1.
    tree = fan(
      [step("a", 0.5), step("b", -0.5)], [[RIGHT, WRONG], [RIGHT, WRONG]]
    )
    made, stats = pairs.pairs([tree], STEPS_ONLY)
    self.assertEqual(sides(made)[0], ("a", "b", 1.0))
    self.assertEqual(stats["low_margin"], 1)

  def test_a_single_mixed_child_gives_no_pair_at_its_parent(self):
    tree = fan([step("a", 0.5)], [[RIGHT, WRONG]])
    made, _ = pairs.pairs([tree], STEPS_ONLY)
    self.assertEqual(sides(made), [("a01", "a10", 1.0)])

  @parameterized.parameters(
    (0.0, [("a", "c", 0.5), ("b", "c", 0.5)]),
    (0.25, [("a", "c", 1.0)]),  # The difference must exceed the margin.
    (0.5, []),
  )
  def test_margin_and_the_weight_of_what_is_left(self, margin, expected):
    tree = fan(
      [step("a", 0.5), step("b", 0.25), step("c", 0.0)],
      [[RIGHT], [RIGHT], [WRONG]],
    )
    config = ExtractConfig(final_pairs=False, min_margin=margin)
    made, stats = pairs.pairs([tree], config)
    self.assertEqual(sides(made), expected)
    self.assertEqual(stats["low_margin"], 2 - len(expected))

  def test_equal_q_gives_no_pair_and_the_first_is_taken(self):
    tree = fan(
      [step("w", 0.0), step("x", 0.0), step("y", 0.0), step("z", 0.0)]
      + [step("n", -0.5)],
      [[WRONG], [RIGHT], [RIGHT], [RIGHT], [WRONG]],
    )
    made, stats = pairs.pairs([tree], STEPS_ONLY)
    self.assertEqual(sides(made), [("x", "n", 0.5), ("y", "n", 0.5)])
    self.assertEqual(stats["low_margin"], 2)

  def test_who_led_nowhere_is_neither(self):
    tree = fan(
      [step("right", 0.5), step("none", -1.0), step("undecided", -0.75)]
      + [step("wrong", 0.25), step("unvisited", 0.0, visits=0)],
      [[RIGHT], [], [UNKNOWN], [WRONG], [WRONG]],
    )
    made, _ = pairs.pairs([tree], STEPS_ONLY)
    self.assertEqual(sides(made), [("right", "wrong", 1.0)])

  def test_steps_of_one_visit_are_paired(self):
    tree = fan(
      [step("a", 0.5, visits=1), step("b", -0.5, visits=1)], [[RIGHT], [WRONG]]
    )
    made, _ = pairs.pairs([tree], STEPS_ONLY)
    self.assertEqual(sides(made), [("a", "b", 1.0)])

  def test_an_answer_at_which_no_rollout_ended_counts_by_its_reward(self):
    tree = new_tree()
    tree.add_children(
      0, [answer("right", RIGHT), answer("wrong", WRONG, visits=0)]
    )
    made, _ = pairs.pairs([tree], STEPS_ONLY)
    self.assertEqual(sides(made), [("right", "wrong", 1.0)])

  @parameterized.parameters(RIGHT, WRONG, UNKNOWN)
  def test_problems_of_one_outcome_give_none(self, verdict):
    tree = fan([step("a", 0.5), step("b", -0.5)], [[verdict], [verdict] * 2])
    made, stats = pairs.pairs([tree], ExtractConfig())
    self.assertEqual((made, stats["with_pairs"]), ([], 0))

  def test_numbers_of_each_side(self):
    tree = fan(
      [step("a", 0.5), step("b", 0.25), step("c", -0.5), step("d", -0.25)],
      [[RIGHT], [RIGHT], [WRONG], [WRONG]],
    )
    config = ExtractConfig(positives=1, negatives=3, final_pairs=False)
    self.assertEqual(
      sides(pairs.pairs([tree], config)[0]),
      [("a", "c", 0.5), ("a", "d", 0.5)],
    )


class AcrossTest(absltest.TestCase):
  CONFIG = ExtractConfig(final_pairs=False, pairs_across=True)

  def grown(self, name="p"):
    """0 -> a b; a -> right, c; c -> wrong; b -> d; d -> wrong."""
    tree = new_tree(name)
    a, b = tree.add_children(0, [step("a", 0.5), step("b", -1.0)])
    _, c = tree.add_children(a, [answer("1", RIGHT), step("c", -1.0)])
    tree.add_children(c, [answer("2", WRONG)])
    [d] = tree.add_children(b, [step("d", -1.0)])
    tree.add_children(d, [answer("3", WRONG)])
    return tree

  def across(self, trees, **fields):
    config = dataclasses.replace(self.CONFIG, **fields)
    made, stats = pairs.pairs(trees, config)
    found = [each for each in made if each.kind == "across"]
    self.assertEqual(stats["across"], len(found))
    return found, [each for each in made if each.kind == "step"]

  def test_a_pair_beside_each_step_pair(self):
    weights = set()
    for index in range(20):
      found, steps = self.across([self.grown(f"p{index}")])
      self.assertLen(steps, 2)
      self.assertNotEmpty(found)
      self.assertLessEqual(len(found), len(steps))
      for pair in found:
        self.assertIn("".join(pair.chosen), ("a", "a1"))
        self.assertIn("".join(pair.rejected), ("b", "ac", "ac2", "bd", "bd3"))
        self.assertNotEqual(pair.chosen[:-1], pair.rejected[:-1])
        weights.add(pair.weight)
      # Each once before any comes again.
      for side in ("chosen", "rejected"):
        self.assertLen({getattr(each, side) for each in found}, len(found))
    self.assertEqual(weights, {1.0})

  def test_the_weight_of_the_step_pair(self):
    tree = fan(
      [step("a", 0.9), step("b", 0.8), step("c", -0.8), step("d", -0.9)],
      [[RIGHT], [RIGHT], [WRONG], [WRONG]],
    )
    found, steps = self.across([tree])
    self.assertEqual({each.weight for each in steps}, {0.25})
    self.assertNotEmpty(found)
    self.assertEqual({each.weight for each in found}, {0.25})

  def test_what_leads_to_both_is_never_the_worse(self):
    # By the other tree "b" leads to a right answer as well.
    other = fan([step("b", 0.0), step("x", -0.5)], [[RIGHT], [WRONG]], "p0")
    names = set()
    for index in range(20):
      trees = [self.grown("p0"), other]
      for tree in trees:
        tree.problem = Problem(f"p{index}", "q", "1")
      found, _ = self.across(trees)
      names |= {"".join(each.rejected) for each in found}
      self.assertNotIn("a", {"".join(each.rejected) for each in found})
    self.assertIn("bd", names)
    self.assertNotIn("b", names)

  def test_by_q_and_by_the_margin(self):
    tree = self.grown()
    tree.value_sum[:] = -tree.value_sum
    self.assertEmpty(self.across([tree])[0])
    names = set()
    for index in range(20):
      # Of a, whose Q is 0.5, no wrong one is that far.
      found, steps = self.across([self.grown(f"p{index}")], min_margin=1.75)
      self.assertLen(steps, 1)
      names |= {"".join(each.chosen) for each in found}
    self.assertEqual(names, {"a1"})

  def test_the_same_each_time_and_off_by_default(self):
    trees = [self.grown("p"), self.grown("q")]
    self.assertEqual(
      pairs.pairs(trees, self.CONFIG), pairs.pairs(trees, self.CONFIG)
    )
    made, _ = pairs.pairs(trees, STEPS_ONLY)
    self.assertEqual({each.kind for each in made}, {"step"})
    apart, _ = pairs.pairs(trees, self.CONFIG)
    self.assertEqual([each for each in apart if each.kind == "step"], made)

  def test_no_step_pair_no_other(self):
    tree = fan([step("a", 0.5)], [[WRONG]])
    self.assertEqual(self.across([tree]), ([], []))


class FinalPairsTest(absltest.TestCase):
  def test_whole_trajectories_over_all_trees(self):
    # Average Q of a path: (Q of its step + Q of its answer) / 2.
    trees = [
      fan([step("a", 0.0), step("b", 0.5)], [[RIGHT], [RIGHT]]),
      fan([step("c", 0.25), step("d", -0.5)], [[RIGHT], [WRONG]]),
      fan([step("e", 0.0), step("f", -0.25)], [[WRONG], [WRONG]]),
    ]
    made, stats = pairs.pairs(trees, ExtractConfig())
    self.assertEqual(
      sides(made, "final"),
      [
        ("b01", "d00", 0.25),
        ("b01", "f00", 0.25),
        ("c01", "d00", 0.25),
        ("c01", "f00", 0.25),
      ],
    )
    self.assertEqual((stats["problems"], stats["final"]), (1, 4))
    self.assertEqual([p.kind for p in made], ["step"] + ["final"] * 4)
    self.assertEqual(
      (made[1].chosen, made[1].rejected), (("b", "01"), ("d", "00"))
    )

  def test_undecided_answers_are_not_wrong(self):
    tree = fan([step("a", 0.0), step("b", 0.0)], [[RIGHT], [UNKNOWN]])
    self.assertEqual(pairs.pairs([tree], ExtractConfig())[0], [])


class ProblemTest(parameterized.TestCase):
  def trees(self):
    children = [step("a", 0.5), step("b", 0.25), step("c", -0.5)]
    leaves = [[RIGHT], [RIGHT, WRONG], [WRONG]]
    return [fan(children, leaves, name) for name in ("p", "q", "p")]

  def test_a_pair_of_two_trees_is_taken_once(self):
    once, _ = pairs.pairs(self.trees()[:2], ExtractConfig())
    made, stats = pairs.pairs(self.trees(), ExtractConfig())
    self.assertEqual(made, once)
    self.assertGreater(stats["repeated"], 0)

  @parameterized.parameters((1, [0]), (2, [0, 4]), (3, [0, 2, 5]))
  def test_the_cap_spreads(self, cap, indices):
    all_ = pairs.pairs(self.trees()[:1], ExtractConfig())[0]
    self.assertLen(all_, 8)
    made, stats = pairs.pairs(
      self.trees()[:1], ExtractConfig(max_pairs_per_problem=cap)
    )
    self.assertEqual(made, [all_[i] for i in indices])
    self.assertEqual(stats["over_cap"], 8 - cap)
    self.assertEqual(stats["step"] + stats["final"], cap)

  def test_round_trip_through_json(self):
    for pair in pairs.pairs(self.trees(), ExtractConfig())[0]:
      read = json.loads(json_io.line(pair))
      self.assertEqual(pairs.from_dict(read), pair)
    with self.assertRaises(TypeError):
      pairs.from_dict(read | {"other": 1})


@st.composite
def random_trees(draw):
  """Trees of up to 3 levels; Q in quarters, so that ties are common."""
  tree = new_tree()
  frontier = [0]
  for _ in range(3):
    grown = []
    for node in frontier:
      children = []
      for index in range(draw(st.integers(0, 4))):
        q = draw(st.integers(-4, 4)) / 4
        visits = draw(st.integers(0, 2))
        verdict = draw(st.sampled_from([None, RIGHT, WRONG, UNKNOWN]))
        text = f"<{index}>"
        children.append(
          step(text, q, visits)
          if verdict is None
          else answer(text, verdict, q, visits)
        )
      if children:
        nodes = tree.add_children(node, children)
        grown += [
          n
          for n, child in zip(nodes, children, strict=True)
          if child.kind == tree_lib.STEP
        ]
    frontier = grown
  return tree


def brute_force(tree, positives, negatives, margin):
  """Finds the step pairs from paths of nodes alone, one subset at a time."""
  record = tree.to_record()["nodes"]
  size = len(record["text"])

  def path(node):
    return [] if node < 0 else path(record["parent"][node]) + [node]

  def outcomes(node):
    return {
      record["correct"][leaf]
      for leaf in range(size)
      if node in path(leaf) and record["terminal"][leaf] == 1
    }

  def q(node):
    if record["visits"][node]:
      return record["value_sum"][node] / record["visits"][node]
    return record["reward"][node]

  expected = set()
  for parent in range(size):
    children = [
      n
      for n in range(size)
      if record["parent"][n] == parent
      and (record["visits"][n] or record["terminal"][n] == 1)
    ]
    good = [n for n in children if RIGHT in outcomes(n)]
    bad = [n for n in children if WRONG in outcomes(n)]
    # Among the best: fewer than `positives` are better, or as good and older.
    good = [
      n for n in good if sum((-q(m), m) < (-q(n), n) for m in good) < positives
    ]
    bad = [
      n for n in bad if sum((q(m), m) < (q(n), n) for m in bad) < negatives
    ]
    left = [
      (g, b) for g in good for b in bad if g != b and q(g) - q(b) > margin
    ]
    for g, b in left:
      weight = 1 / len({x for x, _ in left}) / len({y for _, y in left})
      expected.add((g, b, weight))
  return {
    (
      tuple(record["text"][n] for n in path(g)[1:]),
      tuple(record["text"][n] for n in path(b)[1:]),
      weight,
    )
    for g, b, weight in expected
  }


class BruteForceTest(absltest.TestCase):
  @settings(max_examples=100, deadline=None)
  @given(
    random_trees(),
    st.integers(1, 3),
    st.integers(1, 3),
    st.sampled_from([0.0, 0.25, 0.6]),
  )
  def test_step_pairs(self, tree, positives, negatives, margin):
    config = ExtractConfig(
      positives=positives,
      negatives=negatives,
      min_margin=margin,
      final_pairs=False,
    )
    made, stats = pairs.pairs([tree], config)
    found = {(p.chosen, p.rejected, p.weight) for p in made}
    self.assertLen(found, len(made))
    self.assertEqual(
      {(c, r, round(w, 9)) for c, r, w in found},
      {
        (c, r, round(w, 9))
        for c, r, w in brute_force(tree, positives, negatives, margin)
      },
    )
    self.assertEqual(stats["step"], len(made))

  @settings(max_examples=30, deadline=None)
  @given(random_trees())
  def test_from_a_stored_tree_the_same(self, tree):
    stored = tree_lib.from_record(json.loads(tree.to_json()))
    config = ExtractConfig()
    self.assertEqual(pairs.pairs([tree], config), pairs.pairs([stored], config))


if __name__ == "__main__":
  absltest.main()
