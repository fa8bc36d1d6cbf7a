"""What the policy is trained from, round by round."""

from unittest import mock

import numpy as np
from absl.testing import absltest, parameterized
from safetensors import numpy as safetensors

from rstar_jax.config import schema as config_lib
from rstar_jax.hf import folders
from rstar_jax.pipeline import extract, models, ppm, reading, rollout, sft
from rstar_jax.storage import layout, manifests
from rstar_jax.training import sft as training_sft
from tests import tiny_run
from tests.pipeline.cases import StagesCase, contents, flip


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
    rollout.rollout(context, 1)
    extract.extract(context, 1)
    load = self.enter_context(
      mock.patch.object(models, "load_policy", side_effect=KeyboardInterrupt)
    )
    # Of the second round; its solutions do not matter here.
    context.folder(2, "").mkdir()
    context.folder(1, "sft").rename(context.folder(2, "sft"))
    with self.assertRaises(KeyboardInterrupt):
      sft.train_policy(context, 2)
    expected = {"base": 0, "last": 1, "named": other}[start]
    self.assertEqual(load.call_args.args, (context, expected))

  def test_what_is_held_out_and_what_lora_trained(self):
    base = tiny_run.make_base(self.folder / "base")
    context = self.context(
      rounds=(config_lib.RoundConfig(rollouts=3, candidates=4),),
      policy=config_lib.PolicyConfig(path=base),
    )
    rollout.rollout(context, 1)
    extract.extract(context, 1)
    rows = reading.read_rows(context.folder(1, "sft"))
    trained, kept, saved = [], [], []

    def arrays(stored):
      return stored.take(np.arange(len(stored)))

    def train(model, packed, config, session, *, held_out):
      trained.append((packed.solutions, arrays(packed)))
      kept.append((held_out.solutions, held_out and arrays(held_out)))
      session.adapter("what was trained", "the model")
      return model

    self.enter_context(mock.patch.object(sft.sft, "train_packed", train))
    self.enter_context(
      mock.patch.object(
        models,
        "adapter_saver",
        lambda *of: lambda *args: saved.append(of + args),
      )
    )
    for one_in in (-1, 2):
      context.config.sft.held_out = one_in
      sft.train_policy(context, 1)
      manifest = context.folder(1, "policy") / layout.MANIFEST
      found = manifests.read(manifest.parent)["solutions"]
      self.assertEqual(found, trained[-1][0])
      self.assertEqual(kept[-1][0] > 0, one_in > 0)
      manifest.unlink()
      # What it read is gone, and was made again.
      self.assertFalse((manifest.parent / layout.ROWS).exists())
    self.assertEqual(trained[0][0], len(rows))
    self.assertEqual(trained[1][0] + kept[1][0], len(rows))
    # As all rows packed in memory.
    packed = training_sft.pack(
      [(row["question"], row["steps"]) for row in rows],
      context.tokenizer,
      context.config.sft.length,
    )
    for name, array in packed.arrays.items():
      np.testing.assert_array_equal(trained[0][1][name], array)
    weights = [each["weights"].sum() for each in (trained[1][1], kept[1][1])]
    self.assertEqual(sum(weights), packed.arrays["weights"].sum())
    self.assertEqual(
      saved[0],
      (
        *(context, context.folder(1, "policy"), 0, context.config.sft),
        *("what was trained", "the model"),
      ),
    )

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
        rollout.rollout(context, round_)
        extract.extract(context, round_)
        sft.train_policy(context, round_)
      policy = context.workdir / "round_2" / "policy"
      self.assertEqual(loaded, [base, base])
      ppm.train_ppm(context, 2)
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
    manifest = manifests.read(policy)
    self.assertEqual(
      manifest["solutions"],
      len(reading.read_rows(context.folder(2, "sft"))),
    )
    self.assertContainsSubset(
      ["config.json", "model.safetensors", "tokenizer.json"], manifest["files"]
    )
    self.assertTrue((policy / "checkpoints").exists())
    self.assertFalse(any("checkpoints" in each for each in manifest["files"]))
    made = manifests.read(context.folder(2, "ppm"))
    held_out = sum(
      made[name]["count"]
      for name in ("held_out_step", "held_out_final")
      if name in made
    )
    self.assertEqual(
      made["pairs"] + held_out,
      len(reading.read_rows(context.folder(2, "pairs"))),
    )

    with self.subTest("or from the policy before"):
      context.config.sft_from = "last"
      with mock.patch.object(folders, "load_policy", recorded):
        (context.folder(2, "policy") / "MANIFEST.json").rename(
          context.folder(2, "kept")
        )
        with mock.patch.object(sft.sft, "train_packed") as train:
          train.side_effect = InterruptedError
          with self.assertRaises(InterruptedError):
            sft.train_policy(context, 2)
      self.assertEqual(loaded[-1], context.workdir / "round_1" / "policy")
      # What was packed stays for the next start, which there is none of.
      manifests.remove(context.folder(2, "policy") / layout.ROWS)
      context.folder(2, "kept").rename(
        context.folder(2, "policy") / "MANIFEST.json"
      )
      context.config.sft_from = "base"

    with self.subTest("remade from its checkpoint, to the byte"):
      for name, stage in (
        ("policy", sft.train_policy),
        ("ppm", ppm.train_ppm),
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
