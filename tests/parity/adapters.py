"""LoRA adapters that PEFT writes, and what it computes with them.

python -m tests.parity.adapters       # writes tests/golden/*/adapter anew
"""

import json
import pathlib
import warnings
import zlib
from typing import Any

import numpy as np
import peft
import torch
import transformers

from tests.parity import reference

# By the case whose model is the base: what PEFT is asked for. Between them they
# have each way to scale, fused matrices, a new head and a grown vocabulary.
ADAPTERS: dict[str, dict[str, Any]] = {
  "qwen2": {
    "r": 3,
    "lora_alpha": 5,
    "target_modules": ["q_proj", "v_proj", "down_proj"],
    "rank_pattern": {"down_proj": 2},
    "alpha_pattern": {"layers.1.self_attn.v_proj": 7},
    "layers_to_transform": [1],
  },
  "phi3": {
    "r": 4,
    "lora_alpha": 3,
    "use_rslora": True,
    "target_modules": "all-linear",
  },
  "llama3_tied": {
    "r": 2,
    "lora_alpha": 6,
    "target_modules": ["o_proj", "gate_proj"],
    "vocab": 101,
  },
  "llama_bias": {"r": 2, "lora_alpha": 4, "target_modules": "all-linear"},
}
# Those of a sequence classifier with one label.
CLASSIFIERS = ("llama_bias",)


def load(folder: pathlib.Path, name: str, vocab: int | None = None):
  """Loads a case's base model as PEFT wants it."""
  kind = "SequenceClassification" if name in CLASSIFIERS else "CausalLM"
  options = {"num_labels": 1} if name in CLASSIFIERS else {}
  auto = getattr(transformers, f"AutoModelFor{kind}")
  torch.manual_seed(0)
  model = auto.from_pretrained(
    folder, attn_implementation="eager", **options
  ).eval()
  if vocab:
    model.resize_token_embeddings(vocab)
  return model


def write(
  base: pathlib.Path, name: str, folder: pathlib.Path, seed: int
) -> dict[str, np.ndarray]:
  """Writes a random adapter of a case; returns "ids", and "logits" or "raw"."""
  fields = dict(ADAPTERS[name])
  vocab = fields.pop("vocab", None)
  model = load(base, name, vocab)
  task = "SEQ_CLS" if name in CLASSIFIERS else "CAUSAL_LM"
  model = peft.get_peft_model(
    model, peft.LoraConfig(task_type=task, **fields)
  ).eval()
  torch.manual_seed(seed)
  with torch.no_grad():
    for key, value in model.named_parameters():
      grown = vocab and "embed_tokens" in key
      if "lora_" in key or "modules_to_save" in key or grown:
        value.copy_(0.3 * torch.randn_like(value))
  with warnings.catch_warnings():
    # It says that the embedding is written too.
    warnings.simplefilter("ignore")
    model.save_pretrained(folder)
  (folder / "README.md").unlink()
  file = folder / "adapter_config.json"
  said = json.loads(file.read_text())
  said |= {"base_model_name_or_path": "..", "peft_version": ""}
  said["target_modules"] = sorted(said["target_modules"])
  file.write_text(json.dumps(said, indent=2, sort_keys=True) + "\n")
  rows = model.get_input_embeddings().weight.shape[0]
  ids = np.random.default_rng(seed).integers(1, rows, (2, 23), np.int32)
  return {"ids": ids, "expected": run(model, ids)}


def run(model, ids: np.ndarray) -> np.ndarray:
  """Returns the logits of ids [B, T]."""
  with torch.no_grad():
    return model(torch.tensor(ids, dtype=torch.long)).logits.numpy()


def main() -> None:
  transformers.logging.set_verbosity_error()
  transformers.logging.disable_progress_bar()
  for name in ADAPTERS:
    folder, seed = (
      reference.GOLDEN / name / "adapter",
      zlib.crc32(name.encode()),
    )
    found = write(reference.GOLDEN / name, name, folder, seed)
    np.savez_compressed(folder / "expected.npz", **found)
    print(name)


if __name__ == "__main__":
  main()
