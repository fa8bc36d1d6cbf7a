"""Selection and backup against hand-computed values and invariants."""

import dataclasses
import math
import sys

import hypothesis
import numpy as np
from absl.testing import absltest, parameterized
from hypothesis import strategies as st

from rstar_jax.config import plugins
from rstar_jax.config.schema import SearchConfig
from rstar_jax.search import selection
from rstar_jax.search.tree import ANSWER, DEAD, STEP, Child, Tree
from rstar_jax.types import Problem


def fan(*rows: tuple[int, float], root: int, ppm=math.nan) -> Tree:
  """A root with a child for each (visits, value_sum)."""
  tree = Tree(Problem("p", "q", "1"))
  values = ppm if isinstance(ppm, list) else [ppm] * len(rows)
  tree.add_children(
    0,
    [
      Child(str(i), STEP, visits=n, value_sum=w, ppm=value)
      for i, ((n, w), value) in enumerate(zip(rows, values, strict=True))
    ],
  )
  tree.visits[0] = root
  return tree


def of(unvisited: str = "zero", c: float = 2.0) -> SearchConfig:
  return SearchConfig(uct_unvisited=unvisited, c=c)


class UctTest(parameterized.TestCase):
  def test_scores_by_hand(self):
    # ln 7 = 1.9459101; 2 sqrt(ln 7 / 2) = 1.9727697 and
    # 2 sqrt(ln 7 / 5) = 1.2476891.
    tree = fan((2, -1.0), (5, 4.0), root=7)
    np.testing.assert_allclose(
      selection.uct(tree, 0, of()), [-0.5 + 1.9727697, 0.8 + 1.2476891], 1e-7
    )
    self.assertEqual(selection.select_child(tree, 0, of()), 2)
    # Without exploration the mean decides; with a lot of it the rarer child.
    self.assertEqual(selection.select_child(tree, 0, of(c=0.0)), 2)
    self.assertEqual(selection.select_child(tree, 0, of(c=50.0)), 1)

  def test_unvisited(self):
    tree = fan((3, -3.0), (0, 0.0), (1, 0.5), root=4)
    standard = selection.uct(tree, 0, of("inf"))
    released = selection.uct(tree, 0, of("zero"))
    self.assertEqual(standard[1], math.inf)
    self.assertEqual(released[1], 0.0)
    np.testing.assert_array_equal(standard[[0, 2]], released[[0, 2]])
    self.assertEqual(selection.select_child(tree, 0, of("inf")), 2)
    self.assertEqual(selection.select_child(tree, 0, of("zero")), 3)

  def test_one_visit_has_its_whole_bonus(self):
    # Q = 0.5, N = 1 and ln 4 = 1.3862944.
    tree = fan((3, -3.0), (1, 0.5), root=4)
    np.testing.assert_allclose(
      selection.uct(tree, 0, of())[1], 0.5 + 2 * math.sqrt(1.3862944), 1e-7
    )

  def test_of_infinite_scores_the_best_q_wins(self):
    tree = fan((1, 0.5), (0, 0.0), root=1, ppm=[0.0, -1.0])
    config = dataclasses.replace(of("inf"), annotation="ppm")
    self.assertEqual(selection.select_child(tree, 0, config), 2)

  @parameterized.parameters(0, 1)
  def test_first_descent_is_greedy_on_the_ppm(self, root):
    # N_parent is at most 1 and ln 1 = 0, so that there is no bonus.
    tree = fan((1, 0.25), (1, 0.75), (1, -0.5), root=root)
    np.testing.assert_array_equal(
      selection.uct(tree, 0, of()), [0.25, 0.75, -0.5]
    )

  def test_equal_scores_go_to_the_first(self):
    self.assertEqual(
      selection.select_child(fan(*[(1, 0.5)] * 3, root=3), 0, of()), 1
    )
    for unvisited in ("inf", "zero"):
      tree = fan(*[(0, 0.0)] * 3, root=0)
      self.assertEqual(selection.select_child(tree, 0, of(unvisited)), 1)

  @parameterized.parameters("inf", "zero")
  def test_uncounted_ppm_value_orders_unvisited_children(self, unvisited):
    tree = fan(*[(0, 0.0)] * 3, root=0, ppm=[-0.5, 0.5, 0.25])
    config = dataclasses.replace(of(unvisited), annotation="ppm")
    np.testing.assert_array_equal(
      selection.q_values(tree, 0, config), [-0.5, 0.5, 0.25]
    )
    self.assertEqual(selection.select_child(tree, 0, config), 2)
    # Eq. 2 knows no value of the PPM.
    np.testing.assert_array_equal(
      selection.q_values(tree, 0, of(unvisited)), [0, 0, 0]
    )
    # Once visited, only what was backed up counts.
    selection.backup(tree, 2, -1.0)
    np.testing.assert_array_equal(
      selection.q_values(tree, 0, config), [-0.5, -1.0, 0.25]
    )

  def test_a_wrong_branch_is_left_at_once_and_later_when_it_is_old(self):
    # -1 + 2 sqrt(ln n / n): -1 for n = 1, and below 0 again from n = 9 on.
    for visits in range(1, 12):
      tree = fan((visits, -visits), (0, 0.0), root=visits)
      chosen = 1 if 2 <= visits <= 8 else 2
      self.assertEqual(selection.select_child(tree, 0, of()), chosen, visits)

  def test_exhausted_children_are_skipped(self):
    tree = fan((1, 1.0), (1, 0.0), root=2)
    tree.close(1)
    self.assertEqual(selection.select_child(tree, 0, of()), 2)
    tree.close(2)
    with self.assertRaisesRegex(ValueError, "no child left to select"):
      selection.select_child(tree, 0, of())

  def test_leaf_is_unexpanded_or_an_answer(self):
    config = SearchConfig(c=0.0)
    tree = fan((1, 0.5), (1, 0.9), root=2)
    self.assertEqual(selection.select_leaf(tree, config), 2)
    tree.add_children(2, [Child("x", ANSWER, answer="1", reward=1.0)])
    self.assertEqual(selection.select_leaf(tree, config), 3)
    self.assertEqual(selection.select_leaf(tree, config, node=1), 1)

  @parameterized.parameters(
    # Q + c sqrt(ln 4 / N): -1 + 0.6798 c, and 0.5 + 1.1774 c once c is there.
    ({"c": 2.0}, 3),
    ({"c": 2.0, "uct_unvisited": "inf"}, 2),
    ({"c": 0.0, "uct_unvisited": "zero"}, 3),
    ({"c": 0.0, "uct_unvisited": "inf"}, 2),
  )
  def test_a_descent_follows_the_config(self, options, leaf):
    tree = fan((3, -3.0), (0, 0.0), (1, 0.5), root=4)
    self.assertEqual(selection.select_leaf(tree, SearchConfig(**options)), leaf)

  @parameterized.parameters((0.0, 2), (2.0, 2), (50.0, 1))
  def test_a_descent_explores_as_far_as_c_says(self, c, leaf):
    # -0.5 + 0.9864 c against 0.8 + 0.6238 c: the rarer child from c = 3.6 on.
    tree = fan((2, -1.0), (5, 4.0), root=7)
    self.assertEqual(selection.select_leaf(tree, SearchConfig(c=c)), leaf)

  def test_an_answer_is_finished(self):
    tree = fan((0, 0.0), root=0)
    right, wrong = tree.add_children(
      1,
      [
        Child("a", ANSWER, answer="1", reward=1.0),
        Child("b", ANSWER, answer="2", reward=-0.5),
      ],
    )
    selection.finish(tree, right)
    np.testing.assert_array_equal(tree.visits, [1, 1, 1, 0])
    np.testing.assert_array_equal(tree.value_sum, [1, 1, 1, 0])
    # The other answer is left to select.
    np.testing.assert_array_equal(tree.exhausted, [False, False, True, False])
    self.assertEqual(tree.growth, [(0, 4, right)])
    selection.finish(tree, wrong)
    np.testing.assert_array_equal(tree.visits, [2, 2, 1, 1])
    np.testing.assert_array_equal(tree.value_sum, [0.5, 0.5, 1, -0.5])
    self.assertTrue(tree.exhausted.all())


