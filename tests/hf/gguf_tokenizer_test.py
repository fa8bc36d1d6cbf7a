"""Tokenizers taken out of GGUF files: the same ids as the one that went in."""

import json
import pathlib

import gguf
import tokenizers
import transformers
from absl.testing import absltest, parameterized
from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers

from rstar_jax.hf import gguf_tokenizer
from rstar_jax.hf.gguf_metadata import Metadata

SPECIALS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
TEXTS = [
  "Tom's 12 apples cost 3.50 each, 42 in all; I'LL take 1234567 of them.\n",
  "def f(x):\n\n    return  12 + x  # naïve\n\tprint('x ** 2')\n",
  "Größe, 数学の問題, मात्रा ५६, ½ of ٣, x²≤y³ → 👩‍👩‍👧 \u00a0\u200b\r\n   ",
  "  leading,   inner    and trailing spaces   ",
] * 3


def split(expression: str):
  """Returns a splitting as Llama 3's and Qwen2's tokenizer.json have it."""
  return pre_tokenizers.Sequence(
    [
      pre_tokenizers.Split(tokenizers.Regex(expression), "isolated"),
      pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ]
  )


# The pre_tokenizer of the tokenizer.json of a model that bears the name.
PUBLISHED = {
  "gpt-2": pre_tokenizers.ByteLevel(add_prefix_space=False),
  "smollm": pre_tokenizers.Sequence(
    [
      pre_tokenizers.Digits(individual_digits=True),
      pre_tokenizers.ByteLevel(add_prefix_space=False),
    ]
  ),
  "qwen2": split(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}|"
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
  ),
  "llama-bpe": split(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|"
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
  ),
}


def train(pre: str) -> tokenizers.Tokenizer:
  """Returns a tokenizer that never went through a GGUF file."""
  tokenizer = tokenizers.Tokenizer(models.BPE())
  tokenizer.pre_tokenizer = PUBLISHED[pre]
  tokenizer.decoder = decoders.ByteLevel()
  if pre == "qwen2":
    tokenizer.normalizer = normalizers.NFC()
  trainer = trainers.BpeTrainer(
    vocab_size=450,
    special_tokens=SPECIALS,
    initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    show_progress=False,
  )
  tokenizer.train_from_iterator(TEXTS, trainer)
  return tokenizer


class GgufTokenizerTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.folder = pathlib.Path(self.create_tempdir().full_path)

  def tokens(self, pre):
    vocabulary = train(pre).get_vocab()
    return sorted(vocabulary, key=vocabulary.get)

  def metadata(self, pre="gpt-2", *, tokens=None, types=None, **values):
    """Writes a file without tensors, and returns its metadata."""
    model = json.loads(train(pre).to_str())["model"]
    tokens = tokens or self.tokens(pre)
    if types is None:
      types = [3 if each in SPECIALS else 1 for each in tokens]
    path = self.folder / "tiny.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(2048)
    writer.add_tokenizer_model(values.pop("model", "gpt2"))
    writer.add_tokenizer_pre(values.pop("pre_name", pre))
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    writer.add_token_merges([" ".join(each) for each in model["merges"]])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_pad_token_id(0)
    for key, value in values.items():
      getattr(writer, f"add_{key}")(value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    return Metadata(gguf.GGUFReader(path), path)

  def save(self, *args, **kwargs):
    metadata = self.metadata(*args, **kwargs)
    gguf_tokenizer.save(metadata, self.folder / "new")
    return transformers.PreTrainedTokenizerFast.from_pretrained(
      self.folder / "new"
    )

  def encode(self, tokenizer, text):
    return tokenizer.encode(text, add_special_tokens=False)

  def decode(self, tokenizer, ids):
    return tokenizer.decode(
      ids, skip_special_tokens=False, clean_up_tokenization_spaces=False
    )

  @parameterized.parameters(*PUBLISHED)
  def test_same_ids_and_back(self, pre):
    original, tokenizer = train(pre), self.save(pre)
    self.assertLen(tokenizer, original.get_vocab_size())
    text = "".join(TEXTS)
    for start in range(0, len(text), 7):
      for part in (text[start : start + 40], text[start:]):
        ids = self.encode(tokenizer, part)
        self.assertEqual(
          ids, original.encode(part, add_special_tokens=False).ids
        )
        self.assertEqual(self.decode(tokenizer, ids), part)

  def test_names_of_one_splitting(self):
    ids = self.encode(self.save("llama-bpe"), TEXTS[0])
    for name in ("llama3", "llama-v3"):
      tokenizer = self.save("llama-bpe", pre_name=name)
      self.assertEqual(self.encode(tokenizer, TEXTS[0]), ids)

  @parameterized.parameters(
    ("default", ["a", " ", " ", "123", "4", " x"]),
    ("gpt-2", ["a", " ", " 1234", " x"]),
    ("llama-bpe", ["a", " ", " ", "123", "4", " x"]),
    ("qwen2", ["a", " ", " ", "1", "2", "3", "4", " x"]),
    ("smollm", ["a", "  ", "1", "2", "3", "4", " x"]),
  )
  def test_words_around_digits(self, pre, words):
    tokenizer = self.save("gpt-2", pre_name=pre).backend_tokenizer
    pieces = tokenizer.pre_tokenizer.pre_tokenize_str("a  1234 x")
    self.assertEqual([word.replace("Ġ", " ") for word, _ in pieces], words)

  def test_qwen2_composes_characters(self):
    tokenizer = self.save("qwen2")
    ids = self.encode(tokenizer, "e\u0301")
    self.assertEqual(self.decode(tokenizer, ids), "\u00e9")

  def test_llama3_takes_a_word_that_is_a_token(self):
    tokens = [*self.tokens("llama-bpe"), "zqzq"]
    for pre, count in (("llama-bpe", 1), ("gpt-2", 4)):
      tokenizer = self.save("llama-bpe", tokens=tokens, pre_name=pre)
      self.assertLen(self.encode(tokenizer, "zqzq"), count)

  def test_kinds_of_tokens(self):
    tokens = self.tokens("gpt-2")
    types = [2, 3, 3] + [1] * (len(tokens) - 3)
    tokens += ["<think>", "[PAD0]", "    ", "[PAD1]", "[PAD2]"]
    types += [4, 5, 4, 5, 5]
    tokenizer = self.save(tokens=tokens, types=types)
    self.assertLen(tokenizer, len(tokens) - 2)
    text = "<|im_start|>a<think>b    c<|im_end|><|endoftext|>"
    ids = self.encode(tokenizer, text)
    self.assertEqual(
      [self.decode(tokenizer, [i]) for i in ids],
      ["<|im_start|>", "a", "<think>", "b", "    ", "c"]
      + ["<|im_end|>", "<|endoftext|>"],
    )
    self.assertEqual(
      tokenizer.decode(ids, skip_special_tokens=True), "a<think>b    c"
    )
    # The next token gets the first row that only fills the embedding.
    tokenizer.add_special_tokens({"additional_special_tokens": ["<new>"]})
    self.assertEqual(self.encode(tokenizer, "<new>"), [len(tokens) - 2])

  def test_config(self):
    template = "{% for m in messages %}<|im_start|>{{ m.content }}{% endfor %}"
    tokenizer = self.save(chat_template=template)
    self.assertEqual(
      [tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token],
      ["<|im_start|>", "<|im_end|>", "<|endoftext|>"],
    )
    self.assertEqual(tokenizer.model_max_length, 2048)
    messages = [{"role": "user", "content": "Hi"}]
    self.assertEqual(
      tokenizer.apply_chat_template(messages, tokenize=False),
      "<|im_start|>Hi",
    )

  @parameterized.parameters(
    ("gpt-2", None, False),
    ("gpt-2", True, True),
    ("llama-bpe", None, True),
    ("llama-bpe", False, False),
  )
  def test_begin_of_text(self, pre, said, added):
    values = {} if said is None else {"add_bos_token": said}
    tokenizer = self.save(pre, **values)
    ids = self.encode(tokenizer, "Tom")
    self.assertNotIn(1, ids)
    self.assertEqual(tokenizer.encode("Tom"), [1] * added + ids)

  def test_tokenizers_that_are_refused(self):
    tokens = [*SPECIALS, "a", "b", "a"]
    for values, message in (
      ({"pre_name": "tekken"}, "pre='tekken'; known are .*'qwen2', 'smollm'"),
      ({"model": "llama"}, "model='llama'; only 'gpt2'"),
      ({"tokens": tokens}, r"twice: \['a'\]"),
      ({"tokens": tokens, "types": [1]}, "6 tokens have 1 types"),
    ):
      with self.subTest(message):
        metadata = self.metadata(**values)
        with self.assertRaisesRegex(ValueError, f"tiny.gguf: .*{message}"):
          gguf_tokenizer.save(metadata, self.folder / "new")
        self.assertFalse((self.folder / "new").exists())


if __name__ == "__main__":
  absltest.main()
