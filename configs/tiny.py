"""Self-evolution of a tiny transformer on two CPU cores.

python -m rstar_jax.main --config=configs/tiny.py --workdir=runs/tiny
"""

from rstar_jax import config as config_lib


def get_config(arg: str = "demo") -> config_lib.Config:
  """Returns the config of a run.

  Args:
    arg: "demo", or "full" for more problems.
  """
  demo = {"demo": True, "full": False}[arg]
  config = config_lib.Config(shard_size=50)
  config.train = config_lib.DataConfig(
    source="synthetic:train", count=200 if demo else 400
  )
  config.engine = config_lib.EngineConfig(
    max_step_tokens=48,
    max_block_tokens=192,
    prefix_buckets=(128, 256, 512),
    leaf_buckets=(32,),
    score_buckets=(1, 4, 8),
    step_buckets=(32, 64),
  )
  config.sft = config_lib.TrainConfig(
    optimizer="muon",
    epochs=4,
    batch_size=8,
    length=384,
    learning_rate=1e-3,
    warmup=0.1,
    weight_decay=0.0,
    checkpoint_every=100,
  )
  config.ppm = config_lib.TrainConfig(
    optimizer="muon",
    epochs=2,
    batch_size=16,
    length=512,
    learning_rate=1e-3,
    warmup=0.1,
    weight_decay=0.0,
    checkpoint_every=100,
  )
  config.eval.data = config_lib.DataConfig(
    source="synthetic:test", count=100 if demo else 300
  )
  config.eval.samples = 16
  config.eval.search.candidates = 8
  config.rounds = (
    config_lib.RoundConfig(rollouts=8, candidates=5),
    config_lib.RoundConfig(rollouts=16, candidates=8),
    config_lib.RoundConfig(rollouts=16, candidates=8, annotation="ppm"),
    config_lib.RoundConfig(rollouts=16, candidates=16, annotation="ppm"),
  )
  return config
