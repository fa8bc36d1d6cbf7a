"""The tree: structure, exhaustion, records, trajectories."""

import json
import math
from unittest import mock

import hypothesis
import numpy as np
from absl.testing import absltest
from hypothesis import strategies as st

from rstar_jax.search import selection
from rstar_jax.search import tree as tree_lib
from rstar_jax.search.tree import ANSWER, CODE, RIGHT, STEP, WRONG, Child, Tree
from rstar_jax.types import Problem

PROBLEM = Problem("p7", "How many?", "5", "hand", 2)


def small() -> Tree:
  """Root 0; children 1, 2; 1 -> 3 (code); 3 -> answers 4 (right), 5 (wrong)."""
  tree = Tree(PROBLEM)
  tree.add_children(0, [Child("a", STEP, -1.5), Child("b", CODE, -2.5)])
  tree.add_children(1, [Child("c", CODE, ppm=0.1)])
  tree.add_children(
    3,
    [
      Child("d", ANSWER, answer="5", correct=RIGHT, reward=1.0, ppm=0.7),
      Child("e", ANSWER, answer="6", correct=WRONG, reward=-1.0),
    ],
  )
  return tree


@st.composite
def trees(draw) -> Tree:
  """Random trees in random states, counters included."""
  tree = Tree(Problem("é\n", draw(st.text(max_size=5)), None))
  number = st.floats(allow_nan=True, allow_infinity=False)
  for _ in range(draw(st.integers(0, 7))):
    open_ = np.flatnonzero((tree.num_children == 0) & (tree.terminal == 0))
    if not len(open_):
      break
    node = int(open_[draw(st.integers(0, len(open_) - 1))])
    children = []
    for _ in range(draw(st.integers(1, 5))):
      kind = draw(st.sampled_from([STEP, CODE, ANSWER]))
      children.append(
        Child(
          draw(st.text(max_size=3)),
          kind,
          logprob=draw(st.floats(max_value=0, allow_infinity=False)),
          ppm=draw(number),
          visits=draw(st.integers(0, 3)),
          value_sum=draw(st.floats(-9, 9)),
          answer="1" if kind == ANSWER else None,
          correct=draw(st.sampled_from([-1, 0, 1])),
          reward=draw(number),
        )
      )
    tree.add_children(node, children)
  for name in ("failed_rollouts", "expansions", "tokens"):
    setattr(tree, name, draw(st.integers(0, 1 << 40)))
  tree.dropped = draw(
    st.dictionaries(st.sampled_from(["error", "length"]), st.integers(1, 99))
  )
  for node in np.flatnonzero((tree.num_children == 0) & (tree.terminal == 0)):
    if node and draw(st.booleans()):
      tree.terminal[node] = tree_lib.DEAD
  # `exhausted` follows from the rest, as a search would have left it.
  for node in range(len(tree)):
    visited = tree.terminal[node] == tree_lib.ANSWERED and tree.visits[node]
    if visited or tree.terminal[node] == tree_lib.DEAD:
      tree.close(node)
  return tree


