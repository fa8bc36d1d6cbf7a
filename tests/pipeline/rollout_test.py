"""Tests of the rollout stage: who searches, hard problems, remaking."""

import collections
import dataclasses
import itertools
import json
import sys
from unittest import mock

import numpy as np
from absl.testing import absltest, parameterized

from rstar_jax import testing
from rstar_jax.config import schema as config_lib
from rstar_jax.data import outcomes
from rstar_jax.hf import folders
from rstar_jax.pipeline import context as session
from rstar_jax.pipeline import extract, reading, rollout, units
from rstar_jax.search import mcts
from rstar_jax.search import tree as tree_lib
from rstar_jax.storage import json_io, layout, manifests, records
from tests import tiny_run
from tests.inference import scripted_server
from tests.pipeline.cases import (
  ANSWERS,
  StagesCase,
  contents,
  finish,
  flip,
)

# So many ways that no tree is ever exhausted.
WIDE = testing.ToySum(tuple(f"x += {i}" for i in range(101)), levels=3)


class RolloutTest(StagesCase):
  def test_shards_and_manifest(self):
    context = self.context()
    rollout.rollout(context, 1)
    folder = context.folder(1, "trees")
    self.assertSameElements(
      contents(folder),
      [
        *(f"shard-0000{i}-of-00003.jsonl.zst" for i in range(3)),
        "MANIFEST.json",
      ],
    )
    trees = reading.read_trees(folder)
    self.assertEqual([tree.problem.question for tree in trees], list(ANSWERS))
    self.assertEqual([len(set(t.problem.id for t in trees))], [len(ANSWERS)])
    solved = [
      any(each.answer == tree.problem.answer for each in found)
      for tree in trees
      for found in [tree_lib.trajectories(tree)]
    ]
    self.assertGreater(sum(solved), 0)
    manifest = manifests.read(folder)
    self.assertEqual(manifest["problems"], len(ANSWERS))
    right = [
      {each.answer == tree.problem.answer for each in found}
      for tree in trees
      for found in [tree_lib.trajectories(tree)]
    ]
    for name, of in (("easy", [{True}]), ("hard", [{False}, set()])):
      self.assertEqual(manifest[name], sum(each in of for each in right))
    self.assertEqual(manifest["medium"], right.count({True, False}))
    self.assertAlmostEqual(manifest["solved"], sum(solved) / len(ANSWERS))
    self.assertEqual(
      manifest["levels"]["1"],
      {"problems": 4, "solved": sum(solved[::2])},
    )
    self.assertEqual(
      manifest["generated_tokens"], sum(tree.tokens for tree in trees)
    )

  def test_what_is_in_an_evaluation_set_is_not_searched(self):
    context = self.context(decontaminate=config_lib.DecontaminateConfig())
    context.config.eval.data = config_lib.DataConfig(
      source=tiny_run.write_problems(
        self.folder / "test.jsonl", {"Four!": "4", "other": "1"}
      )
    )
    path = context.workdir / layout.DECONTAMINATION
    # Of an earlier round's released data.
    json_io.write(path, {"dropped": 7, "sft": {}})
    rollout.rollout(context, 1)
    trees = reading.read_trees(context.folder(1, "trees"))
    self.assertEqual(
      [tree.problem.question for tree in trees],
      [question for question in ANSWERS if question != "four"],
    )
    report = json.loads(path.read_text())
    self.assertEqual((report["dropped"], report["sft"]), (1, {}))
    (match,) = report["matches"]
    self.assertEqual(
      (match["id"], match["held_out_id"], match["words"]), ("p2", "p0", "four")
    )

  def test_round_1_is_the_base_model_without_a_ppm(self):
    context = self.context()
    rollout.rollout(context, 1)
    self.assertEqual(self.device.made, [(folders.BASE_MODEL, None)])
    for tree in reading.read_trees(context.folder(1, "trees")):
      self.assertTrue(np.isnan(tree.ppm).all())

  def test_a_round_annotated_by_a_ppm_gets_that_of_the_round_before(self):
    context = self.context()
    finish(context, 1, "policy", "ppm")
    rollout.rollout(context, 2)
    before = context.workdir / "round_1"
    self.assertEqual(self.device.made, [(before / "policy", before / "ppm")])
    for tree in reading.read_trees(context.folder(2, "trees")):
      self.assertFalse(np.isnan(tree.ppm[1:]).any())

  def test_a_round_begins_from_any_checkpoint(self):
    spec = config_lib.RoundConfig(
      rollouts=1, candidates=2, annotation="ppm", policy="a/policy", ppm="a/ppm"
    )
    context = self.context(rounds=(spec,))
    rollout.rollout(context, 1)
    self.assertEqual(self.device.made, [("a/policy", "a/ppm")])
    trees = reading.read_trees(context.folder(1, "trees"))
    self.assertFalse(np.isnan(trees[0].ppm[1:]).any())

  def test_a_round_annotated_by_terminals_gets_none(self):
    spec = config_lib.RoundConfig(rollouts=1, candidates=2)
    context = self.context(rounds=(spec, spec))
    finish(context, 1, "policy", "ppm")
    rollout.rollout(context, 2)
    self.assertEqual(
      self.device.made, [(context.workdir / "round_1" / "policy", None)]
    )

  def test_what_the_last_round_did_not_solve_comes_first(self):
    spec = config_lib.RoundConfig(rollouts=2, candidates=3)
    context = self.context(rounds=(spec, spec))
    rollout.rollout(context, 1)
    finish(context, 1, "policy")
    first = reading.read_trees(context.folder(1, "trees"))
    hard = {tree.problem.id for tree in first if not tree_lib.solved(tree)}
    self.assertBetween(len(hard), 1, len(ANSWERS) - 1)
    rollout.rollout(context, 2)
    folder = context.folder(2, "trees")
    second = [tree.problem.id for tree in reading.read_trees(folder)]
    self.assertEqual(set(second[: len(hard)]), hard)
    self.assertCountEqual(second, [tree.problem.id for tree in first])
    with self.subTest("and none is searched twice, or not at all"):
      # As if another order had been begun.
      (folder / layout.MANIFEST).unlink()
      names = sorted(contents(folder))
      self.assertLen(names, 3)
      (folder / names[1]).rename(folder / names[0])
      with self.assertRaisesRegex(ValueError, "00000.*has other problems than"):
        rollout.rollout(context, 2)
      self.assertEqual(sorted(contents(folder)), [names[0], names[2]])

  def test_several_trees_have_seeds_of_their_own(self):
    spec = config_lib.RoundConfig(rollouts=2, candidates=2, trees=2)
    context = self.context(rounds=(spec,))
    rollout.rollout(context, 1)
    trees = reading.read_trees(context.folder(1, "trees"))
    self.assertLen(trees, 2 * len(ANSWERS))
    pairs = list(zip(trees[::2], trees[1::2], strict=True))
    self.assertTrue(all(a.problem == b.problem for a, b in pairs))
    self.assertTrue(any(a.to_json() != b.to_json() for a, b in pairs))

  def test_mastered_problems_are_retired(self):
    first = config_lib.RoundConfig(rollouts=9, candidates=4)
    context = self.context(
      rounds=(first, dataclasses.replace(first, retire=True))
    )
    rollout.rollout(context, 1)
    finish(context, 1, "policy")
    mastered = {
      tree.problem.id
      for tree in reading.read_trees(context.folder(1, "trees"))
      if (tree.correct == tree_lib.RIGHT).any()
      and not (tree.correct == tree_lib.WRONG).any()
    }

    def as_mastered(ids):
      found = property(lambda each: each.problem_id in ids)
      return mock.patch.object(outcomes.Outcome, "mastered", found)

    with as_mastered(mastered | {"p0"}):
      rollout.rollout(context, 2)
    trees = reading.read_trees(context.folder(2, "trees"))
    left = {tree.problem.id for tree in trees}
    self.assertLen(left, len(ANSWERS) - len(mastered | {"p0"}))
    self.assertNoCommonElements(left, mastered | {"p0"})
    manifest = manifests.read(context.folder(2, "trees"))
    solved = sum(map(tree_lib.solved, trees)) + manifest["retired"]
    self.assertEqual(manifest["solved"], solved / len(ANSWERS))
    with self.subTest("and stay so, though no tree says it any more"):
      spec = context.config.rounds[1]
      context.config.rounds = (*context.config.rounds, spec)
      finish(context, 2, "policy")
      with as_mastered({"p0"}):
        rollout.rollout(context, 3)
      trees = reading.read_trees(context.folder(3, "trees"))
      self.assertNotIn("p0", {tree.problem.id for tree in trees})
      self.assertLen(trees, len(ANSWERS) - 1)
      manifest = manifests.read(context.folder(3, "trees"))
      counts = [each["problems"] for each in manifest["levels"].values()]
      self.assertEqual(sum(counts), len(ANSWERS))
    everything = {f"p{i}" for i in range(len(ANSWERS))}
    (context.folder(2, "trees") / layout.MANIFEST).unlink()
    with as_mastered(everything):
      with self.assertRaisesRegex(ValueError, "all were mastered"):
        rollout.rollout(context, 2)


