"""Which policy a round loads, and with which tokens."""

import dataclasses
import json
from unittest import mock

import jax
import numpy as np
import tokenizers
from absl.testing import absltest
from flax import nnx
from tokenizers import pre_tokenizers

from rstar_jax import testing
from rstar_jax.hf import adapters, folders, saving
from rstar_jax.hf.tokenizers import load_tokenizer
from rstar_jax.models.transformer import Transformer, arrays_in, arrays_of
from rstar_jax.pipeline import context as session
from rstar_jax.pipeline import models
from rstar_jax.steps import grammar
from rstar_jax.steps.tokenizer import HfTokenizer
from rstar_jax.storage import manifests
from rstar_jax.tools import train_tokenizer
from rstar_jax.training import lora
from tests import tiny_gguf
from tests.models.jitted import call
from tests.pipeline.context_test import ContextCase


class OtherModelCase(ContextCase):
  """A model that is not ours, with a tokenizer without markers."""

  def setUp(self):
    super().setUp()
    self.base = self.folder / "other"
    config = testing.tiny_model(vocab_size=300, num_layers=1)
    model = Transformer(config, rngs=nnx.Rngs(3))
    saving.save_policy(model, self.base)
    with mock.patch.object(grammar, "MARKERS", ()):
      train_tokenizer.train(["a text", "of words"], 300, self.base)
    self.config.policy.path = str(self.base)
    self.config.policy.vocab_multiple = 32
    self.config.engine.max_step_tokens = 3
    self.config.engine.max_prefix_tokens = 4096
    self.plain = HfTokenizer(self.base, add_markers=False)

  def other(self) -> session.Context:
    context = self.context()
    context.tokenizer = load_tokenizer(self.base)
    context.sandbox = context.grader = mock.Mock()
    return context