class PuctTest(parameterized.TestCase):
  def tree(self, *rows: tuple[int, float, float]) -> Tree:
    """A root with a child for each (visits, value_sum, probability)."""
    tree = Tree(Problem("p", "q", "1"))
    children = [
      Child(str(i), STEP, visits=n, value_sum=w, logprob=math.log(share))
      for i, (n, w, share) in enumerate(rows)
    ]
    tree.add_children(0, children)
    return tree

  def test_scores_by_hand(self):
    # Shares 0.2, 0.6, 0.2; sqrt(4) = 2.
    tree = self.tree((2, 1.0, 0.1), (1, 0.0, 0.3), (1, -1.0, 0.1))
    np.testing.assert_allclose(
      selection.puct(tree, 0, of(c=3.0)),
      [0.5 + 3 * 0.2 * 2 / 3, 0 + 3 * 0.6 * 2 / 2, -1 + 3 * 0.2 * 2 / 2],
    )

  def test_the_likely_child_is_preferred_as_c_says(self):
    tree = self.tree((2, 1.0, 0.1), (1, 0.0, 0.3), (1, -1.0, 0.1))
    greedy = SearchConfig(selection="puct", c=0.0)
    likely = SearchConfig(selection="puct", c=3.0)
    self.assertEqual(selection.select_leaf(tree, greedy), 1)
    self.assertEqual(selection.select_leaf(tree, likely), 2)
    tree.close(2)
    self.assertEqual(selection.select_leaf(tree, likely), 1)

  def test_the_likeliest_comes_first(self):
    tree = self.tree((0, 0.0, 0.1), (0, 0.0, 0.5), (0, 0.0, 0.4))
    config = SearchConfig(selection="puct")
    self.assertEqual(selection.select_leaf(tree, config), 2)
    np.testing.assert_allclose(selection.puct(tree, 0, config), [0.2, 1, 0.8])

  def test_probabilities_that_no_number_can_hold(self):
    # exp(-1000) is 0, and the share of the likelier is 1 / (1 + 1 / e).
    tree = self.tree((1, 0.0, 1.0), (1, 0.0, 1.0))
    tree.logprob[1:] = -1000, -1001
    bonus = selection.puct(tree, 0, of(c=2.0))
    np.testing.assert_allclose(bonus, np.sqrt(2) / (1 + np.exp([-1.0, 1.0])))
    tree.logprob[1:] = 0, -2000
    bonus = selection.puct(tree, 0, of(c=2.0))
    np.testing.assert_allclose(bonus, [np.sqrt(2), 0])

  @parameterized.parameters(math.nan, -math.inf)
  def test_an_unknown_probability_is_the_mean_of_the_known(self, unknown):
    tree = self.tree(*[(1, 0.0, each) for each in (0.1, 0.5, 0.8, 0.3)])
    tree.logprob[2] = unknown
    # 0.1, 0.4, 0.8 and 0.3, and sqrt(4) / 2 = 1.
    bonus = selection.puct(tree, 0, of(c=1.6))
    np.testing.assert_allclose(bonus, [0.1, 0.4, 0.8, 0.3])
    tree.logprob[1:] = unknown
    with self.assertRaisesRegex(ValueError, "needs the policy's log-prob"):
      selection.puct(tree, 0, of())


