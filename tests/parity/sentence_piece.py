"""Our tokenizers against SentencePiece itself, live; `make parity` runs it.

A model that SentencePiece trains is read from its tokenizer.model alone, and
from a GGUF file with its pieces and scores.
"""

import io
import json
import pathlib

import sentencepiece
from absl.testing import absltest, parameterized
from sentencepiece import sentencepiece_model_pb2

from rstar_jax.hf.tokenizers import load_tokenizer
from rstar_jax.steps.tokenizer import HfTokenizer
from tests import tiny_gguf
from tests.steps import alike

TEXTS = (
  *alike.TEXTS[:3],
  "  x = 3\n\n    if x  <= 4:\n\t\tprint('é ½ 数学 🙂')  ",
  "Tom",
  " ",
  "          ten spaces",
  "a\u00a0b\r\n",
)


def train() -> bytes:
  """Returns a tokenizer.model as that of Llama is made."""
  found = io.BytesIO()
  sentencepiece.SentencePieceTrainer.train(
    sentence_iterator=iter(
      [line for text in alike.TEXTS for line in text.splitlines() if line]
    ),
    model_writer=found,
    model_type="bpe",
    vocab_size=380,
    byte_fallback=True,
    normalization_rule_name="identity",
    remove_extra_whitespaces=False,
    allow_whitespace_only_pieces=True,
    split_digits=True,
    minloglevel=2,
  )
  return found.getvalue()


class SentencePieceTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.folder = pathlib.Path(self.create_tempdir().full_path)
    self.proto = sentencepiece_model_pb2.ModelProto()
    self.proto.ParseFromString(train())

  def encode(self, text: str, prefix: bool) -> list[int]:
    self.proto.normalizer_spec.add_dummy_prefix = prefix
    theirs = sentencepiece.SentencePieceProcessor(
      model_proto=self.proto.SerializeToString()
    )
    return theirs.encode(text)

  def check(self, kept: HfTokenizer, own: HfTokenizer):
    """Compares a tokenizer with markers, and one without."""
    for text in TEXTS:
      self.assertEqual(own.encode(text), self.encode(text, True))
      ids = self.encode(text, False)
      self.assertEqual(kept.encode(text), ids)
      self.assertEqual(kept.decode(ids), text)
      ids = [kept.id_of("<code>"), *ids, kept.id_of("<end_of_step>")]
      self.assertEqual(kept.encode(f"<code>{text}<end_of_step>"), ids)

  @parameterized.parameters("llama", "phi3")
  def test_a_tokenizer_model_alone(self, kind):
    (self.folder / "tokenizer.model").write_bytes(
      self.proto.SerializeToString()
    )
    config = json.dumps({"model_type": kind})
    (self.folder / "config.json").write_text(config)
    self.check(
      HfTokenizer(self.folder), HfTokenizer(self.folder, add_markers=False)
    )

  def test_a_gguf_file(self):
    pieces = self.proto.pieces
    fields = {
      "model": "llama",
      "tokens": [each.piece for each in pieces],
      "scores": [each.score for each in pieces],
      "token_type": [int(each.type) for each in pieces],
      "bos_token_id": 1,
      "eos_token_id": 2,
      "unknown_token_id": 0,
    }
    file = self.folder / "tiny.gguf"
    tiny_gguf.write(
      file,
      "phi3",
      metadata={f"tokenizer.ggml.{key}": fields[key] for key in fields},
    )
    self.check(load_tokenizer(file), load_tokenizer(file, add_markers=False))


if __name__ == "__main__":
  absltest.main()
