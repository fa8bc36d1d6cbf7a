"""Tests of others' reward models as a scorer, on a golden model's trunk."""

import pathlib

import numpy as np
from absl.testing import absltest

from rstar_jax.config.schema import EngineConfig
from rstar_jax.hf import folders
from rstar_jax.inference.reward import RewardModel
from rstar_jax.inference.scoring import ScoringEngine
from rstar_jax.testing import ByteTokenizer
from tests.parity import compare

GOLDEN = pathlib.Path(__file__).parents[1] / "golden"


class Chat(ByteTokenizer):
  """Bytes, folded into the golden model's vocabulary, with a template."""

  def __init__(self, template=True):
    super().__init__()
    self.template, self.seen = template, []

  def encode(self, text):
    self.seen.append(text)
    return [2 + i % 95 for i in text.encode()]

  def chat(self, question, answer):
    return f"[{question}|{answer}]" if self.template else None


class RewardTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    folder = pathlib.Path(self.create_tempdir().full_path)
    score = np.random.default_rng(0).normal(size=24).astype(np.float32)
    compare.write_classifier(GOLDEN / "llama_bias", score, folder)
    self.model = folders.load_reward_model(folder)
    config = EngineConfig(prefill_tokens=64, max_prefix_tokens=150)
    self.engine = ScoringEngine(self.model, config)

  def value(self, text):
    ids = Chat().encode(text)
    # One length for all, so that little is compiled; the model is causal.
    padded = np.array([ids + [0] * (200 - len(ids))], np.int32)
    return float(self.model(padded)[0, len(ids) - 1])

  def test_reads_the_dialogue_whole(self):
    tokenizer = Chat()
    scorer = RewardModel(self.engine, tokenizer)
    prefix = ("<code>\na = 3\n<end_of_step>",)
    values = scorer(
      ["one?", "two?", "three?"],
      [prefix, (), prefix],
      [["\nprint(a)\n<end_of_code>", "\nb"], [], ["\n" + "c" * 131]],
    )
    self.assertEqual([len(row) for row in values], [2, 0, 1])
    texts = [
      "[one?|a = 3\n\nprint(a)]",
      "[one?|a = 3\n\nb]",
      "[three?|a = 3\n\n" + "c" * 131 + "]",
    ]
    self.assertEqual(tokenizer.seen, texts)
    found = np.concatenate(values)
    np.testing.assert_allclose(found, [*map(self.value, texts)], atol=3e-6)
    self.assertEqual(self.engine.scored, 3)

  def test_many_rows(self):
    scorer = RewardModel(self.engine, Chat())
    steps = [["x" * (7 * i % 61 + 1) for i in range(19)]]
    (values,) = scorer(["q"], [()], steps)
    want = [self.value(f"[q|{step}]") for step in steps[0]]
    np.testing.assert_allclose(values, want, atol=3e-6)

  def test_ids_that_transformers_takes_for_padding(self):
    (pad,) = Chat().encode("]")
    scorer = RewardModel(self.engine, Chat(), unread_id=pad)
    (values,) = scorer(["q"], [()], [["a", "b]]"]])
    # The template's own last token is one, and so is all that is before it.
    want = [self.value("[q|a"), self.value("[q|b")]
    np.testing.assert_allclose(values, want, atol=3e-6)
    self.assertNotAlmostEqual(self.value("[q|a]"), want[0], places=3)

  def test_without_a_template(self):
    tokenizer = Chat(template=False)
    scorer = RewardModel(self.engine, tokenizer)
    scorer(["q"], [()], [["a"]])
    self.assertEqual(tokenizer.seen, ["q\n\na"])
    self.assertEqual(scorer([], [], []), [])


if __name__ == "__main__":
  absltest.main()
