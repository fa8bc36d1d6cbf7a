"""Adapters against what PEFT computed with them, and what is refused.

`python -m tests.parity.adapters` made the golden ones, with PEFT.
"""

import json
import pathlib
import shutil
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import safetensors.numpy
from absl.testing import absltest, parameterized
from flax import nnx
from tokenizers import normalizers

from rstar_jax.config.schema import TrainConfig
from rstar_jax.hf import adapters, folders
from rstar_jax.hf.fields import Fields
from rstar_jax.hf.tokenizers import load_tokenizer
from rstar_jax.models import vocabulary
from rstar_jax.models.transformer import (
  arrays_in,
  arrays_of,
  ppm_from_policy,
)
from rstar_jax.training import lora
from tests.models import jitted
from tests.steps import alike

GOLDEN = pathlib.Path(__file__).parents[1] / "golden"


class AdapterCase(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.folder = pathlib.Path(self.create_tempdir().full_path)

  def copied(self, name: str, **fields: Any) -> pathlib.Path:
    """Returns a copy of a golden adapter, with the place of its base."""
    folder = self.folder / name
    shutil.copytree(GOLDEN / name / "adapter", folder)
    self.say(folder, base_model_name_or_path=str(GOLDEN / name), **fields)
    return folder

  def say(self, folder: pathlib.Path, **fields) -> None:
    file = folder / adapters.CONFIG
    said = json.loads(file.read_text()) | fields
    file.write_text(json.dumps(said))

  def change(self, folder: pathlib.Path, function) -> None:
    """Writes the tensors of an adapter anew, as a function of {name: array}."""
    file = folder / adapters.WEIGHTS
    found = safetensors.numpy.load_file(file)
    safetensors.numpy.save_file(function(found), file)


class GoldenTest(AdapterCase):
  @parameterized.parameters("qwen2", "phi3", "llama3_tied")
  def test_logits_are_those_of_peft(self, name):
    expected = np.load(GOLDEN / name / "adapter" / "expected.npz")
    model = folders.load_policy(self.copied(name))
    out = jitted.call(model, expected["ids"])
    np.testing.assert_allclose(out, expected["expected"], rtol=0, atol=1e-4)
    base = folders.load_policy(GOLDEN / name)
    plain = jitted.call(base, expected["ids"] % 97)
    difference = np.asarray(plain) - expected["expected"][..., :97]
    self.assertGreater(np.abs(difference).max(), 0.1)

  def test_values_are_those_of_peft(self):
    expected = np.load(GOLDEN / "llama_bias" / "adapter" / "expected.npz")
    model = folders.load_reward_model(self.copied("llama_bias"))
    values = np.asarray(jitted.call(model, expected["ids"]))[:, -1]
    raw = expected["expected"][:, 0]
    np.testing.assert_allclose(values, np.tanh(raw / 5), rtol=0, atol=1e-5)

  def test_an_adapter_changes_what_is_scaled(self):
    """Each field that scales: another value is seen in the logits."""
    expected = np.load(GOLDEN / "phi3" / "adapter" / "expected.npz")
    folder = self.copied("phi3", use_rslora=False, lora_alpha=6)
    # 6 / 4 is 3 / sqrt(4).
    out = jitted.call(folders.load_policy(folder), expected["ids"])
    np.testing.assert_allclose(out, expected["expected"], rtol=0, atol=1e-4)
    self.say(folder, lora_alpha=3)
    out = jitted.call(folders.load_policy(folder), expected["ids"])
    self.assertGreater(np.abs(out - expected["expected"]).max(), 0.1)


class RefusedTest(AdapterCase):
  def refused(self, folder: pathlib.Path, message: str) -> None:
    with self.assertRaisesRegex(ValueError, message) as caught:
      folders.load_policy(folder)
    self.assertNotIn("\n", str(caught.exception))

  @parameterized.parameters(
    (dict(use_dora=True), "use_dora=True must be left out or off"),
    (dict(bias="all"), "bias='all' must be 'none'"),
    (dict(peft_type="LOHA"), "peft_type='LOHA' must be 'LORA'"),
    (dict(trainable_token_indices=[3]), "trainable_token_indices=.3. must be"),
    (dict(layer_replication=[[0, 1]]), "layer_replication=.* must be"),
    (dict(fan_in_fan_out=True), "fan_in_fan_out=True must be"),
    (dict(of_a_later_version={"x": 1}), "of_a_later_version=.* must be"),
    (dict(init_lora_weights="pissa"), "init_lora_weights='pissa' must be one"),
    (dict(revision="v2"), "revision='v2' must be 'main'"),
    (dict(r=0), "r=0 must be a whole number"),
    (dict(lora_alpha=None), "lora_alpha=None must be"),
    (dict(alpha_pattern={"(": 3}), "must be by a regular expression"),
    (dict(rank_pattern={"x([a-z_0-9.]+)+x": 8}), "name the modules one by one"),
    (dict(rank_pattern={"": 8}), "name the modules one by one"),
    (dict(base_model_name_or_path=None), "base_model_name_or_path=None must"),
    (dict(r=5), r"q_proj.lora_A.weight has the shape \(3, 24\), and \(5, 24\)"),
  )
  def test_a_field(self, fields, message):
    folder = self.copied("qwen2")
    self.say(folder, **fields)
    self.refused(folder, message)

  def test_an_lm_head_of_its_own_where_it_is_the_embedding(self):
    folder = self.copied("llama3_tied", modules_to_save=["embed_tokens"])
    self.refused(folder, "would part the embedding and the LM head")
    self.say(folder, modules_to_save=None)
    name = "base_model.model.lm_head.weight"
    self.change(folder, lambda x: x | {name: x[name] + 1})
    self.refused(folder, "tie_word_embeddings, but lm_head.weight is not")

  @parameterized.parameters(
    ("model.layers.1.mlp.router.lora_A.weight", "is for model.* lacks"),
    ("model.layers.7.mlp.up_proj.lora_A.weight", "is for model.* lacks"),
    ("model.layers.0.mlp.experts.weight", "replaces what the base .* not have"),
    ("model.embed_tokens.lora_embedding_A", "is no tensor of LoRA"),
    ("model.layers.0.mlp.up_proj.lora_A.weight", "up_proj.lora_B.* is missing"),
    (
      "model.layers.1.mlp.down_proj.lora_magnitude_vector",
      "is no tensor of LoRA",
    ),
  )
  def test_a_tensor(self, name, message):
    folder = self.copied("qwen2")
    name = f"base_model.model.{name}"
    self.change(folder, lambda x: x | {name: np.zeros((3, 24), np.float32)})
    self.refused(folder, message)

  def test_an_adapter_of_a_larger_model(self):
    folder = self.copied("qwen2")
    self.change(
      folder,
      lambda x: {name: np.concatenate([v, v], -1) for name, v in x.items()},
    )
    self.refused(
      folder, r"lora_A.weight has the shape \(2, 74\), and \(2, 37\)"
    )

  def test_nothing_is_passed_over(self):
    folder = self.copied("qwen2")
    whole = folder / "model.safetensors"
    shutil.copy(GOLDEN / "qwen2" / "model.safetensors", whole)
    self.refused(folder, "adapter_config.json and the weights of a model")
    whole.rename(folder / "x.gguf")
    self.refused(folder, "adapter_config.json and the weights of a model")
    (folder / "x.gguf").unlink()
    self.change(folder, lambda x: {})
    self.refused(folder, "has no tensor of LoRA")
    (folder / adapters.WEIGHTS).unlink()
    self.refused(folder, "no adapter_model.safetensors: save the adapter as")

  def test_an_adapter_on_an_adapter(self):
    first, second = self.copied("qwen2"), self.folder / "second"
    shutil.copytree(first, second)
    self.say(second, base_model_name_or_path=str(first))
    self.refused(second, "an adapter itself: save it merged")
    # One may name itself.
    self.say(first, base_model_name_or_path=str(first))
    for folder in (first, second):
      self.refused(folder, "an adapter itself: save it merged")
      for read in (folders.read_config, load_tokenizer):
        with self.assertRaisesRegex(ValueError, "an adapter itself: save it"):
          read(folder)


class PatternTest(parameterized.TestCase):
  @parameterized.parameters(
    ("q_proj", True),
    ("v_proj|q_proj", True),
    ("self_attn.q_proj", True),
    (r"layers\.0\.self_attn\.q_proj", True),
    ("^model.layers.0.self_attn.q_proj", True),
    ("^layers.0.self_attn.q_proj", False),
    ("layers.1.self_attn.q_proj", False),
    ("proj", False),
    ("q_pro", False),
  )
  def test_names_of_modules(self, pattern, matches):
    """As `peft.utils.get_pattern_key` matches them: at the end of a name."""
    found = adapters._match(
      Fields({"o_proj": 1, pattern: 2}, "file"),
      "model.layers.0.self_attn.q_proj",
    )
    self.assertEqual(found, pattern if matches else None)


class SaveTest(AdapterCase):
  def trained(self, model, **changes):
    """Returns random updates of a model, and merges them into it."""
    config = TrainConfig(lora_rank=2, lora_alpha=3.0, **changes)
    params, frozen = lora.begin(nnx.split(model)[1], config, 7)
    random = np.random.default_rng(3)
    params = jax.tree.map(
      lambda x: jnp.asarray(0.2 * random.normal(size=x.shape), "float32"),
      params,
    )
    nnx.update(model, lora.merge(params, frozen, config))
    return arrays_in(params)

  def assert_same(self, found, model):
    wanted = arrays_of(model)
    for path, array in arrays_of(found).items():
      np.testing.assert_allclose(array, wanted[path], atol=1e-6, err_msg=path)

  @parameterized.parameters(
    ("qwen2", {}),
    ("llama3_tied", {}),
    # One matrix on disk of three, of which one is left alone.
    ("phi3", {"lora_matrices": ("q", "v", "up", "o")}),
    ("phi3", {"lora_matrices": ("k",)}),
  )
  def test_what_is_written_is_read(self, name, changes):
    model = folders.load_policy(GOLDEN / name)
    added = self.trained(model, **changes)
    adapters.save(self.folder, added, model, base=str(GOLDEN / name), alpha=3.0)
    self.assert_same(folders.load_policy(self.folder), model)
    said = json.loads((self.folder / adapters.CONFIG).read_text())
    self.assertEqual((said["r"], said["lora_alpha"]), (2, 3))
    # All that is there is of the matrices.
    names = safetensors.numpy.load_file(self.folder / adapters.WEIGHTS)
    self.assertTrue(all(".lora_" in each for each in names))

  def test_new_rows_are_in_it(self):
    model = folders.load_policy(GOLDEN / "llama3_tied")
    model = vocabulary.resize(model, known=97, used=101)
    added = self.trained(model)
    adapters.save(
      self.folder,
      added,
      model,
      base=str(GOLDEN / "llama3_tied"),
      alpha=3.0,
      new_rows=True,
    )
    found = folders.load_policy(self.folder)
    self.assertEqual(found.config.vocab_size, 101)
    self.assert_same(found, model)

  @parameterized.parameters("tanh", "logit")
  def test_a_reward_model(self, head):
    policy = folders.load_policy(GOLDEN / "qwen2")
    model = ppm_from_policy(policy, head, rngs=nnx.Rngs(0))
    added = self.trained(model)
    adapters.save(
      self.folder, added, model, base=str(GOLDEN / "qwen2"), alpha=3.0
    )
    self.assert_same(folders.load_reward_model(self.folder), model)
    with self.assertRaisesRegex(ValueError, "is of a PPM"):
      folders.load_policy(self.folder)
    found = folders.load_ppm(self.folder)
    self.assert_same(found, model)
    self.assertEqual(found.head, head)

  def test_a_reward_model_of_others_is_no_ppm(self):
    folder = self.copied("llama_bias")
    with self.assertRaisesRegex(ValueError, "lacks rstar_head: it is not a"):
      folders.load_ppm(folder)


class TokenizerTest(AdapterCase):
  def test_of_the_adapter_or_else_of_the_base(self):
    folder = self.copied("qwen2")
    self.say(folder, base_model_name_or_path=str(folders.BASE_MODEL))
    base = load_tokenizer(folders.BASE_MODEL)
    self.assertTrue(load_tokenizer(folder).has_ids_of(base))
    self.assertEqual(folders.base_of_adapter(folder), str(folders.BASE_MODEL))
    self.assertIsNone(folders.base_of_adapter(GOLDEN / "qwen2"))
    config, _ = folders.read_config(folder)
    self.assertEqual(config, folders.read_config(folders.BASE_MODEL)[0])
    base._tokenizer.add_tokens(["<mine>"])
    base.save(folder)
    self.assertFalse(
      load_tokenizer(folder).has_ids_of(load_tokenizer(folders.BASE_MODEL))
    )

  @parameterized.parameters("tokenizer.json", "tokenizer.model", "vocab.json")
  def test_one_that_is_damaged(self, name):
    folder = self.copied("qwen2")
    self.say(folder, base_model_name_or_path=str(folders.BASE_MODEL))
    (folder / name).write_text('{"version": "1.0", "model": {"type": "B')
    with self.assertRaisesRegex(ValueError, f"^{folder}"):
      load_tokenizer(folder)

  def test_one_that_changes_texts(self):
    folder = self.copied("qwen2")
    self.say(folder, base_model_name_or_path=str(folders.BASE_MODEL))
    model = alike.qwen2()
    model.normalizer = normalizers.Lowercase()
    model.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(
      '{"eos_token": "<|endoftext|>"}'
    )
    with self.assertRaisesRegex(ValueError, "the tokenizer changes texts"):
      load_tokenizer(folder)


if __name__ == "__main__":
  absltest.main()
