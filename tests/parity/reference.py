"""What `transformers` computes with a tiny model; needs torch.

python -m tests.parity.reference [CASE ...]   # writes tests/golden anew
"""

import json
import pathlib
import sys
import zlib
from collections.abc import Mapping, Sequence

import numpy as np
import torch
import transformers

from tests.parity import cases

GOLDEN = pathlib.Path(__file__).parents[1] / "golden"


def write_checkpoint(folder: pathlib.Path, name: str, seed: int) -> None:
  """Writes a random model of a case as `transformers` writes it."""
  fields = dict(cases.CASES[name])
  config = transformers.AutoConfig.for_model(fields.pop("model_type"), **fields)
  torch.manual_seed(seed)
  model = transformers.AutoModelForCausalLM.from_config(config)
  with torch.no_grad():
    for key, value in model.named_parameters():
      if value.ndim == 1:
        # Biases of 0 and scales of 1 would hide a swap of two.
        # Gemma 2 and 3 add 1 to the scales themselves.
        at = "norm" in key and name not in ("gemma2", "gemma3")
        value.copy_(0.3 * torch.randn_like(value) + at)
    for key, value in model.named_buffers():
      if key.endswith("layer_scalar"):
        value.copy_(0.3 * torch.randn_like(value) + 1)
  model.save_pretrained(folder)
  # It says which version of the library wrote it, and how a model is sampled.
  for file in folder.glob("generation_config.json"):
    file.unlink()
  file = folder / "config.json"
  said = json.loads(file.read_text())
  del said["transformers_version"]
  file.write_text(json.dumps(said, indent=2, sort_keys=True) + "\n")


def inputs(name: str, seed: int) -> dict[str, np.ndarray]:
  """Draws what a case is asked.

  Returns:
    "ids_T" int32 [2, T] for each length T, "prompt_i" int32 of what is decoded,
    and a scalar head "score" [D].
  """
  rng = np.random.default_rng(seed)
  vocab, width = (
    cases.CASES[name][each] for each in ("vocab_size", "hidden_size")
  )
  found = {"score": 0.2 * rng.standard_normal(width, np.float32)}
  for length in cases.lengths(name):
    found[f"ids_{length}"] = rng.integers(1, vocab, (2, length), np.int32)
  for i, (length, _) in enumerate(cases.greedy_sizes(name)):
    found[f"prompt_{i}"] = rng.integers(1, vocab, length, np.int32)
  return found


def expected(
  folder: pathlib.Path, name: str, asked: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
  """Runs a checkpoint of a case on its `inputs`.

  Returns:
    The inputs; "logits_T" and "bfloat16_T" float32 [2, T, V], and of a mixture
    "chosen_T" int32 [L, 2 T, A], the experts in bfloat16 of each layer that has
    some; "greedy_i" int32; and, with the scalar head in the place of the LM
    head, "raw_T" float32 [2].
  """
  found = dict(asked)
  auto = transformers.AutoModelForCausalLM
  # Eager attention: the plainest of the library's own.
  options = dict.fromkeys(
    ("attn_implementation", "experts_implementation"), "eager"
  )
  model = auto.from_pretrained(folder, **options).eval()
  rounded = auto.from_pretrained(folder, dtype=torch.bfloat16, **options).eval()
  chosen = _chosen(rounded)
  score_of = _scorer(folder, model, options)
  with torch.no_grad():
    for length in cases.lengths(name):
      batch = torch.tensor(asked[f"ids_{length}"], dtype=torch.long)
      score = torch.tensor(asked["score"])
      found[f"logits_{length}"] = model(batch).logits.numpy()
      found[f"bfloat16_{length}"] = rounded(batch).logits.float().numpy()
      if chosen:
        found[f"chosen_{length}"] = np.stack(chosen)
        chosen.clear()
      found[f"raw_{length}"] = score_of(batch, score).numpy()
    for i, (length, new) in enumerate(cases.greedy_sizes(name)):
      out = model.generate(
        torch.tensor(asked[f"prompt_{i}"], dtype=torch.long)[None],
        max_new_tokens=new,
        min_new_tokens=new,
        do_sample=False,
      )
      found[f"greedy_{i}"] = out[0, length:].numpy().astype(np.int32)
  return found


def _chosen(model) -> list[np.ndarray]:
  """Returns a list to which each router adds the experts that it chooses."""
  found: list[np.ndarray] = []
  for module in model.modules():
    if type(module).__name__.endswith("Router"):
      module.register_forward_hook(
        lambda module, given, out: found.append(out[2].int().numpy())
      )
  return found


def _scorer(folder: pathlib.Path, model, options):
  """Returns (ids [B, T], score [D]) -> float32 [B], of a classifier.

  Of Granite and Gemma 4 `transformers` has none.
  """
  auto = transformers.AutoModelForSequenceClassification
  if type(model.config) not in auto._model_mapping:
    return lambda ids, score: model.model(ids)[0][:, -1] @ score
  scored = auto.from_pretrained(folder, num_labels=1, **options).eval()

  def score_of(ids, score):
    scored.score.weight.copy_(score[None])
    return scored(ids).logits[:, 0]

  return score_of


def main(names: Sequence[str]) -> None:
  transformers.logging.set_verbosity_error()
  transformers.logging.disable_progress_bar()
  for name in names or cases.CASES:
    # By the name, so that a new case changes no other.
    folder, seed = GOLDEN / name, zlib.crc32(name.encode())
    write_checkpoint(folder, name, seed)
    found = expected(folder, name, inputs(name, seed))
    np.savez_compressed(folder / "expected.npz", **found)
    print(name)


if __name__ == "__main__":
  main(sys.argv[1:])