class LargerModelTest(StagesCase):
  """Round 1 by a model behind a server, which here plays the same toy."""

  def remote_context(self, name="remote") -> session.Context:
    url = self.server.url
    context = self.context(
      name,
      remote=config_lib.RemoteConfig(
        url=url, model=scripted_server.MODEL, samples_per_request=1
      ),
    )
    context.sandbox = mock.Mock(run=testing.run_trusted)
    context.grader = mock.Mock(grade=testing.grade_equal)
    return context

  def setUp(self):
    super().setUp()
    self.server = scripted_server.Server(self.folder)
    self.addCleanup(self.server.kill)

  def test_makes_round_1_and_no_other(self):
    local, context = self.context("local"), self.remote_context()
    for each in (local, context):
      rollout.rollout(each, 1)
      extract.extract(each, 1)
    # Only the local one had a model of ours.
    self.assertEqual(self.device.made, [(folders.BASE_MODEL, None)])
    for name in ("trees", "sft", "pairs"):
      self.assertEqual(
        contents(context.folder(1, name)), contents(local.folder(1, name))
      )
    finish(context, 1, "policy", "ppm")
    asked = len(self.server.seen()["bodies"])
    rollout.rollout(context, 2)
    self.assertLen(self.device.made, 2)
    self.assertLen(self.server.seen()["bodies"], asked)

  def test_what_is_lost_is_made_again_without_asking(self):
    self.server.tell(fickle=True)
    context = self.remote_context()
    rollout.rollout(context, 1)
    folder = context.folder(1, "trees")
    before = contents(folder)
    asked = len(self.server.seen()["bodies"])
    flip(folder / "shard-00001-of-00003.jsonl.zst")
    rollout.rollout(context, 1)
    self.assertEqual(contents(folder), before)
    self.assertLen(self.server.seen()["bodies"], asked)