class TreeTest(absltest.TestCase):
  def test_structure(self):
    tree = small()
    self.assertLen(tree, 6)
    self.assertEqual(list(tree.children(0)), [1, 2])
    self.assertEqual(list(tree.children(3)), [4, 5])
    self.assertEmpty(tree.children(2))
    self.assertEqual(tree.path(5), [0, 1, 3, 5])
    self.assertEqual(tree.prefix(0), ())
    self.assertEqual(tree.prefix(5), ("a", "c", "e"))
    self.assertEqual(tree.depth.tolist(), [0, 1, 1, 2, 3, 3])
    self.assertEqual(tree.terminal.tolist(), [0, 0, 0, 0, 1, 1])
    self.assertEqual(tree.logprob.tolist(), [0.0, -1.5, -2.5, 0.0, 0.0, 0.0])
    self.assertEqual(tree.answers[3:], [None, "5", "6"])

  def test_a_child_is_new_unless_it_is_said_otherwise(self):
    tree = Tree(PROBLEM)
    tree.add_children(0, [Child("a", STEP)])
    self.assertEqual(tree.visits[1], 0)
    self.assertEqual((tree.value_sum[1], tree.logprob[1]), (0.0, 0.0))
    self.assertTrue(np.isnan([tree.ppm[1], tree.reward[1]]).all())
    self.assertEqual((tree.answers[1], tree.correct[1]), (None, -1))

  def test_growth_beyond_the_first_capacity_keeps_all_values(self):
    tree = Tree(PROBLEM)
    for node in range(199):
      tree.add_children(node, [Child(str(node), STEP, logprob=-float(node))])
    self.assertEqual(tree.path(199), list(range(200)))
    self.assertEqual(tree.logprob[1:].tolist(), [-float(i) for i in range(199)])
    self.assertEqual(tree.correct.tolist(), [-1] * 200)
    self.assertEqual(tree.first_child[199], -1)

  def test_growth_copies_seldom(self):
    # Else a large tree would take time that grows with its square.
    tree = Tree(PROBLEM)
    with mock.patch.object(tree_lib.np, "full", wraps=np.full) as full:
      for node in range(1000):
        tree.add_children(node, [Child(str(node), STEP)])
    self.assertLess(full.call_count, 10 * len(tree_lib._COLUMNS))

  def test_children_are_added_once_and_never_to_a_terminal(self):
    tree = small()
    with self.assertRaisesRegex(ValueError, "node 1 cannot get children"):
      tree.add_children(1, [Child("x", STEP)])
    with self.assertRaisesRegex(ValueError, "node 4 cannot get children"):
      tree.add_children(4, [Child("x", STEP)])
    with self.assertRaisesRegex(ValueError, "at least one"):
      tree.add_children(2, [])
    self.assertLen(tree, 6)

  def test_leaves_are_what_can_be_expanded(self):
    tree = Tree(PROBLEM)
    self.assertEqual(tree.leaves(), [0])
    answer = Child("7", ANSWER, answer="7")
    tree.add_children(0, [Child("x", STEP), answer, Child("y", STEP)])
    self.assertEqual(tree.leaves(), [1, 3])
    tree.give_up(1)
    self.assertEqual(tree.leaves(), [3])
    self.assertEqual(tree.terminal[1], tree_lib.DEAD)
    self.assertFalse(tree.exhausted[0])
    tree.close(2)
    tree.give_up(3)
    self.assertTrue(tree.exhausted[0])

  def test_close_climbs_only_where_all_children_are_closed(self):
    tree = small()
    tree.close(4)
    self.assertEqual(np.flatnonzero(tree.exhausted).tolist(), [4])
    tree.close(5)
    self.assertEqual(np.flatnonzero(tree.exhausted).tolist(), [1, 3, 4, 5])
    tree.close(2)
    self.assertTrue(tree.exhausted.all())

  def test_q_falls_back_to_reward_then_ppm_then_zero(self):
    tree = small()
    self.assertEqual([tree.q(i) for i in (1, 3, 4, 5)], [0.0, 0.1, 1.0, -1.0])
    tree.visits[1], tree.value_sum[1] = 4, 1.0
    self.assertEqual(tree.q(1), 0.25)


