from absl.testing import absltest, parameterized

from rstar_jax import testing
from rstar_jax.steps import grammar


class ByteTokenizerTest(parameterized.TestCase):
  @parameterized.parameters(
    "",
    "x = 17",
    "<code>\nx = 1\n<end_of_step>",
    "é ∑ 7 < 11 <end_of_",
    "".join(grammar.MARKERS),
  )
  def test_round_trip(self, text):
    tokenizer = testing.ByteTokenizer()
    ids = tokenizer.encode(text)
    self.assertEqual(tokenizer.decode(ids), text)
    self.assertTrue(all(0 <= i < tokenizer.vocab_size for i in ids))

  def test_markers_are_single_ids(self):
    tokenizer = testing.ByteTokenizer()
    ids = [tokenizer.encode(marker) for marker in grammar.MARKERS]
    self.assertEqual(ids, [[tokenizer.id_of(m)] for m in grammar.MARKERS])
    self.assertLen({i for (i,) in ids}, len(grammar.MARKERS))

  def test_decode_drops_padding_and_end(self):
    tokenizer = testing.ByteTokenizer()
    ids = tokenizer.encode("ab")
    padded = [ids[0], tokenizer.pad_id, ids[1], tokenizer.eos_id]
    self.assertEqual(tokenizer.decode(padded), "ab")


class TinyModelTest(absltest.TestCase):
  def test_heads_divide_and_overrides_hold(self):
    model = testing.tiny_model(num_layers=3)
    self.assertEqual(model.num_heads % model.num_kv_heads, 0)
    self.assertEqual(model.num_layers, 3)
    self.assertEqual(model.vocab_size, testing.ByteTokenizer().vocab_size)


if __name__ == "__main__":
  absltest.main()
