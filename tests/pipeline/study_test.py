"""The stage of a study, with a scripted policy and reward models."""

import contextlib
import dataclasses
import itertools
import pathlib
import shutil
import sys
import threading
from unittest import mock

from absl.testing import absltest

from rstar_jax import testing
from rstar_jax.config import schema as config_lib
from rstar_jax.data import held_out, outcomes, pools, trajectories
from rstar_jax.evaluation import quality, solvers
from rstar_jax.pipeline import backends, on_ray, ppm, rollout, shards, study
from rstar_jax.search import mcts
from rstar_jax.storage import layout, manifests, metrics, records
from tests import tiny_run
from tests.pipeline import fake_ray

ANSWERS = {"four": "4", "five": "5", "never": "99", "six": "6", "two": "2"}
# One problem of ten is held out; of twenty some are.
MORE = {f"make {i}": str(2 + i % 5) for i in range(20)}


@contextlib.contextmanager
def opens(config, workdir, host):
  context = tiny_run.make_context(config, workdir)
  yield dataclasses.replace(context, host=host)


class StudyingCase(absltest.TestCase):
  def setUp(self):
    super().setUp()
    self.folder = pathlib.Path(self.create_tempdir().full_path)
    test = tiny_run.write_problems(self.folder / "test.jsonl", ANSWERS)
    train = tiny_run.write_problems(self.folder / "train.jsonl", MORE)
    self.config = tiny_run.make_config(train, test)
    self.config.study = config_lib.StudyConfig(
      rewards=("ppm", "orm"),
      trajectories=3,
      samples=3,
      beam_width=4,
      beam_groups=2,
    )
    self.device = tiny_run.ScriptedBackend.scripted()
    self.enter_context(mock.patch.object(backends, "ModelBackend", self.device))
    # Models are trained elsewhere; here they are scripted.
    self.trained = []
    self.enter_context(
      mock.patch.object(ppm, "train", lambda *a: self.trained.append(a))
    )

  def context(self, name="run"):
    context = tiny_run.make_context(self.config, self.folder / name)
    rollout.rollout(context, 1)
    for each in ("policy", "ppm", "orm"):
      manifests.write(context.folder(1, each), {}, [])
    return context

  def files(self, context) -> dict[str, bytes]:
    return {
      str(path.relative_to(context.workdir)): path.read_bytes()
      for path in context.folder(1, "study").rglob("*")
      if path.is_file() and not path.name.startswith(layout.VERIFIED)
    }


class StudyTest(StudyingCase):
  def test_everything_that_the_config_names(self):
    context = self.context()
    study.study(context, 1)
    self.assertEqual([each[2:] for each in self.trained], [("orm", "orm")])
    rows = study.read(context.folder(1, "study"))
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
    text = study.render(context, 1)
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
    trees = shards.read_trees(context.folder(1, "trees"))
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
    self.assertEqual(list(shards.each_row(folder / "held_out")), wanted)
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
    self.assertEqual(study.render(alone, 1), study.render(context, 1))

  def test_time_is_shown_and_in_no_file_of_the_study(self):
    self.config.study.methods = ("greedy", "mcts")
    self.config.study.rewards = ("ppm",)
    texts, clock = [], itertools.count(step=10)
    for name, pace in (("slow", 7), ("quick", 1)):

      def usage(backend, pace=pace):
        # Ten problems' worth between two calls.
        now = next(clock)
        return {"seconds": pace * now, "generated_tokens": 3.0 * now}

      with mock.patch.object(self.device, "usage", usage):
        context = self.context(name)
        with metrics.MetricsWriter(context.workdir) as writer:
          context = dataclasses.replace(context, writer=writer)
          study.study(context, 1)
        said = study.render(context, 1)
      texts.append((context.folder(1, "study") / "tables.md").read_text())
      table, time = said.split("### Time")
      self.assertEqual(table, texts[-1] + "\n")
      rows = [line.replace(" ", "") for line in time.splitlines()]
      # Readings at the beginning, after each shard, and at the end.
      shards = {"Greedy": 2, "Onesearch": 2}
      for method, count in shards.items():
        seconds = 10 * (count + 1) / 5
        guide = "-" if method == "Greedy" else "ppm"
        self.assertIn(
          f"|{method}|{guide}|5|{pace * seconds:.3g}|0|{3 * seconds:.0f}|0|0|",
          rows,
        )
    self.assertEqual(*texts)

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
    rows = study.read(context.folder(1, "study"))
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
    rows = study.read(context.folder(1, "study"))
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
    rows = study.read(context.folder(1, "study"))
    self.assertEqual(
      {row["reward"] for row in rows}, {"ppm", "ppm:other/run/round_3/ppm"}
    )
    self.assertIn("ppm:other/run/round_3/ppm", study.render(context, 1))

  def test_two_models_of_one_folder(self):
    context = self.context()
    for names in (("a/b", "a_b"), ("policy",)):
      context.config.study.rewards = names
      with self.assertRaisesRegex(ValueError, "would share the folder"):
        study.study(context, 1)

  def test_tables_of_nothing(self):
    with self.assertRaisesRegex(ValueError, "rstar_jax study --round=1"):
      study.render(self.context(), 1)


class CompareTest(StudyingCase):
  def test_two_studies_and_none(self):
    first, second = self.context("a"), self.context("b")
    study.study(first, 1)
    with self.assertRaisesRegex(ValueError, "neither an evaluation nor"):
      study.compare(first, second.workdir, 1)
    with self.assertRaisesRegex(ValueError, "no evaluated round in common"):
      study.compare(first, second.workdir, None)
    study.study(second, 1)
    text = study.compare(first, second.workdir, 1)
    self.assertIn("not distinguishable", text)
    self.assertNotIn("better", text)


if __name__ == "__main__":
  absltest.main()