class RecordTest(absltest.TestCase):
  @hypothesis.settings(max_examples=29, deadline=None)
  @hypothesis.given(trees())
  def test_round_trip_is_exact(self, tree):
    text = tree.to_json()
    again = tree_lib.from_record(json.loads(text))
    self.assertEqual(again.to_json(), text)
    self.assertEqual(again.problem, tree.problem)
    for name in tree_lib._COLUMNS:
      before, after = getattr(tree, name), getattr(again, name)
      self.assertEqual(before.dtype, after.dtype)
      np.testing.assert_array_equal(before, after, name)
    for node in range(len(tree)):
      self.assertEqual(tree.prefix(node), again.prefix(node))

  def test_a_read_tree_grows_on(self):
    trees = [small(), tree_lib.from_record(json.loads(small().to_json()))]
    for tree in trees:
      tree.add_children(2, [Child(str(i), STEP) for i in range(97)])
    self.assertEqual(trees[0].to_json(), trees[1].to_json())

  def test_a_large_tree_is_read_whole(self):
    tree = Tree(PROBLEM)
    tree.add_children(0, [Child(str(i), STEP, -float(i)) for i in range(300)])
    again = tree_lib.from_record(json.loads(tree.to_json()))
    self.assertEqual(again.logprob.tolist(), [0.0, *(-i for i in range(300))])

  def test_text_is_canonical(self):
    # No space, keys in order, and nothing that is not JSON.
    tree = Tree(Problem("p", "q", "1"))
    text = tree.to_json()
    self.assertEqual(text, "".join(text.split()))
    self.assertStartsWith(text, '{"dropped":{},"expansions":0,"failed_')
    tree.value_sum[0] = math.inf
    with self.assertRaisesRegex(ValueError, "not JSON compliant"):
      tree.to_json()

  def test_record_is_plain_and_has_no_nan(self):
    record = json.loads(small().to_json())
    self.assertEqual(record["schema"], 3)
    self.assertEqual(record["problem"]["answer"], "5")
    self.assertEqual(record["nodes"]["parent"], [-1, 0, 0, 1, 3, 3])
    self.assertEqual(
      record["nodes"]["reward"], [None, None, None, None, 1.0, -1.0]
    )

  def test_bad_records_are_refused(self):
    record = small().to_record()
    with self.assertRaisesRegex(ValueError, "schema 1"):
      tree_lib.from_record(record | {"schema": 1})
    older = small()
    older.end_rollout(4)
    record = older.to_record()
    self.assertEqual(tree_lib.from_record(record).growth, [(0, 6, 4)])
    # Schema 2 did not say where a rollout ended.
    record |= {"schema": 2, "growth": [[0, 6]]}
    self.assertEqual(tree_lib.from_record(record).growth, [(0, 6, -1)])
    for end in (6, -2):
      record["growth"] = [[0, 6, end]]
      with self.assertRaisesRegex(ValueError, "growth has an end that is none"):
        tree_lib.from_record(record)
    short = small().to_record()
    short["nodes"]["visits"].pop()
    with self.assertRaisesRegex(ValueError, "nodes.visits has 5"):
      tree_lib.from_record(short)
    # 2 is no child of 5; 0's children 1, 2, 4 do not lie side by side; and
    # there is one root.
    for parents in (
      [-1, 0, 5, 1, 3, 3],
      [-1, 0, 0, 1, 0, 3],
      [-1, 0, 0, 1, 3, -1],
      [-1, -1, 0, 1, 3, 3],
      [-1, 0, 60, 1, 3, 3],
    ):
      broken = small().to_record()
      broken["nodes"]["parent"] = parents
      with self.assertRaisesRegex(ValueError, "cannot have parent"):
        tree_lib.from_record(broken)
    for name, value in (
      *(("kind", 300), ("visits", 1 << 40), ("parent", -1 << 70)),
      *(("visits", None), ("ppm", 10**400)),
    ):
      broken = small().to_record()
      broken["nodes"][name][3] = value
      with self.assertRaisesRegex(ValueError, rf"^tree of \w+: nodes.{name}: "):
        tree_lib.from_record(broken)


class TrajectoryTest(absltest.TestCase):
  def test_trajectories_by_hand(self):
    tree = small()
    selection.backup(tree, 5, -1.0)
    right, wrong = tree_lib.trajectories(tree)
    self.assertEqual(right.steps, ("a", "c", "d"))
    # Nodes 1 and 3 saw one rollout, of -1; answer 4 saw none, it would give 1.
    self.assertEqual(right.q_values, (-1.0, -1.0, 1.0))
    self.assertEqual((right.answer, right.correct), ("5", True))
    self.assertEqual(right.value, 0.7)
    self.assertEqual(wrong.q_values, (-1.0, -1.0, -1.0))
    self.assertEqual((wrong.answer, wrong.correct), ("6", False))
    self.assertIsNone(wrong.value)
    self.assertEqual(tree_lib.trajectories(tree, visited_only=True), [wrong])

  def test_value_of_a_trajectory_by_hand(self):
    for how, value in (("last", 0.25), ("mean", 0.125), ("min", -0.5)):
      with self.subTest(how):
        found = tree_lib.trajectory_value([0.625, -0.5, 0.25], how)
        self.assertEqual(found, value)
    tree = small()
    tree.ppm[[1, 3]] = 0.5, 0.375
    tree.ppm[[4, 5]] = 0.25, -1.0
    for how, values in (("mean", [0.375, -1 / 24]), ("min", [0.25, -1.0])):
      found = [each.value for each in tree_lib.trajectories(tree, how=how)]
      np.testing.assert_allclose(found, values)
    tree.ppm[3] = math.nan  # A step that was not scored: no value is known.
    for how in ("mean", "min"):
      found = [each.value for each in tree_lib.trajectories(tree, how=how)]
      self.assertEqual(found, [None, None])

  def test_an_unknown_value_of_a_trajectory_is_refused(self):
    with self.assertRaisesRegex(ValueError, "'max': must be last, mean or min"):
      tree_lib.trajectory_value([0.5], "max")

  def test_solved(self):
    tree = small()
    self.assertTrue(tree_lib.solved(tree))
    tree.correct[4] = tree_lib.UNKNOWN
    self.assertFalse(tree_lib.solved(tree))
    self.assertFalse(tree_lib.solved(Tree(PROBLEM)))
    self.assertTrue(math.isnan(Tree(PROBLEM).ppm[0]))


if __name__ == "__main__":
  absltest.main()
