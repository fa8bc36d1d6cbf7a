"""Tests of the rounds: scripted search, models of random weights trained."""

import collections
import dataclasses
import json
import pathlib
import tempfile
from unittest import mock

from absl.testing import absltest, parameterized

from rstar_jax.config import closed
from rstar_jax.config import schema as config_lib
from rstar_jax.evaluation import accuracy as evaluate
from rstar_jax.pipeline import backends, results, run, shards
from rstar_jax.storage import layout, records
from tests import tiny_run

# Two additions of 1, 2 or 3 give 2 to 6.
TRAIN = {"four": "4", "five": "5", "never": "99", "six": "6"}
TEST = {"three": "3", "four too": "4", "five too": "5"}
FOLDERS = ("trees", "sft", "pairs", "policy", "ppm", "eval")


class RunTest(absltest.TestCase):
  """One run of two rounds, looked at by all."""

  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    folder = pathlib.Path(cls.enterClassContext(tempfile.TemporaryDirectory()))
    config = tiny_run.make_config(
      tiny_run.write_problems(folder / "train.jsonl", TRAIN),
      tiny_run.write_problems(folder / "test.jsonl", TEST),
      # So many that the scripted policy, which learns nothing, solves some.
      rounds=(
        config_lib.RoundConfig(rollouts=12, candidates=4),
        config_lib.RoundConfig(rollouts=12, candidates=4, annotation="ppm"),
      ),
      policy=config_lib.PolicyConfig(path=tiny_run.make_base(folder / "base")),
    )
    cls.context = tiny_run.make_context(config, folder / "run")
    cls.device = tiny_run.ScriptedDevice.scripted()
    cls.enterClassContext(mock.patch.object(backends, "Device", cls.device))
    cls.returned = run.evolve(cls.context)
    cls.made = list(cls.device.made)
    cls.bytes = (cls.context.workdir / layout.RESULTS).read_bytes()
    cls.results = json.loads(cls.bytes)

  def test_every_stage_has_a_manifest(self):
    for round_ in (1, 2):
      for name in FOLDERS:
        manifest = records.read_manifest(self.context.folder(round_, name))
        self.assertIsNotNone(manifest, f"round {round_}, {name}")
        self.assertNotEmpty(manifest["files"])
    self.assertIsNotNone(records.read_manifest(self.context.folder(0, "eval")))

  def test_who_searched(self):
    base = self.context.config.policy.path
    round_1, round_2 = (self.context.workdir / f"round_{i}" for i in (1, 2))
    self.assertEqual(
      self.made,
      [
        (base, None),  # Evaluation of the base model.
        (base, None),  # Rollout of round 1: no PPM yet.
        (round_1 / "policy", round_1 / "ppm"),  # Evaluation of round 1.
        (round_1 / "policy", round_1 / "ppm"),  # Rollout of round 2.
        (round_2 / "policy", round_2 / "ppm"),  # Evaluation of round 2.
      ],
    )

  def test_results_have_a_row_for_each_method_and_round(self):
    self.assertEqual(json.loads(json.dumps(self.returned)), self.results)
    self.assertEqual(set(self.results), {"config", "rows", "solved", "ppm"})
    methods = collections.defaultdict(set)
    for row in self.results["rows"]:
      self.assertContainsSubset(
        {
          *("round", "method", "split", "accuracy", "low", "high", "n"),
          "tokens_per_problem",
        },
        row,
      )
      self.assertBetween(row["accuracy"], row["low"], row["high"])
      self.assertEqual(row["n"], len(TEST))
      self.assertEqual(row["split"], self.context.config.eval.data.source)
      methods[row["round"]].add(row["method"])
    self.assertEqual(methods[0], {"policy", "pass@k", "majority"})
    for round_ in (1, 2):
      self.assertEqual(
        methods[round_], {"policy", "pass@k", "majority", "best_of_n", "mcts"}
      )

  def test_accuracy_is_the_share_of_right_answers(self):
    rows = shards.read_rows(self.context.folder(2, "eval"))
    right = [
      row["trajectories"][0]["answer"] == row["gold"]
      for row in rows
      if row["source"] == "greedy"
    ]
    self.assertLen(right, len(TEST))
    (row,) = [
      row
      for row in self.results["rows"]
      if (row["round"], row["method"]) == (2, "policy")
    ]
    self.assertAlmostEqual(row["accuracy"], sum(right) / len(right))

  def test_solved_is_of_each_round(self):
    self.assertEqual([each["round"] for each in self.results["solved"]], [1, 2])
    for each in self.results["solved"]:
      trees = shards.read_trees(self.context.folder(each["round"], "trees"))
      solved = [
        any(
          answer == tree.problem.answer
          for answer in tree.to_record()["nodes"]["answer"]
        )
        for tree in trees
      ]
      self.assertAlmostEqual(each["share"], sum(solved) / len(TRAIN))
      self.assertLess(each["share"], 1)

  def test_the_config_is_in_the_results(self):
    config = json.loads(json.dumps(dataclasses.asdict(self.context.config)))
    self.assertEqual(self.results["config"], config)
    for each in self.results["ppm"]:
      self.assertGreater(each["pairs"], 0)

  def test_markdown_has_all_rounds(self):
    text = evaluate.markdown(self.results)
    for round_ in range(3):
      self.assertIn(f"\n| {round_} ", text)

  def test_the_newest_round(self):
    self.assertEqual(run.newest_round(self.context), 2)
    with mock.patch.object(self.context, "workdir", pathlib.Path("nowhere")):
      self.assertEqual(run.newest_round(self.context), 0)

  def test_again_nothing_is_done_and_the_bytes_are_equal(self):
    made = len(self.device.made)
    run.evolve(self.context)
    self.assertLen(self.device.made, made)
    path = self.context.workdir / layout.RESULTS
    self.assertEqual(path.read_bytes(), self.bytes)
    path.unlink()
    results.write(self.context)
    self.assertEqual(path.read_bytes(), self.bytes)

  def test_a_stage_in_the_middle_is_made_again(self):
    folder = self.context.folder(1, "trees")
    path = next(folder.glob("shard-*"))
    before = path.read_bytes()
    path.write_bytes(before[: len(before) // 2])
    (self.context.folder(2, "eval") / records.MANIFEST).unlink()
    run.evolve(self.context)
    self.assertEqual(path.read_bytes(), before)
    written = self.context.workdir / layout.RESULTS
    self.assertEqual(written.read_bytes(), self.bytes)


class WorkdirTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.workdir = pathlib.Path(self.create_tempdir().full_path)
    self.config = tiny_run.make_config("train.jsonl", "test.jsonl")
    run.check_workdir(self.config, self.workdir)
    # From here on it is bound.
    (self.workdir / "round_0").mkdir()

  def bound(self):
    return json.loads((self.workdir / "config.json").read_text())

  def test_the_same_config_is_welcome(self):
    again = tiny_run.make_config("train.jsonl", "test.jsonl")
    run.check_workdir(again, self.workdir)

  def test_a_field_that_was_not_there_yet_had_its_default(self):
    path = self.workdir / "config.json"
    config = json.loads(path.read_text())
    del config["remote"], config["eval"]["top_k"], config["reward"]
    for each in config["rounds"]:
      del each["retire"]
    path.write_text(json.dumps(config))
    run.check_workdir(self.config, self.workdir)
    self.config.rounds[0].retire = True
    with self.assertRaisesRegex(ValueError, "another config.*retire"):
      run.check_workdir(self.config, self.workdir)

  @parameterized.parameters(
    ("seed", 7, "config.seed was 0 and is 7"),
    ("search.c", 1.5, "config.search.c was 2.0 and is 1.5"),
    ("eval.samples", 9, "config.eval.samples was 4 and is 9"),
    ("rounds", (), "config.rounds was .* and is \\[\\]"),
    ("engine.native", True, "config.engine.native was False and is True"),
  )
  def test_another_is_refused_and_the_difference_named(
    self, name, value, message
  ):
    *path, field = name.split(".")
    owner = self.config
    for each in path:
      owner = getattr(owner, each)
    setattr(owner, field, value)
    with self.assertRaisesRegex(ValueError, f"^.*another config.*{message}.*$"):
      run.check_workdir(self.config, self.workdir)

  def test_the_advice_is_accepted(self):
    self.config.seed = 7
    message = "set what differs as it was, or give another --workdir"
    with self.assertRaisesRegex(ValueError, f"{message}$"):
      run.check_workdir(self.config, self.workdir)
    self.assertEqual(self.bound()["seed"], 0)
    run.check_workdir(self.config, self.workdir / "another")
    self.config.seed = 0
    run.check_workdir(self.config, self.workdir)

  def test_how_it_is_run_may_change_and_is_brought_up_to_date(self):
    self.config.sandbox.workers = 9
    self.config.rounds += (config_lib.RoundConfig(trees=3),)
    run.check_workdir(self.config, self.workdir)
    self.assertEqual(self.bound()["sandbox"]["workers"], 9)
    self.assertEqual(self.bound()["rounds"][2]["trees"], 3)
    # The third round binds from now on.
    self.config.rounds = self.config.rounds[:2]
    with self.assertRaisesRegex(ValueError, "config.rounds was"):
      run.check_workdir(self.config, self.workdir)

  def test_where_no_round_was_begun_nothing_binds(self):
    (self.workdir / "round_0").rmdir()
    self.config.seed = 7
    run.check_workdir(self.config, self.workdir)
    self.assertEqual(self.bound()["seed"], 7)

  def test_a_config_with_old_names_goes_on(self):
    fields = self.bound()
    fields["reward_kind"] = fields.pop("reward")
    (self.workdir / "config.json").write_text(json.dumps(fields))
    with self.assertRaisesRegex(ValueError, "no field 'reward_kind'"):
      run.check_workdir(self.config, self.workdir)
    with mock.patch.dict(closed.RENAMED, {"Config.reward_kind": "reward"}):
      run.check_workdir(self.config, self.workdir)
    self.assertEqual(self.bound()["reward"], "ppm")
    self.assertNotIn("reward_kind", self.bound())

  def test_models_are_read_with_any_other_settings(self):
    self.config.seed, self.config.search.rollouts = 7, 99
    before = (self.workdir / "config.json").read_bytes()
    run.check_models(self.config, self.workdir)
    self.config.policy.path = "elsewhere"
    message = r"policy.path='': give --config.policy.path=, or another"
    with self.assertRaisesRegex(ValueError, message):
      run.check_models(self.config, self.workdir)
    self.assertEqual((self.workdir / "config.json").read_bytes(), before)
    with self.assertRaisesRegex(ValueError, "there is no run"):
      run.check_models(self.config, self.workdir / "nowhere")
    self.assertFalse((self.workdir / "nowhere").exists())

  def test_a_run_that_is_read_is_not_bound(self):
    config = tiny_run.make_config("train.jsonl", "test.jsonl")
    config.seed, config.rounds = 7, config.rounds[:1]
    before = (self.workdir / "config.json").read_bytes()
    with run.open_run(config, self.workdir, reads=True) as context:
      self.assertEqual(context.config.seed, 7)
      # What the run has is what can be read.
      self.assertLen(context.config.rounds, 2)
    self.assertLen(config.rounds, 1)
    self.assertEqual((self.workdir / "config.json").read_bytes(), before)

  def test_the_nearest_run_is_named(self):
    for name in ("tiny", "full"):
      run.check_workdir(self.config, self.workdir / name)
    (self.workdir / "tinny").mkdir()
    self.assertEqual(run.find_run(self.workdir / "tiny"), self.config)
    with self.assertRaises(ValueError) as raised:
      run.find_run(self.workdir / "tny")
    self.assertEqual(
      str(raised.exception),
      f"there is no run in {self.workdir / 'tny'}; did you mean "
      f"{self.workdir / 'tiny'}?",
    )
    with self.assertRaisesRegex(ValueError, "there is no run in .*nothing$"):
      run.find_run(self.workdir / "nothing")
    self.assertFalse((self.workdir / "tny").exists())

  def test_a_run_is_opened_in_its_folder(self):
    self.config.programs = str(self.workdir / "kept")
    folder = self.workdir / "run"
    with mock.patch.object(run.compiled, "keep", autospec=True) as keep:
      with run.open_run(self.config, str(folder)) as context:
        self.assertEqual(context.workdir, folder)
        self.assertEqual(context.grader.grade([("1/2", "0.5")]), ["equal"])
      self.config.seed, self.config.programs = 7, ""
      (folder / "round_0").mkdir()
      with self.assertRaisesRegex(ValueError, "another config"):
        with run.open_run(self.config, folder):
          self.fail("opened")
    kept = [str(call.args[0]) for call in keep.call_args_list]
    self.assertEqual(
      kept, [str(self.workdir / "kept"), str(folder / "programs")]
    )

  def test_data_is_read_at_once(self):
    with self.assertRaisesRegex(ValueError, "there is no file train.jsonl"):
      run.check_data(self.config)

  def test_an_evaluation_wants_no_training_problems(self):
    path = self.workdir / "test.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text('{"question": "1 + 1?", "answer": "2"}\n')
    self.config.eval.data.source = str(path)
    run.check_data(self.config, evaluation=True)
    path.write_text("{")
    with self.assertRaisesRegex(ValueError, "test.jsonl"):
      run.check_data(self.config, evaluation=True)


if __name__ == "__main__":
  absltest.main()