class HardProblemsTest(StagesCase):
  def rollout(self, **spec) -> dict[str, list[tree_lib.Tree]]:
    """Returns the trees of each question, and counts searches in self.runs."""
    self.runs = collections.Counter()
    search = mcts.search_tree

    def counted(tree, *args):
      self.runs[tree.problem.question] += 1
      return search(tree, *args)

    context = self.context(rounds=(config_lib.RoundConfig(**spec),))
    with mock.patch.object(mcts, "search_tree", counted):
      rollout.rollout(context, 1)
    self.spec = context.config
    trees: dict[str, list[tree_lib.Tree]] = {}
    for tree in reading.read_trees(context.folder(1, "trees")):
      trees.setdefault(tree.problem.question, []).append(tree)
    return trees

  def test_a_tree_goes_on_as_a_longer_search_would(self):
    self.script(WIDE)
    found = self.rollout(rollouts=2, candidates=4, extra_rollouts=(1, 4))
    (tree,) = found["never"]
    self.assertEqual(tree.rollouts, 7)
    calls = self.device(self.context(), 0).steps()
    config = dataclasses.replace(self.spec.search, candidates=4)
    (straight,) = mcts.search(
      [tree.problem],
      config,
      calls,
      seed=self.spec.seed,
      name=("rollout", 1, 0),
      rollouts=7,
    )
    self.assertEqual(tree.to_json(), straight.to_json())

  def test_solved_problems_get_nothing_more(self):
    found = self.rollout(rollouts=1, candidates=3, extra_rollouts=(2,))
    at_once = 0
    for trees in found.values():
      if sum(tree.rollouts for tree in trees) == 1:
        at_once += 1
        self.assertTrue(tree_lib.solved(trees[0]))
    self.assertBetween(at_once, 1, len(found) - 2)
    self.assertEqual(self.runs["never"], 2)
    self.assertEqual(self.runs.total(), 2 * len(found) - at_once)

  def test_an_exhausted_tree_is_followed_by_one_of_other_seeds(self):
    options = tuple(f"x += {i}" for i in range(100, 201))
    self.script(testing.ToySum(options, levels=1))
    found = self.rollout(rollouts=1, candidates=1, extra_rollouts=(1, 1))
    trees = found["never"]
    self.assertLen(trees, 3)
    self.assertLen({tree.prefix(len(tree) - 1) for tree in trees}, 3)

  @parameterized.parameters(3, 1)
  def test_attempts_that_were_done_outlive_a_process(self, levels):
    """Trees go on, or are exhausted; the process dies before each attempt."""
    options = tuple(f"x += {i}" for i in range(100, 201))
    self.script(testing.ToySum(options, levels=levels))
    spec = config_lib.RoundConfig(
      rollouts=1, candidates=2, trees=2, extra_rollouts=(2, 3, 4)
    )
    straight = self.context("straight", rounds=(spec,))
    rollout.rollout(straight, 1)
    killed = self.context("killed", rounds=(spec,))
    keep, grow, log = units.Kept.keep, rollout.grow, []

    def dies(kept, rows):
      keep(kept, rows)
      log.append((rows[""][0]["problem"]["id"], "killed"))
      raise KeyboardInterrupt

    def logged(tree, config, round_, name, rollouts):
      log.append((tree.problem.id, rollouts))
      return grow(tree, config, round_, name, rollouts)

    with (
      mock.patch.object(rollout, "grow", logged),
      mock.patch.object(units.Kept, "keep", dies),
    ):
      for _ in range(3 * len(ANSWERS)):
        with self.assertRaises(KeyboardInterrupt):
          rollout.rollout(killed, 1)
      rollout.rollout(killed, 1)
    self.assertEqual(
      contents(killed.folder(1, "trees")), contents(straight.folder(1, "trees"))
    )
    for i in range(len(ANSWERS)):
      found = [what for name, what in log if name == f"p{i}"]
      # Nothing that was done before a death is done after it.
      runs = [what for what, _ in itertools.groupby(found)]
      self.assertEqual(runs, [1, "killed", 2, "killed", 3, "killed", 4])

  def test_an_attempt_searches_each_problem_once(self):
    # One of the two is exhausted after a rollout, the other after two.
    narrow = testing.ToySum(("x += 1",), levels=1, covers=True)
    wide = testing.ToySum(("x += 1", "x += 2"), levels=1, covers=True)

    def policy(questions, prefixes, seeds):
      return [
        (narrow if question == "narrow" else wide)([question], [prefix], [row])[
          0
        ]
        for question, prefix, row in zip(
          questions, prefixes, seeds, strict=True
        )
      ]

    self.problems = tiny_run.write_problems(
      self.folder / "hard.jsonl", {"narrow": "99", "wide": "99"}
    )
    self.script(staticmethod(policy))
    found = self.rollout(rollouts=1, candidates=2, extra_rollouts=(1, 1))
    self.assertEqual(self.runs, {"narrow": 3, "wide": 3})
    self.assertEqual([len(found[q]) for q in ("narrow", "wide")], [3, 2])


