"""Small tokenizers made like those of published models, part by part.

Each has the parts of the tokenizer.json that the models with its name have; the
vocabulary is learned from a few texts. The parts are written by hand, so that
they are no echo of the code that reads them.
"""

import functools
import json
import pathlib

import tokenizers
from tokenizers import (
  AddedToken,
  decoders,
  models,
  normalizers,
  pre_tokenizers,
  processors,
  trainers,
)

TEXTS = [
  "Tom's 12 apples cost 3.50 each, 42 in all; I'LL take 1234567 of them.\n",
  "# Double  the number\nfor i in range(3):\n    x = 2 * x\n\nprint(x ** 2)\n",
  "Größe, naïve, x²≤y³ \u00a0\r\n   The answer is \\boxed{14}. def f(x):\n\t",
] * 3

_GPT2 = pre_tokenizers.ByteLevel(add_prefix_space=False)
_QWEN2 = (
  r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}|"
  r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


_R1 = (
  "<\uff5cbegin\u2581of\u2581sentence\uff5c>",
  "<\uff5cend\u2581of\u2581sentence\uff5c>",
)


def _split(expression: str):
  return pre_tokenizers.Sequence(
    [
      pre_tokenizers.Split(tokenizers.Regex(expression), "isolated"),
      pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ]
  )


def _begin(token: str, number: int, end: str = "") -> processors.PostProcessor:
  """Returns a template of begin-of-text; `end` closes the text."""
  return processors.TemplateProcessing(
    single=f"{token} $A {end}".strip(),
    special_tokens=[(token, number), *([(end, 2)] if end else [])],
  )


def _byte_level(split, specials: list[str], **options) -> tokenizers.Tokenizer:
  tokenizer = tokenizers.Tokenizer(models.BPE(**options))
  tokenizer.pre_tokenizer, tokenizer.decoder = split, decoders.ByteLevel()
  trainer = trainers.BpeTrainer(
    vocab_size=400,
    special_tokens=specials,
    initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    show_progress=False,
  )
  tokenizer.train_from_iterator(TEXTS, trainer)
  return tokenizer


@functools.cache
def pieces() -> tuple[list[str], list[tuple[str, str]]]:
  """Returns tokens and merges in the way of SentencePiece, with all bytes."""
  learned = tokenizers.Tokenizer(models.BPE())
  learned.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never")
  learned.train_from_iterator(
    TEXTS, trainers.BpeTrainer(vocab_size=180, show_progress=False)
  )
  model = json.loads(learned.to_str())["model"]
  first = ["<unk>", "<s>", "</s>", *(f"<0x{i:02X}>" for i in range(256))]
  # SentencePiece has bytes alone for line breaks, tabs and rare characters.
  rare = set("\n\r\t\u00a0\u00b2\u00b3\u2264")
  words = [w for w in model["vocab"] if not rare.intersection(w)]
  merges = [
    pair for pair in model["merges"] if not rare.intersection("".join(pair))
  ]
  return [*first, *words], [tuple(pair) for pair in merges]


def _sentence_piece(added: list[AddedToken]) -> tokenizers.Tokenizer:
  """Returns the parts that Llama's, Phi-3's, Mistral's and Gemma's share."""
  tokens, merges = pieces()
  tokenizer = tokenizers.Tokenizer(
    models.BPE(
      vocab={token: i for i, token in enumerate(tokens)},
      merges=merges,
      unk_token="<unk>",
      fuse_unk=True,
      byte_fallback=True,
    )
  )
  tokenizer.add_tokens(
    [
      AddedToken("<unk>", special=True, normalized=False),
      AddedToken("<s>", special=True, normalized=False),
      *added,
    ]
  )
  return tokenizer


_END = AddedToken("</s>", special=True, normalized=False)
_STRIPPED = decoders.Sequence(
  [
    decoders.Replace("\u2581", " "),
    decoders.ByteFallback(),
    decoders.Fuse(),
    decoders.Strip(" ", 1, 0),
  ]
)


def qwen2() -> tokenizers.Tokenizer:
  """Qwen2's and Qwen2.5-Math's: composed accents, digits one by one."""
  specials = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
  tokenizer = _byte_level(_split(_QWEN2), specials)
  tokenizer.normalizer = normalizers.NFC()
  return tokenizer


def r1() -> tokenizers.Tokenizer:
  """R1's distilled into Qwen: its config has begin-of-text, not its file."""
  return _byte_level(_split(_QWEN2), list(_R1))


def llama3() -> tokenizers.Tokenizer:
  """Llama 3's: begin-of-text by a template within a sequence."""
  specials = ["<|begin_of_text|>", "<|end_of_text|>"]
  split = _split(_QWEN2.replace(r"|\p{N}|", r"|\p{N}{1,3}|"))
  tokenizer = _byte_level(split, specials, ignore_merges=True)
  tokenizer.post_processor = processors.Sequence(
    [processors.ByteLevel(trim_offsets=False), _begin(specials[0], 0)]
  )
  return tokenizer


def smollm() -> tokenizers.Tokenizer:
  """SmolLM's, which is GPT-2's with digits one by one."""
  digits = pre_tokenizers.Digits(individual_digits=True)
  return _byte_level(pre_tokenizers.Sequence([digits, _GPT2]), ["<|end|>"])


def spaced() -> tokenizers.Tokenizer:
  """GPT-2's with a space before each text, as RoBERTa-like models have it."""
  return _byte_level(pre_tokenizers.ByteLevel(True), ["<|end|>"])


