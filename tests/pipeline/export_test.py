"""Data and models for others: files, cards, and a Hub on this machine."""

import dataclasses
import json
from unittest import mock

import datasets
from absl.testing import absltest
from flax import nnx

from rstar_jax import testing
from rstar_jax.config import identity
from rstar_jax.config import schema as config_lib
from rstar_jax.evaluation import accuracy
from rstar_jax.hf import adapters, generation, saving
from rstar_jax.models.transformer import Transformer, ppm_from_policy
from rstar_jax.pipeline import export, extract, reading, results, rollout
from rstar_jax.storage import manifests
from tests.evaluation.accuracy_test import two_problems
from tests.hf import fake_hub
from tests.pipeline.cases import StagesCase

MEASURED = {
  "round": 1,
  "kind": "ppm",
  "held_out_step": {"accuracy": 0.75, "margin": 0.1, "pairs": 8},
}


class ExportCase(StagesCase):
  def run_of(self, **overrides):
    """Returns a run's context, with its config in its folder."""
    context = self.context()
    for name, value in overrides.items():
      setattr(context.config, name, value)
    context.workdir.mkdir()
    text = json.dumps(identity.to_json(context.config))
    (context.workdir / "config.json").write_text(text)
    return context

  def finish_models(self, context):
    """Writes a policy with an adapter, and a PPM, as their stages do."""
    model = Transformer(
      testing.tiny_model(vocab_size=768, num_layers=1), rngs=nnx.Rngs(3)
    )
    folder = context.folder(1, "policy")
    saving.save_policy(model, folder, tokenizer=context.tokenizer)
    (folder / "checkpoints").mkdir()
    (folder / "checkpoints" / "0").write_text("large")
    top = [each.name for each in folder.iterdir() if each.is_file()]
    manifests.write(folder, {"solutions": 7}, top)
    ppm = ppm_from_policy(model, rngs=nnx.Rngs(0))
    folder = context.folder(1, "ppm")
    saving.save_ppm(ppm, folder, tokenizer=context.tokenizer)
    manifests.write(folder, {"pairs": 9})

  def write_adapter(self, context, base):
    folder = context.folder(1, "policy") / "adapter"
    folder.mkdir()
    fields = adapters._fields({"a.q_proj": 2}, 2, 4, "lm", base)
    (folder / adapters.CONFIG).write_text(json.dumps(fields))
    (folder / adapters.WEIGHTS).write_bytes(b"weights")

  def measure(self, context, **overrides):
    """Makes the run have measured what a test computes by hand."""
    found = {
      "config": dataclasses.asdict(context.config),
      "rows": accuracy.table(two_problems(), round_=1),
      "solved": [{"round": 1, "share": 0.5}],
      "ppm": [MEASURED],
    } | overrides
    self.enter_context(mock.patch.object(results, "collect", lambda _: found))


