"""rStar-Math with Qwen2-Math-7B, with the paper's numbers.

  rstar_jax evolve --config=configs/qwen2_math_7b.py \
    --workdir=runs/qwen2_math_7b \
    --config.remote.url=http://localhost:8000/v1 --config.remote.model=NAME

The server at `remote.url` makes the data of round 1. On several hosts the same
command with `--distributed` runs on each (launch/README.md); data sets come
from the Hugging Face Hub (`pip install 'rstar_jax[hub]'`).
"""

import rstar_jax as rj


def get_config() -> rj.Config:
  """Returns the config of a run."""
  return rj.presets.paper("Qwen/Qwen2-Math-7B")
