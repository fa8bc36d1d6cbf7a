"""Tokenizers like those of published models: texts come back as they were."""

import pathlib
import unicodedata
from unittest import mock

import tokenizers
import transformers
from absl.testing import absltest, parameterized
from tokenizers import decoders, models, normalizers, pre_tokenizers

from rstar_jax.steps import as_written, grammar
from rstar_jax.steps.tokenizer import HfTokenizer
from tests.steps import alike

TEXTS = (
  "<code>x = 3\nif x:\n  y = '  a'\n<end_of_step>",
  "<code> x = 3 <end_of_step> y<answer>",
  "\n\n# Größe\n\tz = x  \n<end_of_code>\n<output> 9<end_of_output>\n",
  " ",
  "  naïve  x²≤y³ ½\n\n\n 1234567",
  "<|assistant|> :\n<|user|>",
)
# Those whose models' own tokenizer changes such texts.
CHANGING = ("spaced", "phi3", "llama2", "mistral", "metaspace", "converted")


def begins(folder) -> transformers.PreTrainedTokenizerFast:
  """Returns the library's own tokenizer, with markers."""
  tokenizer = transformers.PreTrainedTokenizerFast.from_pretrained(folder)
  tokenizer.add_tokens(list(grammar.MARKERS), special_tokens=True)
  return tokenizer


class AsWrittenTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.folder = pathlib.Path(self.create_tempdir().full_path)

  @parameterized.parameters(*alike.ALL)
  def test_texts_come_back(self, name):
    alike.write(name, self.folder)
    tokenizer = HfTokenizer(self.folder)
    for text in TEXTS:
      self.assertEqual(tokenizer.decode(tokenizer.encode(text)), text)
    for marker in grammar.MARKERS:
      # Alone and between letters.
      (number,) = tokenizer.encode(marker)
      ids = [*tokenizer.encode("a"), number, *tokenizer.encode("b")]
      self.assertEqual(tokenizer.encode(f"a{marker}b"), ids)

  @parameterized.parameters(*alike.ALL)
  def test_what_is_sampled_after_a_marker_is_read_alone(self, name):
    alike.write(name, self.folder)
    tokenizer = HfTokenizer(self.folder)
    for text in ("x = 3\n", "  x = 3", " x", "\n\n# Tom's 12 apples"):
      ids = tokenizer.encode(f"<code>{text}<end_of_step>")
      self.assertEqual(tokenizer.decode(ids[1:-1]), text)
      self.assertEqual(tokenizer.encode(text), ids[1:-1])

  @parameterized.parameters(*alike.ALL)
  def test_without_what_is_done_for_it(self, name):
    alike.write(name, self.folder)
    library = begins(self.folder)
    changed = False
    for text in TEXTS:
      ids = library.encode(text, add_special_tokens=False)
      changed |= library.decode(ids) != text
      # A piece of it, as a policy samples it.
      ids = library.encode(f"<code> {text}", add_special_tokens=False)
      changed |= library.decode(ids[1:]) != f" {text}"
    self.assertEqual(changed, name in CHANGING)
    for function in ("keep_in_encoding", "keep_in_decoding"):
      with mock.patch.object(as_written, function):
        if name in CHANGING and (name, function) != ("spaced", function):
          with self.assertRaisesRegex(ValueError, "changes texts, "):
            HfTokenizer(self.folder)
    if name not in CHANGING:
      with (
        mock.patch.object(as_written, "keep_in_encoding"),
        mock.patch.object(as_written, "keep_in_decoding"),
      ):
        HfTokenizer(self.folder)

  def test_white_space_beside_special_tokens(self):
    alike.write("phi3", self.folder)
    tokenizer = HfTokenizer(self.folder)
    text = "a <|end|>\n b</s> c"
    ids = tokenizer.encode(text)
    self.assertEqual(tokenizer.decode(ids), text)
    library = begins(self.folder)
    ids = library.encode(text, add_special_tokens=False)
    self.assertNotIn("\n", library.decode(ids))

  @parameterized.parameters(
    normalizers.Lowercase(),
    normalizers.NFKC(),
    normalizers.Sequence([normalizers.NFD(), normalizers.StripAccents()]),
    normalizers.Replace(tokenizers.Regex(" {2,}"), " "),
  )
  def test_a_normalizer_that_changes_texts(self, normalizer):
    tokenizer = alike.smollm()
    tokenizer.normalizer = normalizer
    self.check_refused(tokenizer, "comes back as")

  def test_a_splitting_that_drops_spaces(self):
    tokenizer = alike.smollm()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
      [pre_tokenizers.Whitespace(), tokenizer.pre_tokenizer]
    )
    self.check_refused(tokenizer, "comes back as")

  def test_a_vocabulary_without_accents(self):
    words = ["<|end|>", "<unk>", *map(chr, range(32, 127)), "\n", "\t"]
    tokenizer = tokenizers.Tokenizer(
      models.BPE(
        {word: i for i, word in enumerate(words)}, [], unk_token="<unk>"
      )
    )
    tokenizer.decoder = decoders.Fuse()
    self.check_refused(tokenizer, ".*Zoë.* comes back as .*Zo<unk>")

  def check_refused(self, tokenizer, message):
    transformers.PreTrainedTokenizerFast(
      tokenizer_object=tokenizer, eos_token="<|end|>"
    ).save_pretrained(self.folder)
    with self.assertRaisesRegex(ValueError, message) as caught:
      HfTokenizer(self.folder)
    self.assertNotIn("\n", str(caught.exception))
    # Whoever only reads with it takes it as it is.
    HfTokenizer(self.folder, add_markers=False)

  def test_parts_that_have_other_ids_than_the_whole(self):
    def encode(text):
      # A text's first character has an id of its own.
      return [ord(each) + (i == 0) * 2**21 for i, each in enumerate(text)]

    def decode(ids):
      return "".join(chr(each % 2**21) for each in ids)

    self.assertEqual(
      as_written.problem(encode, decode),
      "the parts of a text have other ids than the text",
    )
    self.assertIsNone(
      as_written.problem(lambda text: list(map(ord, text)), decode)
    )

  def test_what_is_tried_is_composed(self):
    # Qwen's composes characters, which is no reason to refuse it.
    for text in as_written._TRIED:
      self.assertTrue(unicodedata.is_normalized("NFC", text))
    self.assertTrue(
      set(grammar.MARKERS)
      <= set(grammar.MARKER.findall("".join(as_written._TRIED)))
    )


if __name__ == "__main__":
  absltest.main()
