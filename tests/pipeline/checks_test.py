"""Data and folders, checked before anything is spent."""

import copy
import json
import pathlib
import sys
import types
from unittest import mock

from absl.testing import absltest, parameterized

from rstar_jax.config import closed, identity
from rstar_jax.config import schema as config_lib
from rstar_jax.pipeline import checks, on_ray, run, work
from rstar_jax.pipeline.hosts import Host
from rstar_jax.storage import manifests
from tests import tiny_run
from tests.pipeline import fake_ray

# Two additions of 1, 2 or 3 give 2 to 6.
TRAIN = {"four": "4", "five": "5", "never": "99", "six": "6"}
TEST = {"three": "3", "four too": "4", "five too": "5"}
FOLDERS = ("trees", "sft", "pairs", "policy", "ppm", "eval")


class WorkdirTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.workdir = pathlib.Path(self.create_tempdir().full_path)
    self.config = tiny_run.make_config("train.jsonl", "test.jsonl")
    checks.check_workdir(self.config, self.workdir)
    # From here on it is bound.
    (self.workdir / "round_0").mkdir()

  def bound(self):
    return json.loads((self.workdir / "config.json").read_text())

  def test_the_same_config_is_welcome(self):
    again = tiny_run.make_config("train.jsonl", "test.jsonl")
    checks.check_workdir(again, self.workdir)

  def test_a_field_that_was_not_there_yet_had_its_default(self):
    path = self.workdir / "config.json"
    config = json.loads(path.read_text())
    del config["remote"], config["eval"]["top_k"], config["reward"]
    for each in config["rounds"]:
      del each["retire"]
    path.write_text(json.dumps(config))
    checks.check_workdir(self.config, self.workdir)
    self.config.rounds[0].retire = True
    with self.assertRaisesRegex(ValueError, "another config.*retire"):
      checks.check_workdir(self.config, self.workdir)

  @parameterized.parameters(
    ("seed", 7, "config.seed was 0 and is 7"),
    ("search.c", 1.5, "config.search.c was 2.0 and is 1.5"),
    ("eval.samples", 9, "config.eval.samples was 4 and is 9"),
    ("rounds", (), "config.rounds was .* and is \\[\\]"),
    ("engine.kernels", "xla", "config.engine.kernels was 'auto' and is 'xla'"),
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
      checks.check_workdir(self.config, self.workdir)

  def test_the_advice_is_accepted(self):
    self.config.seed = 7
    message = "set what differs as it was, or give another --workdir"
    with self.assertRaisesRegex(ValueError, f"{message}$"):
      checks.check_workdir(self.config, self.workdir)
    self.assertEqual(self.bound()["seed"], 0)
    checks.check_workdir(self.config, self.workdir / "another")
    self.config.seed = 0
    checks.check_workdir(self.config, self.workdir)

  def test_how_it_is_run_may_change_and_is_brought_up_to_date(self):
    self.config.sandbox.workers = 9
    self.config.rounds += (config_lib.RoundConfig(trees=3),)
    checks.check_workdir(self.config, self.workdir)
    self.assertEqual(self.bound()["sandbox"]["workers"], 9)
    self.assertEqual(self.bound()["rounds"][2]["trees"], 3)
    # The third round binds from now on.
    self.config.rounds = self.config.rounds[:2]
    with self.assertRaisesRegex(ValueError, "config.rounds was"):
      checks.check_workdir(self.config, self.workdir)

  def test_rounds_are_not_added_within_the_last_evaluation(self):
    self.config.eval.early_problems = 2
    (self.workdir / "round_0").rmdir()
    checks.check_workdir(self.config, self.workdir)
    # Round 2 is the last one.
    folder = self.workdir / "round_2" / "eval"
    (self.workdir / "round_1" / "eval" / "train").mkdir(parents=True)
    more = copy.deepcopy(self.config)
    more.rounds += (config_lib.RoundConfig(),)
    checks.check_identity(more, self.workdir)
    (folder / "train").mkdir(parents=True)
    with self.assertRaisesRegex(
      ValueError, f"^{folder} is not finished, .*: finish it with 2 rounds, or"
    ):
      checks.check_workdir(more, self.workdir)
    self.assertLen(self.bound()["rounds"], 2)
    checks.check_workdir(self.config, self.workdir)
    # Without early_problems all rounds solve the same.
    path = self.workdir / "config.json"
    text = path.read_text()
    for config in (self.config, more):
      config.eval.early_problems = 0
    path.write_text(json.dumps(identity.to_json(self.config)))
    checks.check_identity(more, self.workdir)
    more.eval.early_problems = 2
    path.write_text(text)
    manifests.write(folder, {})
    checks.check_workdir(more, self.workdir)
    self.assertLen(self.bound()["rounds"], 3)

  def test_where_no_round_was_begun_nothing_binds(self):
    (self.workdir / "round_0").rmdir()
    self.config.seed = 7
    checks.check_workdir(self.config, self.workdir)
    self.assertEqual(self.bound()["seed"], 7)

  def test_a_config_with_old_names_goes_on(self):
    fields = self.bound()
    fields["reward_kind"] = fields.pop("reward")
    (self.workdir / "config.json").write_text(json.dumps(fields))
    with self.assertRaisesRegex(ValueError, "no field 'reward_kind'"):
      checks.check_workdir(self.config, self.workdir)
    with mock.patch.dict(closed.RENAMED, {"Config.reward_kind": "reward"}):
      checks.check_workdir(self.config, self.workdir)
    self.assertEqual(self.bound()["reward"], "ppm")
    self.assertNotIn("reward_kind", self.bound())

  def test_models_are_read_with_any_other_settings(self):
    self.config.seed, self.config.search.rollouts = 7, 99
    before = (self.workdir / "config.json").read_bytes()
    checks.check_models(self.config, self.workdir)
    self.config.policy.path = "elsewhere"
    message = r"policy.path='': give --config.policy.path=, or another"
    with self.assertRaisesRegex(ValueError, message):
      checks.check_models(self.config, self.workdir)
    self.assertEqual((self.workdir / "config.json").read_bytes(), before)
    with self.assertRaisesRegex(ValueError, "there is no run"):
      checks.check_models(self.config, self.workdir / "nowhere")
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
    names = {each.name for each in self.workdir.iterdir()}
    self.assertEqual(names, {"config.json", "round_0"})

  def test_the_nearest_run_is_named(self):
    for name in ("tiny", "full"):
      checks.check_workdir(self.config, self.workdir / name)
    (self.workdir / "tinny").mkdir()
    self.assertEqual(checks.find_run(self.workdir / "tiny"), self.config)
    with self.assertRaises(ValueError) as raised:
      checks.find_run(self.workdir / "tny")
    self.assertEqual(
      str(raised.exception),
      f"there is no run in {self.workdir / 'tny'}; did you mean "
      f"{self.workdir / 'tiny'}?",
    )
    with self.assertRaisesRegex(ValueError, "there is no run in .*nothing$"):
      checks.find_run(self.workdir / "nothing")
    self.assertFalse((self.workdir / "tny").exists())

  def test_a_folder_that_another_run_has_bound_meanwhile(self):
    # Neither has begun a round, so that both may bind it.
    other = tiny_run.make_config("train.jsonl", "test.jsonl", seed=9)
    folder = self.workdir / "new"
    checks.check_workdir(self.config, folder)
    checks.check_bound(self.config, folder)
    checks.check_workdir(other, folder)
    checks.check_bound(other, folder)
    with self.assertRaisesRegex(ValueError, "^.*another config.*seed.*$"):
      checks.check_bound(self.config, folder)

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

  def test_who_searches(self):
    self.config.ray.address = "auto"
    folder = self.workdir / "run"
    with (
      mock.patch.dict(sys.modules, ray=None),
      self.assertRaisesRegex(ValueError, "^config.ray.address='auto' needs "),
      run.open_run(self.config, folder),
    ):
      self.fail("opened")
    self.assertFalse(folder.exists())
    ray = fake_ray.Ray(0)
    with mock.patch.dict(sys.modules, ray=ray):
      with run.open_run(self.config, folder) as context:
        self.assertIsInstance(context.work, on_ray.Ray)
      # Whoever asks a question does so here.
      with run.open_run(self.config, folder, reads=True) as context:
        self.assertIsInstance(context.work, work.Local)
    self.assertEmpty(ray.joined)

  def test_several_hosts_compare_what_one_of_them_has_loaded(self):
    servers, ray = self.config.servers, self.config.ray
    servers.policy, servers.load = "http://a:1/v1", "vllm"
    servers.compare = False
    folder = self.workdir / "run"
    with (
      self.assertRaisesRegex(ValueError, "^config.servers.compare=False hides"),
      run.open_run(self.config, folder, Host(1, 2)),
    ):
      self.fail("opened")
    self.assertFalse(folder.exists())
    checks.check_loading(self.config, Host())
    # A searcher of Ray is a host of its own, beside the one that asks.
    ray.address, ray.searchers = "auto", 1
    checks.check_loading(self.config, Host(1, 2))
    ray.searchers = 2
    with self.assertRaisesRegex(ValueError, "compare=False"):
      checks.check_loading(self.config, Host())
    servers.load = ""
    checks.check_loading(self.config, Host())
    servers.load, servers.compare = "vllm", True
    checks.check_loading(self.config, Host(1, 2))

  def test_who_writes_first(self):
    config = config_lib.Config()
    config.policy.path = "some/model"
    self.assertEqual(checks.first_writer(config, knows=True), "some/model")
    with self.assertRaisesRegex(
      ValueError, "^nobody can write a step in round 1: some/model has never"
    ):
      checks.first_writer(config, knows=False)
    config.remote.url, config.remote.model = "http://a/v1", "large"
    self.assertEqual(
      checks.first_writer(config, knows=False), "large at http://a/v1"
    )

  def test_a_model_knows_the_grammar_if_its_tokens_are_there(self):
    for known, expected in ((13, True), (5, False)):
      tokenizer = types.SimpleNamespace(known=known, vocab_size=13)
      self.assertEqual(checks.knows_grammar(tokenizer), expected)

  def test_data_is_read_at_once(self):
    with self.assertRaisesRegex(ValueError, "there is no file train.jsonl"):
      checks.check_data(self.config)

  def test_an_evaluation_wants_no_training_problems(self):
    path = self.workdir / "test.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text('{"question": "1 + 1?", "answer": "2"}\n')
    self.config.eval.data.source = str(path)
    checks.check_data(self.config, evaluation=True)
    path.write_text("{")
    with self.assertRaisesRegex(ValueError, "test.jsonl"):
      checks.check_data(self.config, evaluation=True)


if __name__ == "__main__":
  absltest.main()
