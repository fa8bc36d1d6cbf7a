"""rStar-Math with Phi-3-mini (3.8B), with the paper's numbers.

  rstar_jax evolve --config=configs/phi3_mini.py \
    --workdir=runs/phi3_mini \
    --config.remote.url=http://localhost:8000/v1 --config.remote.model=NAME

The server at `remote.url` makes the data of round 1. On several hosts the same
command with `--distributed` runs on each (launch/README.md); data sets come
from the Hugging Face Hub (`pip install 'rstar_jax[hub]'`).
"""

import rstar_jax as rj


def get_config() -> rj.Config:
  """Returns the config of a run."""
  config = rj.presets.paper("microsoft/Phi-3-mini-4k-instruct")
  # Appendix A.1: 5e-6 and cosine for Phi-3, 7e-6 and linear for the others.
  config.sft.learning_rate = 5e-6
  config.sft.schedule = "cosine"
  # It has no grouped-query attention: a token takes 393 KB of keys and values,
  # against 57 KB for Qwen's 7B. These sizes fit on the four chips of a v5e host
  # (docs/results/aot.md). Most solutions have under 500 tokens.
  config.search.in_flight = config.eval.search.in_flight = 8
  config.engine.rows = 128
  config.engine.pages = 2048
  config.engine.max_prefix_tokens = 2048
  config.engine.max_block_tokens = 1024
  return config