class OtherModelTest(OtherModelCase):
  def test_the_base_model(self):
    context = self.context()
    self.config.policy.path = ""
    self.assertEqual(models.policy_of(context, 0), folders.BASE_MODEL)
    self.config.policy.path = "some/where"
    self.assertEqual(models.policy_of(context, 0), "some/where")
    self.assertEqual(models.base(context.config), "some/where")

  def test_markers_get_rows(self):
    context = self.other()
    tokenizer = context.tokenizer
    self.assertEqual(tokenizer.vocab_size, tokenizer.known + 9)
    model = models.load_policy(context, 0, train=self.config.sft)
    # 300 rows hold the markers too, where the tokenizer has learnt few merges.
    self.assertGreaterEqual(model.config.vocab_size, tokenizer.vocab_size)
    self.assertEqual(tokenizer.id_of(grammar.CODE), tokenizer.known)
    ids = tokenizer.encode(f"a{grammar.CODE}b")
    self.assertTrue(np.isfinite(call(model, np.array([ids]))).all())

  def test_a_special_token_without_a_row(self):
    # As Gemma 3's text models have it: the token of images is beyond the rows.
    file = self.base / "tokenizer.json"
    backend = tokenizers.Tokenizer.from_file(str(file))
    rows = backend.get_vocab_size()
    config = testing.tiny_model(vocab_size=rows, num_layers=1)
    base = Transformer(config, rngs=nnx.Rngs(3))
    saving.save_policy(base, self.base)
    backend.add_special_tokens(["<image>"])
    backend.save(str(file))
    context = self.other()
    models.check_rows(context.tokenizer, self.base)
    found = models.load_policy(context, 0).embedding.get_value()
    self.assertLen(found, 32 * -(-(rows + 10) // 32))
    old = base.embedding.get_value()
    np.testing.assert_array_equal(found[:rows], old)
    # Its row is new, as the markers' are: near the mean, and one of its own.
    away = np.linalg.norm(found[rows : rows + 10] - old.mean(0), axis=-1)
    self.assertTrue(np.all(away > 0))
    self.assertLess(
      away.max(), np.linalg.norm(old - old.mean(0), axis=-1).min()
    )
    backend.add_tokens(["a plain one"])
    backend.save(str(file))
    tokenizer = load_tokenizer(self.base)
    with self.assertRaisesRegex(ValueError, f"{rows + 2} tokens and the model"):
      models.check_rows(tokenizer, self.base)

  def test_a_round_keeps_the_ids(self):
    context = self.other()
    folder = context.folder(1, "policy")
    model = models.load_policy(context, 0)
    saving.save_policy(model, folder, tokenizer=context.tokenizer)
    manifests.write(folder, {}, [])
    again = HfTokenizer(folder)
    text = f"{grammar.USER}a text{grammar.END_OF_STEP}"
    self.assertEqual(again.known, again.vocab_size)
    self.assertEqual(again.encode(text), context.tokenizer.encode(text))
    self.assertEqual(models.load_policy(context, 1).config, model.config)

  def test_what_lora_trained_is_a_folder_of_its_own(self):
    context = self.other()
    train = dataclasses.replace(self.config.sft, lora_rank=2, lora_alpha=6.0)
    model = models.load_policy(context, 0, train=train)
    params, frozen = lora.begin(nnx.split(model)[1], train, 3)
    params = jax.tree.map(lambda x: x + 0.1, params)
    nnx.update(model, lora.merge(params, frozen, train))
    folder = context.folder(1, "policy")
    save = models.adapter_saver(context, folder, 0, train)
    save(arrays_in(params), model)
    # It names the base model, and has the rows of the markers too.
    found = models.load_policy(context, str(folder / "adapter"))
    for path, array in arrays_of(found).items():
      wanted = arrays_of(model)[path]
      np.testing.assert_allclose(array, wanted, atol=1e-6, err_msg=path)
    said = json.loads((folder / "adapter" / adapters.CONFIG).read_text())
    self.assertEqual(said["base_model_name_or_path"], str(self.base))

  def test_any_checkpoint_of_the_same_tokens(self):
    context = self.other()
    trained = self.folder / "trained"
    saving.save_policy(
      models.load_policy(context, 0), trained, tokenizer=context.tokenizer
    )
    ids = np.array([context.tokenizer.encode(f"a{grammar.CODE}b")])
    for name in (str(self.base), str(trained)):
      # One gets rows for the markers, the other has learnt its own.
      np.testing.assert_allclose(
        models.load_policy(context, name)(ids),
        models.load_policy(context, 0)(ids),
        atol=1e-6,
      )
    model = folders.load_policy(trained)
    rows = model.embedding.get_value()
    model.embedding.set_value(rows.at[context.tokenizer.known].add(1.0))
    saving.save_policy(model, trained, tokenizer=context.tokenizer)
    found = models.load_policy(context, str(trained)).embedding.get_value()
    np.testing.assert_allclose(
      found[context.tokenizer.known] - rows[context.tokenizer.known],
      np.ones(rows.shape[1]),
      atol=1e-6,
    )
    foreign = self.folder / "foreign"
    saving.save_policy(model, foreign)
    train_tokenizer.train(["other words", "xyz"], 290, foreign)
    with self.assertRaisesRegex(ValueError, "another tokenizer than"):
      models.load_policy(context, str(foreign))

  @mock.patch.object(tiny_gguf, "VOCAB", 259)
  def test_a_gguf_file_has_both(self):
    file = self.folder / "tiny.gguf"
    tokens = [*sorted(pre_tokenizers.ByteLevel.alphabet()), "ab", "<e>", "<p>"]
    metadata = {
      "tokenizer.ggml.model": "gpt2",
      "tokenizer.ggml.pre": "smollm",
      "tokenizer.ggml.tokens": tokens,
      "tokenizer.ggml.merges": ["a b"],
      "tokenizer.ggml.token_type": [1] * 257 + [3] * 2,
      "tokenizer.ggml.eos_token_id": 257,
    }
    tiny_gguf.write(file, "llama", "Q8_0", metadata=metadata)
    self.base, self.config.policy.path = file, str(file)
    context = self.other()
    # 259 tokens and rows; 9 markers make 268, rounded up to a multiple of 32.
    self.assertEqual(context.tokenizer.known, 259)
    expected = [tokens.index("c"), 256, 259]
    self.assertEqual(context.tokenizer.encode("cab<code>"), expected)
    model = models.load_policy(context, 0)
    self.assertEqual(model.config.vocab_size, 288)
    folder = context.folder(1, "policy")
    saving.save_policy(model, folder, tokenizer=context.tokenizer)
    manifests.write(folder, {}, [])
    again = models.load_policy(context, 1)
    ids = np.array([[*expected, 267]])
    np.testing.assert_allclose(call(again, ids), call(model, ids), atol=1e-6)
    self.assertEqual(HfTokenizer(folder).encode("cab<code>"), expected)


if __name__ == "__main__":
  absltest.main()
