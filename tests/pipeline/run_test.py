"""Tests of the rounds: scripted search, models of random weights trained."""

import collections
import dataclasses
import json
import pathlib
import shutil
import tempfile
import types
from unittest import mock

import jax
import numpy as np
from absl.testing import absltest
from flax import nnx

from rstar_jax import testing
from rstar_jax.config import schema as config_lib
from rstar_jax.evaluation import results_tables
from rstar_jax.hf import folders, saving
from rstar_jax.models.transformer import Transformer, ppm_from_policy
from rstar_jax.pipeline import backends, models, reading, results, run
from rstar_jax.search import tree as tree_lib
from rstar_jax.storage import layout, manifests
from rstar_jax.tools import train_tokenizer
from tests import tiny_run
from tests.parity import reward_cases
from tests.tasks import stand_ins

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
    cls.device = tiny_run.ScriptedBackend.scripted()
    cls.enterClassContext(
      mock.patch.object(backends, "ModelBackend", cls.device)
    )
    cls.returned = run.evolve(cls.context)
    cls.made = list(cls.device.made)
    cls.bytes = (cls.context.workdir / layout.RESULTS).read_bytes()
    cls.results = json.loads(cls.bytes)

  def test_every_stage_has_a_manifest(self):
    for round_ in (1, 2):
      for name in FOLDERS:
        manifest = manifests.read(self.context.folder(round_, name))
        self.assertIsNotNone(manifest, f"round {round_}, {name}")
        self.assertNotEmpty(manifest["files"])
    self.assertIsNotNone(manifests.read(self.context.folder(0, "eval")))

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
    rows = reading.read_rows(self.context.folder(2, "eval"))
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
      trees = reading.read_trees(self.context.folder(each["round"], "trees"))
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
    text = results_tables.markdown(self.results)
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
    (self.context.folder(2, "eval") / layout.MANIFEST).unlink()
    run.evolve(self.context)
    self.assertEqual(path.read_bytes(), before)
    written = self.context.workdir / layout.RESULTS
    self.assertEqual(written.read_bytes(), self.bytes)


class ExpertIterationTest(absltest.TestCase):
  """Rounds of samples, fine-tuned on; with pairs, and with none."""

  def setUp(self):
    super().setUp()
    self.folder = pathlib.Path(self.create_tempdir().full_path)
    self.base = tiny_run.make_base(self.folder / "base")

  def run_of(self, name, train, policy=None):
    """Runs one round; returns its context and results."""
    spec = config_lib.RoundConfig(rollout="samples", rollouts=12)
    config = tiny_run.make_config(
      tiny_run.write_problems(self.folder / f"{name}.jsonl", train),
      tiny_run.write_problems(self.folder / "test.jsonl", TEST),
      rounds=(spec,),
      sft_from="last",
      policy=config_lib.PolicyConfig(path=self.base),
    )
    context = tiny_run.make_context(config, self.folder / name)
    device = tiny_run.ScriptedBackend.scripted(policy)
    with mock.patch.object(backends, "ModelBackend", device):
      return context, run.evolve(context)

  def methods(self, found, round_):
    return {row["method"] for row in found["rows"] if row["round"] == round_}

  def test_samples_are_what_all_stages_need(self):
    context, found = self.run_of("samples", TRAIN)
    for name in FOLDERS:
      manifest = manifests.read(context.folder(1, name))
      self.assertNotEmpty(manifest["files"], name)
    for tree in reading.read_trees(context.folder(1, "trees")):
      self.assertEqual(tree.rollouts, 12)
      self.assertIsNone(tree.draws)
    kinds = {
      pair.kind for pair in reading.read_pairs(context.folder(1, "pairs"))
    }
    self.assertContainsSubset({"final"}, kinds)
    self.assertIn("mcts", self.methods(found, 1))

  def test_a_round_without_pairs_has_no_ppm_and_goes_on(self):
    always = testing.ToySum(("x += 2",))
    with self.assertLogs(level="WARNING") as said:
      context, found = self.run_of("sure", {"four": "4"}, always)
    self.assertIn("made no preference pairs", "\n".join(said.output))
    self.assertEqual(found["ppm"], [{"round": 1, "kind": "ppm", "pairs": 0}])
    self.assertEqual(self.methods(found, 1), {"policy", "pass@k", "majority"})
    self.assertEqual(models.ppm_round(context, 1), 0)
    self.assertEqual(run.newest_round(context), 1)
    context.config.rounds *= 2
    with self.assertRaisesRegex(ValueError, "no round up to 1 made preference"):
      backends.ModelBackend(context, 1, reward="ppm")
    # What an earlier round trained is used where a later one trained none.
    manifests.write(context.folder(1, "ppm"), {"pairs": 7}, [])
    manifests.write(context.folder(2, "ppm"), {"pairs": 0}, [])
    self.assertEqual(models.ppm_round(context, 2), 1)


