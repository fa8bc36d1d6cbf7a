"""Tiny reward models of each published form, and solutions that they judge.

Folders are written with numpy alone, the same bytes each time: `rewards.py`
values the solutions with torch, as the authors of each form document it, and
the test of `inference/reward.py` searches with our engine.
"""

import dataclasses
import json
import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import safetensors.numpy
import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors

from rstar_jax import testing
from rstar_jax.steps import grammar

QUESTION = "What is 1 + 2 - 3? Say it in 2 steps."
POLICY = testing.ToySum(covers=True)

_CHATML = (
  "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n"
  "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_HEADERS = (
  "<s>{% for m in messages %}<h>{{ m.role }}</h>\n\n{{ m.content }}<eot>"
  "{% endfor %}{% if add_generation_prompt %}<h>assistant</h>\n\n{% endif %}"
)


@dataclasses.dataclass(frozen=True)
class Case:
  """A reward model.

  Attributes:
    family: its `model_type`.
    kind: its class is of the family, with this head.
    tokenizer: "bytes", as Qwen's is made, or "pieces", as Llama's.
    head: shapes of the head's tensors but for D, by their names.
    tied: whether the LM head is the embedding.
    fields: more of config.json.
    name: what comes before the folder in its name.
    seed: of its weights, so that a new case changes no other.
  """

  family: str
  kind: str
  tokenizer: str
  head: dict[str, tuple[str | int, ...]]
  tied: bool = False
  fields: dict[str, Any] = dataclasses.field(default_factory=dict)
  name: str = ""
  seed: int = dataclasses.field(kw_only=True)


_MLP = {"score.0.weight": ("D", "D"), "score.0.bias": ("D",)}
CASES = {
  "qwen": Case(
    "qwen2",
    "Qwen2ForProcessRewardModel",
    "bytes",
    # The published folder has an LM head that nothing reads.
    _MLP
    | {"score.2.weight": (2, "D"), "score.2.bias": (2,)}
    | {"lm_head.weight": ("V", "D")},
    seed=0,
  ),
  "qwen_rm": Case(
    "qwen2",
    "Qwen2ForRewardModel",
    "bytes",
    _MLP | {"score.2.weight": (1, "D"), "score.2.bias": (1,)},
    seed=1,
  ),
  "trl": Case(
    "llama",
    "LlamaForTokenClassification",
    "pieces",
    {"score.weight": (2, "D"), "score.bias": (2,)},
    seed=2,
  ),
  "two_labels": Case(
    "qwen2",
    "Qwen2ForSequenceClassification",
    "bytes",
    {"score.weight": (2, "D")},
    # The good class comes first.
    fields={"id2label": {"0": "Correct", "1": "Incorrect"}},
    seed=3,
  ),
  "skywork": Case(
    "qwen2",
    "Qwen2ForPrmModel",
    "bytes",
    {
      "v_head.summary.weight": (1, "D"),
      "v_head.summary.bias": (1,),
      "lm_head.weight": ("V", "D"),
    },
    seed=4,
  ),
  "math_shepherd": Case(
    "llama",
    "LlamaForCausalLM",
    "pieces",
    {"lm_head.weight": ("V", "D")},
    name="math_shepherd:",
    seed=5,
  ),
  "rlhflow": Case(
    "llama",
    "LlamaForCausalLM",
    "pieces",
    {},
    tied=True,
    name="rlhflow:",
    seed=6,
  ),
}


def write(folder: pathlib.Path, name: str) -> str:
  """Writes a case's folder; returns what names it in a config."""
  case = CASES[name]
  folder.mkdir(parents=True, exist_ok=True)
  made = _bytes() if case.tokenizer == "bytes" else _pieces()
  made.save(str(folder / "tokenizer.json"))
  special = {"eos_token": "<|endoftext|>", "chat_template": _CHATML}
  if name == "skywork":
    special["bos_token"] = "<|endoftext|>"
  if case.tokenizer == "pieces":
    special = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    special["chat_template"] = _HEADERS
  _write_json(
    folder / "tokenizer_config.json",
    {"tokenizer_class": "PreTrainedTokenizerFast"} | special,
  )
  sizes = {"V": made.get_vocab_size(), "D": 24, "F": 37, "N": 24, "K": 8}
  fields = {
    "architectures": [case.kind],
    "model_type": case.family,
    "vocab_size": sizes["V"],
    "hidden_size": sizes["D"],
    "intermediate_size": sizes["F"],
    "num_hidden_layers": 2,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "max_position_embeddings": 1024,
    "tie_word_embeddings": case.tied,
    "bos_token_id": None,
    "eos_token_id": None,
    "pad_token_id": made.token_to_id("<|endoftext|>"),
  }
  _write_json(folder / "config.json", fields | case.fields)
  random = np.random.default_rng(case.seed)
  arrays = {}
  for tensor, shape in _tensors(case):
    shape = tuple(sizes.get(axis, axis) for axis in shape)
    # Uniform, of a standard deviation of 0.3; scales of norms are about 1.
    array = random.random(shape) * 1.04 - 0.52
    arrays[tensor] = (array + ("norm" in tensor)).astype(np.float32)
  safetensors.numpy.save_file(arrays, folder / "model.safetensors")
  return f"{case.name}{folder}"


