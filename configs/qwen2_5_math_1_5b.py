"""rStar-Math with Qwen2.5-Math-1.5B, with the paper's numbers.

  rstar_jax evolve --config=configs/qwen2_5_math_1_5b.py \
    --workdir=runs/qwen2_5_math_1_5b \
    --config.remote.url=http://localhost:8000/v1 --config.remote.model=NAME

The server at `remote.url` makes the data of round 1. On several hosts the same
command with `--distributed` runs on each (launch/README.md); data sets come
from the Hugging Face Hub (`pip install 'rstar_jax[hub]'`).
"""

import rstar_jax as rj


def get_config() -> rj.Config:
  """Returns the config of a run."""
  config = rj.presets.paper("Qwen/Qwen2.5-Math-1.5B")
  # One chip holds the model, so each chip expands its own leaves.
  config.search_mesh.tensor = 1
  config.search.in_flight = config.eval.search.in_flight = 64
  config.engine.rows = 1024
  config.engine.prefill_tokens = 4096
  config.engine.pages = 32768
  return config
