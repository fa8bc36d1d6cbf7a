"""Tests of the stages, with a scripted policy and models of random weights."""

import pathlib
from unittest import mock

import numpy as np
from absl.testing import absltest, parameterized
from safetensors import numpy as safetensors

from rstar_jax import testing
from rstar_jax.config import schema as config_lib
from rstar_jax.grading import answers
from rstar_jax.hf import folders
from rstar_jax.pipeline import context as session
from rstar_jax.pipeline import reward_models, shards, stages
from rstar_jax.search import tree as tree_lib
from rstar_jax.steps import grammar
from rstar_jax.storage import records
from tests import tiny_run

# Two additions of 1, 2 or 3 give 2 to 6: all but "never" can be solved.
ANSWERS = {
  "two": "2",
  "three": "3",
  "four": "4",
  "five": "5",
  "never": "99",
  "six": "6",
  "again four": "4",
}


class StagesCase(parameterized.TestCase):
  """One folder for each test, and a scripted device."""

  def setUp(self):
    super().setUp()
    self.folder = pathlib.Path(self.create_tempdir().full_path)
    self.problems = tiny_run.write_problems(
      self.folder / "train.jsonl", ANSWERS
    )
    self.script()

  def script(self, policy=None):
    self.device = tiny_run.ScriptedDevice.scripted(policy)
    self.enter_context(mock.patch.object(stages, "Device", self.device))

  def context(self, name="run", **overrides) -> session.Context:
    config = tiny_run.make_config(self.problems, self.problems, **overrides)
    return tiny_run.make_context(config, self.folder / name)


def contents(folder: pathlib.Path) -> dict[str, bytes]:
  return {
    str(path.relative_to(folder)): path.read_bytes()
    for path in folder.rglob("*")
    if path.is_file() and "checkpoints" not in path.parts
  }


