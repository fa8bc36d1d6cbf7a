"""Qwen2.5-Math-7B with the numbers of the paper's released code.

  rstar_jax evolve --config=configs/released_code.py \
    --workdir=runs/released_code \
    --config.remote.url=http://localhost:8000/v1 --config.remote.model=NAME

To compare with configs/qwen2_5_math_7b.py, which has the paper's numbers:
`rstar_jax compare --other=runs/qwen2_5_math_7b`. `presets.released_code` lists
the differences.
"""

import rstar_jax as rj


def get_config() -> rj.Config:
  """Returns the config of a run."""
  return rj.presets.released_code("Qwen/Qwen2.5-Math-7B")