class OwnSearchTest(StagesCase):
  """A search of the user's, which here is ours."""

  def setUp(self):
    super().setUp()
    self.asked = []

    def own_search(problems, config, calls, seed, name):
      self.asked.append(([each.question for each in problems], name[-1]))
      config = dataclasses.replace(config, method="mcts")
      return mcts.search(problems, config, calls, seed, name=name)

    main = sys.modules["__main__"]
    main.own_search = own_search
    self.addCleanup(delattr, main, "own_search")

  def run_round(self, name: str, method: str, **spec) -> dict[str, bytes]:
    context = self.context(name, rounds=(config_lib.RoundConfig(**spec),))
    context.config.search.method = method
    rollout.rollout(context, 1)
    return contents(context.folder(1, "trees"))

  def test_gets_whole_shards_and_makes_the_same_trees(self):
    spec = {"rollouts": 2, "candidates": 3, "trees": 2}
    own = self.run_round("own", "__main__:own_search", **spec)
    questions = list(ANSWERS)
    self.assertEqual(
      self.asked,
      [
        (questions[first : first + 3], number)
        for first in (0, 3, 6)
        for number in (0, 1)
      ],
    )
    self.assertEqual(own, self.run_round("ours", "mcts", **spec))

  def test_what_is_unsolved_gets_further_trees(self):
    # Each of our trees is exhausted, and so is followed by a new one too.
    options = tuple(f"x += {i}" for i in range(100, 201))
    self.script(testing.ToySum(options, levels=1))
    spec = {"rollouts": 1, "candidates": 1, "extra_rollouts": (1, 1)}
    own = self.run_round("own", "__main__:own_search", **spec)
    self.assertEqual(
      [number for asked, number in self.asked if "never" in asked], [0, 1, 2]
    )
    self.assertEqual(own, self.run_round("ours", "mcts", **spec))

  def test_is_not_asked_about_nothing(self):
    spec = {"rollouts": 8, "candidates": 5, "extra_rollouts": (1,)}
    self.run_round("own", "__main__:own_search", **spec)
    asked = [questions for questions, number in self.asked if number]
    self.assertNotIn([], asked)
    self.assertBetween(len(asked), 1, 2)  # Of three shards.