def paths() -> list[tuple[str, ...]]:
  """Returns the node texts of all paths of the policy, with outputs."""
  found, waiting = [], [()]
  while waiting:
    prefix = waiting.pop(0)
    (candidates,) = POLICY([QUESTION], [prefix], np.arange(3)[None])
    for each in {c.text: c for c in candidates}.values():
      text = each.text
      if each.finish == "code":
        program = grammar.program((*prefix, text))
        (ran,) = testing.run_trusted([program])
        text = grammar.with_output(text, ran.stdout)
      found.append((*prefix, text))
      if each.finish != "answer":
        waiting.append((*prefix, text))
  return found


def _tensors(case: Case) -> Iterator[tuple[str, tuple[str | int, ...]]]:
  """Yields the names and shapes of a model's tensors."""
  yield "model.embed_tokens.weight", ("V", "D")
  for layer in range(2):
    where = f"model.layers.{layer}"
    for name in ("input_layernorm", "post_attention_layernorm"):
      yield f"{where}.{name}.weight", ("D",)
    for part, rows in zip("qkv", "NKK", strict=True):
      yield f"{where}.self_attn.{part}_proj.weight", (rows, "D")
      if case.family == "qwen2":
        yield f"{where}.self_attn.{part}_proj.bias", (rows,)
    yield f"{where}.self_attn.o_proj.weight", ("D", "N")
    yield f"{where}.mlp.gate_proj.weight", ("F", "D")
    yield f"{where}.mlp.up_proj.weight", ("F", "D")
    yield f"{where}.mlp.down_proj.weight", ("D", "F")
  yield "model.norm.weight", ("D",)
  yield from case.head.items()


def _bytes() -> tokenizers.Tokenizer:
  """Returns bytes, and the special tokens of Qwen's."""
  letters = sorted(pre_tokenizers.ByteLevel.alphabet())
  made = tokenizers.Tokenizer(
    models.BPE({letter: i for i, letter in enumerate(letters)}, [])
  )
  made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
  made.decoder = decoders.ByteLevel()
  made.add_special_tokens(
    ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<extra_0>"]
  )
  return made


def _pieces() -> tokenizers.Tokenizer:
  """Returns pieces with a mark for spaces, and bytes for what is unknown."""
  names = ["<unk>", "<s>", "</s>"]
  names += [f"<0x{byte:02X}>" for byte in range(256)]
  names += [*"▁+-киabcdefghijklmnopqrstuvwxyz0123456789="]
  names += ["ки", "▁ки", "▁+", "▁-"]
  merges = [("к", "и"), ("▁", "ки"), ("▁", "+"), ("▁", "-")]
  made = tokenizers.Tokenizer(
    models.BPE(
      {name: i for i, name in enumerate(names)},
      merges,
      unk_token="<unk>",
      byte_fallback=True,
      fuse_unk=True,
    )
  )
  made.normalizer = normalizers.Sequence(
    [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
  )
  made.decoder = decoders.Sequence(
    [
      decoders.Replace("▁", " "),
      decoders.ByteFallback(),
      decoders.Fuse(),
      decoders.Strip(" ", 1, 0),
    ]
  )
  made.post_processor = processors.TemplateProcessing(
    single="<s> $A", special_tokens=[("<s>", 1)]
  )
  made.add_special_tokens(["<unk>", "<s>", "</s>", "<h>", "</h>", "<eot>"])
  return made


def _write_json(file: pathlib.Path, fields: dict[str, Any]) -> None:
  file.write_text(json.dumps(fields, indent=2, sort_keys=True) + "\n")