def phi3() -> tokenizers.Tokenizer:
  """Phi-3-mini's: a space after each special token, in place of those there."""
  names = ["<|endoftext|>", "<|assistant|>", "<|end|>", "<|user|>"]
  tokenizer = _sentence_piece(
    [
      AddedToken("</s>", rstrip=True, normalized=False),
      *(
        AddedToken(name, rstrip=i > 0, special=True, normalized=False)
        for i, name in enumerate(names)
      ),
    ]
  )
  tokenizer.normalizer = normalizers.Sequence(
    [normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")]
  )
  tokenizer.decoder = _STRIPPED
  tokenizer.post_processor = processors.TemplateProcessing(single="$A")
  return tokenizer


def llama2() -> tokenizers.Tokenizer:
  """Llama 2's, of `legacy=true`: Phi-3's with begin-of-text."""
  tokenizer = _sentence_piece([_END])
  tokenizer.normalizer = normalizers.Sequence(
    [normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")]
  )
  tokenizer.decoder = _STRIPPED
  tokenizer.post_processor = _begin("<s>", 1)
  return tokenizer


def mistral() -> tokenizers.Tokenizer:
  """Mistral's, and Llama's of `legacy=false`: a space before the text alone."""
  tokenizer = _sentence_piece([_END])
  tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(
    prepend_scheme="first", split=False
  )
  tokenizer.decoder = _STRIPPED
  tokenizer.post_processor = _begin("<s>", 1)
  return tokenizer


def metaspace() -> tokenizers.Tokenizer:
  """Metaspace in splitting and decoding; end-of-text by the template too."""
  tokenizer = _sentence_piece([_END])
  tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
  tokenizer.decoder = decoders.Sequence(
    [decoders.ByteFallback(), decoders.Metaspace(prepend_scheme="always")]
  )
  tokenizer.post_processor = _begin("<s>", 1, "</s>")
  return tokenizer


def converted() -> tokenizers.Tokenizer:
  """What transformers makes of a tokenizer.model: Phi-3's in other parts."""
  tokenizer = _sentence_piece([_END])
  tokenizer.normalizer = normalizers.Sequence(
    [
      normalizers.Replace(" ", "\u2581"),
      normalizers.Replace(tokenizers.Regex("\\A\u2581"), "\u2581\u2581"),
    ]
  )
  tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
    [pre_tokenizers.Metaspace(prepend_scheme="always", split=False)]
  )
  tokenizer.decoder = _STRIPPED
  return tokenizer


def gemma() -> tokenizers.Tokenizer:
  """Gemma's: no space before a text; line breaks and <code> are tokens."""
  added = [AddedToken("\n" * n, normalized=False) for n in (1, 2, 3)]
  code = AddedToken("<code>", normalized=False)
  tokenizer = _sentence_piece([_END, *added, code])
  tokenizer.normalizer = normalizers.Replace(" ", "\u2581")
  tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
  tokenizer.decoder = decoders.Sequence(
    [
      decoders.Replace("\u2581", " "),
      decoders.ByteFallback(),
      decoders.Fuse(),
    ]
  )
  tokenizer.post_processor = _begin("<s>", 1)
  return tokenizer


# By name: the tokenizer, and fields of its tokenizer_config.json.
ALL = {
  "qwen2": (qwen2, {"eos_token": "<|endoftext|>"}),
  "r1": (
    r1,
    {
      "tokenizer_class": "LlamaTokenizerFast",
      "add_bos_token": True,
      "bos_token": _R1[0],
      "eos_token": _R1[1],
      "legacy": True,
    },
  ),
  "llama3": (
    llama3,
    {"bos_token": "<|begin_of_text|>", "eos_token": "<|end_of_text|>"},
  ),
  "smollm": (smollm, {"eos_token": "<|end|>"}),
  "spaced": (spaced, {"eos_token": "<|end|>", "add_prefix_space": True}),
  "phi3": (
    phi3,
    {
      "tokenizer_class": "LlamaTokenizer",
      "add_bos_token": False,
      "add_eos_token": False,
      "bos_token": "<s>",
      "eos_token": "<|endoftext|>",
      "pad_token": "<|endoftext|>",
      "unk_token": "<unk>",
      "legacy": False,
      "sp_model_kwargs": {},
    },
  ),
  "llama2": (
    llama2,
    {"bos_token": "<s>", "eos_token": "</s>", "legacy": True},
  ),
  "mistral": (
    mistral,
    {
      "add_bos_token": True,
      "add_prefix_space": True,
      "bos_token": "<s>",
      "eos_token": "</s>",
      "legacy": False,
    },
  ),
  "metaspace": (metaspace, {"bos_token": "<s>", "eos_token": "</s>"}),
  "converted": (converted, {"bos_token": "<s>", "eos_token": "</s>"}),
  "gemma": (gemma, {"bos_token": "<s>", "eos_token": "</s>"}),
}


def write(name: str, folder) -> tokenizers.Tokenizer:
  """Writes the files of a tokenizer of `ALL`, and returns it as it is."""
  make, fields = ALL[name]
  tokenizer, folder = make(), pathlib.Path(folder)
  folder.mkdir(parents=True, exist_ok=True)
  tokenizer.save(str(folder / "tokenizer.json"))
  added = {
    str(number): json.loads(json.dumps(token.__getstate__()))
    for number, token in tokenizer.get_added_tokens_decoder().items()
  }
  fields = {"added_tokens_decoder": added, **fields}
  (folder / "tokenizer_config.json").write_text(json.dumps(fields))
  return tokenizer