def flip(path: pathlib.Path) -> None:
  """Changes one bit in the middle of a file."""
  data = bytearray(path.read_bytes())
  data[len(data) // 2] ^= 1
  path.write_bytes(data)


def finish(context: session.Context, round_: int, *names: str) -> None:
  for name in names:
    records.write_manifest(context.folder(round_, name), {}, [])


class ExtractTest(StagesCase):
  def test_rows_are_right_and_pairs_rank_them(self):
    context = self.context()
    stages.rollout(context, 1)
    stages.extract(context, 1)
    rows = shards.read_rows(context.folder(1, "sft"))
    self.assertNotEmpty(rows)
    for row in rows:
      gold = ANSWERS[row["question"]]
      self.assertEqual(answers.final_answer(row["steps"][-1]), gold)
      # The program says what the answer says.
      (result,) = testing.run_trusted([grammar.program(row["steps"])])
      self.assertEqual(result.stdout, gold)
    pairs = shards.read_rows(context.folder(1, "pairs"))
    final = [pair for pair in pairs if pair["kind"] == "final"]
    self.assertNotEmpty(final)
    for pair in final:
      gold = ANSWERS[pair["question"]]
      self.assertEqual(answers.final_answer(pair["chosen"][-1]), gold)
      self.assertNotEqual(answers.final_answer(pair["rejected"][-1]), gold)
    for name, count in (("sft", "rows"), ("pairs", "final")):
      manifest = records.read_manifest(context.folder(1, name))
      made = rows if name == "sft" else final
      self.assertEqual(manifest[count], len(made))

  @parameterized.parameters((1, 0), (2, 1), (5, 1))
  def test_pools_the_trees_of_so_many_rounds(self, rounds, pooled):
    spec = config_lib.RoundConfig(rollouts=2, candidates=4)
    context = self.context(
      rounds=(spec, spec), extract=config_lib.ExtractConfig(rounds=rounds)
    )
    finish(context, 1, "policy")
    found = []
    for round_ in (1, 2):
      stages.rollout(context, round_)
      trees = shards.read_trees(context.folder(round_, "trees"))
      found.append(sum(len(tree_lib.trajectories(tree)) for tree in trees))
    stages.extract(context, 2)
    manifest = records.read_manifest(context.folder(2, "sft"))
    self.assertEqual(manifest["answers"], found[1] + pooled * found[0])

  def test_is_exported_as_a_data_set(self):
    context = self.context()
    stages.rollout(context, 1)
    with self.assertRaisesRegex(ValueError, "--stage=extract --round=1"):
      stages.export(context, 1)
    stages.extract(context, 1)
    said = stages.export(context, 1)
    folder = context.folder(1, "export")
    for name, what in (("sft", "solutions"), ("pairs", "pairs")):
      rows = len(shards.read_rows(context.folder(1, name)))
      lines = (folder / name / "train.jsonl").read_text().splitlines()
      self.assertLen(lines, rows)
      self.assertIn(f"{rows} {what}", said)

  def test_what_is_not_solved_is_listed(self):
    context = self.context()
    stages.rollout(context, 1)
    stages.extract(context, 1)
    folder = context.folder(1, "sft")
    rows = records.read_shard(folder / stages.UNSOLVED)
    trees = shards.read_trees(context.folder(1, "trees"))
    left = [t.problem.question for t in trees if not tree_lib.solved(t)]
    self.assertIn("never", left)
    self.assertCountEqual([row["question"] for row in rows], left)
    self.assertIn(stages.UNSOLVED, records.read_manifest(folder)["files"])


class InputsTest(StagesCase):
  @parameterized.parameters(
    (stages.rollout, 2, "policy", "--stage=sft --round=1"),
    (stages.extract, 2, "trees", "--stage=rollout --round=2"),
    (stages.train_policy, 1, "sft", "--stage=extract --round=1"),
    (reward_models.train_ppm, 1, "pairs", "--stage=extract --round=1"),
  )
  def test_an_unfinished_input_is_named(self, stage, round_, name, command):
    context = self.context()
    with self.assertRaisesRegex(ValueError, f"{name} is not.*{command} first"):
      stage(context, round_)
    # A shard without a manifest is a stage that was killed.
    where = 1 if name == "policy" else round_
    records.write_shard(
      context.folder(where, name) / records.shard_name(0, 1), []
    )
    with self.assertRaisesRegex(ValueError, command):
      stage(context, round_)

  def test_nothing_solved(self):
    self.problems = tiny_run.write_problems(
      self.folder / "hard.jsonl", {"never": "99"}
    )
    context = self.context()
    stages.rollout(context, 1)
    stages.extract(context, 1)
    with self.assertRaisesRegex(ValueError, "^round 1 solved no problem.*$"):
      stages.train_policy(context, 1)
    finish(context, 1, "policy")
    with self.assertRaisesRegex(ValueError, "^round 1 made no preference.*$"):
      reward_models.train_ppm(context, 1)


class TrainingTest(StagesCase):
  @parameterized.parameters("base", "last", "named")
  def test_what_training_starts_from(self, start):
    base = tiny_run.make_base(self.folder / "base")
    other = str(self.folder / "other")
    spec = config_lib.RoundConfig(rollouts=3, candidates=4)
    context = self.context(
      rounds=(spec, spec),
      policy=config_lib.PolicyConfig(path=base),
      sft_from=other if start == "named" else start,
    )
    stages.rollout(context, 1)
    stages.extract(context, 1)
    context.load_policy = mock.Mock(side_effect=KeyboardInterrupt)
    # Of the second round; its solutions do not matter here.
    context.folder(2, "").mkdir()
    context.folder(1, "sft").rename(context.folder(2, "sft"))
    with self.assertRaises(KeyboardInterrupt):
      stages.train_policy(context, 2)
    expected = {"base": 0, "last": 1, "named": other}[start]
    self.assertEqual(context.load_policy.call_args.args, (expected,))

  def test_each_round_starts_from_the_base_model(self):
    base = tiny_run.make_base(self.folder / "base")
    spec = config_lib.RoundConfig(rollouts=3, candidates=4)
    context = self.context(
      rounds=(spec, spec), policy=config_lib.PolicyConfig(path=base)
    )
    loaded = []
    load = folders.load_policy

    def recorded(path, *args, **kwargs):
      loaded.append(path)
      return load(path, *args, **kwargs)

    with mock.patch.object(folders, "load_policy", recorded):
      for round_ in (1, 2):
        stages.rollout(context, round_)
        stages.extract(context, round_)
        stages.train_policy(context, round_)
      policy = context.workdir / "round_2" / "policy"
      self.assertEqual(loaded, [base, base])
      reward_models.train_ppm(context, 2)
      self.assertEqual(loaded[2:], [policy])
    self.assertEqual(
      [made[0] for made in self.device.made],
      [base, context.workdir / "round_1" / "policy"],
    )

    old = safetensors.load_file(f"{base}/model.safetensors")
    new = safetensors.load_file(policy / "model.safetensors")
    # Written in Llama's form, which has a bias more.
    self.assertContainsSubset(old.keys(), new.keys())
    for name in new.keys() - old.keys():
      self.assertEndsWith(name, ".o_proj.bias")
      self.assertFalse(new[name].any())
    moved = max(np.abs(old[name] - new[name]).max() for name in old)
    # AdamW's updates are of the size of the learning rate.
    self.assertBetween(moved, 1e-5, 1e-2)
    manifest = records.read_manifest(policy)
    self.assertEqual(
      manifest["solutions"],
      len(shards.read_rows(context.folder(2, "sft"))),
    )
    self.assertContainsSubset(
      ["config.json", "model.safetensors", "tokenizer.json"], manifest["files"]
    )
    self.assertTrue((policy / "checkpoints").exists())
    self.assertFalse(any("checkpoints" in each for each in manifest["files"]))
    ppm = records.read_manifest(context.folder(2, "ppm"))
    held_out = sum(
      ppm[name]["count"]
      for name in ("held_out_step", "held_out_final")
      if name in ppm
    )
    self.assertEqual(
      ppm["pairs"] + held_out,
      len(shards.read_rows(context.folder(2, "pairs"))),
    )

    with self.subTest("or from the policy before"):
      context.config.sft_from = "last"
      with mock.patch.object(folders, "load_policy", recorded):
        (context.folder(2, "policy") / "MANIFEST.json").rename(
          context.folder(2, "kept")
        )
        with mock.patch.object(stages.sft, "train_sft") as train:
          train.side_effect = InterruptedError
          with self.assertRaises(InterruptedError):
            stages.train_policy(context, 2)
      self.assertEqual(loaded[-1], context.workdir / "round_1" / "policy")
      context.folder(2, "kept").rename(
        context.folder(2, "policy") / "MANIFEST.json"
      )
      context.config.sft_from = "base"

    with self.subTest("remade from its checkpoint, to the byte"):
      for name, stage in (
        ("policy", stages.train_policy),
        ("ppm", reward_models.train_ppm),
      ):
        folder = context.folder(2, name)
        before = contents(folder)
        flip(folder / "model.safetensors")
        (folder / ".MANIFEST.json.0.tmp").write_text("left by a killed writer")
        stage(context, 2)
        (folder / ".MANIFEST.json.0.tmp").unlink()
        self.assertEqual(contents(folder), before)


if __name__ == "__main__":
  absltest.main()