class GeneratedTaskTest(absltest.TestCase):
  """Self-evolution on a task whose own scores are the rewards."""

  def setUp(self):
    super().setUp()
    self.enter_context(stand_ins.importable())
    self.enter_context(
      mock.patch.object(
        backends, "ModelBackend", tiny_run.ScriptedBackend.scripted()
      )
    )

  def test_all_stages_go_by_the_scores_of_the_task(self):
    folder = pathlib.Path(self.create_tempdir().full_path)
    config = tiny_run.make_config(
      "task:train",
      "task:test",
      task="reasoning_gym:sums",
      rounds=(config_lib.RoundConfig(rollouts=8, candidates=4),),
      policy=config_lib.PolicyConfig(path=tiny_run.make_base(folder / "base")),
    )
    config.train.count, config.eval.data.count = 5, 3
    context = tiny_run.make_context(config, folder / "run")
    found = run.evolve(context)
    trees = reading.read_trees(context.folder(1, "trees"))
    self.assertEqual(
      [tree.problem.id for tree in trees], [f"sums/train/{i}" for i in range(5)]
    )
    # A score s below 1 is the reward s - 1, which is backed up.
    worths = set()
    for tree in trees:
      for node in np.flatnonzero(tree.terminal == tree_lib.ANSWERED):
        off = abs(int(tree.answers[node]) - int(tree.problem.answer))
        right = tree.correct[node] == tree_lib.RIGHT
        self.assertEqual(right, off == 0)
        if tree.visits[node]:
          worths.add((off, tree.q(int(node))))
    self.assertContainsSubset({(0, 1.0), (1, -0.75), (2, -1.0)}, worths)
    self.assertContainsSubset(
      worths, {(0, 1.0), (1, -0.75)} | {(off, -1.0) for off in (2, 3, 4)}
    )
    # Only right solutions are learnt; pairs have right ones first.
    answers = {tree.problem.id: tree.problem.answer for tree in trees}
    rows = reading.read_rows(context.folder(1, "sft"))
    self.assertNotEmpty(rows)
    for row in rows:
      self.assertEqual(row["answer"], answers[row["problem_id"]])
    self.assertGreater(found["ppm"][0]["pairs"], 0)
    for row in reading.read_rows(context.folder(1, "eval")):
      self.assertStartsWith(row["problem_id"], "sums/test/")
      for each in row["trajectories"]:
        right = each["answer"] == row["gold"]
        self.assertEqual(each["verdict"] == "equal", right)
    methods = {each["method"] for each in found["rows"] if each["round"] == 1}
    self.assertContainsSubset({"policy", "best_of_n", "mcts"}, methods)


