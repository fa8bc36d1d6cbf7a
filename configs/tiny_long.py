"""Self-evolution on problems of 6 to 14 steps, each of which may go wrong.

  python -m rstar_jax.main --config=configs/tiny_long.py --workdir=runs/long \
    --config.policy.path=FOLDER

The problems are the generator's "long" splits, the base model one that has read
long problems (`tools/bootstrap.py`, --base). A policy slips at a quarter of the
steps, so that few of its samples are right and a search has something to
decide. "pilot" (the default) has 240 training and 120 test problems, "full"
2,000 and 600.
"""

import rstar_jax as rj

# Training and test problems.
_SIZES = {"pilot": (240, 120), "full": (2000, 600)}


def get_config(arg: str = "pilot") -> rj.Config:
  """Returns the config of a run.

  Args:
    arg: "pilot" or "full".
  """
  if arg not in _SIZES:
    raise ValueError(f"tiny_long.py:{arg}: must be one of {', '.join(_SIZES)}")
  train_problems, test_problems = _SIZES[arg]
  config = rj.load_config("configs/tiny.py")
  config.train = rj.DataConfig(
    source="synthetic:long_train", count=train_problems
  )
  config.eval.data = rj.DataConfig(
    source="synthetic:long_test", count=test_problems
  )
  # 14 steps, one that prints and the answer.
  config.search.max_depth = config.eval.search.max_depth = 16
  config.search.uct_unvisited = config.eval.search.uct_unvisited = "zero"
  config.engine.max_block_tokens = 640
  config.engine.max_prefix_tokens = 896
  config.sft.length = 704
  config.ppm.length = 1024
  return config