class ExportTest(ExportCase):
  def test_data(self):
    context = self.run_of()
    rollout.rollout(context, 1)
    with self.assertRaisesRegex(ValueError, "rstar_jax extract --round=1"):
      export.export(context, 1)
    extract.extract(context, 1)
    hub = fake_hub.started(self)
    said = export.export(context, 1, push_to="me/data", endpoint=hub.url)
    folder = context.folder(1, "export") / "data"
    for name, what in (("sft", "solutions"), ("pairs", "pairs")):
      rows = len(reading.read_rows(context.folder(1, name)))
      file = folder / name / "train.jsonl"
      self.assertLen(file.read_text().splitlines(), rows)
      self.assertIn(f"{rows} {what}", said)
      self.assertRegex(
        said, rf"\| {name}/train.jsonl +\| {file.stat().st_size:,} "
      )
    self.assertIn(f"pushed to {hub.url}/datasets/me/data (private)", said)
    pushed = hub.repos["datasets/me/data"]["files"]
    self.assertEqual(
      sorted(pushed), ["README.md", "pairs/train.jsonl", "sft/train.jsonl"]
    )
    card = (folder / "README.md").read_text()
    self.assertEqual(pushed["README.md"].decode(), card)
    self.assertIn("| seed ", card)
    # The head that names the files is as before.
    cache = self.create_tempdir().full_path
    read = datasets.load_dataset(
      str(folder), "sft", split="train", cache_dir=cache
    )
    self.assertLen(read, len(reading.read_rows(context.folder(1, "sft"))))

  def test_a_policy(self):
    context = self.run_of(
      train=config_lib.DataConfig(source="hf:openai/gsm8k/main/train"),
      policy=config_lib.PolicyConfig(path="Qwen/Qwen2.5-Math-1.5B"),
      seed=7,
    )
    self.finish_models(context)
    self.measure(context)
    hub = fake_hub.started(self)
    hub.add("datasets/openai/gsm8k", license="mit")
    hub.add("models/Qwen/Qwen2.5-Math-1.5B", license="apache-2.0")
    before = (context.folder(1, "policy") / "README.md").read_text()
    options = {"what": "policy", "endpoint": hub.url}
    listed = export.export(context, 1, **options)
    self.assertIn("--push_to=USER/NAME pushes them to the Hub", listed)
    self.assertLen(hub.repos, 2)
    export.export(context, 1, **options, push_to="me/policy")
    pushed = hub.repos["models/me/policy"]["files"]
    folder = context.folder(1, "policy")
    names = {each.name for each in folder.iterdir() if each.is_file()}
    stops = "generation_config.json"
    self.assertNotIn(stops, names)
    self.assertEqual(pushed.keys(), names - {"MANIFEST.json"} | {stops})
    text = generation.render(context.tokenizer)
    self.assertEqual(pushed[stops].decode(), text)
    for name in pushed.keys() - {"README.md", stops}:
      self.assertEqual(pushed[name], (folder / name).read_bytes())
    # In the run nothing has changed.
    self.assertEqual((folder / "README.md").read_text(), before)
    self.assertIsNotNone(manifests.read(folder))
    card = pushed["README.md"].decode()
    head = card.split("---\n")[1]
    self.assertIn('base_model: ["Qwen/Qwen2.5-Math-1.5B"]\n', head)
    self.assertIn('datasets: ["openai/gsm8k"]\n', head)
    self.assertNotIn("license", head)
    for text in (
      "AutoModelForCausalLM",
      "Qwen/Qwen2.5-Math-1.5B (licence: apache-2.0)",
      "hf:openai/gsm8k/main/train (licence: mit)",
      "| 1 of 2 ",
      "The seed of all of it is 7",
      # Of two problems, by hand: see accuracy_test.
      "Right answers in % of 2 problems, with 95% bootstrap intervals",
      "| 1     | 50.0 [",
      "train.jsonl",
    ):
      self.assertIn(text, card)
    # Of this machine only the last part of a path is told.
    self.assertNotIn(str(self.folder), card)
    self.assertNotIn("held-out", card)

  def test_a_ppm(self):
    context = self.run_of()
    self.finish_models(context)
    self.measure(context, rows=[])
    export.export(context, 1, "ppm")
    folder = context.folder(1, "export") / "ppm"
    self.assertEqual([each.name for each in folder.iterdir()], ["README.md"])
    card = (folder / "README.md").read_text()
    self.assertIn("AutoModelForSequenceClassification", card)
    self.assertRegex(card, r"\| step +\| 75.0 +\| 8 +\|")
    self.assertNotIn("Right answers", card)
    self.assertNotIn("base_model", card)
    self.assertIn("that rstar_jax ships (Apache-2.0)", card)

  def test_a_ppm_that_a_round_does_not_have(self):
    context = self.run_of()
    self.finish_models(context)
    manifests.write(context.folder(2, "ppm"), {"pairs": 0}, [])
    for what in ("ppm", "ppm/adapter"):
      with self.assertRaisesRegex(
        ValueError, "^round 2 made no pairs and has no PPM; that of round 1 is"
      ):
        export.export(context, 2, what)
    manifests.write(context.folder(1, "ppm"), {"pairs": 0}, [])
    with self.assertRaisesRegex(ValueError, "^round 1 .* has no PPM$"):
      export.export(context, 1, "ppm")

  def test_what_was_not_measured_is_not_said(self):
    context = self.run_of()
    self.finish_models(context)
    for what in ("policy", "ppm"):
      export.export(context, 1, what)
      file = context.folder(1, "export") / what / "README.md"
      card = file.read_text()
      said = card.partition("## What was measured")[2]
      self.assertEqual(said.strip(), "Nothing: this run was not evaluated.")

  def test_an_adapter(self):
    context = self.run_of()
    self.finish_models(context)
    with self.assertRaisesRegex(ValueError, "no adapter: .*config.sft.lora_ra"):
      export.export(context, 1, "policy/adapter")
    with self.assertRaisesRegex(ValueError, "no adapter: .*config.ppm.lora_ra"):
      export.export(context, 1, "ppm/adapter")
    self.write_adapter(context, "org/base")
    hub = fake_hub.started(self)
    export.export(context, 1, "policy/adapter", "me/lora", hub.url)
    pushed = hub.repos["models/me/lora"]["files"]
    self.assertEqual(
      sorted(pushed), ["README.md", adapters.CONFIG, adapters.WEIGHTS]
    )
    card = pushed["README.md"].decode()
    self.assertIn("peft.AutoPeftModelForCausalLM", card)
    self.assertNotIn("What was measured", card)

  def test_an_update_of_what_others_lack_is_not_pushed(self):
    context = self.run_of()
    self.finish_models(context)
    self.write_adapter(context, str(self.folder))
    hub = fake_hub.started(self)
    with self.assertRaisesRegex(ValueError, "others do not have: push policy"):
      export.export(context, 1, "policy/adapter", "me/lora", hub.url)
    self.assertEmpty(hub.repos)
    said = export.export(context, 1, "policy/adapter")
    self.assertIn(adapters.WEIGHTS, said)

  def test_a_refusal_comes_before_the_work(self):
    context = self.run_of()
    self.finish_models(context)
    hub = fake_hub.started(self, token="hf_of_nobody")
    with self.assertRaisesRegex(
      ValueError, "me/a cannot be pushed to .*auth lo"
    ):
      export.export(context, 1, "policy", "me/a", hub.url)
    self.assertFalse(context.folder(1, "export").exists())


if __name__ == "__main__":
  absltest.main()