class RefusedTest(absltest.TestCase):
  """What a later stage would be refused for is said before the first."""

  def setUp(self):
    super().setUp()
    folder = pathlib.Path(self.create_tempdir().full_path)
    files = [
      tiny_run.write_problems(folder / f"{name}.jsonl", rows)
      for name, rows in (("train", TRAIN), ("test", TEST))
    ]
    self.context = tiny_run.make_context(
      tiny_run.make_config(*files), folder / "run"
    )
    self.device = tiny_run.ScriptedBackend.scripted()
    self.enter_context(mock.patch.object(backends, "ModelBackend", self.device))

  def assert_refused(self, message: str):
    with self.assertRaisesRegex(ValueError, message):
      run.evolve(self.context)
    self.assertEmpty(self.device.made)
    self.assertFalse((self.context.workdir / "round_0").exists())

  def assert_goes_on(self):
    first = mock.patch.object(
      run.evaluate, "evaluate", side_effect=KeyboardInterrupt
    )
    with first, self.assertRaises(KeyboardInterrupt):
      run.evolve(self.context)

  def test_a_mesh_that_does_not_cut_the_batches(self):
    mesh = jax.sharding.AbstractMesh((1, 3, 1), ("data", "fsdp", "tensor"))
    with mock.patch.object(models, "train_mesh", lambda config: mesh):
      self.assert_refused("^config.sft: a batch of .* into 3 parts")

  def test_a_policy_of_a_later_round_that_is_none(self):
    folder = self.context.workdir.parent / "named"
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type":')
    second = dataclasses.replace(
      self.context.config.rounds[1], policy=str(folder)
    )
    self.context.config.rounds = (self.context.config.rounds[0], second)
    self.assert_refused(f"^{folder}/config.json is not JSON .*: copy it again")

  def change(self, round_: int, **fields):
    """Changes fields of a round of the config."""
    rounds = list(self.context.config.rounds)
    rounds[round_ - 1] = dataclasses.replace(rounds[round_ - 1], **fields)
    self.context.config.rounds = tuple(rounds)

  def of_other_tokens(self) -> str:
    """Returns the folder of a policy with a tokenizer of its own."""
    folder = self.context.workdir.parent / "foreign"
    model = Transformer(
      testing.tiny_model(vocab_size=300, num_layers=1), rngs=nnx.Rngs(0)
    )
    saving.save_policy(model, folder)
    train_tokenizer.train(["other words", "xyz"], 290, folder)
    return str(folder)

  def test_a_start_of_sft_that_is_none(self):
    name = str(self.context.workdir.parent / "basee")
    self.context.config.sft_from = name
    self.assert_refused(f"^there is no folder {name}")
    for round_ in (1, 2):
      self.change(round_, algorithm="grpo", annotation="terminal")
    with mock.patch.object(run, "_check_writer", side_effect=KeyboardInterrupt):
      with self.assertRaises(KeyboardInterrupt):  # Nothing starts from it.
        run.evolve(self.context)

  def test_a_base_with_fewer_rows_than_tokens(self):
    folder = self.context.workdir.parent / "few rows"
    model = Transformer(
      testing.tiny_model(vocab_size=300, num_layers=1), rngs=nnx.Rngs(0)
    )
    saving.save_policy(model, folder)
    self.context.config.policy.path = str(folder)
    self.assert_refused(
      f"^{folder}: the tokenizer has 768 tokens and the model rows for"
    )

  def test_models_that_could_not_be_saved(self):
    """A Qwen2 beside a foreign tokenizer is saved as Llama, if it can be."""
    folder = self.context.workdir.parent / "odd"
    config = testing.tiny_model(vocab_size=768, num_layers=1)
    config = dataclasses.replace(config, num_heads=5, num_kv_heads=5)
    saving.save_policy(Transformer(config, rngs=nnx.Rngs(0)), folder)
    self.context.tokenizer.save(folder)
    message = f"^{folder} loads, but once trained it could not be saved"
    self.context.config.sft_from = str(folder)
    self.assert_refused(message)
    self.context.config.sft_from = "base"
    self.change(2, algorithm="grpo", policy=str(folder))
    self.assert_refused(message)
    self.change(2, algorithm="sft", policy="")
    self.context.config.policy.path = str(folder)
    self.assert_refused(message)
    self.context.config.sft_from = "last"
    self.assert_refused(message)
    # Nothing is trained from it.
    self.context.config.sft_from = "other"
    self.assertEqual(run._starts(self.context.config), [("other", "sft")])

  def test_an_adapter_of_an_adapter(self):
    folder = self.context.workdir.parent / "adapter"
    folder.mkdir()
    base = {"peft_type": "LORA", "r": 2, "lora_alpha": 4}
    base["base_model_name_or_path"] = str(folders.BASE_MODEL)
    (folder / "adapter_config.json").write_text(json.dumps(base))
    config, message = self.context.config, f"^{folder} is an adapter, and "
    for train, others in (
      (config.sft, config.reinforce.train),
      (config.reinforce.train, config.sft),
    ):
      train.lora_rank, others.lora_rank = 2, 0
      with (
        self.subTest(train=train),
        mock.patch.object(run.models, "check_policy"),
        mock.patch.object(run.models, "check_saved"),
      ):
        if train is config.sft:
          config.sft_from = str(folder)
        else:
          config.sft_from = "base"
          self.change(2, algorithm="grpo", policy=str(folder))
        self.assert_refused(message)
        train.lora_rank = 0
        run._check_stages(self.context)

  def test_a_policy_of_other_tokens(self):
    name = self.of_other_tokens()
    self.context.config.sft_from = name
    self.assert_refused(f"^{name} has another tokenizer than ")
    self.context.config.sft_from = "last"
    self.change(2, policy=name)
    self.assert_refused(f"^{name} has another tokenizer than ")
    # A backend of the user's own exchanges text.
    self.context.config.policy.backend = "module:function"
    with mock.patch.object(run, "_check_writer", side_effect=KeyboardInterrupt):
      with self.assertRaises(KeyboardInterrupt):
        run.evolve(self.context)

  def test_a_ppm_of_another_run(self):
    folder = self.context.workdir.parent / "other ppm"
    model = Transformer(
      testing.tiny_model(vocab_size=768, num_layers=1), rngs=nnx.Rngs(0)
    )
    ppm = ppm_from_policy(model, rngs=nnx.Rngs(0))
    saving.save_ppm(ppm, folder, tokenizer=self.context.tokenizer)
    for name in (f"ppm:{folder}", str(folder)):
      with self.subTest(name):
        self.context.config.eval.reward_model = name
        self.change(2, ppm=name)
        stop = mock.patch.object(
          run, "_check_writer", side_effect=KeyboardInterrupt
        )
        with stop, self.assertRaises(KeyboardInterrupt):
          run.evolve(self.context)
    self.change(2, ppm=f"ppm:{folder}x")
    self.assert_refused(f"^there is no folder {folder}x")
    policy = str(self.context.workdir.parent / "policy")
    saving.save_policy(model, policy)
    self.change(2, ppm=f"ppm:{policy}")
    self.assert_refused(f"^{policy}.* lacks .* not a PPM of ours")

  def test_a_model_that_the_engine_cannot_hold(self):
    config = self.context.config
    golden = pathlib.Path(__file__).resolve().parents[1] / "golden"
    folder = str(self.context.workdir.parent / "experts")
    shutil.copytree(golden / "qwen3_moe", folder)
    self.context.tokenizer.save(folder)
    dense = config.policy.path
    config.engine.weights = "int8"
    config.remote.url = "http://localhost:9/v1"  # It would be asked first.
    config.policy.path = folder
    words = "^engine.weights='int8' is of dense models"
    with mock.patch.object(models, "check_rows"):
      self.assert_refused(words)
      # The PPM, which is trained from it, is not on servers.
      config.servers.policy = "http://localhost:9/v1"
      self.assert_refused(words)
      config.servers.ppm = config.servers.policy
      self.assert_goes_on()
    config.policy.path = dense
    config.servers.policy = config.servers.ppm = ""
    self.assert_goes_on()
    self.change(2, policy=folder)
    with mock.patch.object(models, "check_policy"):
      self.assert_refused(words)
    self.change(2, policy="")
    config.engine.weights = "float"
    config.engine.kernels = "pallas"
    self.assert_refused("^engine.kernels='pallas' is for TPUs")
    # Searchers of Ray may have TPUs, and more devices than this process.
    config.ray.address = "auto"
    config.search_mesh.tensor = 8
    self.assert_goes_on()
    config.ray.address, config.engine.kernels = "", "auto"
    self.assert_refused("^config.search_mesh: mesh .* multiple of 8")

  def test_a_reward_model_that_the_engine_cannot_hold(self):
    config = self.context.config
    name = str(self.context.workdir.parent / "reward")
    reward_cases.write(pathlib.Path(name), "qwen")
    config.eval.reward_model = name
    config.policy.backend = "module:function"
    config.servers.ppm = "http://localhost:9/v1"
    config.engine.kernels = "ragged"
    self.assert_refused("^engine.kernels='ragged' is for TPUs")
    config.servers.reward = "http://localhost:9/v1"
    self.assert_goes_on()

  def test_a_reward_model_of_unknown_form(self):
    name = str(self.context.workdir.parent / "reward")
    reward_cases.write(pathlib.Path(name), "rlhflow")
    self.context.config.eval.reward_model = name
    self.assert_refused(f"^{name} is a causal model: say how it is asked")

  def test_what_rounds_set_for_the_search(self):
    usual = self.context.config.search
    for name, value, instead in (
      (
        "rollouts",
        4,
        r"rounds have .*, config.rounds\[k\].rollouts; leave it 16",
      ),
      (
        "candidates",
        5,
        r"rounds have .*, config.rounds\[k\].candidates; leave it 8",
      ),
      (
        "annotation",
        "ppm",
        r"rounds have .*, config.rounds\[k\].annotation; l",
      ),
      ("terminal_reward", "ppm", "rounds learn from the truth; leave it"),
    ):
      changed = dataclasses.replace(usual, **{name: value})
      self.context.config.search = changed
      message = f"^config.search.{name}={value!r} does nothing in a run: "
      self.assert_refused(message + instead)
      with self.assertRaisesRegex(ValueError, message):
        run.STAGES["rollout"](self.context, 1)
    # A run of an earlier version goes on.
    (self.context.workdir / "round_0").mkdir(parents=True)
    with mock.patch.object(run, "_check_writer", side_effect=KeyboardInterrupt):
      with self.assertRaises(KeyboardInterrupt):
        run.evolve(self.context)

  def test_nobody_who_writes(self):
    self.context.tokenizer = types.SimpleNamespace(known=5, vocab_size=13)
    self.assert_refused("^nobody can write a step in round 1")
    with self.assertRaisesRegex(ValueError, "^nobody can write a step"):
      run.STAGES["rollout"](self.context, 1)


if __name__ == "__main__":
  absltest.main()
