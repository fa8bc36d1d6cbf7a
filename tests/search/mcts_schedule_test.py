"""MCTS: what a tree depends on, and how many trees are searched at once."""

import dataclasses
import itertools
import json
import os
import signal
import threading

import numpy as np
from absl.testing import absltest, parameterized

from rstar_jax import testing
from rstar_jax.config.schema import SearchConfig
from rstar_jax.search import mcts
from rstar_jax.search import tree as tree_lib
from rstar_jax.types import Problem
from tests.search.toys import PROBLEMS, calls_of, config_of, texts_of


class IdentityTest(parameterized.TestCase):
  @parameterized.parameters("terminal", "ppm")
  def test_trees_do_not_depend_on_slots_and_groups(self, annotation):
    texts = set()
    for slots, groups in ((1, 1), (2, 3), (3, 2), (32, 1), (1, 11)):
      config = config_of(slots=slots, groups=groups, annotation=annotation)
      trees = mcts.search(PROBLEMS, config, calls_of(), seed=9)
      texts.add("\n".join(texts_of(trees)))
    self.assertLen(texts, 1)

  def test_a_tree_does_not_depend_on_the_other_problems(self):
    together = mcts.search(PROBLEMS, config_of(), calls_of(), seed=9)
    alone = mcts.search(PROBLEMS[3:4], config_of(), calls_of(), seed=9)
    self.assertEqual(texts_of(alone), texts_of(together[3:4]))

  def test_seed_and_name_make_another_tree(self):
    texts = {
      tuple(texts_of(mcts.search(PROBLEMS, config_of(), calls_of(), **each)))
      for each in (
        {"seed": 1},
        {"seed": 2},
        {"seed": 1, "name": ("round", 1)},
        {"seed": 1, "name": ("round", 2)},
      )
    }
    self.assertLen(texts, 4)

  def test_the_seed_is_0_unless_given(self):
    one, other = (
      mcts.search(PROBLEMS, config_of(), calls_of(), **given)
      for given in ({}, {"seed": 0})
    )
    self.assertEqual(texts_of(one), texts_of(other))

  def test_no_seed_is_used_twice(self):
    seen = []

    def expand(questions, prefixes, seeds):
      self.assertEqual(seeds.dtype, np.uint32)
      seen.extend(seeds.ravel().tolist())
      return testing.ToySum()(questions, prefixes, seeds)

    mcts.search(PROBLEMS, config_of(), calls_of(expand), seed=3)
    self.assertLen(set(seen), len(seen))

  @parameterized.parameters("terminal", "ppm")
  def test_continued_trees_are_those_of_a_longer_search(self, annotation):
    policy = testing.ToySum(("x += 1", "x += 2", "x += nope"), levels=3)
    config = config_of(annotation=annotation, rollouts=13)
    straight = mcts.search(PROBLEMS, config, calls_of(policy), seed=4)
    trees = mcts.search(PROBLEMS, config, calls_of(policy), seed=4, rollouts=5)
    trees = [tree_lib.from_record(json.loads(text)) for text in texts_of(trees)]
    again = mcts.search(
      PROBLEMS, config, calls_of(policy), seed=4, trees=trees, rollouts=8
    )
    self.assertEqual(texts_of(again), texts_of(straight))
    self.assertTrue(all(x is y for x, y in zip(again, trees, strict=True)))


