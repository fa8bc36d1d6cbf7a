"""What `transformers` computes with a tiny model; needs torch.

python -m tests.parity.reference      # writes tests/golden anew
"""

import json
import pathlib

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
        # Gemma adds 1 to the scales itself.
        at = "norm" in key and "gemma" not in name
        value.copy_(0.3 * torch.randn_like(value) + at)
  model.save_pretrained(folder)
  # It says which version of the library wrote it, and how a model is sampled.
  for file in folder.glob("generation_config.json"):
    file.unlink()
  file = folder / "config.json"
  said = json.loads(file.read_text())
  del said["transformers_version"]
  file.write_text(json.dumps(said, indent=2, sort_keys=True) + "\n")


def expected(
  folder: pathlib.Path, name: str, seed: int
) -> dict[str, np.ndarray]:
  """Runs a checkpoint of a case.

  Returns:
    "ids_T" int32 [2, T], "logits_T" and "bfloat16_T" float32 [2, T, V] for each
    length T, and of a mixture "chosen_T" int32 [L, 2 T, A], the experts in
    bfloat16 of each layer that has some; "prompt_i" and "greedy_i" int32; and,
    with the scalar head "score" [D] in the place of the LM head, "raw_T"
    float32 [2].
  """
  rng = np.random.default_rng(seed)
  found: dict[str, np.ndarray] = {}
  auto = transformers.AutoModelForCausalLM
  # Eager attention: the plainest of the library's own.
  options = dict.fromkeys(
    ("attn_implementation", "experts_implementation"), "eager"
  )
  model = auto.from_pretrained(folder, **options).eval()
  rounded = auto.from_pretrained(folder, dtype=torch.bfloat16, **options).eval()
  chosen = _chosen(rounded)
  config = model.config
  score_of = _scorer(folder, model, options)
  score = 0.2 * rng.standard_normal(config.hidden_size, np.float32)
  found["score"] = score
  with torch.no_grad():
    for length in cases.lengths(name):
      ids = rng.integers(1, config.vocab_size, (2, length), np.int32)
      batch = torch.tensor(ids, dtype=torch.long)
      found[f"ids_{length}"] = ids
      found[f"logits_{length}"] = model(batch).logits.numpy()
      found[f"bfloat16_{length}"] = rounded(batch).logits.float().numpy()
      if chosen:
        found[f"chosen_{length}"] = np.stack(chosen)
        chosen.clear()
      found[f"raw_{length}"] = score_of(batch, torch.tensor(score)).numpy()
    for i, (length, new) in enumerate(cases.greedy_sizes(name)):
      prompt = rng.integers(1, config.vocab_size, length, np.int32)
      out = model.generate(
        torch.tensor(prompt, dtype=torch.long)[None],
        max_new_tokens=new,
        min_new_tokens=new,
        do_sample=False,
      )
      found[f"prompt_{i}"] = prompt
      found[f"greedy_{i}"] = out[0, length:].numpy().astype(np.int32)
  return found


def _chosen(model) -> list[np.ndarray]:
  """Returns a list to which each router adds the experts that it chooses."""
  found: list[np.ndarray] = []
  for module in model.modules():
    if type(module).__name__.endswith("TopKRouter"):
      module.register_forward_hook(
        lambda module, given, out: found.append(out[2].int().numpy())
      )
  return found


def _scorer(folder: pathlib.Path, model, options):
  """Returns (ids [B, T], score [D]) -> float32 [B], of a classifier.

  Of Granite `transformers` has none.
  """
  auto = transformers.AutoModelForSequenceClassification
  if type(model.config) not in auto._model_mapping:
    return lambda ids, score: model.model(ids)[0][:, -1] @ score
  scored = auto.from_pretrained(folder, num_labels=1, **options).eval()

  def score_of(ids, score):
    scored.score.weight.copy_(score[None])
    return scored(ids).logits[:, 0]

  return score_of


def main() -> None:
  transformers.logging.set_verbosity_error()
  transformers.logging.disable_progress_bar()
  for seed, name in enumerate(cases.CASES):
    folder = GOLDEN / name
    write_checkpoint(folder, name, seed)
    np.savez_compressed(folder / "expected.npz", **expected(folder, name, seed))
    print(name)


if __name__ == "__main__":
  main()