class PluginTest(parameterized.TestCase):
  def config(self, scores) -> SearchConfig:
    """A config whose selection is a function of this module."""
    main = sys.modules["__main__"]
    main.own_scores = scores
    self.addCleanup(delattr, main, "own_scores")
    return SearchConfig(selection="__main__:own_scores", c=7.0)

  def test_it_scores_the_children(self):
    def scores(tree, node, config):
      self.assertEqual((len(tree), node, config.c), (4, 0, 7.0))
      return [-math.inf, 2, 1]

    tree = fan(*[(1, 0.0)] * 3, root=3)
    config = self.config(scores)
    self.assertEqual(selection.select_leaf(tree, config), 2)
    tree.close(2)
    self.assertEqual(selection.select_leaf(tree, config), 3)
    tree.close(3)
    # An exhausted child is never taken, however bad the others are.
    self.assertEqual(selection.select_leaf(tree, config), 1)

  @parameterized.parameters(
    ([1.0],),
    ([1.0, math.nan],),
    (None,),
    (["a", "b"],),
    ([[1.0, 2.0]],),
    ([10**400, 1],),
  )
  def test_what_is_no_score_says_so(self, found):
    config = self.config(lambda tree, node, config: found)
    with self.assertRaisesRegex(
      plugins.PluginError, "must return 2 numbers, one for each child, not"
    ):
      selection.select_leaf(fan(*[(1, 0.0)] * 2, root=2), config)

  def test_a_word_that_names_nothing(self):
    with self.assertRaisesRegex(ValueError, "'pucct' must be one of 'uct', 'p"):
      selection.scores_of(SearchConfig(selection="pucct"))


