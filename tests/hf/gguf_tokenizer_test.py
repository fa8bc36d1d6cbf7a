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
from rstar_jax.steps.tokenizer import HfTokenizer
from tests.steps import alike

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


def join(text: str, tokens: list[str], scores: list[float]) -> list[int]:
  """Returns the ids of a text, as SentencePiece finds them.

  Of all pairs of neighbours that are a token, the one with the best score is
  joined, the first of equal ones, until there is none.
  """
  number = {token: i for i, token in enumerate(tokens) if not 0 <= i < 259}
  parts = list(text.replace(" ", "\u2581"))
  while True:
    joined = ["".join(pair) for pair in zip(parts, parts[1:], strict=False)]
    found = [
      (-scores[number[each]], i)
      for i, each in enumerate(joined)
      if each in number
    ]
    if not found:
      break
    _, i = min(found)
    parts[i : i + 2] = [joined[i]]
  ids = []
  for part in parts:
    codes = [tokens.index(f"<0x{each:02X}>") for each in part.encode()]
    ids += [number[part]] if part in number else codes
  return ids


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
    given = {
      "tokenizer_model": values.pop("model", "gpt2"),
      "tokenizer_pre": values.pop("pre_name", pre),
      "token_list": tokens,
      "token_types": types,
      "token_merges": [" ".join(each) for each in model["merges"]],
      "bos_token_id": 1,
      "eos_token_id": 2,
      "pad_token_id": 0,
    }
    return self.write(**given | values)

  def pieces(self, *, last=(), **values):
    """Writes a file with pieces of SentencePiece, as of Phi-3.

    Args:
      last: further tokens and their types.
      **values: replace those of the file.
    """
    tokens, merges = alike.pieces()
    ranks = {left + right: i for i, (left, right) in enumerate(merges)}
    types = [2, 3, 3, *[6] * 256, *[1] * (len(tokens) - 259)]
    scores = [-float(ranks.get(each, 1000)) for each in tokens]
    tokens = [*tokens, *(token for token, _ in last)]
    types += [kind for _, kind in last]
    scores += [0.0] * len(last)
    return self.write(
      **{
        "tokenizer_model": "llama",
        "tokenizer_pre": "default",
        "token_list": tokens,
        "token_scores": scores,
        "token_types": types,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "unk_token_id": 0,
      }
      | values
    )

  def write(self, **values):
    path = self.folder / "tiny.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(2048)
    for key, value in values.items():
      getattr(writer, f"add_{key}")(value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    return Metadata(gguf.GGUFReader(path), path)

  def save(self, *args, **kwargs):
    return self.load(self.metadata(*args, **kwargs))

  def load(self, metadata):
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

  def test_r1_distilled_into_qwen_splits_as_qwen2(self):
    # "deepseek-r1-qwen" is what llama.cpp calls it; it composes no characters.
    original = train("qwen2")
    original.normalizer = normalizers.Sequence([])
    tokenizer = self.save("qwen2", pre_name="deepseek-r1-qwen")
    for text in (*TEXTS, "e\u0301"):
      ids = original.encode(text, add_special_tokens=False).ids
      self.assertEqual(self.encode(tokenizer, text), ids)
      self.assertEqual(self.decode(tokenizer, ids), text)

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

  @parameterized.parameters((None, True), (True, True), (False, False))
  def test_pieces_join_by_their_scores(self, said, prefix):
    tokens, _ = alike.pieces()
    values = {} if said is None else {"add_space_prefix": said}
    metadata = self.pieces(**values)
    tokenizer = self.load(metadata)
    scores = metadata.value("tokenizer.ggml.scores")
    for text in alike.TEXTS[:3] + TEXTS[:4]:
      for start in range(0, len(text), 5):
        part = text[start : start + 31]
        given = " " * prefix + part
        ids = join(given, tokens, scores)
        self.assertEqual(self.encode(tokenizer, part), ids)
        self.assertEqual(self.decode(tokenizer, ids), part)

  def test_pieces_do_not_join_to_a_byte(self):
    tokens, _ = alike.pieces()
    more = ["<", ">", "<0", "<0x", "<0x4", "<0x41"]
    more = [each for each in more if each not in tokens]
    metadata = self.pieces(last=[(each, 1) for each in more])
    tokenizer, text = self.load(metadata), "a <0x41>"
    ids = self.encode(tokenizer, text)
    scores = metadata.value("tokenizer.ggml.scores")
    self.assertEqual(ids, join(f" {text}", [*tokens, *more], scores))
    self.assertEqual(self.decode(tokenizer, ids), text)

  def test_a_model_of_pieces_in_a_run(self):
    # Phi-3's, whose end of a text is another token, and padding as older
    # converters wrote it.
    last = [("<|endoftext|>", 3), ("<|assistant|>", 3), ("<|end|>", 3)]
    count = len(alike.pieces()[0]) + len(last)
    last += [(f"[PAD{count}]", 2), (f"[PAD{count + 1}]", 2)]
    metadata = self.pieces(last=last, add_bos_token=False)
    tokens = metadata.value("tokenizer.ggml.tokens")
    gguf_tokenizer.save(metadata, self.folder / "new")
    tokenizer = HfTokenizer(self.folder / "new")
    self.assertEqual([tokenizer.known, tokenizer.bos_ids], [count, ()])
    code = "<code>x = 3\nif x:\n  y = 4\n<end_of_step> z<|assistant|>: t"
    ids = tokenizer.encode(code)
    self.assertEqual(tokenizer.decode(ids), code)
    self.assertEqual(ids[-3], tokens.index("<|assistant|>"))

  @parameterized.parameters((None, True), (True, True), (False, False))
  def test_begin_of_text_of_pieces(self, said, added):
    values = {} if said is None else {"add_bos_token": said}
    tokenizer = self.load(self.pieces(**values))
    ids = self.encode(tokenizer, "Tom")
    self.assertEqual(tokenizer.encode("Tom"), [1] * added + ids)

  def test_pieces_that_are_refused(self):
    count = len(alike.pieces()[0])
    for scores in ([-1000.0] * count, [-1.0]):
      metadata = self.pieces(token_scores=scores)
      with self.assertRaisesRegex(ValueError, "tiny.gguf: its tokens have no"):
        gguf_tokenizer.save(metadata, self.folder / "new")

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

  @parameterized.parameters(3, 4, 5, 4294967295)
  def test_padding_that_is_left_out(self, last):
    tokens = [*self.tokens("gpt-2"), "[PAD0]", "[PAD1]"]
    types = [2, 3, 3] + [1] * (len(tokens) - 5) + [5, 5]
    number = last if last > 5 else len(tokens) - last + 2
    tokenizer = self.save(tokens=tokens, types=types, pad_token_id=number)
    there = number < len(tokens) - 2
    self.assertEqual(tokenizer.pad_token, tokens[number] if there else None)

  @parameterized.product(
    key=("bos", "eos", "unk"), make=("metadata", "pieces"), far=(False, True)
  )
  def test_ids_of_no_token(self, key, make, far):
    count = len(alike.pieces()[0] if make == "pieces" else self.tokens("gpt-2"))
    number = 4294967295 if far else count
    metadata = getattr(self, make)(**{f"{key}_token_id": number})
    name = {"unk": "unknown"}.get(key, key)
    with self.assertRaisesRegex(
      ValueError,
      f"tiny.gguf: tokenizer.ggml.{name}_token_id={number} is none of its "
      f"{count} tokens",
    ):
      gguf_tokenizer.save(metadata, self.folder / "new")

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
      ({"model": "bert"}, "model='bert'; only 'gpt2' and 'llama'"),
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