class ControllerTest(parameterized.TestCase):
  def test_one_call_per_tick_and_full_slots(self):
    sizes = []

    def expand(questions, prefixes, seeds):
      sizes.append(len(questions))
      return testing.ToySum()(questions, prefixes, seeds)

    # One rollout is three expansions; a freed slot goes to the next problem.
    mcts.search(
      PROBLEMS, config_of(rollouts=1, slots=3), calls_of(expand), seed=0
    )
    self.assertEqual(sizes, [3] * 3 + [3] * 3 + [1] * 3)

  def test_groups_overlap(self):
    # Each group's first run of code waits until the other group is there too.
    barrier, first = threading.Barrier(2, timeout=60), threading.local()

    def verify(programs):
      if not hasattr(first, "done"):
        first.done = True
        barrier.wait()
      return testing.run_trusted(programs)

    mcts.search(
      PROBLEMS[:2], config_of(groups=2), calls_of(verify=verify), seed=0
    )
    self.assertFalse(barrier.broken)

  @parameterized.parameters(1, 2, 3)
  def test_exceptions_of_any_group_come_out(self, groups):
    def grade(pairs):
      if any(gold == "8" for gold, _ in pairs):
        raise RuntimeError("the grader broke")
      return testing.grade_equal(pairs)

    with self.assertRaisesRegex(RuntimeError, "the grader broke"):
      mcts.search(
        PROBLEMS, config_of(groups=groups), calls_of(grade=grade), seed=0
      )

  def test_an_exception_of_one_group_stops_the_others(self):
    # The first group goes on, if at all, for thousands of rollouts.
    failed, expansions = threading.Event(), []
    policy = testing.ToySum(tuple(f"x += {i}" for i in range(9)), 9)

    def begin(group):
      def expand(questions, prefixes, seeds):
        if group == 1:
          failed.set()
          raise RuntimeError("the policy broke")
        failed.wait(60)
        expansions.append(1)
        return policy(questions, prefixes, seeds)

      return dataclasses.replace(calls_of(), expand=expand)

    calls = dataclasses.replace(calls_of(), begin=begin)
    config = config_of(groups=2, rollouts=3000)
    with self.assertRaisesRegex(RuntimeError, "the policy broke"):
      mcts.search(PROBLEMS[:2], config, calls, seed=0)
    self.assertLess(len(expansions), 1000)

  def test_an_interrupt_stops_all_groups(self):
    # A program that a shell starts behind itself ignores it.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    self.addCleanup(signal.signal, signal.SIGINT, before)
    policy = testing.ToySum(tuple(f"x += {i}" for i in range(9)), 9)
    numbers = itertools.count()

    def expand(questions, prefixes, seeds):
      # While groups are started, or soon after.
      if next(numbers) == 2:
        os.kill(os.getpid(), signal.SIGINT)
      return policy(questions, prefixes, seeds)

    config = config_of(groups=2, rollouts=3000)
    with self.assertRaises(KeyboardInterrupt):
      mcts.search(PROBLEMS[:2], config, calls_of(expand), seed=0)
    self.assertLess(next(numbers), 3000)

  def test_one_group_runs_in_the_thread_of_its_caller(self):
    seen = set()

    def verify(programs):
      seen.add(threading.current_thread())
      return testing.run_trusted(programs)

    mcts.search(PROBLEMS, config_of(), calls_of(verify=verify), seed=0)
    self.assertEqual(seen, {threading.current_thread()})

  def test_progress_counts_every_tree_once(self):
    done = []
    mcts.search(
      PROBLEMS, config_of(groups=2), calls_of(), seed=0, progress=done.append
    )
    self.assertEqual(done, [1] * len(PROBLEMS))

  def test_nothing_to_do(self):
    self.assertEqual(mcts.search([], config_of(), calls_of(), seed=0), [])
    (tree,) = mcts.search(
      PROBLEMS[:1], config_of(), calls_of(), seed=0, rollouts=0
    )
    self.assertLen(tree, 1)

  def test_bad_arguments(self):
    no_gold = [Problem("p", "q")]
    with self.assertRaisesRegex(ValueError, "problem p has no gold answer"):
      mcts.search(no_gold, config_of(), calls_of(), seed=0)
    with self.assertRaisesRegex(ValueError, "'p3' comes twice"):
      twice = [*PROBLEMS[:3], PROBLEMS[1]]
      mcts.search(twice, config_of(), calls_of(), seed=0)
    for field in ("annotation", "terminal_reward"):
      with self.assertRaisesRegex(ValueError, f"{field}='ppm' needs"):
        mcts.search(
          PROBLEMS, config_of(**{field: "ppm"}), calls_of(score=None), seed=0
        )
    with self.assertRaisesRegex(ValueError, "must be problems"):
      mcts.search(
        PROBLEMS[:1],
        config_of(),
        calls_of(),
        seed=0,
        trees=[tree_lib.Tree(PROBLEMS[1])],
      )


class GroupTest(absltest.TestCase):
  def test_each_group_has_callables_that_begin_with_nothing(self):
    """A search asks for them once a group, and uses no others."""
    policy = testing.ToySum()
    begun, used = [], []

    def expand_of(group):
      def expand(*args):
        used.append(group)
        return policy(*args)

      return expand

    def begin(group):
      begun.append(group)
      return dataclasses.replace(calls, expand=expand_of(group), begin=None)

    calls = mcts.Calls(
      expand=expand_of("none"),
      verify=testing.run_trusted,
      grade=testing.grade_equal,
      begin=begin,
    )
    problems = [Problem(f"p{i}", "sum", "3") for i in range(5)]
    config = SearchConfig(rollouts=3, groups=3, slots=2)
    for _ in range(2):
      mcts.search(problems, config, calls, seed=0)
    self.assertCountEqual(begun, [0, 1, 2] * 2)
    self.assertEqual(set(used), {0, 1, 2})


if __name__ == "__main__":
  absltest.main()
