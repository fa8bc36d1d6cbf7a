"""A tokenizer trained on a few texts: what its merges may not cross."""

import json
import pathlib

from absl.testing import absltest, parameterized

from rstar_jax.steps import grammar
from rstar_jax.steps.tokenizer import HfTokenizer
from rstar_jax.tools import train_tokenizer

# 256 bytes, the markers, padding and end-of-text.
ALPHABET = 256 + len(grammar.MARKERS) + 2
TEXTS = [
  f"Mira picks {n} times as many apples as Kalo.\n\n<end_of_step>"
  for n in (12, 34, 56, 78) * 5
]


class TrainTokenizerTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.folder = pathlib.Path(self.create_tempdir().full_path) / "new" / "it"

  def train(self, texts, vocab_size):
    train_tokenizer.train(texts, vocab_size, self.folder)
    return HfTokenizer(self.folder)

  def pieces(self, tokenizer, text):
    return [tokenizer.decode([i]) for i in tokenizer.encode(text)]

  def test_folder_loads_and_has_the_size(self):
    tokenizer = self.train(iter(TEXTS), ALPHABET + 11)
    self.assertEqual(tokenizer.vocab_size, ALPHABET + 11)
    for marker in grammar.MARKERS:
      self.assertEqual(tokenizer.encode(marker), [tokenizer.id_of(marker)])
    text = TEXTS[0] + "é ∑ 7"
    self.assertEqual(tokenizer.decode(tokenizer.encode(text)), text)
    file = json.loads((self.folder / "tokenizer.json").read_text())
    self.assertEqual(file["model"]["vocab"][train_tokenizer.PAD], 0)
    self.assertEqual(file["model"]["vocab"][train_tokenizer.EOS], 1)
    self.assertEqual([tokenizer.pad_id, tokenizer.eos_id], [0, 1])

  def test_merges_cross_spaces_and_nothing_else(self):
    tokenizer = self.train(TEXTS, 400)
    self.assertEqual(
      self.pieces(tokenizer, TEXTS[0]),
      ["Mi", "ra", " picks ", "1", "2", " times as many apples as ", "Ka", "lo"]
      + [".", "\n\n", "<end_of_step>"],
    )

  def test_without_merges_there_are_bytes(self):
    tokenizer = self.train(TEXTS, ALPHABET)
    self.assertEqual(tokenizer.vocab_size, ALPHABET)
    self.assertEqual(self.pieces(tokenizer, "apples 12"), list("apples 12"))

  def test_same_texts_same_file(self):
    self.train(TEXTS, 300)
    first = (self.folder / "tokenizer.json").read_bytes()
    self.train(TEXTS, 300)
    self.assertEqual((self.folder / "tokenizer.json").read_bytes(), first)


if __name__ == "__main__":
  absltest.main()