class RemakeTest(StagesCase):
  def test_a_changed_shard_is_made_again_and_no_other(self):
    context = self.context()
    rollout.rollout(context, 1)
    folder = context.folder(1, "trees")
    before = contents(folder)
    flip(folder / "shard-00001-of-00003.jsonl.zst")
    self.assertIsNone(manifests.read(folder))
    self.device.expanded.clear()
    rollout.rollout(context, 1)
    self.assertEqual(contents(folder), before)
    self.assertEqual(
      {question for call in self.device.expanded for question in call},
      set(list(ANSWERS)[3:6]),
    )

  def test_a_missing_manifest_is_made_again_without_a_search(self):
    context = self.context()
    rollout.rollout(context, 1)
    folder = context.folder(1, "trees")
    before = contents(folder)
    (folder / layout.MANIFEST).unlink()
    self.device.expanded.clear()
    rollout.rollout(context, 1)
    self.assertEqual(contents(folder), before)
    self.assertEmpty(self.device.expanded)

  def test_a_finished_stage_is_left_alone(self):
    context = self.context()
    rollout.rollout(context, 1)
    rollout.rollout(context, 1)
    self.assertLen(self.device.made, 1)

  def test_a_run_that_broke_off_goes_on(self):
    straight = self.context("straight")
    rollout.rollout(straight, 1)
    context = self.context("broken")
    write = records.write_shard

    def break_off(path, rows, info):
      if "00001" in path.name:
        raise KeyboardInterrupt
      write(path, rows, info)

    with mock.patch.object(records, "write_shard", break_off):
      with self.assertRaises(KeyboardInterrupt):
        rollout.rollout(context, 1)
    first, second = sorted(contents(context.folder(1, "trees")), reverse=True)
    self.assertEqual(first, "shard-00000-of-00003.jsonl.zst")
    self.assertStartsWith(second, "begun-shard-00001-of-00003-")
    rollout.rollout(context, 1)
    self.assertEqual(
      contents(context.folder(1, "trees")),
      contents(straight.folder(1, "trees")),
    )


if __name__ == "__main__":
  absltest.main()
