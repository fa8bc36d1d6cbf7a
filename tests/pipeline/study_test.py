"""The stage of a study, with a scripted policy and reward models."""

import contextlib
import dataclasses
import shutil
import sys
import threading
from unittest import mock

from absl.testing import absltest

from rstar_jax import testing
from rstar_jax.config import schema as config_lib
from rstar_jax.data import held_out, outcomes, pools, trajectories
from rstar_jax.evaluation import quality, solvers
from rstar_jax.pipeline import on_ray, reading, study, study_tables
from rstar_jax.search import mcts
from rstar_jax.storage import manifests, records
from tests import tiny_run
from tests.pipeline import fake_ray, studying


@contextlib.contextmanager
def opens(config, workdir, host):
  context = tiny_run.make_context(config, workdir)
  yield dataclasses.replace(context, host=host)


class StudyTest(studying.StudyingCase):
  def test_everything_that_the_config_names(self):
    context = self.context()
    context.config.study.updates = 7
    context.config.study.methods = tuple(solvers.METHODS)
    study.study(context, 1)
    self.assertEqual([each[2:] for each in self.trained], [("orm", "orm", 7)])
    rows = study_tables.read(context.folder(1, "study"))
    found = {}
    for row in rows:
      found.setdefault((row["reward"], row["source"]), []).append(row)
    self.assertCountEqual(
      found,
      [(None, "greedy"), (None, "samples")]
      + [
        (reward, method)
        for reward in ("ppm", "orm")
        for method in solvers.METHODS
        if method != "greedy"
      ],
    )
    for group in found.values():
      self.assertEqual(
        [row["problem_id"] for row in group], [f"p{i}" for i in range(5)]
      )
    # The same samples, valued by each.
    for reward in ("ppm", "orm"):
      for alone, valued in zip(
        found[None, "samples"], found[reward, "samples"], strict=True
      ):
        self.assertEqual(alone["spent"], valued["spent"])
        self.assertIsNotNone(valued["trajectories"][0]["value"])
    text = study_tables.render(context, 1)
    self.assertEqual(
      (context.folder(1, "study") / "tables.md").read_text(), text
    )
    for word in ("Diverse beams", "### Reward models", "TFLOPs"):
      self.assertIn(word, text)

  def test_goes_on_where_it_was_killed(self):
    straight = self.context("straight")
    study.study(straight, 1)
    killed = self.context("killed")
    write, count = records.write_shard, 0

    def dies(path, rows, *info):
      nonlocal count
      count += 1
      if count == 7:
        raise KeyboardInterrupt
      write(path, rows, *info)

    with mock.patch.object(records, "write_shard", dies):
      with self.assertRaises(KeyboardInterrupt):
        study.study(killed, 1)
    study.study(killed, 1)
    self.assertEqual(self.files(straight), self.files(killed))
    # A finished study loads no model.
    self.device.made.clear()
    study.study(killed, 1)
    self.assertEmpty(self.device.made)

  def test_a_killed_study_goes_on_with_its_settings_alone(self):
    context = self.context()
    config = context.config.study
    config.methods, config.rewards = ("samples",), ()
    with mock.patch.object(study, "finish", side_effect=KeyboardInterrupt):
      with self.assertRaises(KeyboardInterrupt):
        study.study(context, 1)
    folder = context.folder(1, "study") / "policy" / "samples"
    first, second = sorted(folder.rglob("shard-*"))
    # An earlier version wrote the first one.
    rows = records.read_shard(first)
    info = records.header(first)["info"]
    del info["made_with"]
    records.write_shard(first, rows, info)
    config.samples = 6
    self.device.made.clear()
    with self.assertRaisesRegex(
      ValueError, "^.*policy/samples was made with .*samples=3 and not 6: give"
    ):
      study.study(context, 1)
    self.assertEmpty(self.device.made)
    second.unlink()
    study.study(context, 1)
    self.assertEqual(records.header(first)["info"], info)
    found = [len(row["trajectories"]) for row in reading.rows_of(folder)]
    self.assertEqual(found, [3, 3, 3, 6, 6])
    made_with = manifests.read(folder)["made_with"]
    self.assertEqual(records.header(second)["info"]["made_with"], made_with)
    self.assertEqual(made_with["samples"], 6)

  def test_the_bytes_do_not_show_how_many_were_in_flight(self):
    found = []
    for in_flight in (1, 16):
      self.config.eval.search.in_flight = in_flight
      context = self.context(f"of-{in_flight}")
      study.study(context, 1)
      found.append(self.files(context))
    self.assertEqual(*found)
    # Two shards and a manifest, of two methods alone, and with two models of
    # seven methods, of how good each is, in one shard, and of held-out trees,
    # of which there are none.
    self.assertLen(found[0], 3 * 2 + 2 * (3 * 7 + 2 + 1))

  def test_held_out_trees_are_valued_file_by_file(self):
    self.config.study.methods, self.config.study.rewards = (), ("ppm",)
    self.config.ppm.held_out = 3
    context = self.context()
    trees = reading.read_trees(context.folder(1, "trees"))
    groups = [
      group
      for group in trajectories.by_problem(trees)
      if held_out.is_held_out(self.config.seed, group[0].problem.id, 3)
    ]
    self.assertBetween(len(groups), 3, 12)
    study.study(context, 1)
    wanted = [
      quality.of_problem(each, testing.score_by_hash, self.config.extract)
      for each in groups
    ]
    folder = context.folder(1, "study") / "ppm"
    self.assertEqual(list(reading.rows_of(folder / "held_out")), wanted)
    # Under the names of their files.
    for path in pools.paths_of(folder / "held_out"):
      name = path.relative_to(folder / "held_out")
      of_trees = outcomes.of_file(context.workdir / name)
      of_values = {row["problem"] for row in records.read_shard(path)}
      self.assertContainsSubset(of_values, {o.problem_id for o in of_trees})
    (found,) = records.read_shard(folder / "quality" / records.shard_name(0, 1))
    self.assertEqual(found, quality.summary(wanted) | {"reward": "ppm"})
    self.assertGreater(found["solutions"], 10)
    # One that an earlier version has finished has no such folder.
    shutil.rmtree(folder / "held_out")
    self.device.made.clear()
    study.study(context, 1)
    self.assertEmpty(self.device.made)

  def test_no_trees_are_held_out_of_a_model_that_learned_from_all(self):
    self.config.study.methods, self.config.study.rewards = (), ("ppm", "orm")
    self.config.ppm.held_out = 3
    context = self.context()
    manifests.write(context.folder(1, "ppm"), {"held_out": 0}, [])
    study.study(context, 1)
    top = context.folder(1, "study")
    self.assertEmpty(pools.paths_of(top / "ppm" / "held_out"))
    self.assertNotEmpty(pools.paths_of(top / "orm" / "held_out"))
    (found,) = reading.rows_of(top / "ppm" / "quality")
    self.assertEqual(found, {"pairs": {}, "reward": "ppm"})

  def test_searchers_that_die(self):
    """The files of one process, by searchers on a cluster."""
    self.config.study.methods = ("greedy", "samples", "mcts")
    self.config.ppm.held_out = 3
    self.enter_context(
      mock.patch.object(on_ray.logs, "to_file", contextlib.nullcontext)
    )
    alone = self.context("alone")
    study.study(alone, 1)
    context = self.context("together")
    loaded = len(self.device.made)
    ray, counted = fake_ray.Ray(2), []

    def strikes(actor, name, _):
      with ray.lock:
        counted.append(name)
        dies = name == "search" and counted.count("search") % 3 == 0
      if dies:
        actor.die()

    ray.strikes = strikes
    config = config_lib.RayConfig(address="auto", searchers=2)
    with mock.patch.dict(sys.modules, ray=ray):
      context.work = on_ray.Ray(config, opens)
    study.study(context, 1)
    for thread in threading.enumerate():
      if thread.name.endswith("(_work)"):
        thread.join()
    self.assertEqual(self.files(alone), self.files(context))
    # By the policy alone, and with each reward model.
    self.assertGreater(len(ray.actors), 3 * 2)
    self.assertGreaterEqual(len(self.device.made), loaded + 3)
    self.assertEqual(
      study_tables.render(alone, 1), study_tables.render(context, 1)
    )

  def test_a_search_of_the_user_s_gets_whole_shards(self):
    asked = []

    def own_search(problems, config, calls, seed, name):
      asked.append([each.question for each in problems])
      return mcts.search(problems, config, calls, seed, name=name)

    main = sys.modules["__main__"]
    main.own_search = own_search
    self.addCleanup(delattr, main, "own_search")
    self.config.study.methods = ("__main__:own_search",)
    self.config.study.rewards = ("ppm",)
    context = self.context()
    study.study(context, 1)
    self.assertEqual(asked, [["four", "five", "never"], ["six", "two"]])
    rows = study_tables.read(context.folder(1, "study"))
    self.assertEqual(
      [row["problem_id"] for row in rows], [f"p{i}" for i in range(5)]
    )
    self.assertEqual({row["reward"] for row in rows}, {"ppm"})

  def test_other_settings_are_refused_and_more_methods_are_not(self):
    context = self.context()
    config = context.config.study
    config.methods = ("greedy", "mcts")
    study.study(context, 1)
    config.methods, config.top_k = ("greedy", "samples", "mcts"), 2
    study.study(context, 1)
    rows = study_tables.read(context.folder(1, "study"))
    self.assertEqual(
      {row["source"] for row in rows}, {"greedy", "samples", "mcts"}
    )
    config.trajectories = 7
    with self.assertRaisesRegex(
      ValueError, "policy/greedy was made with .*trajectories=3 and not 7: give"
    ):
      study.study(context, 1)

  def test_a_setting_that_was_not_there_yet_had_its_default(self):
    context = self.context()
    context.config.study.methods = ("greedy",)
    study.study(context, 1)
    folder = context.folder(1, "study") / "policy" / "greedy"
    info = manifests.read(folder)
    del info["made_with"]["early_stop"]
    files = [name for name in info.pop("files")]
    manifests.write(folder, info, files)
    study.study(context, 1)
    context.config.study.early_stop = True
    with self.assertRaisesRegex(ValueError, "early_stop=False and not True"):
      study.study(context, 1)
    # Once there were as many samples as rollouts.
    context.config.study.early_stop = False
    del info["made_with"]["samples"]
    manifests.write(folder, info, files)
    study.study(context, 1)
    context.config.study.samples = 4
    with self.assertRaisesRegex(ValueError, "samples=3 and not 4"):
      study.study(context, 1)

  def test_the_ppm_of_another_round_or_run(self):
    context = self.context()
    context.config.study.rewards = ("ppm", "ppm:other/run/round_3/ppm")
    context.config.study.methods = ("mcts",)
    study.study(context, 1)
    self.assertEqual(
      [ppm for _, ppm in self.device.made[1:]],
      [context.folder(1, "ppm"), "ppm:other/run/round_3/ppm"],
    )
    rows = study_tables.read(context.folder(1, "study"))
    self.assertEqual(
      {row["reward"] for row in rows}, {"ppm", "ppm:other/run/round_3/ppm"}
    )
    self.assertIn("ppm:other/run/round_3/ppm", study_tables.render(context, 1))

  def test_two_models_of_one_folder(self):
    context = self.context()
    for names in (("a/b", "a_b"), ("policy",)):
      context.config.study.rewards = names
      with self.assertRaisesRegex(ValueError, "rewards: .* share the folder"):
        study.study(context, 1)

  def test_two_methods_of_one_folder(self):
    context = self.context()
    for names in (("a:b_c", "a_b:c"), ("ab:mcts", "ab_mcts"), ("held:out",)):
      context.config.study.methods = names
      with self.assertRaisesRegex(ValueError, "methods: .* share the folder"):
        study.study(context, 1)


if __name__ == "__main__":
  absltest.main()
