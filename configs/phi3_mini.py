"""rStar-Math with Phi-3-mini (3.8B), with the paper's numbers.

  python -m rstar_jax.main --config=configs/phi3_mini.py \
    --workdir=runs/phi3_mini \
    --config.remote.url=http://localhost:8000/v1 --config.remote.model=NAME

The server at `remote.url` makes the data of round 1. On several hosts the same
command with `--distributed` runs on each (launch/README.md); data sets come
from the Hugging Face Hub (`pip install 'rstar_jax[hub]'`).
"""

from rstar_jax import config as config_lib
from rstar_jax import presets


def get_config() -> config_lib.Config:
  """Returns the config of a run."""
  config = presets.paper("microsoft/Phi-3-mini-4k-instruct")
  # Appendix A.1: 5e-6 and cosine for this one, 7e-6 and linear for the others.
  config.sft.learning_rate = 5e-6
  config.sft.schedule = "cosine"
  return config
