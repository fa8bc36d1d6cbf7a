"""The tokenizer that ships: markers, digits, names, and round trips."""

import functools
import json
import pathlib
import re
import sys
from unittest import mock

import tokenizers
import transformers
from absl.testing import absltest, parameterized
from tokenizers import normalizers

import rstar_jax
from rstar_jax.data.synthetic import generator
from rstar_jax.steps import grammar, prompts
from rstar_jax.steps import tokenizer as tokenizer_lib
from rstar_jax.tools import train_tokenizer
from tests.steps import alike

FOLDER = pathlib.Path(rstar_jax.__file__).parent / "base_model"


@functools.cache
def shipped() -> tokenizer_lib.HfTokenizer:
  return tokenizer_lib.HfTokenizer(FOLDER)


def texts(split: str, count: int = 41) -> list[str]:
  """Returns whole texts: prompt and solution."""
  return [
    prompts.prompt(worked.problem.question) + "".join(worked.steps)
    for worked in (generator.generate(split, i) for i in range(count))
  ]


class HfTokenizerTest(parameterized.TestCase):
  def test_markers_are_single_ids(self):
    tokenizer = shipped()
    ids = [tokenizer.encode(marker) for marker in grammar.MARKERS]
    self.assertEqual(ids, [[tokenizer.id_of(m)] for m in grammar.MARKERS])
    self.assertLen({i for (i,) in ids}, len(grammar.MARKERS))
    with self.assertRaises(KeyError):
      tokenizer.id_of("<no_marker>")

  def test_a_long_text_is_no_reason_to_warn(self):
    tokenizer = tokenizer_lib.HfTokenizer(FOLDER)
    with self.assertNoLogs("transformers", "WARNING"):
      self.assertGreater(len(tokenizer.encode("1 " * 999)), 999)

  def test_the_folder_says_how_it_is_read(self):
    # With the class that others take, who have only the folder.
    theirs = transformers.AutoTokenizer.from_pretrained(FOLDER)
    for text in texts("train"):
      self.assertEqual(theirs.encode(text), shipped().encode(text))

  def test_whose_words_are_split_as_qwen2s(self):
    self.assertIn("qwen2", shipped().misread_in)
    folder = self.create_tempdir().full_path
    own = transformers.Qwen2Tokenizer()
    own.train_new_from_iterator(texts("train"), 300).save_pretrained(folder)
    self.assertEmpty(tokenizer_lib.HfTokenizer(folder).misread_in)
    # R1's distills split alike and compose no characters.
    file = pathlib.Path(folder) / "tokenizer.json"
    backend = tokenizers.Tokenizer.from_file(str(file))
    nfc, lower = normalizers.NFC(), normalizers.Lowercase()
    for parts in (None, [], [lower], [nfc, lower]):
      whole = None if parts is None else normalizers.Sequence(parts)
      backend.normalizer = whole
      backend.save(str(file))
      loaded = tokenizer_lib.HfTokenizer(folder, add_markers=False)
      self.assertIn("qwen2", loaded.misread_in)
    backend.normalizer = normalizers.Sequence([nfc])
    backend.save(str(file))
    self.assertEmpty(tokenizer_lib.HfTokenizer(folder).misread_in)

  @parameterized.parameters(*generator.SPLITS)
  def test_round_trip(self, split):
    tokenizer = shipped()
    for text in texts(split):
      ids = tokenizer.encode(text)
      self.assertEqual(tokenizer.decode(ids), text)
      self.assertBetween(min(ids), 0, tokenizer.vocab_size - 1)
      self.assertBetween(max(ids), 0, tokenizer.vocab_size - 1)
      # Nothing comes before, nothing after.
      self.assertNotIn(tokenizer.eos_id, ids)
      self.assertEqual(ids[0], tokenizer.id_of(grammar.USER))

  @parameterized.parameters(
    "", " ", "\n\n\n", "  two  spaces ", "é ∑ 7 < 11 <end_of_", "ÄÖ\t\u200b🙂"
  )
  def test_round_trip_of_anything(self, text):
    self.assertEqual(shipped().decode(shipped().encode(text)), text)

  def test_a_text_that_is_no_unicode(self):
    tokenizer = shipped()
    self.assertEqual(tokenizer.encode("a\ud800b"), tokenizer.encode("a\ufffdb"))

  def test_decode_drops_padding_and_end(self):
    tokenizer = shipped()
    first, second = tokenizer.encode("7"), tokenizer.encode("4")
    ids = [*first, tokenizer.pad_id, *second, tokenizer.eos_id]
    self.assertEqual(tokenizer.decode(ids), "74")
    self.assertNotEqual(tokenizer.pad_id, tokenizer.eos_id)

  @parameterized.parameters(*generator.SPLITS)
  def test_digits_are_tokens(self, split):
    tokenizer = shipped()
    for text in texts(split):
      pieces = [tokenizer.decode([i]) for i in tokenizer.encode(text)]
      found = [each for each in pieces if re.search(r"\d", each)]
      self.assertEqual(found, re.findall(r"\d", text))

  @parameterized.parameters(*generator.SPLITS)
  def test_a_name_is_two_tokens_wherever_it_stands(self, split):
    tokenizer = shipped()
    for text in texts(split):
      names = set(re.findall(r"^(?!answer)(\w+) = ", text, re.MULTILINE))
      self.assertNotEmpty(names)
      pieces = [tokenizer.decode([i]) for i in tokenizer.encode(text)]
      pairs = list(zip(pieces, pieces[1:], strict=False))
      for name in names:
        occurrences = len(re.findall(rf"\b{name}\b", text))
        self.assertEqual(pairs.count((name[:2], name[2:])), occurrences, name)

  def test_ids_are_those_of_the_file(self):
    # Beside a config.json of "qwen2" a library may take Qwen's own splitting
    # of words; the file alone must count.
    self.assertIn('"qwen2"', (FOLDER / "config.json").read_text())
    file = tokenizers.Tokenizer.from_file(str(FOLDER / "tokenizer.json"))
    for split in generator.SPLITS:
      for text in texts(split, 7):
        ids = file.encode(text, add_special_tokens=False).ids
        self.assertEqual(shipped().encode(text), ids)
    self.assertEqual(shipped().vocab_size, file.get_vocab_size())

  def test_saves_and_loads(self):
    folder = self.create_tempdir().full_path
    shipped().save(folder)
    again = tokenizer_lib.HfTokenizer(folder)
    for text in texts("test", 7):
      self.assertEqual(again.encode(text), shipped().encode(text))
    self.assertEqual(again.eos_id, shipped().eos_id)
    self.assertEqual(again.pad_id, shipped().pad_id)

  def test_a_token_that_is_not_ascii_is_saved_whatever_the_locale(self):
    folder = pathlib.Path(self.create_tempdir().full_path)
    alike.smollm().save(f"{folder}/tokenizer.json")
    config = '{"eos_token": "<｜end▁of▁sentence｜>"}'
    (folder / "tokenizer_config.json").write_text(config, "utf-8")
    read_text = pathlib.Path.read_text

    def as_in_c(path, encoding="ascii", errors=None):
      return read_text(path, encoding, errors)

    loaded = tokenizer_lib.HfTokenizer(folder)
    with mock.patch.object(pathlib.Path, "read_text", as_in_c):
      loaded.save(folder / "saved")
    again = tokenizer_lib.HfTokenizer(folder / "saved")
    self.assertEqual(again.eos_id, loaded.eos_id)

  def test_missing_markers_are_added_and_keep_their_ids(self):
    folder = self.create_tempdir().full_path
    fewer = tuple(m for m in grammar.MARKERS if m != grammar.ANSWER)
    with mock.patch.object(grammar, "MARKERS", fewer):
      train_tokenizer.train(["a text"], 270, folder)
    plain = tokenizer_lib.HfTokenizer(folder, add_markers=False)
    self.assertEqual(plain.known, plain.vocab_size)
    with self.assertRaises(KeyError):
      plain.id_of(grammar.ANSWER)
    self.assertGreater(len(plain.encode(grammar.ANSWER)), 1)
    first = tokenizer_lib.HfTokenizer(folder)
    self.assertEqual(first.known, plain.vocab_size)
    self.assertEqual(first.vocab_size, first.known + 1)
    self.assertEqual(first.id_of(grammar.ANSWER), first.known)
    text = f"a{grammar.ANSWER}text"
    self.assertEqual(first.decode(first.encode(text)), text)
    other = self.create_tempdir().full_path
    first.save(other)
    again = tokenizer_lib.HfTokenizer(other)
    self.assertEqual(again.known, again.vocab_size)
    self.assertEqual(again.encode(text), first.encode(text))

  def test_rows_that_a_model_may_lack(self):
    # Gemma 3's text models have no row for the token of images, which is last.
    folder = self.create_tempdir().full_path
    train_tokenizer.train(["a text"], 270, folder)
    file = pathlib.Path(folder) / "tokenizer.json"
    backend = tokenizers.Tokenizer.from_file(str(file))
    count = backend.get_vocab_size()
    backend.add_tokens(["plain"])
    backend.add_special_tokens(["<image>", "<sound>"])
    backend.save(str(file))
    tokenizer = tokenizer_lib.HfTokenizer(folder)
    self.assertEqual(tokenizer.known, count + 3)
    learnt = [tokenizer.known_to(count + more) for more in range(1, 6)]
    self.assertEqual(learnt, [count + each for each in (1, 2, 3, 3, 3)])
    with self.assertRaisesRegex(ValueError, f"rows for {count}: .* own folder"):
      tokenizer.known_to(count)

  def test_rows_of_markers_that_are_there(self):
    # They are written, so the model has to know them.
    folder = self.create_tempdir().full_path
    alike.write("smollm", folder)
    without = tokenizer_lib.HfTokenizer(folder)
    self.assertLess(without.known, without.vocab_size)
    without.save(folder)
    tokenizer = tokenizer_lib.HfTokenizer(folder)
    self.assertEqual(tokenizer.known, tokenizer.vocab_size)
    with self.assertRaisesRegex(ValueError, "they do not belong together"):
      tokenizer.known_to(tokenizer.known - 1)

  @parameterized.parameters(
    *(
      (name, ()) for name in ("qwen2", "smollm", "spaced", "phi3", "converted")
    ),
    ("llama3", (0,)),
    ("r1", (0,)),
    *((name, (1,)) for name in ("llama2", "mistral", "metaspace", "gemma")),
  )
  def test_begin_of_text_where_a_model_expects_it(self, name, expected):
    folder = self.create_tempdir().full_path
    alike.write(name, folder)
    self.assertEqual(shipped().bos_ids, ())
    loaded = tokenizer_lib.HfTokenizer(folder)
    self.assertEqual(loaded.bos_ids, expected)
    # One for the whole text, none for its pieces; and none in what is read.
    nodes = ("<code>x = 3<end_of_step>", "\n\ny = x<end_of_step>")
    ids = tokenizer_lib.encode_solution(loaded, "Tom has 3.", nodes)
    text = "Tom has 3." + "".join(nodes)
    self.assertEqual(ids, [*expected, *loaded.encode(text)])
    self.assertFalse(set(expected) & set(loaded.encode(text)))
    self.assertEqual(loaded.decode(ids), text)
    other = self.create_tempdir().full_path
    loaded.save(other)
    self.assertEqual(tokenizer_lib.HfTokenizer(other).bos_ids, expected)
    served = transformers.PreTrainedTokenizerFast.from_pretrained(other)
    asked = served.apply_chat_template(
      [{"role": "user", "content": "a"}],
      tokenize=False,
      add_generation_prompt=True,
    )
    begin = served.bos_token if expected else ""
    self.assertEqual(asked, begin + prompts.prompt("a"))

  @parameterized.parameters(*alike.ALL)
  def test_others_read_what_is_saved_alike(self, name):
    folder = self.create_tempdir().full_path
    alike.write(name, folder)
    loaded = tokenizer_lib.HfTokenizer(folder)
    other = self.create_tempdir().full_path
    loaded.save(other)
    text = "<code>x = 3 <end_of_step> \n\n# é<|assistant|> a"
    for kind in ("PreTrainedTokenizerFast", "AutoTokenizer"):
      theirs = getattr(transformers, kind).from_pretrained(other)
      ids = theirs.encode(text, add_special_tokens=False)
      self.assertEqual(ids, loaded.encode(text))
    # By these, transformers 4 puts a space before a text again.
    written = pathlib.Path(other, "tokenizer_config.json").read_text()
    self.assertNoCommonElements(
      json.loads(written), ["add_prefix_space", "legacy"]
    )

  @parameterized.parameters(*alike.ALL)
  def test_without_markers_texts_begin_as_the_model_knows_them(self, name):
    folder = self.create_tempdir().full_path
    model = alike.write(name, folder)
    loaded = tokenizer_lib.HfTokenizer(folder, add_markers=False)
    for text in ("Tom's 12 apples", " x\n  y", "<code>x", "a<|end|> b"):
      ids = model.encode(text, add_special_tokens=False).ids
      self.assertEqual(loaded.encode(text), ids)
    # What goes on from a text keeps its spaces.
    ids = loaded.encode("Tom's 12 apples")
    texts = [loaded.decode(ids[:size]) for size in range(len(ids) + 1)]
    for size, text in enumerate(texts):
      self.assertEqual(text + loaded.decode(ids[size:]), texts[-1])
    self.assertEqual(texts[-1].removeprefix(" "), "Tom's 12 apples")

  def test_a_marker_that_is_a_common_token(self):
    folder = pathlib.Path(self.create_tempdir().full_path)
    model = alike.smollm()
    written = json.loads(model.to_str())
    first = len(written["model"]["vocab"])
    written["model"]["vocab"][grammar.CODE] = first
    (folder / "tokenizer.json").write_text(json.dumps(written))
    (folder / "tokenizer_config.json").write_text('{"eos_token": "<|end|>"}')
    loaded = tokenizer_lib.HfTokenizer(folder)
    self.assertEqual(loaded.id_of(grammar.CODE), first)
    self.assertEqual(loaded.known, first + 1)
    self.assertEqual(loaded.vocab_size, first + len(grammar.MARKERS))
    self.assertEqual(loaded.encode("<code>"), [first])

  @parameterized.parameters("Qwen2Tokenizer", "GPT2Tokenizer")
  def test_vocab_and_merges_in_files_of_their_own(self, kind):
    folder = pathlib.Path(self.create_tempdir().full_path)
    model = alike.qwen2() if kind == "Qwen2Tokenizer" else alike.smollm()
    end = "<|endoftext|>" if kind == "Qwen2Tokenizer" else "<|end|>"
    if kind == "GPT2Tokenizer":
      split = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
      model.pre_tokenizer = split
    model.model.save(str(folder))
    fields = {"tokenizer_class": kind, "eos_token": end}
    (folder / "tokenizer_config.json").write_text(json.dumps(fields))
    loaded = tokenizer_lib.HfTokenizer(folder)
    for text in alike.TEXTS[:3]:
      self.assertEqual(loaded.encode(text), model.encode(text).ids)
      self.assertEqual(loaded.decode(loaded.encode(text)), text)

  # Whether or not it is there.
  @mock.patch.dict(sys.modules, {"sentencepiece": None})
  def test_folders_without_a_tokenizer(self):
    folder = pathlib.Path(self.create_tempdir().full_path)
    for name, text, message in (
      # transformers makes one without tokens of this.
      (
        "config.json",
        '{"model_type": "qwen2"}',
        "no tokenizer.json, nor vocab",
      ),
      ("merges.txt", "", "no tokenizer.json, nor vocab"),
      ("tokenizer.model", "", "pip install sentencepiece"),
      ("tokenizer.json", "{broken", "can be read: .*line 1"),
      ("tokenizer.json", "[]", "can be read: "),
    ):
      (folder / name).write_text(text)
      for markers in (True, False):
        with (
          self.subTest(name),
          self.assertRaisesRegex(ValueError, f"{folder}.*{message}") as caught,
        ):
          tokenizer_lib.HfTokenizer(folder, add_markers=markers)
        self.assertNotIn("\n", str(caught.exception))

  def test_a_tokenizer_without_end_of_text(self):
    folder = self.create_tempdir().full_path
    alike.smollm().save(f"{folder}/tokenizer.json")
    tokenizer_lib.HfTokenizer(folder, add_markers=False)
    with self.assertRaisesRegex(ValueError, "no end-of-text: name one as eos"):
      tokenizer_lib.HfTokenizer(folder)

  def test_chat_template_is_the_prompt(self):
    folder = self.create_tempdir().full_path
    shipped().save(folder)
    loaded = transformers.PreTrainedTokenizerFast.from_pretrained(folder)
    messages = [{"role": "user", "content": "How many?"}]
    asked = loaded.apply_chat_template(
      messages, tokenize=False, add_generation_prompt=True
    )
    self.assertEqual(asked, prompts.prompt("How many?"))
    messages.append({"role": "assistant", "content": "<code>"})
    answered = prompts.prompt("How many?") + "<code>" + loaded.eos_token
    self.assertEqual(
      loaded.apply_chat_template(messages, tokenize=False), answered
    )
    turns = [("user", "How many?"), ("assistant", "<code>")]
    self.assertEqual(shipped().chat(turns), answered)
    self.assertEqual(shipped().chat(turns[:1], asks=True), asked)


class EncodeSolutionTest(parameterized.TestCase):
  @parameterized.parameters(*generator.SPLITS)
  def test_pieces_give_the_ids_of_the_whole(self, split):
    for index in range(41):
      worked = generator.generate(split, index)
      prompt = prompts.prompt(worked.problem.question)
      for end in (0, 1, len(worked.steps)):
        nodes = worked.steps[:end]
        self.assertEqual(
          tokenizer_lib.encode_solution(shipped(), prompt, nodes),
          shipped().encode(prompt + "".join(nodes)),
        )


if __name__ == "__main__":
  absltest.main()
