"""Tests of what is written as Hugging Face folders."""

import dataclasses
import json

import numpy as np
import safetensors.numpy
from absl.testing import absltest, parameterized
from flax import nnx

from rstar_jax.hf import folders, saving
from rstar_jax.models.transformer import ppm_from_policy
from rstar_jax.steps import prompts
from rstar_jax.steps.tokenizer import HfTokenizer, encode_solution
from tests.hf.folders_test import BASE_MODEL, GOLDEN, FolderCase, make
from tests.parity import cases
from tests.steps import alike


class SavingTest(FolderCase):
  def test_qwen2_is_written_as_llama_beside_a_tokenizer_of_others(self):
    tokenizer = HfTokenizer(BASE_MODEL)
    model = make(vocab_size=tokenizer.vocab_size)
    saving.save_policy(model, self.folder, tokenizer=tokenizer)
    self.assertEqual(folders.read_config(self.folder)[0].family, "llama")
    loaded = folders.load_policy(self.folder)
    self.assert_same(model, loaded)
    self.assertEqual(loaded.config, model.config)
    self.assertEqual(loaded.config.family, "qwen2")

  @parameterized.parameters(("qwen2", "qwen2"), ("r1", "llama"))
  def test_servers_read_composed_characters_alike(self, name, family):
    """By AutoTokenizer, which composes them in a folder of "qwen2"."""
    import transformers

    source = self.create_tempdir().full_path
    alike.write(name, source)
    tokenizer = HfTokenizer(source)
    model = make(vocab_size=tokenizer.vocab_size)
    saving.save_policy(model, self.folder, tokenizer=tokenizer)
    self.assertEqual(folders.read_config(self.folder)[0].family, family)
    read = transformers.AutoTokenizer.from_pretrained(self.folder)
    for text in ("caf\u00e9", "cafe\u0301"):
      ids = read.encode(text, add_special_tokens=False)
      self.assertEqual(ids, tokenizer.encode(text))

  @parameterized.parameters("Is it {{ 3 }}?", "<code>x</code>\n\n  y \u00e9")
  def test_a_chat_of_others_is_the_prompt_of_training(self, question):
    import transformers

    tokenizer = HfTokenizer(BASE_MODEL)
    model = make(vocab_size=tokenizer.vocab_size)
    saving.save_policy(model, self.folder, tokenizer=tokenizer)
    read = transformers.AutoTokenizer.from_pretrained(self.folder)
    ids = read.apply_chat_template(
      [{"role": "user", "content": question}],
      add_generation_prompt=True,
      return_dict=False,
    )
    asked = prompts.prompt(question)
    self.assertEqual(ids, encode_solution(tokenizer, asked, ()))
    self.assertEqual(read.decode(ids), asked)

  def test_what_cannot_be_written_is_told_before_it_is_trained(self):
    """Llama has no heads whose number does not divide the width."""
    odd = make(num_heads=5, num_kv_heads=5, head_dim=4).config
    own = self.create_tempdir().full_path
    alike.write("qwen2", own)
    saving.check(odd, HfTokenizer(own), "org/odd")
    other = HfTokenizer(BASE_MODEL)
    saving.check(make().config, other, "org/even")
    saving.check(dataclasses.replace(odd, sliding_window=7), other, "org/odd")
    with self.assertRaisesRegex(
      ValueError,
      "^org/odd loads, but .*hidden_size=24 .* num_attention_heads=5",
    ):
      saving.check(odd, other, "org/odd")

  def test_qwen2_with_a_window_stays_one(self):
    tokenizer = HfTokenizer(BASE_MODEL)
    model = make(vocab_size=tokenizer.vocab_size, sliding_window=7)
    saving.save_policy(model, self.folder, tokenizer=tokenizer)
    self.assertEqual(folders.read_config(self.folder)[0].family, "qwen2")
    self.assert_same(model, folders.load_policy(self.folder))

  def test_layout_on_disk(self):
    model = make()
    saving.save_policy(model, self.folder)
    tensors = self.tensors()
    prefix = "model.layers.1.self_attn."
    q = np.asarray(model.layers[1].attention.q.get_value())
    # Output row n * H + h of the file is head n, dimension h.
    self.assertEqual(tensors[prefix + "q_proj.weight"].shape, (24, 24))
    self.assertEqual(
      tensors[prefix + "q_proj.weight"][5 * 4 + 3, 7], q[5, 3, 7]
    )
    o = np.asarray(model.layers[1].attention.o.get_value())
    self.assertEqual(
      tensors[prefix + "o_proj.weight"][7, 5 * 4 + 3], o[7, 5, 3]
    )
    k = np.asarray(model.layers[1].attention.k_bias.get_value())
    self.assertEqual(tensors[prefix + "k_proj.bias"][1 * 4 + 2], k[1, 2])
    # 12 tensors a layer, embedding and norm: what Qwen2ForCausalLM has.
    self.assertLen(tensors, 2 * 12 + 2)

  def test_same_model_same_bytes(self):
    saving.save_policy(make(), self.folder)
    other = self.folder.parent / "other"
    saving.save_policy(folders.load_policy(self.folder), other)
    names = sorted(file.name for file in self.folder.iterdir())
    self.assertEqual(names, ["README.md", "config.json", "model.safetensors"])
    for name in names:
      self.assertEqual(
        (self.folder / name).read_bytes(), (other / name).read_bytes()
      )

  def test_shards_are_written_and_read(self):
    model = make(tied_embeddings=False)
    saving.save_policy(model, self.folder, shard_bytes=20_000)
    names = sorted(file.name for file in self.folder.glob("*.safetensors"))
    self.assertGreater(len(names), 2)
    self.assert_same(model, folders.load_policy(self.folder))

  @parameterized.named_parameters(*zip(cases.CASES, cases.CASES, strict=True))
  def test_exported(self, name):
    """What is written of a model that was read is the same file."""
    source = GOLDEN / name
    saving.save_policy(folders.load_policy(source, None), self.folder)
    want = safetensors.numpy.load_file(source / "model.safetensors")
    got = self.tensors()
    self.assertEqual(want.keys(), got.keys())
    for key in want:
      np.testing.assert_array_equal(want[key], got[key])
    self.assertEqual(
      folders.read_config(source)[0], folders.read_config(self.folder)[0]
    )

  def test_wrong_heads_raise(self):
    policy = make()
    with self.assertRaisesRegex(ValueError, "not a PPM"):
      saving.save_ppm(policy, self.folder)
    with self.assertRaisesRegex(ValueError, "not a policy"):
      saving.save_policy(ppm_from_policy(policy, rngs=nnx.Rngs(0)), self.folder)
    with self.assertRaisesRegex(ValueError, "Qwen2 model has qkv_bias=True"):
      saving.save_policy(make(qkv_bias=False), self.folder)
    saving.save_policy(policy, self.folder)
    with self.assertRaisesRegex(ValueError, "rstar_head"):
      folders.load_ppm(self.folder)
    saving.save_ppm(ppm_from_policy(policy, rngs=nnx.Rngs(0)), self.folder)
    for load in (folders.load_policy, folders.check_policy):
      with self.assertRaisesRegex(ValueError, "is of a PPM, and a policy is"):
        load(self.folder)
    file = self.folder / "config.json"
    for head in ("lm", ["x"], 1):
      file.write_text(
        json.dumps(json.loads(file.read_text()) | {"rstar_head": head})
      )
      for load in (folders.load_ppm, folders.check_ppm):
        with self.assertRaisesRegex(ValueError, "rstar_head=.* must be 'tanh'"):
          load(self.folder)

  def test_transformers_reads_the_config(self):
    import transformers

    saving.save_policy(make(rope_theta=1e6), self.folder)
    config = transformers.AutoConfig.from_pretrained(self.folder)
    self.assertIsInstance(config, transformers.Qwen2Config)
    self.assertEqual(config.num_key_value_heads, 2)
    self.assertEqual(config.rope_parameters["rope_theta"], 1e6)
    self.assertEqual(str(config.dtype), "float32")


if __name__ == "__main__":
  absltest.main()
