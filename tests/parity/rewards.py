"""What the authors' recipes give for tiny reward models; needs torch.

python -m tests.parity.rewards      # writes tests/golden/rewards.json anew

Each recipe is written from what its authors published, for whole solutions:
the model card of Qwen2.5-Math-PRM-7B and Qwen2.5-Math-RM-72B, TRL's
PRMTrainer, skywork-o1-prm-inference, the model card of
math-shepherd-mistral-7b-prm, RLHFlow's prm_evaluate.py.
"""

import functools
import json
import pathlib
import tempfile
from collections.abc import Sequence

import safetensors.torch
import torch
import transformers

from rstar_jax.steps import grammar
from tests.parity import reward_cases

FILE = pathlib.Path(__file__).parents[1] / "golden" / "rewards.json"
_SYSTEM = {
  "role": "system",
  "content": "Please reason step by step, and put your final answer within "
  "\\boxed{}.",
}


@functools.cache
class Theirs:
  """A reward model in torch.

  Attributes:
    tokenizer: of `transformers`.
    head: tensors of the folder.
  """

  def __init__(self, folder: pathlib.Path, auto: str = "AutoModel"):
    load = getattr(transformers, auto).from_pretrained
    self.model = load(folder, attn_implementation="eager").eval()
    self.tokenizer = transformers.PreTrainedTokenizerFast.from_pretrained(
      folder
    )
    self.head = safetensors.torch.load_file(folder / "model.safetensors")

  def run(self, ids: Sequence[int]):
    with torch.no_grad():
      return self.model(torch.tensor([list(ids)]))

  def linear(self, x: torch.Tensor, name: str) -> torch.Tensor:
    bias = self.head.get(f"{name}.bias")
    return torch.nn.functional.linear(x, self.head[f"{name}.weight"], bias)

  def two_layers(self, ids: Sequence[int]) -> torch.Tensor:
    hidden = self.run(ids).last_hidden_state[0]
    return self.linear(torch.relu(self.linear(hidden, "score.0")), "score.2")


def qwen(folder, question, steps):
  theirs = Theirs(folder)
  tokenizer = theirs.tokenizer
  content = "<extra_0>".join(steps) + "<extra_0>"
  text = tokenizer.apply_chat_template(
    [
      _SYSTEM,
      {"role": "user", "content": question},
      {"role": "assistant", "content": content},
    ],
    tokenize=False,
  )
  ids = tokenizer.encode(text)
  (separator,) = tokenizer.encode("<extra_0>")
  good = theirs.two_layers(ids).softmax(-1)[:, 1]
  return [
    2 * float(p) - 1 for p, i in zip(good, ids, strict=True) if i == separator
  ]


def qwen_rm(folder, question, steps):
  theirs = Theirs(folder)
  text = theirs.tokenizer.apply_chat_template(
    [
      {"role": "user", "content": question},
      {"role": "assistant", "content": "\n\n".join(steps)},
    ],
    tokenize=False,
  )
  raw = theirs.two_layers(theirs.tokenizer.encode(text))
  # Bradley and Terry's: the probability of being better than what has 0.
  return [2 * float(raw[-1, 0].sigmoid()) - 1]


def trl(folder, question, steps):
  theirs = Theirs(folder, "AutoModelForTokenClassification")

  def encode(text):
    return theirs.tokenizer.encode(text, add_special_tokens=False)

  ids = [theirs.tokenizer.bos_token_id, *encode(question)]
  ends = []
  for step in steps:
    ids += encode(step) + encode("\n")
    ends.append(len(ids) - 1)
  good = theirs.run(ids).logits[0].softmax(-1)[:, 1]
  return [2 * float(good[end]) - 1 for end in ends]


def two_labels(folder, question, steps):
  theirs = Theirs(folder, "AutoModelForSequenceClassification")
  text = theirs.tokenizer.apply_chat_template(
    [
      {"role": "user", "content": question},
      {"role": "assistant", "content": "\n\n".join(steps)},
    ],
    tokenize=False,
  )
  logits = theirs.run(theirs.tokenizer.encode(text)).logits[0]
  # Its config.json calls the first class right.
  return [2 * float(logits.softmax(-1)[0]) - 1]


def skywork(folder, question, steps):
  theirs = Theirs(folder)
  tokenizer = theirs.tokenizer
  ids = tokenizer.encode(tokenizer.bos_token + question + "\n")
  end = tokenizer.encode("\n")[-1]
  flags = []
  for step in steps:
    for line in step.split("\n"):
      ids += tokenizer.encode(line) + [end] if line else [end]
    flags.append(len(ids) - 1)
  hidden = theirs.run(ids).last_hidden_state[0]
  good = theirs.linear(hidden, "v_head.summary")[:, 0].sigmoid()
  return [2 * float(good[flag]) - 1 for flag in flags]


def math_shepherd(folder, question, steps):
  theirs = Theirs(folder, "AutoModelForCausalLM")
  tokenizer = theirs.tokenizer
  candidates = tokenizer.encode("+ -")[1:]
  tag = tokenizer.encode("ки")[-1]
  output = "\n".join(
    f"Step {number}: {step} ки" for number, step in enumerate(steps, 1)
  )
  ids = tokenizer.encode(f"{question} {output}")
  good = theirs.run(ids).logits[0][:, candidates].softmax(-1)[:, 0]
  return [2 * float(p) - 1 for p, i in zip(good, ids, strict=True) if i == tag]


def rlhflow(folder, question, steps):
  theirs = Theirs(folder, "AutoModelForCausalLM")
  tokenizer = theirs.tokenizer
  candidates = [tokenizer.encode("+")[-1], tokenizer.encode("-")[-1]]
  found, conversation = [], []
  for number, step in enumerate(steps):
    text = step if number else f"{question} {step}"
    conversation.append({"content": text, "role": "user"})
    conversation.append({"content": "+", "role": "assistant"})
    ids = tokenizer.apply_chat_template(conversation, return_dict=False)
    # What is before "+" and the end of the turn, as in Llama 3's template. The
    # "+" of these pieces is two, with the mark that each text begins with.
    end = len(tokenizer.encode("+", add_special_tokens=False)) + 2
    logits = theirs.run(ids).logits[0, -end, candidates]
    found.append(2 * float(logits.softmax(-1)[0]) - 1)
  return found


def values(folder: pathlib.Path, name: str) -> list[float]:
  """Returns the value at the end of each path of a case, in [-1, 1]."""
  recipe = globals()[name]
  before: dict[tuple[str, ...], float] = {}
  for path in reward_cases.paths():
    steps = [grammar.MARKER.sub("", text).strip() for text in path]
    *earlier, last = recipe(folder, reward_cases.QUESTION, steps)
    # Models are causal: a step's value does not depend on later ones.
    for end, value in enumerate(earlier, 1):
      assert abs(value - before[path[:end]]) < 1e-5, (name, path)
    before[path] = last
  return list(before.values())


def main() -> None:
  transformers.logging.set_verbosity_error()
  transformers.logging.disable_progress_bar()
  found = {}
  with tempfile.TemporaryDirectory() as top:
    for name in reward_cases.CASES:
      folder = pathlib.Path(top) / name
      reward_cases.write(folder, name)
      found[name] = [round(value, 7) for value in values(folder, name)]
      print(name, found[name][:4])
  FILE.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
  main()
