"""Policy and PPM from the data that the paper's authors released.

The two data sets, rstar_sft (solutions) and rstar_ppm (preference pairs),
replace the search: one round of extract, SFT and PPM, and its evaluation.

  rstar_jax evolve --config=configs/released.py \
    --config.policy.path=FOLDER_OF_A_QWEN2_MODEL \
    --config.extract.sft_source=rstar_sft.json \
    --config.extract.pairs_source=rstar_ppm.json --workdir=runs/released

A source is a file, which is read piece by piece, or a name on the Hugging Face
Hub, such as hf:ElonTusk2001/rstar_sft/train. Names, and the test set MATH-500,
need `pip install 'rstar_jax[hub]'`.
"""

import rstar_jax as rj


def get_config() -> rj.Config:
  """Returns the config of a run; defaults are the paper's hyper-parameters."""
  config = rj.Config()
  # Overridden on the command line; they replace the search.
  config.extract.sft_source = "rstar_sft.json"
  config.extract.pairs_source = "rstar_ppm.json"
  config.rounds = (rj.RoundConfig(),)
  config.eval.data = rj.DataConfig(source="hf:HuggingFaceH4/MATH-500/test")
  # Long enough for the solutions of a model that is not tiny.
  config.engine = rj.EngineConfig(
    max_step_tokens=512,
    max_block_tokens=2048,
    max_prefix_tokens=2048,
  )
  return config