class BackupTest(absltest.TestCase):
  def test_by_hand(self):
    tree = fan((0, 0.0), (0, 0.0), root=0)
    tree.add_children(1, [Child("x", ANSWER), Child("y", ANSWER)])
    selection.backup(tree, 3, 1.0)
    selection.backup(tree, 4, -0.5)
    self.assertEqual(tree.visits.tolist(), [2, 2, 0, 1, 1])
    self.assertEqual(tree.value_sum.tolist(), [0.5, 0.5, 0.0, 1.0, -0.5])

  @hypothesis.settings(max_examples=29, deadline=None)
  @hypothesis.given(st.data())
  def test_invariants_of_random_searches(self, data):
    """Random growth: select, then expand or back up, as a search does."""
    config = SearchConfig(
      c=data.draw(st.sampled_from([0.0, 1.0, 2.0])),
      uct_unvisited=data.draw(st.sampled_from(["inf", "zero"])),
    )
    tree = Tree(Problem("p", "q", "1"))
    backed, values = 0, []
    for _ in range(data.draw(st.integers(1, 40))):
      if tree.exhausted[0]:
        break
      leaf = selection.select_leaf(tree, config)
      self.assertFalse(tree.exhausted[leaf])
      if tree.kind[leaf] == ANSWER:
        value = data.draw(st.sampled_from([-1.0, 1.0, 0.25]))
        selection.backup(tree, leaf, value)
        tree.close(leaf)
        values.append(value)
        backed += 1
      elif leaf and data.draw(st.integers(0, 4)) == 0:
        tree.terminal[leaf] = DEAD
        tree.close(leaf)
      else:
        kinds = st.lists(
          st.sampled_from([STEP, ANSWER]), min_size=1, max_size=3
        )
        tree.add_children(leaf, [Child("", k) for k in data.draw(kinds)])
    answered = tree.terminal == 1
    self.assertEqual(tree.visits[0], backed)
    self.assertEqual(int(tree.visits[answered].sum()), backed)
    self.assertAlmostEqual(float(tree.value_sum[0]), sum(values))
    self.assertTrue((np.abs(tree.value_sum) <= tree.visits).all())
    self.assertEqual(int(tree.visits[tree.terminal == DEAD].sum()), 0)
    for node in np.flatnonzero(tree.num_children):
      span = tree.span(int(node))
      self.assertEqual(tree.visits[span].sum(), tree.visits[node])
      self.assertAlmostEqual(
        float(tree.value_sum[span].sum()), float(tree.value_sum[node])
      )
      self.assertEqual(tree.exhausted[node], tree.exhausted[span].all())


if __name__ == "__main__":
  absltest.main()
