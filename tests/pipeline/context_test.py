"""Tests of what the stages are given."""

import pathlib
from unittest import mock

import numpy as np
from absl.testing import absltest, parameterized
from flax import nnx

from rstar_jax import testing
from rstar_jax.hf import folders
from rstar_jax.models.transformer import Transformer
from rstar_jax.pipeline import context as session
from rstar_jax.pipeline import shards
from rstar_jax.steps import grammar
from rstar_jax.steps.tokenizer import HfTokenizer
from rstar_jax.storage import records
from rstar_jax.tools import train_tokenizer
from tests import tiny_gguf, tiny_run


class SessionCase(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.folder = pathlib.Path(self.create_tempdir().full_path)
    self.config = tiny_run.make_config("train.jsonl", "test.jsonl")

  def context(self) -> session.Context:
    return tiny_run.make_context(self.config, self.folder / "run")


class ContextTest(SessionCase):
  def test_the_base_model(self):
    context = self.context()
    self.assertEqual(context.policy(0), session.BASE_MODEL)
    self.config.policy.path = "some/where"
    self.assertEqual(context.policy(0), "some/where")
    self.assertEqual(context.base(), "some/where")

  @parameterized.parameters(*session.WRITERS.items())
  def test_finished(self, name, stage):
    context = self.context()
    message = f"{name} is not finished: run --stage={stage} --round=2 first"
    with self.assertRaisesRegex(ValueError, message):
      context.finished(2, name)
    folder = context.workdir / "round_2" / name
    records.write_shard(folder / "shard-00000-of-00001.jsonl", [{"a": 1}])
    with self.assertRaisesRegex(ValueError, message):
      context.finished(2, name)
    records.write_manifest(folder, {})
    self.assertEqual(context.finished(2, name), folder)
    (folder / "shard-00000-of-00001.jsonl").write_text("changed")
    with self.assertRaisesRegex(ValueError, message):
      context.finished(2, name)

  def test_open_context_starts_and_ends_what_stages_need(self):
    workdir = self.folder / "opened"
    with session.open_context(self.config, workdir) as context:
      (result,) = context.sandbox.run([["x = 3", "print(x * 7)"]])
      self.assertEqual((result.status, result.stdout.strip()), ("ok", "21"))
      self.assertEqual(
        context.grader.grade([("21", "21.0"), ("21", "20")]),
        ["equal", "different"],
      )
      context.writer.write(3, {"loss": 0.5}, "sft")
      self.assertEqual(
        context.tokenizer.decode(context.tokenizer.encode("a = 1")), "a = 1"
      )
    self.assertIn('"sft/loss": 0.5', (workdir / "metrics.jsonl").read_text())
    with self.assertRaisesRegex(RuntimeError, "closed"):
      context.sandbox.run([["x = 3"]])


class RowsTest(SessionCase):
  def test_read_rows_takes_shards_below_in_order(self):
    for i, name in enumerate(("b/shard-0", "a/shard-1", "a/shard-0")):
      records.write_shard(self.folder / name, [{"row": i}])
    records.write_shard(self.folder / "a" / "trees-shard-0", [{"row": 7}])
    rows = [row["row"] for row in shards.read_rows(self.folder)]
    self.assertEqual(rows, [2, 1, 0])


class OtherModelCase(SessionCase):
  """A model that is not ours, with a tokenizer without markers."""

  def setUp(self):
    super().setUp()
    self.base = self.folder / "other"
    config = testing.tiny_model(vocab_size=300, num_layers=1)
    model = Transformer(config, rngs=nnx.Rngs(3))
    folders.save_policy(model, self.base)
    with mock.patch.object(grammar, "MARKERS", ()):
      train_tokenizer.train(["a text", "of words"], 300, self.base)
    self.config.policy.path = str(self.base)
    self.config.policy.vocab_multiple = 32
    self.config.engine.max_step_tokens = 3
    self.config.engine.prefix_buckets = (1024, 4096)
    self.plain = HfTokenizer(self.base, add_markers=False)

  def other(self) -> session.Context:
    context = self.context()
    context.tokenizer = session.load_tokenizer(self.base)
    context.sandbox = context.grader = mock.Mock()
    return context


class OtherModelTest(OtherModelCase):
  def test_markers_get_rows(self):
    context = self.other()
    tokenizer = context.tokenizer
    self.assertEqual(tokenizer.vocab_size, tokenizer.known + 9)
    model = context.load_policy(0, train=self.config.sft)
    # 300 rows hold the markers too, where the tokenizer has learnt few merges.
    self.assertGreaterEqual(model.config.vocab_size, tokenizer.vocab_size)
    self.assertEqual(tokenizer.id_of(grammar.CODE), tokenizer.known)
    ids = tokenizer.encode(f"a{grammar.CODE}b")
    self.assertTrue(np.isfinite(model(np.array([ids]))).all())

  def test_a_round_keeps_the_ids(self):
    context = self.other()
    folder = context.folder(1, "policy")
    model = context.load_policy(0)
    folders.save_policy(model, folder, tokenizer=context.tokenizer)
    records.write_manifest(folder, {}, [])
    again = HfTokenizer(folder)
    text = f"{grammar.USER}a text{grammar.END_OF_STEP}"
    self.assertEqual(again.known, again.vocab_size)
    self.assertEqual(again.encode(text), context.tokenizer.encode(text))
    self.assertEqual(context.load_policy(1).config, model.config)

  def test_any_checkpoint_of_the_same_tokens(self):
    context = self.other()
    trained = self.folder / "trained"
    folders.save_policy(
      context.load_policy(0), trained, tokenizer=context.tokenizer
    )
    ids = np.array([context.tokenizer.encode(f"a{grammar.CODE}b")])
    for name in (str(self.base), str(trained)):
      # One gets rows for the markers, the other has learnt its own.
      np.testing.assert_allclose(
        context.load_policy(name)(ids), context.load_policy(0)(ids), atol=1e-6
      )
    model = folders.load_policy(trained)
    rows = model.embedding.get_value()
    model.embedding.set_value(rows.at[context.tokenizer.known].add(1.0))
    folders.save_policy(model, trained, tokenizer=context.tokenizer)
    found = context.load_policy(str(trained)).embedding.get_value()
    np.testing.assert_allclose(
      found[context.tokenizer.known] - rows[context.tokenizer.known],
      np.ones(rows.shape[1]),
      atol=1e-6,
    )
    foreign = self.folder / "foreign"
    folders.save_policy(model, foreign)
    train_tokenizer.train(["other words", "xyz"], 290, foreign)
    with self.assertRaisesRegex(ValueError, "another tokenizer than"):
      context.load_policy(str(foreign))

  def test_a_gguf_file_has_both(self):
    file = self.folder / "tiny.gguf"
    metadata = {
      "tokenizer.ggml.model": "gpt2",
      "tokenizer.ggml.pre": "smollm",
      "tokenizer.ggml.tokens": [*"abcdefghijklmnopqrstu", "ab", "<e>", "<p>"],
      "tokenizer.ggml.merges": ["a b"],
      "tokenizer.ggml.token_type": [1] * 22 + [3] * 2,
      "tokenizer.ggml.eos_token_id": 22,
    }
    tiny_gguf.write(file, "llama", "Q8_0", metadata=metadata)
    self.base = self.config.policy.path = str(file)
    context = self.other()
    # 24 tokens and rows; 9 markers make 33, rounded up to a multiple of 32.
    self.assertEqual(context.tokenizer.known, 24)
    self.assertEqual(context.tokenizer.encode("cab<code>"), [2, 21, 24])
    model = context.load_policy(0)
    self.assertEqual(model.config.vocab_size, 64)
    folder = context.folder(1, "policy")
    folders.save_policy(model, folder, tokenizer=context.tokenizer)
    records.write_manifest(folder, {}, [])
    again = context.load_policy(1)
    ids = np.array([[2, 21, 24, 32]])
    np.testing.assert_allclose(again(ids), model(ids), atol=1e-6)
    self.assertEqual(HfTokenizer(folder).encode("cab<code>"), [2, 21, 24])


if __name__ == "__main__":
  absltest.main()
